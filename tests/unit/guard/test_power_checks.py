"""May a host sleep? From one that may, each test takes one thing away and finds the refusal that names it."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.policy import HostMode, Mode
from rebalancerd.cluster.power import PowerLimits, PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code
from rebalancerd.guard.checks import may_plan
from rebalancerd.guard.power_checks import PowerAsk, may_sleep


@pytest.fixture
def ask(make):
    """Host c is empty, controlled and tested; a and b carry VMs."""
    record = PowerRecord(host="c", tested_at=make.NOW - 1e6, up_since=make.NOW - 1e5)
    return PowerAsk(
        host="c",
        ctx=make.context(),
        records={"c": record},
        controlled=frozenset("abc"),
        limits=PowerLimits(min_up_seconds=3600, by_hand_seconds=7200),
    )


def changed(ask, **values):
    return replace(ask, records={**ask.records, "c": replace(ask.records["c"], **values)})


def code_of(ask):
    refusal = may_sleep(ask)
    return None if refusal is None else refusal.code


def test_one_that_may(ask):
    assert may_sleep(ask) is None


@pytest.mark.parametrize(
    ("values", "code", "when_ordered", "when_tested"),
    [
        ({"phase": PowerPhase.WAKING}, Code.POWER_BUSY, Code.POWER_BUSY, Code.POWER_BUSY),
        ({"phase": PowerPhase.STUCK}, Code.POWER_BUSY, Code.POWER_BUSY, Code.POWER_BUSY),
        ({"tested_at": None}, Code.POWER_UNTESTED, Code.POWER_UNTESTED, None),
        ({"disabled": "it did not come back"}, Code.POWER_DISABLED, Code.POWER_DISABLED, None),
        ({"up_since": 1_700_000_000.0 - 60}, Code.MIN_UP_TIME, None, None),
        ({"by_hand_at": 1_700_000_000.0 - 60}, Code.POWERED_ON_BY_HAND, None, None),
    ],
)
def test_the_hosts_own_state(ask, values, code, when_ordered, when_tested):
    """By itself, by an operator's order, and for a test that an operator orders."""
    taken = changed(ask, **values)
    assert code_of(taken) is code
    assert code_of(replace(taken, ordered=True)) is when_ordered
    assert code_of(replace(taken, ordered=True, test=True)) is when_tested


def test_no_control_no_sleep(ask):
    assert code_of(replace(ask, controlled=frozenset("ab"))) is Code.NO_POWER_CONTROL


@pytest.mark.parametrize(
    ("mode", "by_itself", "ordered"),
    [
        (Mode.OBSERVE, Code.CLUSTER_MODE, Code.CLUSTER_MODE),
        (Mode.RECOMMEND, Code.CLUSTER_MODE, Code.CLUSTER_MODE),
        (Mode.GUARDED, Code.NOT_APPROVED, None),
        (Mode.AUTO, None, None),
    ],
)
def test_modes(ask, mode, by_itself, ordered):
    taken = replace(ask, ctx=replace(ask.ctx, mode=mode))
    assert code_of(taken) is by_itself
    assert code_of(replace(taken, ordered=True)) is ordered


@pytest.mark.parametrize("ordered", [False, True])
def test_what_lets_no_migration_start_lets_no_host_sleep(ask, make, ordered):
    ctx = ask.ctx
    for broken, code in (
        (replace(ctx, lease_held=False), Code.LEASE_LOST),
        (replace(ctx, pause_reason="pause file exists"), Code.PAUSED),
        (replace(ctx, operator=replace(ctx.operator, paused=make.command(CommandKind.PAUSE))), Code.PAUSED),
        (make.with_snapshot(ctx, warming_up=True), Code.WARMING_UP),
        (make.with_snapshot(ctx, frozen="all loads jumped"), Code.TELEMETRY_INSANE),
    ):
        assert code_of(replace(ask, ctx=broken, ordered=ordered)) is code


def test_something_on_it_or_on_its_way(ask, make):
    ctx = ask.ctx
    vms = (*ctx.snapshot.vms, make.vm("x", "c"))
    assert code_of(replace(ask, ctx=make.with_snapshot(ctx, vms=vms))) is Code.HOST_NOT_EMPTY
    coming = make.record(MigrationState.RUNNING, destination="c")
    assert code_of(replace(ask, ctx=replace(ctx, active=(coming,)))) is Code.HOST_NOT_EMPTY


@pytest.mark.parametrize(
    ("values", "code"), [({"unusable": "stale"}, Code.HOST_STALE), ({"mode": HostMode.OBSERVE}, Code.HOST_MODE)]
)
def test_a_host_that_takes_no_part(ask, make, values, code):
    hosts = (make.host("a"), make.host("b"), make.host("c", **values))
    assert code_of(replace(ask, ctx=make.with_snapshot(ask.ctx, hosts=hosts))) is code


def test_one_after_the_other_and_none_while_one_is_needed_back(ask):
    going = {**ask.records, "a": PowerRecord(host="a", phase=PowerPhase.CLOSING)}
    assert code_of(replace(ask, records=going, ordered=True)) is Code.POWER_BUSY
    assert code_of(replace(ask, records=going, limits=replace(ask.limits, sleep_at_once=2))) is None
    coming = {**ask.records, "a": PowerRecord(host="a", phase=PowerPhase.WAKING)}
    assert code_of(replace(ask, records=coming)) is Code.POWER_BUSY
    assert code_of(replace(ask, records=coming, ordered=True)) is None


def test_sleepers_do_not_count_as_unknown_but_dead_hosts_do(make):
    hosts = (make.host("a"), make.host("b", unusable="no answer"), make.host("c", unusable="no answer"))
    ctx = make.with_snapshot(make.context(), hosts=hosts, vms=(make.vm("x", "a"),))
    refusal = may_plan(ctx)
    assert refusal is not None and refusal.code is Code.CLUSTER_PARTLY_UNKNOWN
    assert may_plan(replace(ctx, away=frozenset("bc"))) is None


def test_one_that_is_away_with_a_vm_on_it_counts_as_unknown(make):
    hosts = (make.host("a"), make.host("b", unusable="flapping"), make.host("c", unusable="flapping"))
    ctx = replace(make.with_snapshot(make.context(), hosts=hosts, vms=(make.vm("x", "b"),)), away=frozenset("bc"))
    refusal = may_plan(ctx)
    assert refusal is not None and refusal.code is Code.CLUSTER_PARTLY_UNKNOWN
