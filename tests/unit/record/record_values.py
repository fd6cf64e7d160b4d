"""Values of the record room's tests."""

from dataclasses import replace

from rebalancerd.cluster.cost import Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.decision import CycleRecord, Decision, HostPressure, Outcome
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.migration import Completion, MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Alternative, Move, Plan, Score, Step
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Code, about_cluster, about_host, about_vm
from rebalancerd.cluster.units import GIB, MIB

NOW = 1_800_000_000.0
UUID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"


class FixedClock:
    """A clock that stands where it is put."""

    def __init__(self, wall: float = NOW) -> None:
        self.now = wall

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def cost(seconds: float = 10.0) -> MigrationCost:
    return MigrationCost(
        seconds=Estimate(value=seconds, upper=seconds * 2),
        downtime_seconds=Estimate(value=0.1, upper=0.2),
        bytes=Estimate(value=1e9, upper=float("inf")),
        slowdown=Estimate(value=0.1, upper=0.3),
        non_convergence=Estimate(value=0.0, upper=0.1),
        basis="physics",
        inputs_missing=("dirty",),
    )


def make_plan(plan_id: str = "p-1", **changes: object) -> Plan:
    move = Move(
        vm_uuid=UUID,
        vm_name="web1",
        source="h1",
        destination="h2",
        why="h1 is at 95 % CPU",
        cost=cost(),
        options=MigrationOptions(max_downtime_seconds=0.3),
        gain=120.0,
        payback_seconds=30.0,
        alternatives=(Alternative(vm_uuid=OTHER, vm_name="db1", destination="h3", score=5.0, reason="gains less"),),
        facts=(("vm.host", "h1"),),
    )
    plan = Plan(
        id=plan_id,
        policy="balance",
        created_at=NOW,
        expires_at=NOW + 300,
        snapshot_digest="d" * 16,
        steps=(Step(number=1, wave=1, move=move),),
        before=Score(total=200.0, unmet=180.0, imbalance=0.4),
        after=Score(total=80.0, unmet=60.0, imbalance=0.1, cost=3.0),
        why="relieves h1",
        hot_hosts=("h1",),
        refusals=(about_vm(Code.PINNED, OTHER, "pinned to h1", "h2"),),
    )
    return replace(plan, **changes)


KNOWN = MigrationFacts(
    memory_bytes=GIB,
    resident_bytes=768 * MIB,
    vcpus=2,
    vm_cpu_cores=0.5,
    dirty=DirtyCurve(
        points=tuple(
            DirtyPoint(period_seconds=t, unique_bytes=t * 8 * MIB, standard_error_bytes=float(MIB), readings=3)
            for t in (1.0, 8.0)
        ),
        age_seconds=60.0,
    ),
    link_bytes_per_second=125e6,
    link_share=0.5,
    options=MigrationOptions(max_downtime_seconds=0.3),
    source_cores=8.0,
    source_cpu_cores=7.5,
    destination_cores=8.0,
    destination_cpu_cores=1.0,
)


def knowing(plan: Plan) -> Plan:
    """The plan with what was known of its first move."""
    first, *rest = plan.steps
    return replace(plan, steps=(replace(first, move=replace(first.move, known=KNOWN)), *rest))


def make_migration(migration_id: str = "m-1", **changes: object) -> MigrationRecord:
    record = MigrationRecord(
        id=migration_id,
        vm_uuid=UUID,
        vm_name="web1",
        source="h1",
        destination="h2",
        state=MigrationState.INTENT,
        intent_at=NOW,
        plan_id="p-1",
        step=1,
        controller="test",
        epoch=1,
        predicted=cost(),
    )
    return replace(record, **changes)


def finished(record: MigrationRecord, state: MigrationState = MigrationState.SUCCEEDED) -> MigrationRecord:
    done = Completion(total_seconds=12.0, downtime_seconds=0.15, transferred_bytes=2 * 10**9, iterations=4)
    return replace(record, state=state, started_at=NOW + 1, ended_at=NOW + 13, completion=done, reason="runs on h2")


def make_cycle(**changes: object) -> CycleRecord:
    decision = Decision(
        plan_id="p-1",
        step=1,
        vm_uuid=UUID,
        vm_name="web1",
        source="h1",
        destination="h2",
        outcome=Outcome.REFUSED,
        refusal=about_host(Code.HOLD, "h1", "hot for 1 rounds, 3 needed"),
    )
    record = CycleRecord(
        id=0,
        started_at=NOW,
        seconds=0.25,
        mode=Mode.AUTO,
        policy="balance",
        outcome=Outcome.REFUSED,
        reason="hold 1/3",
        snapshot_digest="d" * 16,
        plan_id="p-1",
        hosts=(HostPressure(host="h1", cpu_now=0.95, cpu_p95=1.1, memory_now=None, memory_p95=None, vms=3),),
        hot_hosts=("h1",),
        moving=1,
        decisions=(decision,),
        refusals=(about_cluster(Code.PAUSED, "paused by me"), about_vm(Code.PINNED, OTHER, "pinned to h1", "h2")),
        step_seconds=(("observe", 0.1), ("plan", 0.15)),
    )
    return replace(record, **changes)
