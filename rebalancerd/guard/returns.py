"""Hosts that came back (boot, maintenance, quarantine of figures) or are new: since when, as seen from cycle to cycle."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.snapshot import Snapshot

HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Returns:
    """``ready``: hosts that could receive in the last cycle; ``since``: when those came back that did lately."""

    ready: frozenset[str] = field(default_factory=frozenset)
    since: Mapping[str, float] = field(default_factory=dict)

    def ages(self, now: float) -> dict[str, float]:
        """Seconds since each of them came back."""
        return {host: max(0.0, now - then) for host, then in self.since.items()}


def follow(was: Returns | None, snapshot: Snapshot, now: float, keep_seconds: float) -> Returns:
    """What is known after one more snapshot; ``was`` None: it is the first, and no host came back.

    A host with VMs on it was not away, whatever its figures were for a while. Who came back more than ``keep_seconds``
    ago is a host like any other.
    """
    ready = {host.name for host in snapshot.hosts if _ready(host)}
    if was is None:
        return Returns(frozenset(ready))
    since = {h: then for h, then in was.since.items() if h in ready and now - then < keep_seconds}
    since.update({h: now for h in sorted(ready - was.ready) if not snapshot.vms_on[h]})
    return Returns(frozenset(ready), since)


def _ready(host: Host) -> bool:
    return host.usable and host.mode is HostMode.ACTIVE


def arrived(recent: Iterable[MigrationRecord], now: float) -> dict[str, int]:
    """VMs that came to each host within the last hour by a migration, ours or not, that succeeded."""
    return dict(
        Counter(
            r.destination
            for r in recent
            if r.state is MigrationState.SUCCEEDED and now - (r.ended_at or r.intent_at) < HOUR_SECONDS
        )
    )
