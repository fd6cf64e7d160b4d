"""Each check refuses for its own reason, and lets pass what it should."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.decision import CommandKind, OperatorState
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.plan import Plan, Score, Step
from rebalancerd.cluster.policy import HostMode, Mode, Owner, VmPolicy
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.snapshot import Doubled, InFlight
from rebalancerd.cluster.vm import DomainState
from rebalancerd.guard.checks import may_plan, may_start, start_refusals
from rebalancerd.guard.settings import GuardSettings, Window
from rebalancerd.guard.step_checks import REST_CHECKS, STEP_CHECKS

ALWAYS = Window(start="00:00", end="24:00", name="backup")
NEVER = Window(start="00:00", end="24:00", days=(), name="night")


def code(refusal):
    return None if refusal is None else refusal.code


def start(ctx, plan, number=1):
    return code(may_start(ctx, plan, plan.step(number)))


def test_nothing_in_the_way(make):
    assert may_plan(make.context()) is None
    assert start(make.context(), make.plan()) is None


class TestCycle:
    """Reasons why a cycle may start nothing, and so no step either."""

    def check(self, make, expected, **kw):
        ctx = make.context(**kw)
        assert code(may_plan(ctx)) is expected
        assert start(ctx, make.plan()) is expected

    def test_warming_up(self, make):
        ctx = make.with_snapshot(make.context(), warming_up=True)
        assert code(may_plan(ctx)) is Code.WARMING_UP

    def test_frozen(self, make):
        ctx = make.with_snapshot(make.context(), frozen="70 % of the VMs fell to zero")
        assert may_plan(ctx).detail == "70 % of the VMs fell to zero"
        assert code(may_plan(ctx)) is Code.TELEMETRY_INSANE

    def test_too_many_hosts_unusable(self, make):
        hosts = (make.host("a", unusable="stale"), make.host("b", unusable="stale"), make.host("c"))
        assert code(may_plan(make.with_snapshot(make.context(), hosts=hosts))) is Code.CLUSTER_PARTLY_UNKNOWN

    def test_one_of_three_unusable_is_let_through(self, make):
        hosts = (make.host("a"), make.host("b"), make.host("c", unusable="stale"))
        assert may_plan(make.with_snapshot(make.context(), hosts=hosts)) is None

    def test_hosts_in_observe_mode_do_not_count(self, make):
        hosts = (make.host("a"), make.host("b", unusable="x", mode=HostMode.OBSERVE), make.host("c"))
        assert may_plan(make.with_snapshot(make.context(), hosts=hosts)) is None

    def test_no_hosts_at_all(self, make):
        ctx = make.with_snapshot(make.context(), hosts=(), vms=())
        assert code(may_plan(ctx)) is Code.CLUSTER_PARTLY_UNKNOWN

    def test_a_vm_that_runs_twice(self, make):
        ctx = make.context()
        twice = (Doubled(vm_uuid=ctx.snapshot.vms[0].uuid, hosts=("a", "b")),)
        refusal = may_plan(make.with_snapshot(ctx, doubled=twice))
        assert refusal.code is Code.DUPLICATE_VM
        assert refusal.detail.endswith(f"'{ctx.snapshot.vms[0].name}' on a and b")

    def test_lease(self, make):
        self.check(make, Code.LEASE_LOST, lease_held=False)

    def test_pause_file(self, make):
        self.check(make, Code.PAUSED, pause_reason="/run/rebalancerd/pause exists")

    def test_pause_command_and_its_end(self, make):
        paused = OperatorState(paused=make.command(CommandKind.PAUSE, until=make.NOW + 1, reason="upgrade"))
        self.check(make, Code.PAUSED, operator=paused)
        assert may_plan(make.context(operator=paused, now=make.NOW + 1)) is None

    def test_breaker(self, make):
        memory = make.remember(make.record(MigrationState.DUPLICATED))
        self.check(make, Code.BREAKER_OPEN, memory=memory)

    def test_blackout(self, make):
        self.check(make, Code.BLACKOUT, settings=GuardSettings(blackouts=(ALWAYS,)))

    def test_outside_all_windows(self, make):
        self.check(make, Code.OUTSIDE_WINDOW, settings=GuardSettings(windows=(NEVER,)))
        assert may_plan(make.context(settings=GuardSettings(windows=(NEVER, ALWAYS)))) is None

    def test_an_unknown_zone_forbids(self, make):
        self.check(make, Code.OUTSIDE_WINDOW, settings=GuardSettings(windows=(ALWAYS,), timezone="Mars/Olympus"))
        self.check(make, Code.BLACKOUT, settings=GuardSettings(blackouts=(NEVER,), timezone="Mars/Olympus"))


class TestPlan:
    """Reasons in the plan itself."""

    def test_expired(self, make):
        assert start(make.context(), make.plan(expires_at=make.NOW)) is Code.PLAN_EXPIRED
        assert start(make.context(), make.plan(expires_at=float("nan"))) is Code.PLAN_EXPIRED

    def test_from_the_future(self, make):
        plan = make.plan(created_at=make.NOW + 3600, expires_at=make.NOW + 7200)
        assert start(make.context(), plan) is Code.PLAN_EXPIRED

    def test_facts_changed(self, make):
        refusal = may_start(make.context(stale=("vm memory 1 GiB, was 2",)), make.plan(), make.plan().step(1))
        assert refusal.code is Code.PLAN_STALE
        assert "was 2" in refusal.detail

    def test_facts_not_compared(self, make):
        assert start(make.context(stale=None), make.plan()) is Code.PLAN_STALE

    def test_a_step_that_is_not_the_plans(self, make):
        other = Step(number=1, wave=1, move=make.move(destination="c"))
        assert code(may_start(make.context(), make.plan(), other)) is Code.PLAN_STALE

    def test_a_step_starts_once(self, make):
        assert start(make.context(used_steps=frozenset({("p1", 1)})), make.plan()) is Code.PLAN_STALE
        assert start(make.context(used_steps=frozenset({("p0", 1), ("p1", 2)})), make.plan()) is None

    @pytest.mark.parametrize(
        ("state", "expected"),
        [(None, Code.EARLIER_WAVE), (MigrationState.FAILED, Code.EARLIER_WAVE), (MigrationState.SUCCEEDED, None)],
    )
    def test_later_waves_wait_for_success(self, make, state, expected):
        steps = (
            Step(number=1, wave=1, move=make.move("w", "b", "c")),
            Step(number=2, wave=2, move=make.move()),
        )
        # the first step went from b to c, so that b is blamed for nothing
        past = [] if state is None else [make.record(state, vm="w", source="b", destination="c", plan_id="p1", step=1)]
        assert start(make.context(memory=make.remember(*past)), make.plan(*steps), 2) is expected


class TestModes:
    """The stricter of cluster and VM mode; approvals in guarded mode."""

    @pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.RECOMMEND])
    def test_these_modes_never_start(self, make, mode):
        assert start(make.context(mode=mode), make.plan()) is Code.CLUSTER_MODE
        vms = (make.vm(policy=VmPolicy(mode=mode)),)
        assert start(make.with_snapshot(make.context(), vms=vms), make.plan()) is Code.VM_MODE

    def approve(self, make, plan, mode=Mode.GUARDED, **kw):
        command = make.command(**({"digest": plan.digest, "step": 1} | kw))
        return start(make.context(mode=mode, operator=OperatorState(approved=(command,))), plan)

    def test_guarded_needs_approval(self, make):
        assert start(make.context(mode=Mode.GUARDED), make.plan()) is Code.NOT_APPROVED

    def test_a_guarded_vm_in_an_auto_cluster_needs_it_too(self, make):
        vms = (make.vm(policy=VmPolicy(mode=Mode.GUARDED)),)
        assert start(make.with_snapshot(make.context(), vms=vms), make.plan()) is Code.NOT_APPROVED

    @pytest.mark.parametrize("step", [1, 0, None])
    def test_approved(self, make, step):
        assert self.approve(make, make.plan(), step=step) is None

    @pytest.mark.parametrize(
        "wrong",
        [{"digest": "0" * 16}, {"digest": None}, {"step": 2}, {"by": ""}, {"until": 1.0}],
        ids=["other digest", "no digest", "other step", "nobody", "lapsed"],
    )
    def test_not_this_approval(self, make, wrong):
        assert self.approve(make, make.plan(), **wrong) is Code.NOT_APPROVED

    def test_an_approval_does_not_carry_over_to_a_changed_plan(self, make):
        plan, operator = make.plan(), None
        operator = OperatorState(approved=(make.command(digest=plan.digest, step=0),))
        changed = replace(plan, steps=(Step(number=1, wave=1, move=make.move(destination="c")),))
        ctx = make.context(mode=Mode.GUARDED, operator=operator)
        assert start(ctx, plan) is None
        assert start(ctx, changed) is Code.NOT_APPROVED

    def test_applying_a_plan_file_approves_it(self, make):
        plan = make.plan()
        applied = OperatorState(applied=(make.command(CommandKind.APPLY, digest=plan.digest),))
        assert start(make.context(mode=Mode.GUARDED, operator=applied), plan) is None

    def test_where_nobody_has_spoken_the_digest_of_a_plan_is_not_read(self, make, monkeypatch):
        # it covers the whole plan: read for each of a thousand steps it took minutes
        plan = make.plan()
        monkeypatch.setattr(Plan, "digest", property(lambda _plan: pytest.fail("read")))
        assert start(make.context(), plan) is None

    def test_rejected_holds_in_auto_mode_too(self, make):
        plan = make.plan()
        no = make.command(CommandKind.REJECT, id=5, digest=plan.digest, step=1)
        assert start(make.context(operator=OperatorState(rejected=(no,))), plan) is Code.REJECTED

    @pytest.mark.parametrize(("yes_id", "expected"), [(4, Code.REJECTED), (6, None)])
    def test_the_later_word_counts(self, make, yes_id, expected):
        plan = make.plan()
        operator = OperatorState(
            approved=(make.command(id=yes_id, digest=plan.digest, step=1),),
            rejected=(make.command(CommandKind.REJECT, id=5, digest=plan.digest, step=0),),
        )
        assert start(make.context(mode=Mode.GUARDED, operator=operator), plan) is expected


class TestVmAndHosts:
    """The VM and both hosts as they are now."""

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"host": "c"}, Code.NOT_ON_SOURCE),
            ({"state": DomainState.PAUSED}, Code.VM_NOT_RUNNING),
            ({"state": DomainState.UNKNOWN}, Code.VM_NOT_RUNNING),
            ({"owner": Owner(name="nova", evidence="metadata")}, Code.FOREIGN_OWNER),
            ({"busy": "block job"}, Code.VM_BUSY),
        ],
    )
    def test_vm(self, make, change, expected):
        assert start(make.with_snapshot(make.context(), vms=(make.vm(**change),)), make.plan()) is expected

    def test_vm_gone(self, make):
        assert start(make.with_snapshot(make.context(), vms=()), make.plan()) is Code.VM_GONE

    def test_foreign_migration_on_the_vm(self, make):
        jobs = (InFlight(vm_uuid="u", source="a", destination=None, ours=False),)
        assert start(make.with_snapshot(make.context(), in_flight=jobs), make.plan()) is Code.VM_BUSY

    @pytest.mark.parametrize("which", ["a", "b"])
    def test_stale_host(self, make, which):
        hosts = tuple(make.host(n, unusable="stale for 90 s" if n == which else None) for n in "abc")
        assert start(make.with_snapshot(make.context(), hosts=hosts), make.plan()) is Code.HOST_STALE

    @pytest.mark.parametrize(
        ("name", "mode", "expected"),
        [
            ("b", HostMode.NO_INBOUND, Code.HOST_MODE),
            ("b", HostMode.DRAIN, Code.HOST_MODE),
            ("b", HostMode.OBSERVE, Code.HOST_MODE),
            ("a", HostMode.OBSERVE, Code.HOST_MODE),
            ("a", HostMode.DRAIN, None),
            ("a", HostMode.NO_INBOUND, None),
        ],
    )
    def test_host_modes(self, make, name, mode, expected):
        hosts = tuple(make.host(n, mode=mode if n == name else HostMode.ACTIVE) for n in "abc")
        assert start(make.with_snapshot(make.context(), hosts=hosts), make.plan()) is expected

    def test_destination_drained_by_command(self, make):
        assert start(make.context(operator=OperatorState(drained=frozenset({"b"}))), make.plan()) is Code.HOST_MODE

    def test_destination_gone(self, make):
        plan = make.plan(Step(number=1, wave=1, move=make.move(destination="z")))
        assert start(make.context(), plan) is Code.HOST_UNREACHABLE

    def test_same_host(self, make):
        plan = make.plan(Step(number=1, wave=1, move=make.move(destination="a")))
        assert start(make.context(), plan) is Code.SAME_HOST

    @pytest.mark.parametrize("state", [MigrationState.STUCK, MigrationState.UNOBSERVED])
    def test_nothing_new_beside_a_stuck_or_unseen_migration(self, make, state):
        roomy = GuardSettings(out_per_host=9, in_per_host=9, per_cluster=9)
        touching = make.record(state, vm="x", source="b", destination="c")
        elsewhere = make.record(state, vm="x", source="c", destination="d")
        assert start(make.context(settings=roomy, active=(touching,)), make.plan()) is Code.HOST_CAP
        assert start(make.context(settings=roomy, active=(elsewhere,)), make.plan()) is None

    def test_quarantine_and_refused_pair(self, make):
        failed = make.remember(make.record(MigrationState.FAILED, vm="x", ago=10))
        assert start(make.context(memory=failed), make.plan()) is Code.QUARANTINED
        refused = make.remember(make.record(MigrationState.FAILED, reason="libvirt_refused: no such pool", ago=5000))
        assert start(make.context(memory=refused), make.plan()) is Code.LIBVIRT_REFUSED


class TestCaps:
    """Caps count all that is observed, foreign migrations too."""

    def jobs(self, *ends):
        return tuple(InFlight(vm_uuid=f"x{i}", source=s, destination=d, ours=False) for i, (s, d) in enumerate(ends))

    @pytest.mark.parametrize(
        ("ends", "expected"),
        [
            ([("a", "c")], Code.HOST_CAP),
            ([("c", "b")], Code.HOST_CAP),
            ([("c", None)], Code.HOST_CAP),
            ([("b", None)], None),
            ([("c", "a")], None),
            ([("c", "a"), ("b", "c")], Code.CLUSTER_CAP),
        ],
    )
    def test_observed_jobs(self, make, ends, expected):
        assert start(make.with_snapshot(make.context(), in_flight=self.jobs(*ends)), make.plan()) is expected

    def test_our_records_count_before_they_are_observed(self, make):
        started = make.record(MigrationState.INTENT, vm="x", source="a", destination="c")
        assert start(make.context(active=(started,)), make.plan()) is Code.HOST_CAP

    def test_one_migration_told_twice_counts_once(self, make):
        record = make.record(MigrationState.RUNNING, vm="x0", source="c", destination="a")
        ctx = make.with_snapshot(make.context(active=(record,)), in_flight=self.jobs(("c", None)))
        assert start(ctx, make.plan()) is None

    def test_per_hour(self, make):
        past = [make.record(id=f"m{i}", vm=f"x{i}", source="c", destination="d", ago=60 * i) for i in range(20)]
        assert start(make.context(memory=make.remember(*past)), make.plan()) is Code.HOURLY_CAP
        assert start(make.context(memory=make.remember(*past[1:])), make.plan()) is None
        older = make.remember(*past[1:], make.record(id="old", vm="y", source="c", destination="d", ago=3601))
        assert start(make.context(memory=older), make.plan()) is None


class TestRest:
    """What a drain ignores, and nobody else does."""

    CASES = (
        ("hold", Code.HOLD),
        ("cooldown", Code.COOLDOWN),
        ("reverse", Code.REVERSE_MOVE),
        ("gain", Code.GAIN_TOO_SMALL),
        ("payback", Code.PAYBACK_TOO_LONG),
        ("window", Code.OUTSIDE_WINDOW),
    )

    def world(self, make, case, policy="balance"):
        move, ctx, extra = make.move(), make.context(), {}
        if case == "hold":
            ctx = make.context(holds={"a": 2})
        elif case == "cooldown":
            ctx = make.context(memory=make.remember(make.record(source="c", destination="a")))
        elif case == "reverse":
            ctx = make.context(memory=make.remember(make.record(source="b", destination="a", ago=7000)))
        elif case == "gain":
            extra = {"after": Score(total=9.9, unmet=6.0, imbalance=0.0, cost=3.9)}
        elif case == "payback":
            move = make.move(payback_seconds=7200.0)
        else:
            ctx = make.context(settings=GuardSettings(windows=(NEVER,)))
        return ctx, make.plan(Step(number=1, wave=1, move=move), policy=policy, **extra)

    @pytest.mark.parametrize(("case", "expected"), CASES)
    def test_balance_respects(self, make, case, expected):
        assert start(*self.world(make, case)) is expected

    @pytest.mark.parametrize(("case", "expected"), CASES)
    def test_drain_ignores(self, make, case, expected):
        assert start(*self.world(make, case, policy="drain")) is None

    def test_drain_may_be_planned_outside_windows_but_not_in_a_blackout(self, make):
        assert may_plan(make.context(settings=GuardSettings(windows=(NEVER,))), "drain") is None
        assert code(may_plan(make.context(settings=GuardSettings(blackouts=(ALWAYS,))), "drain")) is Code.BLACKOUT

    def test_a_plan_that_gains_nothing_or_nobody_knows_what(self, make):
        for before, after in ((0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (10.0, float("nan")), (5.0, 6.0)):
            scores = {n: Score(total=t, unmet=0.0, imbalance=0.0) for n, t in (("before", before), ("after", after))}
            assert start(make.context(), make.plan(**scores)) is Code.GAIN_TOO_SMALL

    def test_a_move_that_makes_room_rides_on_the_payback_of_another(self, make):
        room = Step(number=1, wave=1, move=make.move("w", "b", "c", payback_seconds=None))
        alone, both = make.plan(room), make.plan(room, Step(number=2, wave=2, move=make.move()))
        assert start(make.context(), alone) is Code.PAYBACK_TOO_LONG
        assert start(make.context(), both) is None

    def test_hold_of_a_move_that_makes_room_is_that_of_the_plans_hot_hosts(self, make):
        room = Step(number=1, wave=1, move=make.move("w", "b", "c"))
        assert start(make.context(holds={"a": 3}), make.plan(room)) is None
        assert start(make.context(holds={"a": 3}), make.plan(room, hot_hosts=("a", "c"))) is Code.HOLD
        assert start(make.context(holds={"a": 3}), make.plan(room, hot_hosts=())) is Code.HOLD


def test_all_reasons_are_told(make):
    """`explain` shows every reason, not only the first."""
    ctx = make.context(holds={}, pause_reason="file", mode=Mode.RECOMMEND)
    plan = make.plan(expires_at=make.NOW - 1)
    codes = [r.code for r in start_refusals(ctx, plan, plan.step(1))]
    assert codes == [Code.PAUSED, Code.PLAN_EXPIRED, Code.CLUSTER_MODE, Code.HOLD]


def test_every_check_says_what_it_checks():
    assert all(check.__doc__ for check in STEP_CHECKS + REST_CHECKS)
