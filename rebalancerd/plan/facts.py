"""The facts a move relies on, as text that can be compared later: before a start, what differs is named."""

from rebalancerd.cluster.digest import digest
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.plan import Step
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.wording import shown

ABSENT = "absent"


def _vm_facts(vm: Vm) -> list[tuple[str, str]]:
    facts, owner = vm.facts, vm.owner or vm.facts.owner
    return [
        ("vm.host", vm.host),
        ("vm.running", str(vm.state.is_running).lower()),
        ("vm.name", vm.name),
        ("vm.vcpus", str(facts.vcpus)),
        ("vm.memory_bytes", str(facts.memory_bytes)),
        ("vm.cpu", f"{facts.virt_type} {facts.arch} {facts.machine} {facts.cpu_mode} {facts.cpu_digest}"),
        ("vm.devices", digest((facts.disks, facts.nics, facts.secrets))),
        ("vm.immovable", "; ".join(facts.immovable) or "no"),
        ("vm.needs", digest((facts.hugepage_bytes, facts.host_topology, facts.pinned_cpus))),
        ("vm.policy", digest(vm.policy)),
        ("vm.owner", "none" if owner is None else owner.name),
    ]


def _host_facts(role: str, host: Host) -> list[tuple[str, str]]:
    return [
        (f"{role}.mode", host.mode.value),
        (f"{role}.usable", str(host.usable).lower()),
        (f"{role}.cpu_group", str(host.cpu_group)),
        (f"{role}.storage", digest(host.storage_domains)),
        (f"{role}.topology", str(host.facts and host.facts.topology)),
    ]


def _destination_facts(host: Host) -> list[tuple[str, str]]:
    return [
        *_host_facts("destination", host),
        ("destination.uuid", str(host.facts and host.facts.uuid)),
        ("destination.peer_uri", str(host.peer_uri)),
        ("destination.migration_uri", str(host.migration_uri)),
        ("destination.networks", digest((host.networks, host.facts and host.facts.networks))),
        ("destination.memory_bytes", str(host.capacity_memory_bytes)),
    ]


def move_facts(snapshot: Snapshot, vm_uuid: str, destination: str) -> tuple[tuple[str, str], ...]:
    """What a move of that VM to that host relies on, as (key, value) in a fixed order.

    Loads are not among them: they change all the time and are judged anew. A VM or host that is not in the snapshot
    gives the value "absent". No figure that changes by itself while nothing of relevance happens is included.
    """
    vm, host = snapshot.vm_by_uuid.get(vm_uuid), snapshot.host_by_name.get(destination)
    rows: list[tuple[str, str]] = [("vm.host", ABSENT)] if vm is None else _vm_facts(vm)
    if vm is not None:
        rows += _host_facts("source", snapshot.host(vm.host))
    rows += [("destination.mode", ABSENT)] if host is None else _destination_facts(host)
    return tuple(rows)


def differing(step: Step, snapshot: Snapshot) -> tuple[str, ...]:
    """What a snapshot says differently from what the step relied on, e.g. "vm web1: host was h1, is h2"."""
    move = step.move
    now = dict(move_facts(snapshot, move.vm_uuid, move.destination))
    if now.get("vm.host") == ABSENT:
        return (f"vm {shown(move.vm_name)}: is gone",)
    names = {
        "vm": f"vm {shown(move.vm_name)}",
        "source": f"host {shown(move.source)}",
        "destination": f"host {shown(move.destination)}",
    }
    found = []
    moved = now.get("vm.host") != dict(move.facts).get("vm.host")
    for key, was in move.facts:
        role, _, field = key.partition(".")
        if role == "source" and moved:
            continue  # another host is its source now: nothing to compare
        value = now.get(key, ABSENT)
        if value != was:
            found.append(f"{names.get(role, role)}: {field} was {shown(was)}, is {shown(value)}")
    return tuple(found)
