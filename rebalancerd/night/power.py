"""Host power in a rehearsal of the night: the daemon's own decisions and refusals, on hosts that do as they are told."""

from collections.abc import Iterable
from dataclasses import replace

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.power import US, PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.power_checks import PowerAsk, may_sleep_or_test
from rebalancerd.night.plan import PlannedSleep, PlannedWake
from rebalancerd.night.terms import NightTerms
from rebalancerd.plan.power import PowerInputs, after_window, decide

LEAST_DOWN_SECONDS = 60.0
PASSING = frozenset({PowerPhase.CLOSING, PowerPhase.SHUTTING_DOWN, PowerPhase.WAKING})
PASSING_CODES = frozenset({Code.POWER_BUSY, Code.HOST_NOT_EMPTY, Code.MIN_UP_TIME})


class PowerRehearsal:
    """Who is on, asleep or between, as the night goes on."""

    def __init__(self, terms: NightTerms, hosts: Iterable[Host], power_cycle_seconds: float) -> None:
        """``power_cycle_seconds``: of a shutdown and a boot together."""
        self.hosts = tuple(h.name for h in hosts)
        self._limits, self._controlled = terms.limits, frozenset(terms.controlled)
        self._cycle_seconds = power_cycle_seconds
        given = {r.host: r for r in terms.records}
        self.records = {name: _settled(given.get(name), name, terms.begins_at) for name in self.hosts}
        self._closed_at_first = frozenset(self.closed())
        self.sleeps: list[PlannedSleep] = []
        self.wakes: list[PlannedWake] = []
        self.kept: dict[str, Refusal] = {}

    def advance(self, now: float) -> list[str]:
        """Let hosts arrive where they are going; those that came up."""
        up = []
        for name, record in self.records.items():
            if record.phase is PowerPhase.SHUTTING_DOWN and record.since + self._down_seconds(record) <= now:
                at = record.since + self._down_seconds(record)
                self.records[name] = replace(record, phase=PowerPhase.ASLEEP, since=at, slept_at=at)
                if record.test or record.wake_wanted is not None:
                    why = record.wake_wanted or "the second half of its wake test"
                    self._wake(name, at, why, test=record.test)
        for name, record in self.records.items():
            if record.phase is PowerPhase.WAKING and record.since + self._boot_seconds(record) <= now:
                at = record.since + self._boot_seconds(record)
                self.records[name] = replace(
                    record, phase=PowerPhase.AWAKE, since=at, up_since=at, tested_at=at, test=False, wake_wanted=None
                )
                up.append(name)
        return up

    def decide(self, context: GuardContext, scenarios: Scenarios, *, folding: bool) -> None:
        """Wake whom demand will need; while the policy folds, send to sleep whom it does not, and afterwards wake all."""
        decision = decide(
            PowerInputs(snapshot=context.snapshot, scenarios=scenarios, records=self.records, limits=self._limits)
        )
        wake = dict(decision.wake)
        if not folding:
            wake = {**dict(after_window(self.records)), **wake}
        for host, why in wake.items():
            record = self.records[host]
            if record.phase is PowerPhase.ASLEEP:
                self._wake(host, context.now, why)
            else:
                self.records[host] = replace(record, wake_wanted=why)
        if not folding or decision.wake:
            return
        for kept in decision.kept:
            self._keep(kept.subject, kept)
        for host, why in decision.sleep:
            ask = PowerAsk(
                host=host, ctx=context, records=self.records, controlled=self._controlled, limits=self._limits
            )
            refusal, test = may_sleep_or_test(ask)
            if refusal is None:
                self._sleep(host, context.now, why, test=test)
            else:
                self._keep(host, refusal)

    def _keep(self, host: str, refusal: Refusal) -> None:
        """The first reason that does not pass by itself is the one that is told."""
        known = self.kept.get(host)
        if known is None or known.code in PASSING_CODES:
            self.kept[host] = refusal

    def _sleep(self, host: str, now: float, why: str, *, test: bool) -> None:
        record = replace(self.records[host], phase=PowerPhase.SHUTTING_DOWN, since=now, reason=why, test=test, by=US)
        self.records[host] = record
        off_at = now + self._down_seconds(record)
        self.sleeps.append(PlannedSleep(host=host, at=now, off_at=off_at, why=why, test=test))

    def _wake(self, host: str, now: float, why: str, *, test: bool = False) -> None:
        record = self.records[host]
        up_at = now + self._boot_seconds(record)
        self.records[host] = replace(record, phase=PowerPhase.WAKING, since=now, reason=why)
        self.wakes.append(
            PlannedWake(
                host=host, at=now, up_at=up_at, unfolded_by=up_at + self._limits.unfold_seconds, why=why, test=test
            )
        )

    def asleep(self) -> frozenset[str]:
        """Hosts that are off."""
        return frozenset(n for n, r in self.records.items() if r.phase is PowerPhase.ASLEEP)

    def away(self) -> dict[str, str]:
        """Hosts that are down, or on their way, and how."""
        return {n: _worded(r.phase) for n, r in self.records.items() if r.phase.is_away}

    def closed(self) -> dict[str, Refusal]:
        """Hosts that take no VM because of power, and why: they sleep or are on their way, or are not expected back."""
        return {
            n: about_host(Code.HOST_ASLEEP if r.comes_back else Code.HOST_NOT_BACK, n, f"{n} is {_worded(r.phase)}")
            for n, r in self.records.items()
            if not r.phase.takes_vms
        }

    def was_closed(self, host: str) -> bool:
        """Whether power kept VMs off it as the night began; what is said of that then holds no longer."""
        return host in self._closed_at_first

    def under_way(self) -> bool:
        """Whether a host is going down or coming up."""
        return any(r.phase in PASSING for r in self.records.values())

    def _boot_seconds(self, record: PowerRecord) -> float:
        return record.boot_seconds(self._limits.boot_seconds)

    def _down_seconds(self, record: PowerRecord) -> float:
        return max(LEAST_DOWN_SECONDS, self._cycle_seconds - self._boot_seconds(record))


def _settled(record: PowerRecord | None, host: str, at: float) -> PowerRecord:
    """A host's record as the night begins; a sequence that is under way now begins with it at the latest."""
    if record is None:
        return PowerRecord(host=host)
    if record.phase is PowerPhase.CLOSING:
        return replace(record, phase=PowerPhase.AWAKE, since=at)
    return replace(record, since=at) if record.phase in PASSING else record


def _worded(phase: PowerPhase) -> str:
    return phase.value.replace("_", " ")
