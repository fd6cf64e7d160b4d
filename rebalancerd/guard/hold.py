"""Hold: a condition must be true for several rounds in a row before it is acted on, so that a spike moves nothing."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet


def advance(previous: Mapping[str, int], hot: AbstractSet[str]) -> Mapping[str, int]:
    """Rounds in a row, per host, after a round in which ``hot`` were hot. A host that is not starts from nothing."""
    return {host: previous.get(host, 0) + 1 for host in sorted(hot)}


def held(holds: Mapping[str, int], source: str, hot_hosts: tuple[str, ...]) -> int:
    """Rounds for which a move's reason has held: its source's, or the least of its plan's hot hosts' if that is more.

    A plan may move a VM off a host that is not hot, to make room for one that comes from a hot host.
    """
    plan = min((holds.get(host, 0) for host in hot_hosts), default=0)
    return max(holds.get(source, 0), plan)
