"""What may happen to a simulated cluster from outside: owners' doings, crashes, cut links. None of it is ours."""

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.domains import Domain
from rebalancerd.sim.spec import stable_uuid
from rebalancerd.sim.transfer import OPERATION_FAILED, SYSTEM_ERROR, Phase, Transfer


def relocate(cluster: SimCluster, vm_uuid: str, host: str) -> None:
    """Somebody else has moved it, definition and all, in no time. Raises ValueError if it cannot be."""
    old = cluster.running_on(vm_uuid)
    if old is None or old == host or vm_uuid in cluster.migrations.running:
        raise ValueError(f"{vm_uuid} cannot be moved from {old} to {host} by hand")
    domain = cluster.hosts[old].domains.pop(vm_uuid)
    domain.facts = None
    cluster.hosts[host].domains[vm_uuid] = domain
    cluster.guests.location[cluster.rows[vm_uuid]] = cluster.hosts[host].row
    cluster.guests.reset_counters(cluster.rows[vm_uuid])
    cluster.note("moved by hand", vm_uuid, host)


def migrate_foreign(cluster: SimCluster, vm_uuid: str, host: str) -> None:
    """Somebody else begins a live migration of it. Raises ValueError if it does not run elsewhere."""
    old = cluster.running_on(vm_uuid)
    if old is None or old == host:
        raise ValueError(f"{vm_uuid} cannot be migrated from {old} to {host}")
    cluster.note("migration by hand begins", vm_uuid, host, f"from {old}")
    cluster.migrations.begin(vm_uuid, old, host, options=MigrationOptions(), persistent=True, ours=None)


def stop_vm(cluster: SimCluster, vm_uuid: str) -> None:
    """The guest powers itself off: a migration of it ends, a persistent definition stays."""
    move = cluster.migrations.running.get(vm_uuid)
    if move is not None:
        cluster.migrations.end(move, OPERATION_FAILED, "domain is no longer running")
    host = cluster.running_on(vm_uuid)
    if host is None:
        return
    cluster.guests.location[cluster.rows[vm_uuid]] = -1
    domain = cluster.hosts[host].domains[vm_uuid]
    if domain.persistent:
        domain.state = DomainState.SHUTOFF
    else:
        del cluster.hosts[host].domains[vm_uuid]
    cluster.note("stopped by its owner", vm_uuid, host)


def pause_vm(cluster: SimCluster, vm_uuid: str, *, paused: bool) -> None:
    """Its owner pauses or resumes it."""
    row = cluster.rows[vm_uuid]
    move = cluster.migrations.running.get(vm_uuid)
    if move is not None:
        if move.phase not in (Phase.SETUP, Phase.COPY):
            raise ValueError(f"{vm_uuid} is between two hosts: libvirt lets nobody pause or resume it now")
        host = move.source
    else:
        host = next(name for name, h in cluster.hosts.items() if vm_uuid in h.domains)
    domain = cluster.hosts[host].domains[vm_uuid]
    domain.state = DomainState.PAUSED if paused else DomainState.RUNNING
    (cluster.migrations.paused_by_owner.add if paused else cluster.migrations.paused_by_owner.discard)(vm_uuid)
    cluster.guests.location[row] = -1 if paused else cluster.hosts[host].row
    cluster.note("paused by its owner" if paused else "resumed by its owner", vm_uuid, host)


def forget_vm(cluster: SimCluster, vm_uuid: str) -> None:
    """It is on no host any more."""
    move = cluster.migrations.running.get(vm_uuid)
    if move is not None:
        move.fail(cluster.now, SYSTEM_ERROR, "lost by fault")
        cluster.migrations.close(move)
    for host in cluster.hosts.values():
        host.domains.pop(vm_uuid, None)
    cluster.guests.location[cluster.rows[vm_uuid]] = -1
    cluster.note("lost by fault", vm_uuid, "")


def duplicate_vm(cluster: SimCluster, vm_uuid: str, host: str) -> None:
    """It runs on a second host as well; a migration of it is over."""
    move = cluster.migrations.running.get(vm_uuid)
    if move is not None:
        move.fail(cluster.now, SYSTEM_ERROR, "split by fault")
        cluster.migrations.close(move)
    cluster.put(host, vm_uuid, cluster.vms[vm_uuid].name, DomainState.RUNNING, persistent=True)
    cluster.note("duplicated by fault", vm_uuid, host)


def kill_qemu(cluster: SimCluster, vm_uuid: str, side: str) -> None:
    """The QEMU of a migrating guest is killed on one side: ``source`` or ``destination``. Raises ValueError."""
    move = cluster.migrations.running.get(vm_uuid)
    if move is None or move.phase not in (Phase.SETUP, Phase.COPY) or side not in ("source", "destination"):
        raise ValueError(f"no migration of {vm_uuid} copies, or {side!r} is neither source nor destination")
    text = "internal error: QEMU unexpectedly closed the monitor"
    if side == "destination":
        cluster.migrations.roll_back(move, OPERATION_FAILED, text)
        return
    cluster.migrations.roll_back(move, OPERATION_FAILED, text)
    cluster.guests.location[cluster.rows[vm_uuid]] = -1
    domain = cluster.hosts[move.source].domains[vm_uuid]
    if domain.persistent:
        domain.state = DomainState.CRASHED
    else:
        del cluster.hosts[move.source].domains[vm_uuid]
    cluster.note("killed by fault", vm_uuid, move.source)


def undefine_vm(cluster: SimCluster, vm_uuid: str) -> None:
    """Its owner stops it and undefines it: no host knows it any more. A migration of it ends."""
    host = cluster.running_on(vm_uuid)
    stop_vm(cluster, vm_uuid)
    if host is not None:
        cluster.hosts[host].domains.pop(vm_uuid, None)
        cluster.changed()


def rename_vm(cluster: SimCluster, vm_uuid: str, name: str) -> None:
    """Its owner gives it another name; libvirt allows that for a guest that is off, so it was off for a moment."""
    for host in cluster.hosts.values():
        if vm_uuid in host.domains:
            host.domains[vm_uuid].name, host.domains[vm_uuid].facts = name, None
    cluster.changed()


def define_namesake(cluster: SimCluster, vm_uuid: str, host: str) -> None:
    """An inactive domain of the same name and another UUID is defined on a host."""
    name = cluster.vms[vm_uuid].name
    other = stable_uuid("namesake", f"{name}@{host}")
    facts = VmFacts(uuid=other, name=name, vcpus=1, memory_bytes=1 << 30)
    cluster.hosts[host].domains[other] = Domain(uuid=other, name=name, state=DomainState.SHUTOFF, facts=facts)
    cluster.changed()


def kill_host(cluster: SimCluster, host: str) -> None:
    """Power is gone: its guests are lost, peers notice after their keepalive."""
    it = cluster.hosts[host]
    it.alive = False
    for move in list(cluster.migrations.running.values()):
        if move.source == host:
            _source_died(cluster, move)
        elif move.destination == host:
            _destination_died(cluster, move)
    for uuid in list(it.domains):
        if uuid in cluster.rows and cluster.running_on(uuid) == host:
            cluster.guests.location[cluster.rows[uuid]] = -1
            cluster.note("died with its host", uuid, host)
    it.domains.clear()
    cluster.changed()


def _source_died(cluster: SimCluster, move: Transfer) -> None:
    """Before the switch-over the guest dies with its host; after it, it runs on the destination and goes on."""
    arrived = move.phase is Phase.FINISH
    move.fail(cluster.now, SYSTEM_ERROR, "source host is gone")
    if not arrived:
        cluster.hosts[move.destination].domains.pop(move.vm_uuid, None)
        cluster.guests.location[move.row] = -1
        cluster.guests.throttled[move.row] = 0.0
        cluster.note("died with its host", move.vm_uuid, move.source)
    cluster.migrations.close(move)


def _destination_died(cluster: SimCluster, move: Transfer) -> None:
    if move.phase is Phase.SWITCH:
        cluster.migrations.roll_back(move, SYSTEM_ERROR, "connection reset by peer")
    elif move.phase is Phase.POSTCOPY:
        cluster.migrations.break_postcopy(move.vm_uuid)
    elif move.phase is Phase.FINISH:
        move.fail(cluster.now, SYSTEM_ERROR, "destination host is gone")
        cluster.hosts[move.source].domains.pop(move.vm_uuid, None)
        cluster.migrations.close(move)
    elif move.cut_at is None:
        move.cut_at = cluster.now


def revive_host(cluster: SimCluster, host: str) -> None:
    """It is powered on again, empty."""
    cluster.hosts[host].alive = True
    cluster.changed()


def restart_libvirtd(cluster: SimCluster, host: str) -> None:
    """Its migrations, out and in, are undone; guests run on."""
    for move in list(cluster.migrations.running.values()):
        if host in (move.source, move.destination):
            cluster.migrations.end(move, SYSTEM_ERROR, f"libvirtd on {host} was restarted")


def cut_link(cluster: SimCluster, one: str, other: str) -> None:
    """Nothing passes between two hosts; migrations fail when their keepalive has run out."""
    pair = frozenset((one, other))
    cluster.migrations.cut_links.add(pair)
    for move in cluster.migrations.running.values():
        if pair == {move.source, move.destination} and move.cut_at is None:
            move.cut_at = cluster.now
    cluster.changed()


def mend_link(cluster: SimCluster, one: str, other: str) -> None:
    """The link is back; a migration that still waits goes on."""
    pair = frozenset((one, other))
    cluster.migrations.cut_links.discard(pair)
    for move in cluster.migrations.running.values():
        if pair == {move.source, move.destination}:
            move.cut_at = None
            if move.phase is Phase.COPY and move.iteration == 0:
                move.begin_copy(float(cluster.guests.resident[move.row]))
    cluster.changed()
