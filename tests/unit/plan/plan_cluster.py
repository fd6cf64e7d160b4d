"""Builders of small clusters for planning tests, a fixed cost model, and what a finished plan leaves behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rebalancerd.cluster.cost import Candidate, Estimate, MigrationCost
from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.scenarios import Hotspot, Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings


def cost_of(seconds: float = 10.0, downtime: float = 0.05, risk: float = 0.0, slowdown: float = 0.1) -> MigrationCost:
    """A cost whose upper bounds are its values."""
    return MigrationCost(
        seconds=Estimate(value=seconds, upper=seconds),
        downtime_seconds=Estimate(value=downtime, upper=downtime),
        bytes=Estimate(value=1e9, upper=1e9),
        slowdown=Estimate(value=slowdown, upper=slowdown),
        non_convergence=Estimate(value=risk, upper=risk),
        basis="physics",
    )


@dataclass
class FixedCosts:
    """Costs by VM UUID; counts how often it was asked."""

    by_vm: Mapping[str, MigrationCost] = field(default_factory=dict)
    default: MigrationCost = field(default_factory=cost_of)
    asked: int = 0

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> tuple[MigrationCost, ...]:
        self.asked += len(candidates)
        return tuple(self.by_vm.get(c.vm_uuid, self.default) for c in candidates)


def host(name: str, cores: float = 16.0, memory_gib: float = 64.0, **changes: object) -> Host:
    """An active, reachable host that shares a CPU group, /shared and the network default; load still to be measured."""
    made = Host(
        name=name,
        facts=HostFacts(
            uuid=f"uuid-{name}",
            cpus=int(cores),
            memory_bytes=int(memory_gib * GIB),
            machine_types=frozenset({"pc-q35-7.2"}),
            networks=frozenset({"default"}),
        ),
        cores=cores,
        memory_bytes=int(memory_gib * GIB),
        cpu_group="g1",
        storage_domains=frozenset({"/shared"}),
        peer_uri=f"qemu+ssh://{name}/system",
        migration_uri=f"tcp://{name}",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def vm(
    name: str,
    on: str,
    cores: float | None = 1.0,
    memory_gib: float | None = 2.0,
    *,
    facts: Mapping[str, object] | None = None,
    policy: VmPolicy | None = None,
    **changes: object,
) -> Vm:
    """A running KVM guest without disks, using that much of its host now."""
    base = VmFacts(
        uuid=f"u-{name}",
        name=name,
        vcpus=max(1, int(np.ceil(cores or 1))),
        memory_bytes=int(max(memory_gib or 2.0, 1.0) * GIB),
        machine="pc-q35-7.2",
        cpu_mode="custom",
        cpu_digest="c1",
    )
    made = Vm(
        facts=replace(base, **(facts or {})),  # type: ignore[arg-type]
        host=on,
        state=DomainState.RUNNING,
        load=VmLoad(cpu_cores=cores, memory_bytes=None if memory_gib is None else int(memory_gib * GIB)),
        policy=policy or VmPolicy(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def measured(
    hosts: Sequence[Host], vms: Sequence[Vm], own_cores: float = 0.0, own_gib: float = 0.0
) -> tuple[Host, ...]:
    """Hosts whose measured use is that of their VMs and of themselves; a host with a load keeps it."""
    found = []
    for h in hosts:
        if h.load != HostLoad():
            found.append(h)
            continue
        mine = [v for v in vms if v.host == h.name]
        load = HostLoad(
            cpu_cores=own_cores + sum(v.load.cpu_cores or 0.0 for v in mine),
            memory_used_bytes=int(own_gib * GIB) + sum(v.load.memory_bytes or 0 for v in mine),
        )
        found.append(replace(h, load=load))
    return tuple(found)


def flat(
    snapshot: Snapshot, paths: int = 4, steps: int = 3, rows: Mapping[str, Sequence[float]] | None = None
) -> Scenarios:
    """Scenarios that go on as measured; ``rows`` gives the CPU of single VMs by UUID, ``paths·steps`` values."""
    shape = (len(snapshot.vms), paths * steps)
    cpu, memory = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    known = np.ones(len(snapshot.vms), dtype=np.bool_)
    for i, v in enumerate(snapshot.vms):
        speed = snapshot.host(v.host).speed_factor
        known[i] = v.load.cpu_cores is not None and v.load.memory_bytes is not None
        cpu[i] = (v.facts.vcpus if v.load.cpu_cores is None else v.load.cpu_cores) * speed
        memory[i] = v.facts.memory_bytes if v.load.memory_bytes is None else v.load.memory_bytes
        if rows and v.uuid in rows:
            cpu[i] = rows[v.uuid]
    return Scenarios(
        vm_uuids=tuple(v.uuid for v in snapshot.vms),
        paths=paths,
        steps=steps,
        step_seconds=600.0,
        cpu_cores=cpu,
        memory_bytes=memory,
        known=known,
        basis="persistence",
    )


def hotspots_of(snapshot: Snapshot, scenarios: Scenarios, settings: PlanSettings) -> tuple[Hotspot, ...]:
    """Hosts that are above a headroom now, or in at least that share of the paths."""
    found = []
    for h in snapshot.hosts:
        mine = [scenarios.row[v.uuid] for v in snapshot.vms if v.host == h.name and v.uuid in scenarios.row]
        guests_cpu = sum(v.load.cpu_cores or 0.0 for v in snapshot.vms if v.host == h.name)
        guests_memory = sum(v.load.memory_bytes or 0 for v in snapshot.vms if v.host == h.name)
        for resource, rows, capacity, headroom, now, guests in (
            ("cpu", scenarios.cpu_cores, h.capacity_cores, settings.cpu_headroom,
             None if h.load.cpu_cores is None else h.load.cpu_cores * h.speed_factor, guests_cpu * h.speed_factor),
            ("memory", scenarios.memory_bytes, h.capacity_memory_bytes, settings.memory_headroom,
             h.load.memory_used_bytes, guests_memory),
        ):  # fmt: skip
            if not capacity or now is None or not h.usable:
                continue
            reserved = h.reserved_cores * h.speed_factor if resource == "cpu" else h.reserved_memory_bytes
            own = max(0.0, now - guests - reserved)
            sums = rows[mine].sum(axis=0, dtype=np.float64) + own
            peaks = sums.reshape(scenarios.paths, scenarios.steps).max(axis=1)
            probability = float((peaks > headroom * capacity).mean())
            share = (guests + own) / capacity
            if share > headroom or probability >= settings.hot_probability:
                found.append(
                    Hotspot(
                        host=h.name,
                        resource=resource,
                        now=share,
                        peak_p95=float(np.quantile(peaks, 0.95)) / capacity,
                        headroom=headroom,
                        probability=probability,
                        lead_seconds=None,
                        causes=(),
                    )
                )
    return tuple(found)


def inputs_of(
    hosts: Sequence[Host],
    vms: Sequence[Vm],
    *,
    rows: Mapping[str, Sequence[float]] | None = None,
    settings: PlanSettings | None = None,
    costs: FixedCosts | None = None,
    own_cores: float = 0.0,
    own_gib: float = 0.0,
    snapshot: Mapping[str, object] | None = None,
    **changes: object,
) -> PlanInputs:
    """Inputs of a planning run over those hosts and VMs, hotspots worked out from the figures."""
    settings = settings or PlanSettings()
    shot = Snapshot(taken_at=1000.0, hosts=measured(hosts, vms, own_cores, own_gib), vms=tuple(vms), **(snapshot or {}))  # type: ignore[arg-type]
    scenarios = flat(shot, rows=rows)
    made = PlanInputs(
        snapshot=shot,
        scenarios=scenarios,
        hotspots=hotspots_of(shot, scenarios, settings),
        costs=costs or FixedCosts(),
        settings=settings,
        plan_id="p1",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def carried_out(inputs: PlanInputs, plan: Plan) -> PlanInputs:
    """The inputs of the next run if every step succeeded and every guest goes on demanding the same."""
    snapshot, to = inputs.snapshot, {s.move.vm_uuid: s.move.destination for s in plan.steps}
    cpu = {h.name: h.load.cpu_cores for h in snapshot.hosts}
    memory = {h.name: h.load.memory_used_bytes for h in snapshot.hosts}
    vms = []
    for v in snapshot.vms:
        if v.uuid not in to:
            vms.append(v)
            continue
        ratio = snapshot.host(v.host).speed_factor / snapshot.host(to[v.uuid]).speed_factor
        used = v.load.cpu_cores
        moved = replace(v, host=to[v.uuid], load=replace(v.load, cpu_cores=None if used is None else used * ratio))
        for name, sign, guest in ((v.host, -1, v), (moved.host, 1, moved)):
            have_cpu, have_memory = cpu[name], memory[name]
            if have_cpu is not None:
                cpu[name] = have_cpu + sign * (guest.load.cpu_cores or 0.0)
            if have_memory is not None:
                memory[name] = have_memory + sign * (guest.load.memory_bytes or 0)
        vms.append(moved)
    hosts = tuple(
        replace(h, load=replace(h.load, cpu_cores=cpu[h.name], memory_used_bytes=memory[h.name]))
        for h in snapshot.hosts
    )
    shot = replace(snapshot, hosts=hosts, vms=tuple(vms))
    return replace(inputs, snapshot=shot, hotspots=hotspots_of(shot, inputs.scenarios, inputs.settings), plan_id="p2")
