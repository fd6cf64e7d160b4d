"""Which VM's dirty rate is measured next: at most one per host at a time, never one that migrates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rebalancerd.cluster.units import MIB

SMALLEST_BYTES = 128 * MIB  # QEMU's page sampling looks at no smaller RAM block
GRACE_SECONDS = 5.0
RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A dirty-rate calculation to start."""

    host: str
    vm_uuid: str
    period_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCandidate:
    """A VM as the choice sees it. ``measuring``: a calculation runs on it now, whoever started it."""

    host: str
    vm_uuid: str
    memory_bytes: int
    running: bool
    migrating: bool
    measuring: bool


@dataclass(slots=True)
class _Record:
    asked_at: dict[int, float] = field(default_factory=dict)  # by period
    refused_until: float = float("-inf")


class RollingProbe:
    """Chooses by age: never-measured first, then the longest ago, periods in turn. Instants are monotonic seconds."""

    def __init__(self, periods_seconds: Sequence[int]) -> None:
        if not periods_seconds or any(not 1 <= p <= 60 for p in periods_seconds):
            raise ValueError(f"probe periods must be whole seconds from 1 to 60, not {tuple(periods_seconds)}")
        self._periods = tuple(dict.fromkeys(periods_seconds))
        self._records: dict[str, _Record] = {}
        self._occupied: dict[str, float] = {}  # host: until

    def choose(self, candidates: Sequence[ProbeCandidate], heat: Mapping[str, float], now: float) -> tuple[Probe, ...]:
        """At most one probe per host, those of the hottest hosts first."""
        by_host: dict[str, list[ProbeCandidate]] = {}
        for candidate in candidates:
            by_host.setdefault(candidate.host, []).append(candidate)
        chosen = []
        for host in sorted(by_host, key=lambda h: (-heat.get(h, 0.0), h)):
            vms = by_host[host]
            # a result that is late keeps the host occupied until it is there
            if self._occupied.get(host, now) > now or any(vm.measuring for vm in vms):
                continue
            fit = [vm for vm in vms if self._fit(vm, now)]
            if fit:
                chosen.append(min((self._next(vm) for vm in fit), key=lambda item: item[0])[1])
        return tuple(chosen)

    def _fit(self, vm: ProbeCandidate, now: float) -> bool:
        record = self._records.get(vm.vm_uuid)
        rested = record is None or record.refused_until <= now
        return vm.running and not vm.migrating and vm.memory_bytes >= SMALLEST_BYTES and rested

    def _next(self, vm: ProbeCandidate) -> tuple[tuple[float, int, str], Probe]:
        """The VM's period that was asked for the longest ago, and how long ago that was."""
        asked = self._records.get(vm.vm_uuid, _Record()).asked_at
        never = float("-inf")
        period = min(self._periods, key=lambda p: (asked.get(p, never), self._periods.index(p)))
        rank = (asked.get(period, never), len(asked), vm.vm_uuid)
        return rank, Probe(vm.host, vm.vm_uuid, period)

    def started(self, probe: Probe, now: float) -> None:
        """The calculation was started."""
        self._records.setdefault(probe.vm_uuid, _Record()).asked_at[probe.period_seconds] = now
        self._occupied[probe.host] = now + probe.period_seconds + GRACE_SECONDS

    def refused(self, probe: Probe, now: float) -> None:
        """It could not be started: leave that VM alone for a while."""
        record = self._records.setdefault(probe.vm_uuid, _Record())
        record.asked_at[probe.period_seconds] = now
        record.refused_until = now + RETRY_SECONDS

    def keep(self, uuids: frozenset[str]) -> None:
        """Forget every other VM."""
        for uuid in self._records.keys() - uuids:
            del self._records[uuid]
