"""One host as it is followed over time: last answer, how old, whether it flaps, why it cannot be used."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from rebalancerd.cluster.host import HostLoad
from rebalancerd.cluster.sample import AgentSample, HostSample
from rebalancerd.cluster.snapshot import Unknown
from rebalancerd.cluster.vm import VmLoad
from rebalancerd.observe.sanity import implausible
from rebalancerd.observe.settings import HostSettings, ObserveSettings

FAILURES_OF_AN_OUTAGE = 2  # a single missed answer is no outage
LONGEST_HOLD_SECONDS = 3600.0
FORGIVEN_AFTER_HOLDS = 10.0


@dataclass(slots=True)
class HostWatch:
    """A host's last answer and its history of answering. Instants are monotonic seconds."""

    settings: HostSettings
    sample: HostSample | None = None
    load: HostLoad = field(default_factory=HostLoad)
    vm_loads: dict[str, VmLoad] = field(default_factory=dict)
    agent: AgentSample | None = None
    dropped: tuple[Unknown, ...] = ()
    error: str | None = None
    lost_vms: frozenset[str] = frozenset()
    doubted_until: float = float("-inf")
    failures: int = 0
    outages: int = 0
    back_since: float = float("-inf")

    def answered(self, sample: HostSample, now: float, observe: ObserveSettings) -> None:
        """It gave a sample."""
        if self.failures >= FAILURES_OF_AN_OUTAGE and self.sample is not None:
            self.outages += 1
            self.back_since = now
        elif self.outages and now - self.back_since > FORGIVEN_AFTER_HOLDS * self.hold_seconds(observe):
            self.outages = 0
        self.sample, self.error, self.failures = sample, None, 0

    def failed(self, error: str) -> None:
        """It gave none."""
        self.error = error
        self.failures += 1

    def lost(self, vms: frozenset[str], listed: AbstractSet[str], elsewhere: AbstractSet[str], now: float) -> None:
        """Doubt it for up to an hour, for it lost ``vms``; no longer, once what it lost is listed by it again or by others."""
        if vms:
            self.lost_vms, self.doubted_until = self.lost_vms | vms, now + LONGEST_HOLD_SECONDS
            return
        self.lost_vms -= elsewhere
        if not self.lost_vms or self.lost_vms & listed:
            self.lost_vms, self.doubted_until = frozenset(), float("-inf")

    def hold_seconds(self, observe: ObserveSettings) -> float:
        """How long it must answer after an outage before it is used again: doubles with each outage, at most an hour."""
        if self.outages == 0:
            return 0.0
        return min(LONGEST_HOLD_SECONDS, observe.flap_stable_seconds * 2.0 ** min(self.outages - 1, 16))

    def age(self, now: float) -> float | None:
        """Seconds since its figures were taken; None if there are none."""
        return None if self.sample is None else max(0.0, now - self.sample.taken_at)

    def unusable(self, now: float, observe: ObserveSettings, duplicate: str | None) -> str | None:
        """Why it is neither source nor destination now, None if it may be."""
        age = self.age(now)
        if self.error is not None:
            return f"unreachable: {self.error}"
        if self.sample is None or age is None:
            return "never answered yet"
        if age > observe.stale_after_seconds:
            return f"stale: its figures are {age:.0f} s old"
        if duplicate is not None:
            return duplicate
        odd = implausible(self.sample)
        if odd is not None:
            return odd
        if now < self.doubted_until:
            return f"implausible telemetry: all of its VMs ({len(self.lost_vms)}) vanished at once"
        held = self.hold_seconds(observe)
        stable = now - self.back_since
        if self.outages and stable < held:
            return f"flapping: answers again for {stable:.0f} s, {held:.0f} s are needed after {self.outages} outages"
        return None
