"""GuardContext: all that the checks may look at, at one instant."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.snapshot import InFlight, Snapshot
from rebalancerd.guard.memory import GuardMemory
from rebalancerd.guard.settings import GuardSettings


@dataclass(frozen=True, kw_only=True)
class GuardContext:
    """The instant ``now`` (epoch seconds) as the checks see it.

    ``mode``: the cluster's. ``holds``: rounds in a row in which each host was hot. ``pause_reason``: why a pause file
    (or the daemon itself) stops all starts, else None. ``used_steps``: (plan id, step) of every migration so far, for an
    approval counts once. ``stale``: what differs from the facts the step at hand relied on; None: not compared, which
    refuses. ``active``: records of ours without a verdict. Refresh ``active`` and ``stale`` for each step, so that the
    caps count what was started a moment ago. ``unknown_share_max``: share of hosts that may be unusable. ``away``: hosts
    that are powered off by our own doing, or on their way: their silence is no fault.
    """

    snapshot: Snapshot
    now: float
    settings: GuardSettings
    memory: GuardMemory
    operator: OperatorState
    mode: Mode
    holds: Mapping[str, int] = field(default_factory=dict)
    lease_held: bool = True
    pause_reason: str | None = None
    used_steps: frozenset[tuple[str, int]] = frozenset()
    stale: tuple[str, ...] | None = None
    active: tuple[MigrationRecord, ...] = ()
    unknown_share_max: float = 0.34
    away: frozenset[str] = frozenset()

    def under_way(self) -> dict[str, InFlight]:
        """Migrations under way by VM: ours by record, and all observed ones, foreign ones too.

        Where both tell of one VM the record counts: it knows the destination, which an observed job may not tell.
        """
        found = {f.vm_uuid: f for f in self.snapshot.in_flight}
        for r in self.active:
            if r.state.is_open:
                found[r.vm_uuid] = InFlight(vm_uuid=r.vm_uuid, source=r.source, destination=r.destination, ours=r.ours)
        return found

    def starts_last_hour(self) -> int:
        """Migrations begun within the last hour, those running and not yet recalled included; foreign ones too."""
        recorded = self.memory.recent_starts | {r.id for r in self.active if r.state.is_open}
        told = {r.vm_uuid for r in self.active}
        foreign = sum(not f.ours and f.vm_uuid not in told for f in self.snapshot.in_flight)
        return len(recorded) + foreign
