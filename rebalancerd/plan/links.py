"""Links: the copies of one wave never ask more of a host's or a failure domain's link than it carries.

A copy takes its predicted mean rate, bytes over seconds, at most what the slower of its two hosts can carry. Links are
full duplex: what leaves and what arrives is held apart. One copy alone is never too much, for it takes what there is.
Copies within a failure domain do not cross its uplink.
"""

from collections import defaultdict
from collections.abc import Iterator
from math import isfinite

from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import shown

TOLERANCE = 1e-9
Way = tuple[str, str, str]  # "host" or "failure domain", its name, "out of" or "into"


class Links:
    """What the copies that a wave has started take of each link, in bytes per second."""

    def __init__(self, state: PlacementState) -> None:
        self._share = state.settings.link_share_max
        self._uplinks = dict(state.settings.failure_domain_link_bytes_per_second)
        self._taken: dict[Way, float] = defaultdict(float)

    def refuse(self, ask: Ask) -> Refusal | None:
        """Why that copy may not start beside those of its wave, None if it may."""
        if not self._share:
            return None
        rate = copy_rate(ask)
        for way, capacity in self._ways(ask):
            taken = self._taken[way]
            if taken and taken + min(rate, capacity) > self._share * capacity * (1 + TOLERANCE):
                kind, name, direction = way
                detail = (
                    f"copies {direction} {kind} {shown(name)} take {_mbit(taken)} and it {_mbit(min(rate, capacity))}, "
                    f"of {_mbit(self._share * capacity)} that they may"
                )
                return ask.refuse(Code.LINK_CAP, detail)
        return None

    def begin(self, ask: Ask) -> None:
        """Count a copy that has started."""
        if self._share:
            rate = copy_rate(ask)
            for way, capacity in self._ways(ask):
                self._taken[way] += min(rate, capacity)

    def _ways(self, ask: Ask) -> Iterator[tuple[Way, float]]:
        """The links that a copy crosses and what each carries."""
        here, there = ask.source, ask.target
        yield ("host", here.name, "out of"), here.link_bytes_per_second
        yield ("host", there.name, "into"), there.link_bytes_per_second
        if here.failure_domain == there.failure_domain:
            return
        for domain, direction in ((here.failure_domain, "out of"), (there.failure_domain, "into")):
            if domain in self._uplinks:
                yield ("failure domain", str(domain), direction), self._uplinks[str(domain)]


def copy_rate(ask: Ask) -> float:
    """Mean bytes per second that a copy is predicted to take; all of the slower link where nothing can be said."""
    cost = ask.state.costs.cost(ask.vm, ask.destination)
    most = min(ask.source.link_bytes_per_second, ask.target.link_bytes_per_second)
    volume, seconds = cost.bytes.value, cost.seconds.value
    return min(most, volume / seconds) if isfinite(volume) and isfinite(seconds) and seconds > 0 else most


def _mbit(rate: float) -> str:
    return f"{rate / 125e3:.0f} Mbit/s"
