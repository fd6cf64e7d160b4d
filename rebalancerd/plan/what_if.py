"""What if: changes of planning inputs that an operator words, such as a host that is down or a VM on another host.

A change is what the inputs would show had it happened already: the moved VM's load goes with it, in the cores of the host
it is on then, and figures that nobody can tell beforehand (what tasks wait) become unknown. Demand stays as forecast.
"""

from collections.abc import Mapping
from dataclasses import replace

from rebalancerd.cluster.demand import sane
from rebalancerd.cluster.host import Host, HostLoad
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.what_if_text import AddHost, HostGone, VmGone, VmOn, WhatIf, WhatIfError, unknown
from rebalancerd.plan.wording import listed, shown


def apply(inputs: PlanInputs, what_if: WhatIf) -> PlanInputs:
    """The inputs as they would be. Raises WhatIfError for a host or VM that is unknown, and for what makes no sense."""
    match what_if:
        case HostGone(host=name):
            return _without_host(inputs, _host(inputs.snapshot, name))
        case VmOn(vm=vm, host=name):
            return _moved(inputs, _settled(inputs.snapshot, vm), _host(inputs.snapshot, name))
        case VmGone(vm=vm):
            return replace(inputs, snapshot=_removed(inputs.snapshot, _settled(inputs.snapshot, vm)))
        case AddHost():
            return replace(inputs, snapshot=_with_host(inputs.snapshot, what_if))


def _host(snapshot: Snapshot, name: str) -> Host:
    if name not in snapshot.host_by_name:
        raise WhatIfError(f"there is no host “{shown(name)}”", unknown(name, snapshot.host_by_name))
    return snapshot.host(name)


def _settled(snapshot: Snapshot, given: str) -> Vm:
    """The VM of that name or UUID, unless it is on the move: where such a one ends up is not for an operator to say."""
    found = [vm for vm in snapshot.vms if given in (vm.uuid, vm.name)]
    if not found:
        raise WhatIfError(f"there is no VM “{shown(given)}”", unknown(given, (vm.name for vm in snapshot.vms)))
    if len(found) > 1:
        hint = f"give the UUID: {listed(vm.uuid for vm in found)}"
        raise WhatIfError(f"{len(found)} VMs are called “{shown(given)}”", hint)
    vm = found[0]
    if any(flight.vm_uuid == vm.uuid for flight in snapshot.in_flight):
        raise WhatIfError(f"VM “{shown(given)}” is being migrated", "take the snapshot once it has arrived")
    return vm


def _without_host(inputs: PlanInputs, host: Host) -> PlanInputs:
    """A host that is to be empty. What stays on it in the plan is what would be left without a place."""
    snapshot = _with_hosts(inputs.snapshot, replace(host, mode=HostMode.DRAIN))
    return replace(inputs, snapshot=snapshot, drained=inputs.drained | {host.name})


def _moved(inputs: PlanInputs, vm: Vm, host: Host) -> PlanInputs:
    if vm.host == host.name:
        raise WhatIfError(f"VM “{shown(vm.name)}” is on {shown(host.name)} already")
    snapshot = inputs.snapshot
    ratio = snapshot.host(vm.host).speed_factor / host.speed_factor
    used = sane(vm.load.cpu_cores)
    load = replace(vm.load, cpu_cores=None if used is None else used * ratio, steal_cores=None)
    placed = replace(vm, host=host.name, load=load)
    without = _removed(snapshot, vm)
    hosts = {h.name: h for h in without.hosts} | {host.name: _loaded(host, placed, 1)}
    return replace(
        inputs,
        snapshot=replace(
            snapshot,
            hosts=tuple(hosts.values()),
            vms=(*without.vms, placed),
        ),
    )


def moved(inputs: PlanInputs, to: Mapping[str, str]) -> PlanInputs:
    """The inputs after those VMs (by UUID) have gone to those hosts, VMs in their order; what they left is not hot."""
    order = {vm.uuid: i for i, vm in enumerate(inputs.snapshot.vms)}
    left = {inputs.snapshot.vm(uuid).host for uuid in to}
    for uuid, host in to.items():
        inputs = _moved(inputs, inputs.snapshot.vm(uuid), inputs.snapshot.host(host))
    vms = tuple(sorted(inputs.snapshot.vms, key=lambda vm: order[vm.uuid]))
    spots = tuple(spot for spot in inputs.hotspots if spot.host not in left)
    return replace(inputs, snapshot=replace(inputs.snapshot, vms=vms), hotspots=spots)


def _removed(snapshot: Snapshot, vm: Vm) -> Snapshot:
    source = _loaded(snapshot.host(vm.host), vm, -1)
    rest = tuple(v for v in snapshot.vms if v.uuid != vm.uuid)
    return replace(_with_hosts(snapshot, source), vms=rest)


def _loaded(host: Host, vm: Vm, sign: int) -> Host:
    """The host's measured use with the VM's added or taken away; how long tasks would wait then is not known."""
    load, cores, held = host.load, sane(vm.load.cpu_cores) or 0.0, int(sane(vm.load.memory_bytes) or 0)
    changed = replace(
        load,
        cpu_cores=None if load.cpu_cores is None else max(0.0, load.cpu_cores + sign * cores),
        memory_used_bytes=None if load.memory_used_bytes is None else max(0, load.memory_used_bytes + sign * held),
        psi_cpu=None,
        psi_memory=None,
    )
    return replace(host, load=changed)


def _with_host(snapshot: Snapshot, told: AddHost) -> Snapshot:
    """One more host: as its model, without guests, using what the model's own processes use."""
    model = _host(snapshot, told.like)
    if told.name in snapshot.host_by_name:
        raise WhatIfError(f"there is a host “{shown(told.name)}” already")
    if model.facts is None or not model.usable:
        why = shown(model.unusable or "its facts are unknown")
        raise WhatIfError(f"“{shown(model.name)}” cannot serve as a model: {why}", "name a host that is usable")
    guests = snapshot.vms_on[model.name]
    busy, used = sane(model.load.cpu_cores), sane(model.load.memory_used_bytes)
    held = sum(sane(vm.load.memory_bytes) or 0.0 for vm in guests)
    cores = told.cores if told.cores is not None else model.cores
    memory = told.memory_bytes if told.memory_bytes is not None else model.memory_bytes
    facts = replace(
        model.facts,
        uuid=f"what-if-{told.name}",
        cpus=model.facts.cpus if told.cores is None else max(1, round(told.cores)),
        memory_bytes=model.facts.memory_bytes if told.memory_bytes is None else told.memory_bytes,
    )
    load = HostLoad(
        cpu_cores=None if busy is None else max(0.0, busy - sum(sane(vm.load.cpu_cores) or 0.0 for vm in guests)),
        memory_used_bytes=None if used is None else max(0, int(used - held)),
    )
    made = replace(
        model,
        name=told.name,
        facts=facts,
        load=load,
        mode=HostMode.ACTIVE,
        cores=cores,
        memory_bytes=memory,
        uri=f"what-if://{told.name}",
        peer_uri=f"what-if://{told.name}",
        migration_uri=f"what-if://{told.name}",
    )
    fits = tuple(replace(row, host=told.name) for row in snapshot.cpu_fits if row.host == model.name)
    return replace(snapshot, hosts=(*snapshot.hosts, made), cpu_fits=(*snapshot.cpu_fits, *fits))


def _with_hosts(snapshot: Snapshot, host: Host) -> Snapshot:
    """The snapshot with that host in place of the one of its name."""
    return replace(snapshot, hosts=tuple(host if h.name == host.name else h for h in snapshot.hosts))
