"""Telemetry that lies: what a broken host may answer although nothing of it is true."""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from rebalancerd.cluster.sample import DomainSample, HostSample

IMPOSSIBLE_NS = 10**15


class Distortion(StrEnum):
    """Ways in which a host's answer can be wrong. Counters are integers, so NaN cannot occur."""

    ZERO_CPUS = "zero-cpus"  # says it has no CPUs and no memory
    RESET = "reset"  # counters begin anew
    NEGATIVE = "negative"  # counters run backwards
    JUMP = "jump"  # counters a thousandfold
    FROZEN = "frozen"  # fresh time stamps, the same counters for ever
    STALE = "stale"  # the same answer, time stamp included
    EMPTY = "empty"  # no domains
    SILENT = "silent"  # domains without a single figure


class Distorter:
    """Distorts one host's samples from a first, true one on."""

    def __init__(self, kind: Distortion) -> None:
        self.kind = kind
        self._first: HostSample | None = None

    def __call__(self, true: HostSample) -> HostSample:
        """The answer given instead of the true one."""
        if self._first is None:
            self._first = true
        first = self._first
        if self.kind is Distortion.ZERO_CPUS:
            return replace(true, facts=replace(true.facts, cpus=0, memory_bytes=0), memory_total_bytes=0)
        if self.kind is Distortion.RESET:
            base = {d.uuid: d for d in first.domains}
            return _mapped(true, lambda d: _minus(d, base.get(d.uuid)), _less(true.cpu_busy_ns, first.cpu_busy_ns))
        if self.kind is Distortion.NEGATIVE:
            return _mapped(true, lambda d: replace(d, cpu_time_ns=_less(0, d.cpu_time_ns)), _less(0, true.cpu_busy_ns))
        if self.kind is Distortion.JUMP:
            return _mapped(true, lambda d: replace(d, cpu_time_ns=_times(d.cpu_time_ns)), _times(true.cpu_busy_ns))
        if self.kind is Distortion.FROZEN:
            return replace(first, taken_at=true.taken_at)
        if self.kind is Distortion.STALE:
            return first
        if self.kind is Distortion.EMPTY:
            return replace(true, domains=())
        return _mapped(true, _silenced, None)


def _mapped(true: HostSample, change: Callable[[DomainSample], DomainSample], busy: int | None) -> HostSample:
    return replace(true, domains=tuple(change(d) for d in true.domains), cpu_busy_ns=busy)


def _less(value: int | None, base: int | None) -> int | None:
    return None if value is None or base is None else value - base


def _times(value: int | None) -> int | None:
    return None if value is None else value * 1000 + IMPOSSIBLE_NS


def _minus(domain: DomainSample, base: DomainSample | None) -> DomainSample:
    if base is None:
        return domain
    return replace(
        domain,
        cpu_time_ns=_less(domain.cpu_time_ns, base.cpu_time_ns),
        vcpu_delay_ns=_less(domain.vcpu_delay_ns, base.vcpu_delay_ns),
    )


def _silenced(domain: DomainSample) -> DomainSample:
    return DomainSample(uuid=domain.uuid, name=domain.name, state=domain.state, facts=None, fault="no statistics")
