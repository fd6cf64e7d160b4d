"""Random clusters from a seed: mixed generations, odd hosts, odd VMs, unknown figures, contradictory rules."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rebalancerd.cluster.cost import Candidate, MigrationCost
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.policy import HostMode, Mode, Owner, VmPolicy
from rebalancerd.cluster.refusal import Code, about_host, about_vm
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import CpuFitRow, InFlight, Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import Disk, DiskKind, DomainState, Nic, Vm
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from tests.unit.plan.plan_cluster import FixedCosts, cost_of, host, hotspots_of, measured, vm

Rng = np.random.Generator


class HelpedCosts(FixedCosts):
    """Costs by VM; of those that do not converge some do with auto-converge, some with a longer downtime, some never."""

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> tuple[MigrationCost, ...]:
        given = super().costs(snapshot, candidates)
        return tuple(self._helped(snapshot, c, cost) for c, cost in zip(candidates, given, strict=True))

    def _helped(self, snapshot: Snapshot, candidate: Candidate, cost: MigrationCost) -> MigrationCost:
        kind, limit = int(candidate.vm_uuid[-1]) % 3, snapshot.vm(candidate.vm_uuid).policy.max_downtime_seconds or 0.5
        longer = candidate.options.max_downtime_seconds > 0.75 * limit
        if (kind == 0 and candidate.options.auto_converge) or (kind == 1 and longer):
            return cost_of(cost.seconds.upper, slowdown=0.5)
        return cost


def odd_host(rng: Rng, i: int, odd: float) -> Host:
    """A host of some size; with that probability something is unusual about it."""
    made = host(f"h{i:02}", cores=float(rng.choice([4, 8, 16])), memory_gib=float(rng.choice([8, 16, 64])))
    made = replace(made, speed_factor=float(rng.choice([1.0, 1.0, 1.3])), cpu_group=str(rng.choice(["g1", "g1", "g2"])))
    if rng.random() >= odd:
        return made
    changes: list[dict[str, object]] = [
        {"mode": HostMode.NO_INBOUND},
        {"mode": HostMode.OBSERVE},
        {"mode": HostMode.DRAIN},
        {"unusable": "stale for 90 s"},
        {"facts": None},
        {"cores": None},
        {"cores": 0.0},
        {"memory_bytes": None},
        {"migration_uri": None},
        {"reserved_cores": 2.0, "reserved_memory_bytes": 2 * GIB},
        {"storage_domains": frozenset({"pool:p"})},
        {"networks": frozenset()},
        {"cpu_group": None},
    ]
    return replace(made, **changes[int(rng.integers(len(changes)))])  # type: ignore[arg-type]


def odd_vm(rng: Rng, i: int, on: str, names: list[str], odd: float) -> Vm:
    """A VM of some size; with that probability something is unusual about it."""
    cores = float(np.round(rng.gamma(1.5, 0.8), 2))
    made = vm(f"v{i:03}", on, min(cores, 4.0), float(rng.choice([0.5, 1, 2, 4])))
    if rng.random() >= odd:
        return made
    some = frozenset(str(n) for n in rng.choice(names, size=2))
    group = frozenset({f"g{rng.integers(3)}"})
    disks = [
        Disk(target="vda", kind=DiskKind.FILE, source="/shared/a.qcow2", writable=True),
        Disk(target="vda", kind=DiskKind.FILE, source="/shared/../local/a.qcow2", writable=True),
        Disk(target="vda", kind=DiskKind.VOLUME, source="a", writable=True, pool="p"),
        Disk(target="sda", kind=DiskKind.FILE, source=None, writable=False, removable=True),
        Disk(target="vda", kind=DiskKind.NETWORK, source="rbd/a", writable=True, protocol="rbd"),
    ]
    unknown = [{"cpu_cores": None}, {"memory_bytes": None}][int(rng.integers(2))]
    changes: list[dict[str, object]] = [
        {"state": DomainState.PAUSED},
        {"state": DomainState.SHUTOFF},
        {"busy": "backup"},
        {"owner": Owner(name="nova", evidence="metadata")},
        {"policy": VmPolicy(mode=Mode.OBSERVE)},
        {"policy": VmPolicy(pin=some)},
        {"policy": VmPolicy(pin=frozenset({"nowhere"}))},
        {"policy": VmPolicy(avoid=some)},
        {"policy": VmPolicy(affinity=group)},
        {"policy": VmPolicy(affinity=group)},
        {"policy": VmPolicy(anti_affinity=group)},
        {"policy": VmPolicy(anti_affinity=group)},
        {"policy": VmPolicy(affinity=group, anti_affinity=group)},
        {"policy": VmPolicy(priority=3, max_downtime_seconds=0.01)},
        {"facts": replace(made.facts, immovable=("hostdev 0000:01:00.0",))},
        {"facts": replace(made.facts, vcpus=6)},
        {"facts": replace(made.facts, cpu_mode="host-passthrough")},
        {"facts": replace(made.facts, virt_type="qemu")},
        {"facts": replace(made.facts, machine="pc-q35-9.9")},
        {"facts": replace(made.facts, nics=(Nic(kind="bridge", source="br0"), Nic(kind="network", source="default")))},
        {"facts": replace(made.facts, disks=(disks[int(rng.integers(len(disks)))],))},
        {"load": replace(made.load, **unknown)},
        {"load": replace(made.load, steal_cores=0.5)},
    ]
    return replace(made, **changes[int(rng.integers(len(changes)))])  # type: ignore[arg-type]


def odd_scenarios(rng: Rng, shot: Snapshot) -> Scenarios:
    """Paths around the present figures, some of them growing; a few VMs have none."""
    paths, steps = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    shape = (len(shot.vms), paths * steps)
    now = np.array([v.load.cpu_cores or v.facts.vcpus for v in shot.vms], dtype=np.float64)
    speed = np.array([shot.host(v.host).speed_factor for v in shot.vms])
    held = np.array([v.load.memory_bytes or v.facts.memory_bytes for v in shot.vms], dtype=np.float64)
    kept = [i for i in range(len(shot.vms)) if rng.random() > 0.03]
    growth = rng.choice([1.0, 1.0, 1.5])
    cpu = (now * speed)[:, None] * rng.uniform(0.6, 1.2 * growth, shape)
    memory = held[:, None] * rng.uniform(0.9, 1.05, shape)
    known = np.array(
        [v.load.cpu_cores is not None and v.load.memory_bytes is not None for v in shot.vms], dtype=np.bool_
    )
    return Scenarios(
        vm_uuids=tuple(shot.vms[i].uuid for i in kept),
        paths=paths,
        steps=steps,
        step_seconds=float(rng.choice([60.0, 300.0])),
        cpu_cores=cpu[kept].astype(np.float32),
        memory_bytes=memory[kept].astype(np.float32),
        known=known[kept],
        basis="persistence",
    )


def random_inputs(seed: int, odd: float = 0.3) -> PlanInputs:
    """A cluster of 1 to 8 hosts; ``odd`` is the share of hosts and VMs that have something unusual."""
    rng = np.random.default_rng(seed)
    hosts = [odd_host(rng, i, odd / 2) for i in range(int(rng.integers(1, 9)))]
    names = [h.name for h in hosts]
    weights = rng.dirichlet(np.full(len(hosts), 0.8))
    count = int(rng.integers(0, 8 * len(hosts)))
    vms = [odd_vm(rng, i, str(rng.choice(names, p=weights)), names, odd) for i in range(count)]
    vms = [replace(v, policy=replace(v.policy, auto_converge=i % 2 == 0)) for i, v in enumerate(vms)]
    flights = tuple(
        InFlight(
            vm_uuid=v.uuid,
            source=v.host,
            destination=[*names, None][int(rng.integers(len(names) + 1))],
            ours=bool(rng.random() < 0.5),
        )
        for v in vms
        if rng.random() < odd / 10
    )
    fits = tuple(
        CpuFitRow(cpu_digest="c1", host=n, fit=list(CpuFit)[int(rng.integers(3))], detail="probed") for n in names
    )
    shot = Snapshot(
        taken_at=1000.0,
        hosts=measured(hosts, vms, own_cores=float(rng.uniform(0, 0.5)), own_gib=float(rng.uniform(0, 1))),
        vms=tuple(vms),
        in_flight=flights,
        cpu_fits=fits,
    )
    scenarios = odd_scenarios(rng, shot)
    settings = PlanSettings(
        out_per_host=int(rng.integers(1, 3)),
        in_per_host=int(rng.integers(1, 3)),
        per_cluster=int(rng.integers(1, 4)),
        max_moves=int(rng.choice([1, 3, 8, 50])),
    )
    costs = {v.uuid: cost_of(float(rng.uniform(5, 60)), risk=float(rng.choice([0.0, 0.1, 0.5]))) for v in vms}
    odd_ones = [v for v in vms if rng.random() < odd / 10]
    return PlanInputs(
        snapshot=shot,
        scenarios=scenarios,
        hotspots=hotspots_of(shot, scenarios, settings),
        costs=HelpedCosts(costs),
        settings=settings,
        plan_id="p1",
        blocked_hosts={n: about_host(Code.QUARANTINED, n, "quarantined") for n in names if rng.random() < odd / 10},
        blocked_pairs={(v.uuid, names[0]): about_vm(Code.LIBVIRT_REFUSED, v.uuid, "refused") for v in odd_ones},
        resting_vms={v.uuid: about_vm(Code.COOLDOWN, v.uuid, "moved 3 min ago") for v in odd_ones},
    )
