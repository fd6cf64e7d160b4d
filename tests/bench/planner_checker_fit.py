"""What a guest needs to find on its destination, for the checker: machine type, networks, storage."""

from posixpath import normpath

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.vm import DiskKind, Vm


def machine_fits(vm: Vm, there: Host) -> bool:
    facts = there.facts
    types = None if facts is None else facts.machine_types
    return facts is None or (facts.arch == vm.facts.arch and (types is None or vm.facts.machine in (None, *types)))


def network_fits(kind: str, source: str | None, there: Host) -> bool:
    listed = None if there.facts is None else there.facts.networks
    if kind == "network" and listed is not None:
        return source is None or source in listed
    return (
        source is None
        or kind not in ("network", "bridge", "direct")
        or there.networks is None
        or source in there.networks
    )


def storage_fits(vm: Vm, shared: frozenset[str]) -> bool:
    for disk in vm.facts.disks:
        if disk.kind is DiskKind.NETWORK or (disk.source is None and disk.pool is None):
            continue
        if disk.kind is DiskKind.VOLUME or disk.source is None:
            if f"pool:{disk.pool}" not in shared:
                return False
            continue
        parts = normpath(disk.source).split("/")
        roots = [normpath(d).rstrip("/").split("/") for d in shared if d.startswith("/")]
        if disk.kind is DiskKind.OTHER or not any(parts[: len(r)] == r for r in roots):
            return False
    return True
