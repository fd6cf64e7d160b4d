"""The loop on the simulator's ports, in virtual time: its record, its plans and approvals, and what a failure costs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from rebalancerd.cluster.cost import Candidate, Estimate, MigrationCost
from rebalancerd.cluster.decision import CommandKind, CycleRecord, Outcome
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode, VmPolicy
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.guard.settings import GuardSettings, PolicyWindow
from rebalancerd.loop import BUGS_IN_A_ROW, Loop, LoopSettings
from rebalancerd.plan.facts import move_facts
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.sim.adapters import Reach
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.disasters import relocate
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.transfer import PlannedFailure
from rebalancerd.sim.world import World

NEVER = 1e9  # the world itself decides nothing: each test calls the loop
READY_SECONDS = 20.0
AT_ONCE = GuardSettings(hold_rounds=0)


def guest(name: str, host: str, cores: float, rss_gib: int = 3) -> VmSpec:
    return VmSpec(
        name=name,
        host=host,
        rss_bytes=rss_gib * GIB,
        demand=Demand(base=cores),
        dirty_bytes_per_second=2.0 * MIB,
        working_set_bytes=64.0 * MIB,
    )


def spec(mode: Mode, hot: tuple[str, ...], cool: tuple[str, ...], guard: GuardSettings, busy_on_each: int) -> WorldSpec:
    """Busy guests on each hot host, a quiet one on each cool one."""
    busy = tuple(guest(f"{h}-{n}", h, 1.8, 2 if n == 1 else 3) for h in hot for n in range(1, busy_on_each + 1))
    hosts = tuple(HostSpec(name=h, cpus=8, memory_bytes=32 * GIB) for h in (*hot, *cool))
    vms = busy + tuple(guest(f"calm-{h}", h, 0.5) for h in cool)
    return WorldSpec(cluster=ClusterSpec(hosts=hosts, vms=vms), mode=mode, decide_seconds=NEVER, guard=guard)


class Bench:
    """A simulated world and a loop on it whose cycles the test calls itself."""

    def __init__(self, told: WorldSpec) -> None:
        self.world = World(told)
        self.loop = self.make_loop()
        self.wait(READY_SECONDS)

    def make_loop(self, **other: Any) -> Loop:
        """The loop as the daemon builds it, parts replaced by ``other``."""
        world, told = self.world, self.world.spec
        parts: dict[str, Any] = {
            "observer": world.observer,
            "demand": PersistenceDemand(told.predict),
            "costs": PhysicsCost(told.predict),
            "ledger": world.ledger,
            "clock": world.clock,
            "settings": LoopSettings(mode=told.mode, plan=told.plan, guard=told.guard),
            "executor": world.executor,
            "lease": world.lease,
            "pause_file": lambda: world.pause_reason,
        }
        return Loop(**{**parts, **other})

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.clock.monotonic() + seconds)

    def cycle(self, seconds: float = 40.0) -> CycleRecord:
        """Time passes, then one cycle."""
        self.wait(seconds)
        return self.again()

    def again(self) -> CycleRecord:
        """One more cycle at the same instant."""
        written = self.world.ledger.cycles_written
        record = self.loop.iterate()
        self.world.invariants.cycles_run += self.world.ledger.cycles_written - written
        return record

    def command(self, kind: CommandKind, plan: Plan | None = None, **words: Any) -> None:
        about = {} if plan is None else {"subject": plan.id, "digest": plan.digest}
        self.world.ledger.add_command(kind, at=self.world.clock.wall(), by="operator", **{**about, **words})

    def plan_of(self, record: CycleRecord) -> Plan:
        assert record.plan_id is not None
        plan = self.world.ledger.plan(record.plan_id)
        assert plan is not None
        return plan

    @property
    def migrations(self) -> tuple[MigrationRecord, ...]:
        return self.world.ledger.migrations()

    @property
    def recorded(self) -> int:
        return len(self.world.ledger.cycles(limit=1000))


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    """Tracebacks of the failures that are made on purpose are not rendered, which takes seconds."""
    with capture_logs():
        yield


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(
        mode: Mode = Mode.AUTO,
        *,
        hot: tuple[str, ...] = ("a",),
        cool: tuple[str, ...] = ("b", "c"),
        guard: GuardSettings = AT_ONCE,
        busy: int = 4,
    ) -> Bench:
        made.append(Bench(spec(mode, hot, cool, guard, busy)))
        return made[-1]

    yield make
    for bench in made:
        bench.world.close()


class Broken:
    """A demand model with a bug that can be switched off."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.broken = inner, True
        self.forecaster = NAIVE["persistence"]

    def scenarios(self, *words: Any) -> Any:
        if self.broken:
            raise ZeroDivisionError("a bug")
        return self.inner.scenarios(*words)


def codes(record: CycleRecord) -> set[Code]:
    refused = {d.refusal.code for d in record.decisions if d.refusal is not None}
    return refused | {refusal.code for refusal in record.refusals}


# what a failure costs


def test_a_bug_costs_its_cycle_only_and_leaves_one_record(make_bench: Callable[..., Bench]) -> None:
    """The failed cycle is recorded as failed, with the bug named; the next one works."""
    bench = make_bench()
    demand = Broken(PersistenceDemand(bench.world.spec.predict))
    bench.loop = bench.make_loop(demand=demand)

    failed = bench.cycle()
    demand.broken = False
    fine = bench.cycle()

    assert failed.outcome is Outcome.FAILED
    assert "ZeroDivisionError: a bug" in failed.reason
    assert failed.id > 0
    assert fine.outcome is Outcome.STARTED
    assert bench.recorded == 2


def test_three_bugs_in_a_row_disarm_until_an_operator_resumes(make_bench: Callable[..., Bench]) -> None:
    """Two do not disarm. After the third nothing starts although all works again, until `resume`, not one from before."""
    bench = make_bench()
    demand = Broken(PersistenceDemand(bench.world.spec.predict))
    bench.loop = bench.make_loop(demand=demand, settings=replace(bench.loop.settings, mode=Mode.RECOMMEND))
    bench.command(CommandKind.RESUME)
    for _ in range(BUGS_IN_A_ROW - 1):
        bench.cycle()
    demand.broken = False
    assert Code.PAUSED not in codes(bench.cycle())
    demand.broken = True
    bench.cycle()
    demand.broken = False
    assert Code.PAUSED not in codes(bench.cycle()), "three in a row, not three in all"

    demand.broken = True
    bench.loop.settings = replace(bench.loop.settings, mode=Mode.AUTO)
    for _ in range(BUGS_IN_A_ROW):
        bench.cycle()
    demand.broken = False
    disarmed = [bench.cycle(), bench.cycle()]
    assert all(Code.PAUSED in codes(record) for record in disarmed)
    assert "rebalancerd resume" in disarmed[-1].reason
    assert bench.migrations == ()

    bench.command(CommandKind.RESUME)
    assert bench.cycle().outcome is Outcome.STARTED


def test_without_the_ledger_nothing_starts_and_the_next_cycle_is_fine(make_bench: Callable[..., Bench]) -> None:
    """No intent can be written, so nothing moves; no crash; once it writes again the move starts."""
    bench = make_bench()
    bench.world.ledger.full = True
    stopped = bench.cycle()
    assert (stopped.id, stopped.outcome) == (0, Outcome.NO_ACTION)
    assert Code.LEDGER_UNAVAILABLE in codes(stopped)
    assert bench.world.write.calls == []

    bench.world.ledger.full = False
    assert bench.cycle().outcome is Outcome.STARTED
    assert bench.recorded == 1


def test_a_ledger_that_fails_after_a_start_does_not_hide_it(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the cycle is to be recorded: the cycle cannot be, but what it says is that it started a move."""
    bench = make_bench()
    migrate = bench.world.write.migrate

    def then_full(record: MigrationRecord) -> Any:
        handle = migrate(record)
        bench.world.ledger.full = True
        return handle

    monkeypatch.setattr(bench.world.write, "migrate", then_full)
    record = bench.cycle()

    assert record.outcome is Outcome.STARTED
    assert [d.outcome for d in record.decisions] == [Outcome.STARTED]
    assert Code.LEDGER_UNAVAILABLE in codes(record)
    bench.world.ledger.full = False


def test_a_bug_after_a_start_does_not_hide_it(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps, the second one's start has a bug: the failed cycle's record still names the first."""
    bench = make_bench(hot=("a", "b"), cool=("c", "d"))
    executor = bench.world.executor
    assert executor is not None
    start, asked = executor.start, []

    def second_fails(*words: Any, **more: Any) -> Any:
        asked.append(words)
        if len(asked) > 1:
            raise ZeroDivisionError("a bug")
        return start(*words, **more)

    monkeypatch.setattr(executor, "start", second_fails)
    record = bench.cycle()

    assert record.outcome is Outcome.FAILED
    assert [d.outcome for d in record.decisions] == [Outcome.STARTED]
    assert len(bench.migrations) == 1
    assert bench.world.ledger.cycles(limit=1)[0] == record


def test_each_cycle_leaves_exactly_one_record(make_bench: Callable[..., Bench]) -> None:
    """Warming up, refused, started, moving, balanced, paused and failed: one record each, numbered in their order."""
    bench = make_bench(guard=GuardSettings(hold_rounds=2))
    records = [bench.cycle() for _ in range(4)]
    bench.command(CommandKind.PAUSE)
    records.append(bench.cycle())
    bench.loop = bench.make_loop(demand=Broken(None))
    records.append(bench.cycle())

    assert [r.outcome.value for r in records] == ["refused", "started", "no_action", "no_action", "no_action", "failed"]
    assert [r.id for r in records] == [1, 2, 3, 4, 5, 6]
    assert [r.id for r in bench.world.ledger.cycles(limit=100)] == [6, 5, 4, 3, 2, 1]
    assert all(r.reason for r in records)


# plans and approvals


def test_a_guarded_plan_keeps_its_digest_while_its_facts_hold(make_bench: Callable[..., Bench]) -> None:
    """Loads change, the plan that waits does not: or no approval could ever match it."""
    bench = make_bench(Mode.GUARDED)
    first = bench.cycle()
    world = bench.world
    world.cluster.guests.demand.base[world.cluster.rows[world.cluster.named("calm-b")]] = 1.5
    world.cluster.changed()
    later = [bench.cycle(), bench.cycle()]

    assert {r.plan_id for r in later} == {first.plan_id}
    assert {bench.plan_of(r).digest for r in later} == {bench.plan_of(first).digest}
    assert [d.refusal.code for r in later for d in r.decisions if d.refusal] == [Code.NOT_APPROVED] * 2
    assert all(r.outcome is Outcome.PROPOSED for r in (first, *later))
    assert bench.migrations == ()


class OnlyThrottled:
    """A cost model; once ``hard``, no migration converges without auto-converge."""

    def __init__(self) -> None:
        self.hard = False

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> tuple[MigrationCost, ...]:
        return tuple(
            MigrationCost(
                seconds=Estimate(value=10.0, upper=20.0),
                downtime_seconds=Estimate(value=0.1, upper=0.2),
                bytes=Estimate(value=1e9, upper=2e9),
                slowdown=Estimate(value=0.1, upper=0.2),
                non_convergence=Estimate(value=0.0, upper=1.0 if self.hard and not c.options.auto_converge else 0.1),
                basis="physics",
            )
            for c in candidates
        )


def test_a_plan_whose_moves_need_other_options_now_is_a_new_one(make_bench: Callable[..., Bench]) -> None:
    """The same VM to the same host: while nothing else differs the plan is the old one, with other options it is not."""
    bench = make_bench(Mode.RECOMMEND)
    cluster = bench.world.cluster
    for uuid, guest_spec in cluster.vms.items():
        cluster.vms[uuid] = replace(guest_spec, policy=VmPolicy(auto_converge=True))
    for on in cluster.hosts.values():
        for domain in on.domains.values():
            domain.facts = None
    costs = OnlyThrottled()
    bench.loop = bench.make_loop(costs=costs)
    first, second = bench.cycle(), bench.cycle()
    costs.hard = True
    third = bench.cycle()

    assert first.plan_id == second.plan_id
    (before,), (after,) = bench.plan_of(second).steps, bench.plan_of(third).steps
    assert (after.move.vm_uuid, after.move.destination) == (before.move.vm_uuid, before.move.destination)
    assert (before.move.options.auto_converge, after.move.options.auto_converge) == (False, True)


def test_a_guarded_plan_is_dropped_when_a_fact_changes(make_bench: Callable[..., Bench]) -> None:
    """Somebody moved the VM: the plan that waits is gone, and its approval starts nothing."""
    bench = make_bench(Mode.GUARDED)
    old = bench.plan_of(bench.cycle())
    move = old.steps[0].move
    relocate(bench.world.cluster, move.vm_uuid, "c" if move.destination == "b" else "b")
    bench.command(CommandKind.APPROVE, old)
    record = bench.cycle()

    assert record.plan_id != old.id
    assert bench.migrations == ()


def test_a_guarded_plan_is_dropped_when_it_expires(make_bench: Callable[..., Bench]) -> None:
    """A new plan takes its place once it is past its expiry, and the approval of the old one does not count."""
    bench = make_bench(Mode.GUARDED)
    old = bench.plan_of(bench.cycle())
    bench.command(CommandKind.APPROVE, old)
    record = bench.cycle(old.expires_at - bench.world.clock.wall() + 1)

    assert record.plan_id != old.id
    assert record.outcome is Outcome.PROPOSED
    assert bench.migrations == ()


def test_approving_one_step_starts_that_step_once(make_bench: Callable[..., Bench]) -> None:
    """Of two steps that could both start only the approved one does, and never a second time, even if it failed."""
    bench = make_bench(Mode.GUARDED, hot=("a", "b"), cool=("c", "d"))
    plan = bench.plan_of(bench.cycle())
    assert [s.wave for s in plan.steps] == [1, 1]
    bench.command(CommandKind.APPROVE, plan, step=2)
    started = bench.cycle()

    assert [(d.step, d.outcome) for d in started.decisions] == [(1, Outcome.PROPOSED), (2, Outcome.STARTED)]
    later = [bench.cycle(), bench.cycle()]
    assert all([(d.step, d.outcome) for d in r.decisions] == [(1, Outcome.PROPOSED)] for r in later)
    (only,) = bench.migrations
    assert (only.plan_id, only.step, only.state) == (plan.id, 2, MigrationState.SUCCEEDED)


def test_a_failed_step_is_not_started_again_by_the_same_approval(make_bench: Callable[..., Bench]) -> None:
    """The migration failed and the VM stands where it stood: the approval is used up all the same."""
    bench = make_bench(Mode.GUARDED)
    plan = bench.plan_of(bench.cycle())
    failure = PlannedFailure(38, "internal error: scripted failure", 0.5)
    bench.world.cluster.migrations.failures.setdefault("*", []).append(failure)
    bench.command(CommandKind.APPROVE, plan)
    assert bench.cycle().outcome is Outcome.STARTED
    for _ in range(5):
        bench.cycle()

    (only,) = bench.migrations
    assert only.state is MigrationState.FAILED


def test_a_rejected_step_never_starts(make_bench: Callable[..., Bench]) -> None:
    """Rejected after it was approved: the last word counts, and the other step goes on."""
    bench = make_bench(Mode.GUARDED, hot=("a", "b"), cool=("c", "d"))
    plan = bench.plan_of(bench.cycle())
    bench.command(CommandKind.APPROVE, plan)
    bench.command(CommandKind.REJECT, plan, step=1, reason="not that one")
    records = [bench.cycle() for _ in range(3)]

    assert [m.step for m in bench.migrations] == [2]
    assert Code.REJECTED in codes(records[0])
    assert "not that one" in str([d.refusal for d in records[0].decisions])


def test_an_approval_for_one_digest_never_counts_for_another_plan(make_bench: Callable[..., Bench]) -> None:
    """The plan's own id with another digest, and the digest of another plan: nothing starts."""
    bench = make_bench(Mode.GUARDED)
    plan = bench.plan_of(bench.cycle())
    other = replace(plan, id="p-other", why="another one")
    bench.world.ledger.record_plan(other)
    bench.command(CommandKind.APPROVE, plan, digest=other.digest)
    bench.command(CommandKind.APPLY, other, digest="0" * len(plan.digest))
    bench.command(CommandKind.APPROVE, plan, digest=plan.digest[:-1] + ("0" if plan.digest[-1] != "0" else "1"))
    bench.command(CommandKind.APPROVE, plan, digest=None)
    record = bench.cycle()

    assert record.outcome is Outcome.PROPOSED
    assert record.plan_id == plan.id
    assert bench.migrations == ()


def test_an_applied_plan_is_followed_instead_of_a_new_one(make_bench: Callable[..., Bench]) -> None:
    """An operator's plan, with a destination that the planner did not choose: that one is carried out, the waiting one not."""
    bench = make_bench(Mode.GUARDED)
    waiting = bench.plan_of(bench.cycle())
    step = waiting.steps[0]
    elsewhere = "c" if step.move.destination == "b" else "b"
    assert bench.loop.view is not None
    facts = move_facts(bench.loop.view.snapshot, step.move.vm_uuid, elsewhere)
    move = replace(step.move, destination=elsewhere, facts=facts)
    made = replace(waiting, id="p-by-hand", steps=(replace(step, move=move),))
    bench.world.ledger.record_plan(made)
    bench.command(CommandKind.APPLY, made)
    record = bench.cycle()

    assert (record.plan_id, record.outcome) == ("p-by-hand", Outcome.STARTED)
    assert [(m.plan_id, m.vm_uuid, m.destination) for m in bench.migrations] == [("p-by-hand", move.vm_uuid, elsewhere)]


def test_recommend_mode_follows_no_approval(make_bench: Callable[..., Bench]) -> None:
    """Whatever is approved or applied, there is no executor and nothing starts."""
    bench = make_bench(Mode.RECOMMEND)
    plan = bench.plan_of(bench.cycle())
    bench.command(CommandKind.APPROVE, plan)
    bench.command(CommandKind.APPLY, plan)
    record = bench.cycle()

    assert record.outcome is Outcome.PROPOSED
    assert Code.CLUSTER_MODE in codes(record)
    assert bench.world.write.calls == []


def test_a_mode_that_acts_needs_an_executor(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    with pytest.raises(ValueError, match="needs an executor"):
        bench.make_loop(executor=None)


# drain


def test_drain_goes_before_balance_and_ignores_cooldown(make_bench: Callable[..., Bench]) -> None:
    """A host is hot and another is to be drained: the drain goes first, and takes the VM that rests from its last move."""
    bench = make_bench()
    assert bench.cycle().outcome is Outcome.STARTED
    (moved,) = bench.migrations
    bench.wait(60)
    world = bench.world
    for name in ("a-2", "a-3", "a-4"):
        uuid = world.cluster.named(name)
        if world.cluster.running_on(uuid) == "a":
            world.cluster.guests.demand.base[world.cluster.rows[uuid]] = 2.0
    world.cluster.guests.demand.base[world.cluster.rows[world.cluster.named("calm-c")]] = 1.0
    world.cluster.changed()
    bench.command(CommandKind.DRAIN, subject=moved.destination)
    records = [bench.cycle(90) for _ in range(4)]

    assert records[0].policy == "drain"
    assert all(m.source == moved.destination for m in bench.migrations[:-1])
    assert moved.vm_uuid in {m.vm_uuid for m in bench.migrations[:-1]}
    assert world.observer is not None
    assert not [v for v in world.cluster.vms if world.cluster.running_on(v) == moved.destination]


def test_a_drain_does_not_wait_behind_a_balance_plan_that_nobody_approves(make_bench: Callable[..., Bench]) -> None:
    """In guarded mode a plan that waits is kept, but an operator's drain of a host it does not touch comes before it."""
    bench = make_bench(Mode.GUARDED, cool=("b", "c", "d"))
    waiting = bench.plan_of(bench.cycle())
    move = waiting.steps[0].move
    (untouched, *_) = (h for h in ("b", "c", "d") if h != move.destination)
    bench.command(CommandKind.DRAIN, subject=untouched)
    first, second = bench.cycle(), bench.cycle()

    assert (waiting.policy, first.policy) == ("balance", "drain")
    assert {d.source for d in first.decisions} == {untouched}
    assert second.plan_id == first.plan_id, "the drain plan is kept in its turn, so that it can be approved"


# data


@pytest.mark.parametrize("code", [Code.WARMING_UP, Code.TELEMETRY_INSANE, Code.CLUSTER_PARTLY_UNKNOWN])
def test_data_that_cannot_be_trusted_stop_planning(make_bench: Callable[..., Bench], code: Code) -> None:
    """No plan is made or kept, one record says why; propose() refuses with the same reason."""
    bench = make_bench()
    if code is Code.WARMING_UP:
        bench.world.kill_daemon()
        bench.world.start_daemon()
        bench.loop = bench.make_loop()
        seconds = 0.0
    elif code is Code.TELEMETRY_INSANE:
        bench.world.cluster.guests.demand.base[:] = 0.0  # of every guest at once
        bench.world.cluster.changed()
        seconds = 20.0
    else:
        for host in ("b", "c"):
            bench.world.wires.set_reach(host, Reach.REFUSED)
        seconds = 100.0
    record = bench.cycle(seconds)

    assert record.outcome is Outcome.NO_ACTION
    assert [r.code for r in record.refusals] == [code]
    assert record.plan_id is None
    assert record.reason.startswith(code.value)
    assert bench.migrations == ()
    with pytest.raises(ValueError, match=code.value):
        bench.loop.propose()


def test_propose_starts_nothing_and_records_no_cycle(make_bench: Callable[..., Bench]) -> None:
    """Its plan is in the ledger, so that it can be applied; view, holds and the plan that is followed stay."""
    bench = make_bench(guard=GuardSettings(hold_rounds=2))
    plans = [bench.loop.propose() for _ in range(5)]

    assert plans[0].steps
    assert bench.world.ledger.plan(plans[0].id) == plans[0]
    assert len({plan.digest for plan in plans}) == 1
    assert (bench.recorded, bench.migrations, bench.loop.view) == (0, (), None)
    assert Code.HOLD in codes(bench.again()), "proposing five times is not being hot for a single round"


# hold


def test_holds_count_rounds_in_a_row(make_bench: Callable[..., Bench]) -> None:
    """Hot, hot, cool, hot, hot: two in a row are not three; the third in a row starts the move."""
    bench = make_bench(guard=GuardSettings(hold_rounds=3))
    world = bench.world
    rows = [world.cluster.rows[world.cluster.named(f"a-{n}")] for n in range(1, 5)]

    def load(cores: float) -> None:
        world.cluster.guests.demand.base[rows] = cores
        world.cluster.changed()

    said = []
    for cores in (1.8, 1.8, 0.2, 1.8, 1.8, 1.8):
        load(cores)
        record = bench.cycle(120)
        said.append((record.outcome.value, bool(record.hot_hosts)))

    assert said == [
        ("refused", True),
        ("refused", True),
        ("no_action", False),
        ("refused", True),
        ("refused", True),
        ("started", True),
    ]


def test_a_relieved_host_must_be_hot_anew(make_bench: Callable[..., Bench]) -> None:
    """A start resets its source's rounds: its last sample still holds what has just left it."""
    guard = GuardSettings(hold_rounds=2, per_cluster=4, out_per_host=4, in_per_host=4)
    bench = make_bench(guard=guard, busy=6)
    outcomes = [bench.cycle().outcome, bench.cycle().outcome]
    third = bench.again()

    assert outcomes == [Outcome.REFUSED, Outcome.STARTED]
    assert third.hot_hosts == ("a",)
    assert third.outcome is Outcome.REFUSED
    assert Code.HOLD in codes(third)


# pause


def test_a_pause_in_the_middle_of_a_cycle_stops_its_next_step(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause file appears while the first of two steps is being started: the second is refused."""
    bench = make_bench(hot=("a", "b"), cool=("c", "d"))
    migrate = bench.world.write.migrate

    def then_paused(record: MigrationRecord) -> Any:
        bench.world.pause_reason = "pause file exists"
        return migrate(record)

    monkeypatch.setattr(bench.world.write, "migrate", then_paused)
    record = bench.cycle()

    assert [d.outcome for d in record.decisions] == [Outcome.STARTED, Outcome.REFUSED]
    assert Code.PAUSED in codes(record)
    assert len(bench.migrations) == 1


NIGHT = PolicyWindow(start="0 20 * * *", end="0 6 * * *", unfold_seconds=1800, name="night")


@pytest.mark.parametrize(
    ("hour", "policy", "horizon"),
    [
        (12, "balance", 0.5),
        (20, "consolidate", 10),
        (4, "consolidate", 2),
        (5.75, "balance", 1.25),
        (6, "balance", 0.5),
    ],
)
def test_the_window_says_by_which_policy_and_how_far_ahead_is_planned(hour, policy, horizon):
    guard = GuardSettings(policy_windows=(NIGHT,), hold_rounds=0)
    midnight = 20_000 * 86_400.0
    told = spec(Mode.RECOMMEND, ("a",), ("b",), guard, 1)
    bench = Bench(replace(told, start_wall=midnight + hour * 3600))
    inputs = bench.loop.look()
    bench.world.close()
    assert inputs.policy_now == policy
    assert inputs.scenarios.horizon_seconds == pytest.approx(horizon * 3600, abs=60)
    assert inputs.window_seconds == (pytest.approx(horizon * 3600, abs=60) if policy == "consolidate" else None)


@pytest.mark.parametrize(
    ("morning", "gone", "looks"),
    [(-60.0, True, True), (3600.0, True, True), (None, True, False), (3599.0, False, False), (3600.0, False, False)],
)
def test_the_day_is_looked_at_where_vms_cannot_go_home(make_bench, morning, gone, looks):
    bench = make_bench(mode=Mode.RECOMMEND)
    bench.wait(READY_SECONDS)
    snapshot = bench.loop.look().snapshot
    vm, elsewhere = snapshot.vms[0], next(h.name for h in snapshot.hosts if h.name != snapshot.vms[0].host)
    homes = {vm.uuid: "removed" if gone else elsewhere}
    inputs = bench.make_loop(homes=lambda _: homes, morning=lambda _: morning).look()
    assert inputs.homes == homes
    assert inputs.homes_may_return is (morning is not None and morning < 3600.0)
    assert (inputs.day is not None) is looks
    if inputs.day is not None:
        assert inputs.day.horizon_seconds == pytest.approx(86_400.0)
    assert bench.make_loop(morning=lambda _: morning).look().day is None, "nobody is away"


def test_long_forecasts_read_history_in_reference_cores(make_bench, monkeypatch):
    """Hours that a VM spent on a fast host count for more than the same cores on a slow one."""
    bench = make_bench(mode=Mode.RECOMMEND)
    bench.wait(READY_SECONDS)
    snapshot, observer = bench.loop.look().snapshot, bench.world.observer
    vm, other = snapshot.vms[0], next(h.name for h in snapshot.hosts if h.name != snapshot.vms[0].host)
    end, read, seen = 20_000 * 86_400.0, observer.snapshot, []
    hours = Series(
        resource="vm_cpu_cores", ids=(vm.uuid,), values=np.ones((4, 1), dtype=np.float32), step_seconds=3600.0, end=end
    )

    def faster(**told):
        found = read(**told)
        hosts = (replace(h, speed_factor=2.0) if h.name == other else h for h in found.hosts)
        return replace(found, hosts=tuple(hosts))

    def over(near, at, cpu, memory, seconds):
        seen.append(cpu.values[:, 0].tolist())
        return replace(near, basis="longer")

    monkeypatch.setattr("rebalancerd.loop.over_window", over)
    monkeypatch.setattr(observer, "snapshot", faster)
    monkeypatch.setattr(
        observer, "series", lambda resource, tier=0, was=observer.series: hours if tier else was(resource)
    )
    monkeypatch.setattr(
        observer, "stays", lambda: Stays({vm.uuid: ((0.0, vm.host), (end - 7200.0, other), (end, vm.host))})
    )
    bench.loop.look(86_400.0)
    assert seen == [[1.0, 1.0, 2.0, 2.0]]


class Turns:
    """A lease that several controllers take in turn."""

    epoch = 3

    def __init__(self) -> None:
        self.mine = False

    def held(self) -> bool:
        return self.mine

    @property
    def standby(self) -> bool:
        return not self.mine


def test_a_standby_watches_and_records_nothing(make_bench: Callable[..., Bench]) -> None:
    """Its cycles are not the ledger's, it starts nothing, and what the leader moves is not foreign to it."""
    bench, turns = make_bench(), Turns()
    led = bench.cycle()  # the leader, with the same ledger, begins a move
    assert led.outcome is Outcome.STARTED
    standby = bench.make_loop(lease=turns, executor=None, settings=replace(bench.loop.settings, mode=Mode.RECOMMEND))
    recorded = bench.recorded

    record = standby.iterate()

    assert (record.id, record.outcome, record.plan_id) == (0, Outcome.NO_ACTION, None)
    assert "stands by" in record.reason
    assert bench.recorded == recorded
    assert standby.view is not None
    assert [flight.ours for flight in standby.view.snapshot.in_flight] == [True]
    assert standby.view.plan is None


def test_a_standby_plans_from_its_first_cycle_as_leader(make_bench: Callable[..., Bench]) -> None:
    bench, turns = make_bench(mode=Mode.RECOMMEND), Turns()
    loop = bench.make_loop(lease=turns)
    bench.wait(40.0)
    loop.iterate()
    turns.mine = True
    recorded = bench.recorded

    record = loop.iterate()
    bench.world.invariants.cycles_run += 1

    assert record.outcome is Outcome.PROPOSED
    assert bench.recorded == recorded + 1
