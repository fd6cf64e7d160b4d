"""Answers in words: one line per fact, names from outside escaped, every instant in UTC."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from rebalancerd.cluster.cost import Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.decision import CycleRecord, Decision, HostPressure
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.names import printable
from rebalancerd.cluster.plan import Move, Plan
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind
from rebalancerd.record.explain import (
    Answer,
    CycleAnswer,
    DecisionGroup,
    HostAnswer,
    MoveAnswer,
    RefusalGroup,
    VmAnswer,
)

SHOWN_GROUPS = 12
SHOWN_ALTERNATIVES = 5
SHOWN_NAMES = 6
PHYSICS = "physics"
# what a prediction names as missing, in words
INPUTS = {
    "vm": "the VM in the picture of the cluster",
    "memory": "how much memory it holds",
    "dirty": "how fast it dirties memory",
    "dirty_second_period": "how much it dirties in a second, longer period",
    "link": "the rating of the link",
    "like_training": "anything like it among the migrations learned from",
}


def title(answer: Answer) -> str:
    """What the answer is about."""
    if isinstance(answer, VmAnswer):
        return f"VM {printable(answer.name)} ({printable(answer.uuid)})"
    if isinstance(answer, HostAnswer):
        return f"Host {printable(answer.name)}"
    if isinstance(answer, CycleAnswer):
        return f"Cycle {answer.record.id}"
    record = answer.record
    return f"Migration {printable(record.id)}: {_route(record.vm_name, record.source, record.destination)}"


def lines(answer: Answer, now: Sequence[str] = ()) -> tuple[str, ...]:
    """The answer, line by line; none holds a line break or a control character, none says what another said already.

    ``now``: what the caller sees of the VM or the host at present, which takes the place of what was last known of it.
    """
    seen = tuple(printable(line) for line in now)
    if isinstance(answer, VmAnswer):
        return tuple(_vm(answer, seen))
    if isinstance(answer, HostAnswer):
        return tuple(_host(answer, seen))
    if isinstance(answer, CycleAnswer):
        return tuple(_cycle(answer))
    return tuple(_move(answer))


class _Reasons:
    """Refusals as they are told: each once, with its counts where it is on record."""

    def __init__(self, on_record: Iterable[RefusalGroup] = ()) -> None:
        self._counted = {_key(group): group for group in on_record}
        self._told: set[tuple[Code, str, str | None]] = set()
        self._details: set[str] = set()

    def note(self, refusal: Refusal | RefusalGroup) -> None:
        """It is told already."""
        self._told.add(_key(refusal))
        self._details.add(refusal.detail)

    def within(self, text: str) -> bool:
        """Whether a text repeats something told already."""
        return any(detail and detail in text for detail in self._details)

    def section(self, heading: str, groups: Iterable[RefusalGroup]) -> Iterator[str]:
        """The groups that were not told yet, under a heading."""
        alike: dict[tuple[object, ...], list[RefusalGroup]] = {}
        for group in groups:
            if _key(group) not in self._told:
                counted = self._counted.get(_key(group), group)
                same = (group.code, group.subject, group.detail, counted.count, counted.cycles, counted.last_at)
                alike.setdefault(same, []).append(group)
        if alike:
            yield heading
        for members in list(alike.values())[:SHOWN_GROUPS]:
            for group in members:
                self.note(group)
            yield f"  {_refusal(members, self._counted.get(_key(members[0]), members[0]))}"
        if len(alike) > SHOWN_GROUPS:
            yield f"  and {len(alike) - SHOWN_GROUPS} kinds more."


def _key(refusal: Refusal | RefusalGroup) -> tuple[Code, str, str | None]:
    return refusal.code, refusal.subject, refusal.destination


def _vm(answer: VmAnswer, now: tuple[str, ...]) -> Iterator[str]:
    yield from now
    if answer.host is not None and not now:
        yield f"Last known on {printable(answer.host)}."
    for number, move in enumerate(answer.moves):
        yield from _move(move) if number == 0 else _brief(move)
    if not answer.moves:
        yield f"{printable(answer.name)} was never moved by rebalancerd."
    reasons = _Reasons((*answer.about_cluster, *answer.about_host, *answer.own))
    yield from _decided(answer.decisions, answer.moves, reasons, details=True)
    for other in answer.weighed:
        instead = f"moving {printable(other.instead.vm_name)} to {printable(other.instead.destination)} was preferred"
        reason = printable(other.alternative.reason)
        yield f"Moving it to {printable(other.alternative.destination)} was weighed, but {instead}: {reason}"
    yield from reasons.section("Why it is not moved, asked of the planner now:", answer.live)
    yield from reasons.section("Refusals about it:", answer.own)
    if answer.host is not None:
        yield from reasons.section(f"Refusals about its host {printable(answer.host)}:", answer.about_host)
    yield from reasons.section("Refusals about the cluster:", answer.about_cluster)
    yield from _last(answer.last_cycle, reasons)


def _host(answer: HostAnswer, now: tuple[str, ...]) -> Iterator[str]:
    last = answer.last_cycle
    yield from now
    for pressure in last.hosts if last is not None and not now else ():
        if pressure.host == answer.name and last is not None:
            yield f"Cycle {last.id}: {_pressure(pressure, hot=answer.name in last.hot_hosts)}"
    for move in answer.moves:
        yield from _brief(move)
    if not answer.moves:
        yield "No migration from or to it is on record."
    reasons = _Reasons((*answer.about_cluster, *answer.own))
    yield from _decided(answer.decisions, answer.moves, reasons, details=False)
    yield from reasons.section("Why nothing is moved off it, asked of the planner now:", answer.live)
    yield from reasons.section("Refusals about it:", answer.own)
    yield from reasons.section("Refusals about the cluster:", answer.about_cluster)
    yield from _last(last, reasons)


def _cycle(answer: CycleAnswer) -> Iterator[str]:
    record, plan, reasons = answer.record, answer.plan, _Reasons()
    yield (
        f"Began {instant(record.started_at)}, took {span(record.seconds)}, mode {record.mode.value}, "
        f"policy {printable(record.policy)}."
    )
    yield f"Outcome {record.outcome.value}: {printable(record.reason)}"
    for pressure in record.hosts:
        yield f"Host {printable(pressure.host)}: {_pressure(pressure, hot=pressure.host in record.hot_hosts)}"
    if plan is not None:
        why = "" if plan.why in record.reason else f": {printable(plan.why)}"
        yield f"Plan {printable(plan.id)} (digest {plan.digest}){why}"
        if plan.benefit is not None:
            yield f"  It {worth(plan)}."
    for decision in record.decisions:
        yield f"Step {decision.step}: {_decision(decision)}"
        move = next((s.move for s in plan.steps if s.number == decision.step), None) if plan is not None else None
        if move is not None:
            yield f"  Why: {printable(move.why)}"
        if decision.refusal is not None:
            reasons.note(decision.refusal)
    yield from reasons.section("Refusals:", [g for g in answer.refusals if g.detail not in record.reason])
    if record.step_seconds:
        spent = ", ".join(f"{printable(name)} {span(seconds)}" for name, seconds in record.step_seconds)
        yield f"Time spent: {spent}."


def _move(answer: MoveAnswer) -> Iterator[str]:
    yield _sentence(answer)
    move, record = answer.move, answer.record
    if move is not None:
        yield from _chosen(move)
    elif record.plan_id is not None:
        yield f"  Its plan {printable(record.plan_id)} is not on record any more."
    if record.predicted is None:
        yield "  Nothing was predicted of it."
    else:
        yield f"  Predicted by {_basis(record.predicted)}:"
        yield from (f"    {line}" for line in _compared(record, record.predicted))
    if record.autostart:
        restored = {True: "set again on the destination", False: "NOT set again", None: "not set again yet"}
        yield f"  Autostart was on; {restored[record.autostart_restored]}."
    if len(answer.events) > 1:
        before = (None, *(event.state for event in answer.events))
        turns = [event for event, was in zip(answer.events, before, strict=False) if event.state is not was]
        course = ", ".join(f"{event.state.value} {instant(event.at)}" for event in turns[-8:])
        yield f"  Course: {course}."


def _brief(answer: MoveAnswer) -> Iterator[str]:
    """A move in two lines."""
    yield _sentence(answer)
    if answer.move is not None:
        yield f"  Why: {printable(answer.move.why)}"


def _chosen(move: Move) -> Iterator[str]:
    """Why that move, what it was to bring, and what else was looked at."""
    payback = f", repaid after {span(move.payback_seconds)}" if move.payback_seconds is not None else ""
    yield f"  Why: {printable(move.why)}"
    yield f"  Gain {move.gain:.4g} core-seconds{payback}."
    if move.price is not None:
        yield f"  Cost: {move.price.value:.4g} core-seconds, at most {move.price.upper:.4g}.{_when_hot(move)}"
    yield f"  Options: {_options(move.options)}."
    for other in move.alternatives[:SHOWN_ALTERNATIVES]:
        yield (
            f"  Not chosen: {printable(other.vm_name)} to {printable(other.destination)} "
            f"(score {other.score:.4g}): {printable(other.reason)}"
        )


def _when_hot(move: Move) -> str:
    """When its source was predicted to be hot."""
    if move.hot_in_seconds is None:
        return ""
    when = "was hot" if move.hot_in_seconds <= 0 else f"was to be hot in {span(move.hot_in_seconds)}"
    return f" {printable(move.source)} {when}."


def worth(plan: Plan) -> str:
    """What a plan brings and costs, when it has paid back, and by which level of aggressiveness it was made."""
    level = f"; aggressiveness {printable(plan.level)}" if plan.level else ""
    hosts = f"; hosts with VMs {plan.before.hosts} → {plan.after.hosts}" if plan.after.hosts is not None else ""
    if plan.benefit is None:
        return f"costs {plan.after.cost:.0f} core-seconds{hosts}{level}"
    when = "never" if plan.payback_seconds is None else f"within {span(plan.payback_seconds)}"
    return f"brings {plan.benefit:.0f} core-seconds, costs {plan.after.cost:.0f}, pays back {when}{hosts}{level}"


def _options(options: MigrationOptions) -> str:
    """E.g. "at most 300 ms of downtime allowed, auto-converge"."""
    parts = [f"at most {span(options.max_downtime_seconds)} of downtime allowed"]
    if options.bandwidth_bytes_per_second is not None:
        parts.append(f"capped at {size(options.bandwidth_bytes_per_second)}/s")
    parts += ["auto-converge"] * options.auto_converge + ["post-copy"] * options.postcopy
    return ", ".join(parts)


def _basis(cost: MigrationCost) -> str:
    names = ", ".join(printable(INPUTS.get(name, name)) for name in cost.inputs_missing)
    by = PHYSICS if cost.basis == PHYSICS else f"model {printable(cost.basis)}"
    return f"{by}; bounds are wide for want of {names}" if names else by


def _compared(record: MigrationRecord, predicted: MigrationCost) -> Iterator[str]:
    """Each figure of a prediction against what came of it."""
    done = record.completion
    yield f"duration {_versus(predicted.seconds, record.seconds, span)}"
    yield f"downtime {_versus(predicted.downtime_seconds, done.downtime_seconds if done else None, span)}"
    yield f"bytes {_versus(predicted.bytes, done.transferred_bytes if done else None, size)}"
    yield f"slowdown of the guest predicted {_expected(predicted.slowdown, share)}; what it was is not measured."
    risk = f"probability that it does not converge {_expected(predicted.non_convergence, share)}"
    if record.state is MigrationState.SUCCEEDED:
        yield f"{risk}; it {'ended in post-copy' if record.postcopy else 'converged'}."
    elif record.abort is not None and record.abort.cause.is_non_convergence:
        yield f"{risk}; it had not converged after {span(record.abort.elapsed_seconds)}."
    else:
        yield f"{risk}."


def _sentence(answer: MoveAnswer) -> str:
    record = answer.record
    took = f" in {span(record.seconds)}" if record.seconds is not None else ""
    tail = f" ({printable(record.reason)})" if record.reason else ""
    who = "" if record.ours else ", started by somebody else"
    adopted = ", adopted by a daemon that had not started it" if record.adopted else ""
    route = _route(record.vm_name, record.source, record.destination)
    return f"{instant(record.started_at or record.intent_at)}: {route}: {record.state.value}{took}{tail}{who}{adopted}."


def _versus(predicted: Estimate, actual: float | None, wording: Callable[[float | None], str]) -> str:
    ratio = ""
    if actual is not None and 0 < predicted.value < math.inf:
        ratio = f", {actual / predicted.value:.2f} of what was predicted"
    beyond = ", above its bound" if actual is not None and actual > predicted.upper else ""
    return f"predicted {_expected(predicted, wording)}, actual {wording(actual)}{ratio}{beyond}."


def _decided(
    groups: Iterable[DecisionGroup], moves: Iterable[MoveAnswer], reasons: _Reasons, *, details: bool
) -> Iterator[str]:
    """Decisions that did not lead to one of these moves; with ``details`` all about the newest one's proposal."""
    moved = {move.record.id for move in moves}
    shown = [group for group in groups if group.newest.what.migration_id not in moved]
    if shown:
        yield "Last decisions:"
    for number, group in enumerate(shown):
        told, decision = group.newest, group.newest.what
        when = f"cycle {told.cycle_id}, {instant(told.at)}"
        if group.cycles > 1:
            when = f"in {group.cycles} cycles since {instant(group.first_at)}, last {when}"
        yield f"  {_decision(decision)} ({when})"
        if decision.refusal is not None:
            reasons.note(decision.refusal)
        if group.move is not None and details and number == 0:
            yield from (f"  {line}" for line in _chosen(group.move))
            cost = group.move.cost
            yield (
                f"    Predicted by {_basis(cost)}: {_expected(cost.seconds, span)}, "
                f"downtime {_expected(cost.downtime_seconds, span)}, {_expected(cost.bytes, size)} sent, the guest "
                f"slowed down by {_expected(cost.slowdown, share)}; probability that it does not converge "
                f"{_expected(cost.non_convergence, share)}."
            )
        elif group.move is not None:
            yield f"    Why: {printable(group.move.why)}"


def _expected(figure: Estimate, wording: Callable[[float | None], str]) -> str:
    return f"{wording(figure.value)} (at most {wording(figure.upper)})"


def _decision(decision: Decision) -> str:
    why = f": {decision.refusal.code.value}, {printable(decision.refusal.detail)}" if decision.refusal else ""
    return f"{_route(decision.vm_name, decision.source, decision.destination)} {decision.outcome.value}{why}"


def _refusal(members: Sequence[RefusalGroup], counted: RefusalGroup) -> str:
    """One line for refusals that differ in their destination only; ``counted``: on record, with how often and when."""
    group = members[0]
    names = sorted(printable(g.destination) for g in members if g.destination)
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    to = f" to {', '.join(names[:SHOWN_NAMES])}{more}" if names else ""
    about = f" {printable(group.subject)}" if group.kind is SubjectKind.HOST else ""
    when = ""
    if counted.last_at is not None and counted.cycles > 1:
        when = f" ({counted.count}× in {counted.cycles} cycles, last {instant(counted.last_at)})"
    elif counted.last_at is not None:
        when = f" ({instant(counted.last_at)})"
    return f"{group.code.value}{about}{to}: {printable(group.detail)}{when}"


def _last(record: CycleRecord | None, reasons: _Reasons) -> Iterator[str]:
    if record is not None:
        why = "" if reasons.within(record.reason) else f", {printable(record.reason)}"
        yield f"Last cycle {record.id} ({instant(record.started_at)}): {record.outcome.value}{why}"


def _pressure(pressure: HostPressure, *, hot: bool) -> str:
    if pressure.unusable is not None:
        return f"unusable, {printable(pressure.unusable)}"
    return (
        f"{'hot' if hot else 'not hot'}, {pressure.vms} VMs, CPU {share(pressure.cpu_now)} now and "
        f"{share(pressure.cpu_p95)} at its p95 peak, memory {share(pressure.memory_now)} and {share(pressure.memory_p95)}"
    )


def _route(vm_name: str, source: str, destination: str) -> str:
    return f"{printable(vm_name)} {printable(source)} → {printable(destination)}"


def instant(at: float) -> str:
    """UTC, to the second."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"epoch second {at:g}"


def span(seconds: float | None) -> str:
    """A duration in a unit that suits it."""
    if seconds is None or math.isnan(seconds):
        return "unknown"
    if math.isinf(seconds):
        return "unbounded"
    for unit, factor in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if abs(seconds) >= factor * (2 if factor > 1 else 1):
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1000:.3g} ms"


def size(count: float | None) -> str:
    """Bytes in a unit that suits them."""
    if count is None or math.isnan(count):
        return "unknown"
    if math.isinf(count):
        return "unbounded"
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def share(value: float | None) -> str:
    """A share as per cent."""
    return "unknown" if value is None or math.isnan(value) else f"{value * 100:.0f} %"
