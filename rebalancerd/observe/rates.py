"""Counters to rates. A counter that was reset, a clock that went back, an absurd figure: dropped with a reason, never read as 0."""

import math
from dataclasses import dataclass

from rebalancerd.cluster.host import HostLoad
from rebalancerd.cluster.sample import DomainSample, HostSample
from rebalancerd.cluster.snapshot import Unknown
from rebalancerd.cluster.units import NS_PER_SECOND
from rebalancerd.cluster.vm import VmLoad

SHORTEST_SECONDS = 0.2
TOLERANCE = 1.1  # counters and instants are not read at the same moment
EMULATOR_CORES = 1.0  # QEMU's own threads (I/O, migration) count as the VM's CPU time beside its vCPUs
MOST_BYTES_PER_SECOND = 1e12
STANDSTILL_SECONDS = 2.0  # no host that answers has used no CPU at all for that long


@dataclass(frozen=True, slots=True)
class HostRates:
    """Loads of a host and its VMs over the last interval, and what had to be dropped. ``interval_seconds`` None: the first."""

    load: HostLoad
    vms: dict[str, VmLoad]
    dropped: tuple[Unknown, ...]
    interval_seconds: float | None


class _Drops:
    """What is dropped on the way."""

    def __init__(self) -> None:
        self.found: list[Unknown] = []

    def rate(
        self, subject: str, field: str, counters: tuple[int | None, int | None], seconds: float, most: float
    ) -> float | None:
        """Units per second of a counter; None with a reason if it makes no sense, without one if it is not told."""
        before, after = counters
        if before is None or after is None:
            return None
        value = (after - before) / seconds
        if value < 0:
            self.drop(subject, field, f"counter went back from {before} to {after}: reset or wrapped")
            return None
        if not value <= most or not math.isfinite(value):
            self.drop(subject, field, f"{value:.4g} per second is more than {most:.4g} can be")
            return None
        return value

    def drop(self, subject: str, field: str, reason: str) -> None:
        self.found.append(Unknown(subject=subject, field=field, reason=reason))


class Rates:
    """Remembers each host's last sample and makes rates of the difference to the next. Not thread-safe."""

    def __init__(self, *, longest_seconds: float) -> None:
        """``longest_seconds``: an interval longer than this says nothing about now."""
        self._longest = longest_seconds
        self._last: dict[str, HostSample] = {}

    def forget(self, host: str) -> None:
        """The next sample of that host begins anew."""
        self._last.pop(host, None)

    def update(self, sample: HostSample) -> HostRates:
        """Loads since the last sample of the same host; after the first, levels only (memory), no rates."""
        drops = _Drops()
        before = self._last.get(sample.host)
        seconds = None if before is None else self._interval(before, sample, drops)
        if before is None or sample.taken_at > before.taken_at:
            self._last[sample.host] = sample
        load = HostLoad(
            cpu_cores=self._host_cpu(before, sample, seconds, drops), memory_used_bytes=_memory_used(sample, drops)
        )
        earlier = {} if before is None else {d.uuid: d for d in before.domains}
        vms = {d.uuid: _vm_load(sample, earlier.get(d.uuid), d, seconds, drops) for d in sample.domains}
        return HostRates(load, vms, tuple(drops.found), seconds)

    def _interval(self, before: HostSample, sample: HostSample, drops: _Drops) -> float | None:
        seconds = sample.taken_at - before.taken_at
        if not seconds >= SHORTEST_SECONDS:
            drops.drop(sample.host, "rates", f"only {seconds:.3g} s after the last sample")
            return None
        if seconds > self._longest:
            drops.drop(sample.host, "rates", f"{seconds:.0f} s after the last sample say nothing about now")
            return None
        if seconds >= STANDSTILL_SECONDS and _stands_still(before, sample):
            drops.drop(
                sample.host, "rates", f"every CPU counter stood still for {seconds:.0f} s: old figures sent anew"
            )
            return None
        return seconds

    @staticmethod
    def _host_cpu(before: HostSample | None, sample: HostSample, seconds: float | None, drops: _Drops) -> float | None:
        if before is None or seconds is None:
            return None
        most = sample.facts.cpus * TOLERANCE * NS_PER_SECOND
        busy = drops.rate(sample.host, "cpu_cores", (before.cpu_busy_ns, sample.cpu_busy_ns), seconds, most)
        return None if busy is None else min(busy / NS_PER_SECOND, float(sample.facts.cpus))


def _stands_still(before: HostSample, sample: HostSample) -> bool:
    """Whether no CPU counter moved at all: the answer is fresh, the figures are not."""
    if sample.cpu_busy_ns is None or before.cpu_busy_ns != sample.cpu_busy_ns:
        return False
    if sample.cpu_idle_ns is not None and before.cpu_idle_ns != sample.cpu_idle_ns:
        return False  # an idle host: only its idle time goes on
    return {d.uuid: d.cpu_time_ns for d in before.domains} == {d.uuid: d.cpu_time_ns for d in sample.domains}


def _memory_used(sample: HostSample, drops: _Drops) -> int | None:
    total, available = sample.memory_total_bytes, sample.memory_available_bytes
    if total is None or available is None:
        return None
    if not 0 <= available <= total:
        drops.drop(sample.host, "memory_used_bytes", f"{available} bytes available of {total}")
        return None
    return total - available


def _vm_load(
    sample: HostSample, before: DomainSample | None, now: DomainSample, seconds: float | None, drops: _Drops
) -> VmLoad:
    memory = _vm_memory(sample, now, drops)
    if before is None or seconds is None:
        return VmLoad(memory_bytes=memory)
    vcpus = now.vcpus or (now.facts.vcpus if now.facts is not None else None) or sample.facts.cpus
    cores = min(vcpus, max(1, sample.facts.cpus))
    cpu_most = (cores * TOLERANCE + EMULATOR_CORES) * NS_PER_SECOND
    steal_most = vcpus * TOLERANCE * NS_PER_SECOND
    cpu = drops.rate(now.uuid, "cpu_cores", (before.cpu_time_ns, now.cpu_time_ns), seconds, cpu_most)
    steal = drops.rate(now.uuid, "steal_cores", (before.vcpu_delay_ns, now.vcpu_delay_ns), seconds, steal_most)
    most = MOST_BYTES_PER_SECOND
    return VmLoad(
        cpu_cores=None if cpu is None else cpu / NS_PER_SECOND,
        steal_cores=None if steal is None else steal / NS_PER_SECOND,
        memory_bytes=memory,
        block_bytes_per_second=drops.rate(
            now.uuid, "block_bytes_per_second", (before.block_bytes, now.block_bytes), seconds, most
        ),
        network_bytes_per_second=drops.rate(
            now.uuid, "network_bytes_per_second", (before.network_bytes, now.network_bytes), seconds, most
        ),
    )


def _vm_memory(sample: HostSample, now: DomainSample, drops: _Drops) -> int | None:
    """Resident memory, else the balloon's size; more than the host has is absurd."""
    total = sample.memory_total_bytes or sample.facts.memory_bytes
    for field, value in (("rss", now.rss_bytes), ("balloon", now.balloon_bytes)):
        if value is None:
            continue
        if 0 < value <= (total or math.inf):
            return value
        drops.drop(now.uuid, "memory_bytes", f"{field} of {value} bytes on a host with {total}")
    return None
