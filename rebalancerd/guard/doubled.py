"""VMs that run twice without a move of ours: each is put on record as somebody else's, which opens the breaker."""

from collections.abc import Collection
from math import inf, nextafter

from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.snapshot import Snapshot


def doubled(
    snapshot: Snapshot, records: Collection[MigrationRecord], *, closed_at: float | None, now: float
) -> tuple[MigrationRecord, ...]:
    """Records of the VMs that run on several hosts, without those that are on record since the breaker was last closed.

    ``closed_at``: when that was, epoch seconds like ``now``. So a breaker that is closed while a VM still runs twice opens
    again. ``source`` is where the VM counts as standing, ``destination`` the first of the others.
    """
    last = -inf if closed_at is None else closed_at
    known = {r.vm_uuid for r in records if r.state is MigrationState.DUPLICATED and (r.ended_at or r.intent_at) > last}
    at = max(
        now, nextafter(last, inf)
    )  # a clock that was set back does not make it happen before the breaker was closed
    found = []
    for twice in snapshot.doubled:
        if twice.vm_uuid in known:
            continue
        vm = snapshot.vm(twice.vm_uuid)
        found.append(
            MigrationRecord(
                id=f"d-{int(at * 1000):x}-{vm.uuid[:8]}",
                vm_uuid=vm.uuid,
                vm_name=vm.name,
                source=vm.host,
                destination=next(host for host in twice.hosts if host != vm.host),
                state=MigrationState.DUPLICATED,
                intent_at=at,
                ended_at=at,
                reason=f"active on {', '.join(twice.hosts)} without a migration of ours",
                ours=False,
            )
        )
    return tuple(found)
