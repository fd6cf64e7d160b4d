"""Laws of the guard: caps hold in any order, cooldowns only grow, a drain never passes a cap, nothing crashes."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.cost import Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.migration import OPEN_STATES, MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Move, Plan, Score, Step
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.snapshot import InFlight, Snapshot
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts
from rebalancerd.guard.checks import may_start, start_refusals
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.memory import recall
from rebalancerd.guard.settings import GuardSettings

NOW = 1_700_000_000.0
HOSTS = ("a", "b", "c", "d")
NOTHING = Estimate(value=0.0, upper=0.0)
COST = MigrationCost(
    seconds=NOTHING,
    downtime_seconds=NOTHING,
    bytes=NOTHING,
    slowdown=NOTHING,
    non_convergence=NOTHING,
    basis="physics",
)
UUIDS = tuple(f"v{i}" for i in range(10))
PLACE = {uuid: HOSTS[i % 4] for i, uuid in enumerate(UUIDS)}
CLUSTER = Snapshot(
    taken_at=NOW,
    hosts=tuple(Host(name=n, facts=HostFacts(uuid=n, cpus=4, memory_bytes=2**36)) for n in HOSTS),
    vms=tuple(
        Vm(facts=VmFacts(uuid=u, name=u, vcpus=1, memory_bytes=2**30), host=h, state=DomainState.RUNNING)
        for u, h in PLACE.items()
    ),
)

instants = st.one_of(st.floats(NOW - 10 * 86400, NOW + 86400), st.floats(NOW - 90_000, NOW))
records = st.lists(
    st.builds(
        lambda i, vm, source, destination, state, at, took, ours, reason: MigrationRecord(
            id=f"m{i}",
            vm_uuid=vm,
            vm_name=vm,
            source=source,
            destination=destination,
            state=state,
            intent_at=at,
            started_at=at,
            ended_at=None if state in OPEN_STATES else at + took,
            ours=ours,
            reason=reason,
        ),
        st.integers(0, 10**6),
        st.sampled_from(UUIDS[:2]),
        st.sampled_from(HOSTS),
        st.sampled_from(HOSTS),
        st.sampled_from(MigrationState),
        instants,
        st.floats(0, 900),
        st.booleans(),
        st.sampled_from(["", "libvirt_refused: x", "host died"]),
    ),
    max_size=12,
    unique_by=lambda r: r.id,
)
limits = st.builds(
    GuardSettings,
    out_per_host=st.integers(0, 3),
    in_per_host=st.integers(0, 3),
    per_cluster=st.integers(0, 5),
    per_hour=st.integers(0, 8),
)
moves = st.lists(
    st.tuples(st.sampled_from(UUIDS), st.sampled_from(HOSTS)), min_size=1, max_size=10, unique_by=lambda m: m[0]
)
foreign = st.lists(
    st.tuples(st.sampled_from(HOSTS), st.sampled_from((*HOSTS, None))).filter(lambda m: m[0] != m[1]), max_size=3
)


def plan_of(wanted, policy):
    steps = tuple(
        Step(
            number=i + 1,
            wave=1,
            move=Move(
                vm_uuid=uuid,
                vm_name=uuid,
                source=PLACE[uuid],
                destination=to,
                why="",
                cost=COST,
                options=MigrationOptions(),
                gain=1.0,
                payback_seconds=1.0,
            ),
        )
        for i, (uuid, to) in enumerate(wanted)
    )
    score = Score(total=1.0, unmet=1.0, imbalance=0.0)
    return Plan(
        id="p",
        policy=policy,
        created_at=NOW,
        expires_at=NOW + 300,
        snapshot_digest="",
        steps=steps,
        before=score,
        after=replace(score, total=0.1),
        why="",
        hot_hosts=(),
    )


def context(guard, *, in_flight=(), active=(), memory=None):
    return GuardContext(
        snapshot=replace(CLUSTER, in_flight=in_flight),
        now=NOW,
        settings=guard,
        memory=memory or recall((), operator=OperatorState(), now=NOW, settings=guard),
        operator=OperatorState(),
        mode=Mode.AUTO,
        holds=dict.fromkeys(HOSTS, 99),
        stale=(),
        active=active,
    )


def running(step):
    move = step.move
    return MigrationRecord(
        id=f"run{step.number}",
        vm_uuid=move.vm_uuid,
        vm_name="",
        source=move.source,
        destination=move.destination,
        state=MigrationState.RUNNING,
        intent_at=NOW,
    )


@given(limits, moves, foreign, st.sampled_from(["balance", "drain"]))
def test_caps_are_never_exceeded_in_any_order(guard, wanted, others, policy):
    jobs = tuple(InFlight(vm_uuid=f"x{i}", source=s, destination=d, ours=False) for i, (s, d) in enumerate(others))
    plan, active = plan_of(wanted, policy), ()
    for step in plan.steps:
        if may_start(context(guard, in_flight=jobs, active=active), plan, step) is None:
            active = (*active, running(step))
    if not active:
        return
    ends = [(j.source, j.destination) for j in jobs] + [(r.source, r.destination) for r in active]
    ours = {h for r in active for h in (r.source, r.destination)}
    assert len(ends) <= guard.per_cluster
    assert len(ends) <= guard.per_hour
    for r in active:
        assert sum(s == r.source for s, _ in ends) <= guard.out_per_host
        assert sum(d == r.destination for _, d in ends) <= guard.in_per_host
    assert all(r.source != r.destination for r in active)
    assert ours <= set(HOSTS)


@given(records, records)
def test_more_moves_never_shorten_a_cooldown(some, more):
    """Asked at any later instant: who rested with fewer moves rests with more."""
    guard = GuardSettings()
    union = list({r.id: r for r in [*more, *some]}.values())
    for later in (0.0, 1800.0, 7200.0, 86400.0, 2 * 86400.0):
        fewer = recall(some, operator=OperatorState(), now=NOW + later, settings=guard).resting
        with_more = recall(union, operator=OperatorState(), now=NOW + later, settings=guard).resting
        assert set(fewer) <= set(with_more)


@given(records, st.randoms())
def test_memory_does_not_depend_on_order(past, random):
    guard, shuffled = GuardSettings(), list(past)
    random.shuffle(shuffled)
    first, second = (recall(r, operator=OperatorState(), now=NOW, settings=guard) for r in (past, shuffled))
    assert first == second


@given(records, limits, moves, st.sampled_from(["balance", "drain"]))
@settings(max_examples=60)
def test_every_reason_is_a_known_code_and_a_drain_ignores_only_rest(past, guard, wanted, policy):
    memory = recall(past, operator=OperatorState(), now=NOW, settings=guard)
    ctx = context(guard, memory=memory, active=tuple(r for r in past if r.state.is_open))
    plan = plan_of(wanted, policy)
    for step in plan.steps:
        codes = {r.code for r in start_refusals(ctx, plan, step)}
        assert codes <= set(Code)
        if policy == "drain":
            assert not codes & {Code.COOLDOWN, Code.REVERSE_MOVE, Code.HOLD, Code.GAIN_TOO_SMALL, Code.PAYBACK_TOO_LONG}
            as_balance = replace(plan, policy="balance")
            assert codes <= {r.code for r in start_refusals(ctx, as_balance, as_balance.step(step.number))}
