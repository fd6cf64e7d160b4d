"""The log of a simulated run: one line per event, nothing repeated, readable and the same in every run."""

import re
from collections import Counter
from collections.abc import Callable

from rebalancerd.cluster.decision import CycleRecord, Outcome
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.power import PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind

NAMES_SHOWN = 4
REASON_SHOWN = 200
IDENTIFIERS = re.compile(r"\b[0-9a-f]{16}\b|\bm-[0-9a-f]+-\d+-[0-9a-f]{8}\b")  # digests and ids tell a reader nothing
FIGURES = re.compile(r"\d+(\.\d+)?")  # a cycle in which only figures changed is not news


def printable(text: str) -> str:
    """The text with everything that is not printable escaped, so that no name can imitate a line or a colour."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def stamp(second: float) -> str:
    """``HH:MM:SS`` of virtual time, with the day in front from the second day on."""
    whole = int(second + 1e-6)
    days, rest = divmod(whole, 86_400)
    text = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}d {text}" if days else text


class Story:
    """Collects the lines. ``name_of`` gives a VM's name for its UUID; ``listener`` gets each line as it is told."""

    def __init__(self, now: Callable[[], float], name_of: Callable[[str], str]) -> None:
        self._now, self._name_of = now, name_of
        self.lines: list[str] = []
        self.listener: Callable[[str], None] = lambda _line: None
        self._cycle: object = None
        self._same = 0
        self._states: dict[str, MigrationState] = {}
        self._power: dict[str, tuple[object, ...]] = {}
        self._plans: set[str] = set()

    def tell(self, kind: str, text: str) -> None:
        """One line."""
        line = IDENTIFIERS.sub("…", f"{stamp(self._now())} {kind:<9} {printable(text)}".rstrip())
        self.lines.append(line)
        self.listener(line)

    def text(self) -> str:
        """All lines."""
        return "".join(f"{line}\n" for line in self.lines)

    def plan(self, plan: Plan) -> None:
        """Steps of a plan that has not been told yet."""
        if plan.id in self._plans or plan.is_empty:
            return
        self._plans.add(plan.id)
        hot = f", hot: {', '.join(plan.hot_hosts)}" if plan.hot_hosts else ""
        self.tell("plan", f"{plan.policy}, {len(plan.steps)} step(s){hot}")
        for step in plan.steps:
            move = step.move
            how = ", auto-converge" if move.options.auto_converge else ""
            self.tell("step", f"{step.number} wave {step.wave}: {move.vm_name} {move.source} → {move.destination}{how}")

    def cycle(self, record: CycleRecord) -> None:
        """What a cycle came to, if it is not what the cycle before came to."""
        grouped = self._grouped(record.refusals)
        decisions = tuple(
            (d.vm_name, d.source, d.destination, str(d.outcome), str(d.refusal.code) if d.refusal else "")
            for d in record.decisions
        )
        key = (record.outcome, record.hot_hosts, decisions, grouped, FIGURES.sub("#", record.reason))
        if key == self._cycle:
            self._same += 1
            return
        self._cycle, self._same = key, 0
        hot = f"; hot: {', '.join(record.hot_hosts)}" if record.hot_hosts else ""
        self.tell("cycle", f"{record.outcome}: {_reason(record)}{hot}")
        for name, source, destination, outcome, code in decisions:
            if outcome != Outcome.STARTED:
                why = f" ({code})" if code else ""
                self.tell("decision", f"{name} {source} → {destination} {outcome}{why}")
        for line in grouped:
            self.tell("refused", line)

    def migration(self, record: MigrationRecord) -> None:
        """A migration's new state."""
        if self._states.get(record.id) == record.state:
            return
        first = record.id not in self._states
        self._states[record.id] = record.state
        text = f"{record.vm_name} {record.source} → {record.destination}: {record.state}"
        if first and record.adopted:
            text += " (adopted)"
        if not record.state.is_open:
            text += _verdict(record)
        self.tell("migration", text)

    def power(self, record: PowerRecord) -> None:
        """A host's next phase on its way to sleep or back."""
        key = (record.phase, record.since, record.wake_wanted, record.disabled)
        if self._power.get(record.host) == key:
            return
        self._power[record.host] = key
        more = f"; wanted back: {record.wake_wanted}" if record.wake_wanted else ""
        more += "; power-off disabled" if record.disabled else ""
        self.tell("power", f"{record.host} {record.phase}: {record.reason}{more}")

    def _grouped(self, refusals: tuple[Refusal, ...]) -> tuple[str, ...]:
        """Refusals by code, with some of their subjects."""
        counts: Counter[Code] = Counter()
        subjects: dict[Code, set[str]] = {}
        for refusal in refusals:
            counts[refusal.code] += 1
            name = self._name_of(refusal.subject) if refusal.kind is SubjectKind.VM else refusal.subject
            if refusal.kind is not SubjectKind.PLAN:
                subjects.setdefault(refusal.code, set()).add(name)
        lines = []
        for code in sorted(counts):
            names = sorted(subjects.get(code, ()))
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            lines.append(f"{code}: {', '.join(names[:NAMES_SHOWN])}{more}".rstrip(": "))
        return tuple(lines)


def _reason(record: CycleRecord) -> str:
    reason = record.reason.removeprefix("no action: ")
    return reason if len(reason) <= REASON_SHOWN else f"{reason[:REASON_SHOWN]}…"


def _verdict(record: MigrationRecord) -> str:
    parts = []
    if record.seconds is not None and record.state is MigrationState.SUCCEEDED:
        parts.append(f"{record.seconds:.0f} s")
        if record.predicted is not None:
            parts.append(
                f"predicted {record.predicted.seconds.value:.0f} s, at most {record.predicted.seconds.upper:.0f} s"
            )
    if record.autostart and record.autostart_restored is not None:
        parts.append("autostart restored" if record.autostart_restored else "autostart NOT restored")
    if record.state is not MigrationState.SUCCEEDED and record.reason:
        parts.append(record.reason)
    return f" ({'; '.join(parts)})" if parts else ""
