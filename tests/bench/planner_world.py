"""Planning inputs of the synthetic clusters: a snapshot, scenarios and costs such as the daemon gives its planner."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rebalancerd.cluster.cost import Candidate, Estimate, MigrationCost
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.trace import Trace
from rebalancerd.cluster.units import MIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.hotspot import hotspots
from rebalancerd.predict.settings import PredictSettings
from tests.bench.planner_cases import ArrayCase, array_case
from tests.bench.planner_demand import noise, policies, recorded

PATHS, STEPS, STEP_SECONDS = 64, 6, 300.0
MOST_MOVES = 500
CHEAP = MigrationCost(
    seconds=Estimate(value=1.0, upper=1.0),
    downtime_seconds=Estimate(value=0.01, upper=0.01),
    bytes=Estimate(value=1.0, upper=1.0),
    slowdown=Estimate(value=0.0, upper=0.0),
    non_convergence=Estimate(value=0.0, upper=0.0),
    basis="none",
)


class NoCosts:
    """Moves that cost next to nothing."""

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> Sequence[MigrationCost]:
        """The same for every candidate."""
        del snapshot
        return [CHEAP] * len(candidates)


def snapshot_of(case: ArrayCase, policies: Sequence[VmPolicy] = ()) -> Snapshot:
    """The case as a snapshot: hosts ``h0000``…, VMs in the case's order, each with its policy if any are given."""
    cpu, memory = case.per_host(case.cpu), case.per_host(case.memory)
    hosts = tuple(
        Host(
            name=f"h{h:04d}",
            facts=HostFacts(uuid=f"{h:04d}", cpus=int(case.capacity_cpu[h]), memory_bytes=int(case.capacity_memory[h])),
            cores=float(case.capacity_cpu[h]),
            memory_bytes=int(case.capacity_memory[h]),
            cpu_group="one",
            peer_uri=f"qemu+tls://h{h:04d}/system",
            migration_uri=f"tcp://h{h:04d}",
            link_bytes_per_second=1.25e9,
            load=HostLoad(cpu_cores=float(cpu[h]), memory_used_bytes=int(memory[h])),
        )
        for h in range(case.hosts)
    )
    random = np.random.default_rng(case.vms)
    rates = random.lognormal(np.log(8 * MIB), 1.0, case.vms)
    vms = tuple(
        Vm(
            facts=VmFacts(
                uuid=f"{v:06d}",
                name=f"vm{v:06d}",
                vcpus=min(int(case.capacity_cpu.min()), max(1, int(np.ceil(case.cpu[v])))),
                memory_bytes=int(case.memory[v]),
            ),
            host=f"h{case.place[v]:04d}",
            state=DomainState.RUNNING,
            load=VmLoad(cpu_cores=float(case.cpu[v]), steal_cores=0.0, memory_bytes=int(case.memory[v])),
            dirty=_curve(float(rates[v]), float(case.memory[v])),
            policy=policies[v] if policies else VmPolicy(),
        )
        for v in range(case.vms)
    )
    return Snapshot(taken_at=0.0, hosts=hosts, vms=vms)


def _curve(rate: float, memory: float) -> DirtyCurve:
    points = tuple(
        DirtyPoint(
            period_seconds=seconds,
            unique_bytes=min(0.9 * memory, rate * seconds**0.8),
            standard_error_bytes=rate * 0.1,
            readings=5,
        )
        for seconds in (1.0, 4.0)
    )
    return DirtyCurve(points=points, age_seconds=60.0)


def exact_inputs(case: ArrayCase, moves: int) -> PlanInputs:
    """One path of one step that goes on as now; nothing counts but the demand above headroom."""
    settings = PlanSettings(
        weight_imbalance=0.0,
        weight_cost=0.0,
        min_gain=0.0,
        payback_max_seconds=float("inf"),
        max_moves=moves,
        out_per_host=moves or 1,
        in_per_host=moves or 1,
        per_cluster=moves or 1,
    )
    snapshot = snapshot_of(case)
    scenarios = _scenarios(snapshot, case.cpu[:, None], case.memory[:, None], paths=1, steps=1)
    return _inputs(snapshot, scenarios, settings, NoCosts())


def speed_inputs(
    hosts: int, vms: int, seed: int, *, traces: Sequence[Trace] = (), constrained: float = 0.0
) -> PlanInputs:
    """Joint paths, from traces if there are any; constraints on that share of the VMs; physical costs."""
    case = array_case(hosts, vms, seed)
    factors = recorded(case, PATHS, STEPS, seed, traces) if traces else noise(case, PATHS, STEPS, seed)
    memory = np.repeat(case.memory[:, None].astype(np.float32), PATHS * STEPS, axis=1)
    snapshot = snapshot_of(case, policies(case, constrained, seed))
    scenarios = _scenarios(snapshot, case.cpu[:, None] * factors, memory, paths=PATHS, steps=STEPS)
    settings = replace(PlanSettings(), max_moves=MOST_MOVES, per_cluster=64)
    return _inputs(snapshot, scenarios, settings, PhysicsCost(PredictSettings()))


def _scenarios(snapshot: Snapshot, cpu: np.ndarray, memory: np.ndarray, *, paths: int, steps: int) -> Scenarios:
    return Scenarios(
        vm_uuids=tuple(vm.uuid for vm in snapshot.vms),
        paths=paths,
        steps=steps,
        step_seconds=STEP_SECONDS,
        cpu_cores=cpu.astype(np.float32),
        memory_bytes=memory.astype(np.float32),
        known=np.ones(len(snapshot.vms), dtype=np.bool_),
        basis="synthetic",
    )


def _inputs(
    snapshot: Snapshot, scenarios: Scenarios, settings: PlanSettings, costs: NoCosts | PhysicsCost
) -> PlanInputs:
    hot = hotspots(
        snapshot,
        scenarios,
        cpu_headroom=settings.cpu_headroom,
        memory_headroom=settings.memory_headroom,
        probability=settings.hot_probability,
    )
    return PlanInputs(
        snapshot=snapshot, scenarios=scenarios, hotspots=tuple(hot), costs=costs, settings=settings, plan_id="bench"
    )


def placed(case: ArrayCase, plan: Plan) -> ArrayCase:
    """The case with the plan carried out."""
    place = case.place.copy()
    for step in plan.steps:
        place[int(step.move.vm_uuid)] = int(step.move.destination[1:])
    return case.moved(place)
