"""The way to sleep and back in the simulated cluster; its invariants are checked after every step of every test."""

from dataclasses import replace
from pathlib import Path

import pytest

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code
from rebalancerd.guard.settings import PolicyWindow
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.sim import disasters
from rebalancerd.sim.adapters import Reach
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.power import NEVER, Bmc
from rebalancerd.sim.spec import VmSpec
from rebalancerd.sim.world import World
from tests.unit.act.power.power_cluster import FEW, QUICK, demand, order, pass_test, record, seconds_until, spec

AWAKE, ASLEEP, STUCK, FAILED = PowerPhase.AWAKE, PowerPhase.ASLEEP, PowerPhase.STUCK, PowerPhase.FAILED
CLOSING, DOWN, WAKING = PowerPhase.CLOSING, PowerPhase.SHUTTING_DOWN, PowerPhase.WAKING


def asleep(world: World) -> None:
    """c sleeps by an operator's order."""
    pass_test(world)
    order(world, "power_sleep")
    seconds_until(world, "c", ASLEEP)


def closing(world: World) -> None:
    pass_test(world)
    order(world, "power_sleep")
    seconds_until(world, "c", CLOSING)


# the two sequences


def test_an_empty_host_sleeps_and_comes_back_on_order() -> None:
    with World(spec()) as world:
        asleep(world)
        assert not world.cluster.hosts["c"].alive
        assert record(world).slept_at is not None
        order(world, "power_wake")
        seconds_until(world, "c", AWAKE)
        assert world.cluster.hosts["c"].alive
        assert [what for _, _, what in world.power.orders] == ["off", "on"] * 2
        assert record(world).boot_seconds(0.0) == pytest.approx(120, abs=25)


def test_while_it_sleeps_the_others_are_balanced_and_nothing_is_sent_there() -> None:
    """One of three hosts is silent, which would be too many unknown for a plan if it were a fault."""
    with World(spec()) as world:
        asleep(world)
        world.run(world.clock.monotonic() + 300)
        assert world.loop is not None and world.loop.view is not None
        view = world.loop.view
        assert view.inputs is not None, "the cycle went on to plan"
        assert view.inputs.blocked_hosts["c"].code is Code.HOST_NOT_BACK, (
            "an operator's sleeper is waited for by nobody"
        )


def test_hosts_that_come_back_stop_no_planning_while_they_show_that_they_stay() -> None:
    """Two of four answer again and are not used for a minute, which would be too many unknown for a plan if it were a fault."""
    with World(spec(hosts=4)) as world:
        for host in "cd":
            pass_test(world, host)
            order(world, "power_sleep", host)
            seconds_until(world, host, ASLEEP)
        for host in "cd":
            order(world, "power_wake", host)
        for host in "cd":
            seconds_until(world, host, AWAKE)
        held = set()
        until = world.clock.monotonic() + 180
        while world.clock.monotonic() < until:
            world.run(world.clock.monotonic() + 10)
            assert world.loop is not None and world.loop.view is not None
            assert Code.CLUSTER_PARTLY_UNKNOWN not in {r.code for r in world.loop.view.record.refusals}
            held |= {h.name for h in world.loop.view.snapshot.hosts if (h.unusable or "").startswith("flapping")}
        assert held == {"c", "d"}, "they were held back meanwhile"


def test_no_host_sleeps_before_its_wake_was_tested() -> None:
    with World(spec()) as world:
        world.run(120)
        order(world, "power_sleep")
        world.run(600)
        assert record(world).phase is AWAKE
        assert world.power.orders == []
        assert world.power_round is not None and world.keeper is not None
        refusal = world.power_round.why_not("c")
        assert refusal is not None and refusal.code is Code.POWER_UNTESTED
        direct = world.keeper.sleep("c", "because", by="test")
        assert direct is not None and direct.code is Code.POWER_UNTESTED


def test_in_its_first_window_it_is_tested_then_kept_up_and_only_then_sleeps() -> None:
    with World(spec(folding=True)) as world:
        seconds_until(world, "c", ASLEEP)
        assert record(world).test
        seconds_until(world, "c", AWAKE)
        up = world.clock.monotonic()
        seconds_until(world, "c", CLOSING)
        assert world.clock.monotonic() - up >= FEW.min_up_seconds - 10
        seconds_until(world, "c", ASLEEP)
        assert not record(world).test


def test_outside_a_window_nothing_sleeps_by_itself() -> None:
    with World(spec(folding=False)) as world:
        pass_test(world)
        world.run(5000)
        assert record(world).phase is AWAKE
        assert world.power_round is not None
        assert [host for host, _ in world.power_round.told.could_sleep] == ["c"]


def test_when_its_window_is_over_it_gets_up_though_nothing_needs_it_yet() -> None:
    window = PolicyWindow(start="0 22 * * *", end="0 1 * * *", unfold_seconds=1800.0)
    made = spec(hosts=6, cores=2.0)  # a and b are too full to be folded
    late = replace(made, start_wall=1_780_351_200.0, guard=replace(made.guard, policy_windows=(window,)))
    with World(late) as world:  # 22:00 UTC
        seconds_until(world, "c", AWAKE)
        world.run(2.4 * 3600)
        assert record(world).phase is ASLEEP and not record(world).test
        world.run(2.5 * 3600 + 300)
        assert record(world).phase is AWAKE
        assert world.cluster.hosts["c"].alive
        said = [line for line in world.story.lines if "c waking" in line]
        assert "the window is over" in said[-1]


def test_what_an_operator_sent_to_sleep_stays_there_outside_of_windows() -> None:
    with World(spec(folding=False)) as world:
        asleep(world)
        world.run(world.clock.monotonic() + 1200)
        assert record(world).phase is ASLEEP


# empty by its own word


def test_a_host_with_a_vm_is_refused_by_name() -> None:
    with World(spec()) as world:
        pass_test(world)
        disasters.relocate(world.cluster, world.cluster.named("vm-a1"), "c")
        world.run(world.clock.monotonic() + 120)
        before = list(world.power.orders)
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 120)
        assert world.power_round is not None and world.keeper is not None
        refusal = world.power_round.why_not("c")
        assert refusal is not None and refusal.code is Code.HOST_NOT_EMPTY and "vm-a1" in refusal.detail
        assert world.keeper.sleep("c", "against all advice", by="test") is None
        world.run(world.clock.monotonic() + 120)
        assert record(world).phase is AWAKE and "vm-a1" in record(world).reason
        assert world.power.orders == before


def test_a_definition_of_a_shut_off_vm_keeps_it_on_and_is_named() -> None:
    with World(spec()) as world:
        pass_test(world)
        before = list(world.power.orders)
        disasters.define_namesake(world.cluster, world.cluster.named("vm-a1"), "c")
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 300)
        assert record(world).phase is AWAKE
        assert "shut_off_definitions" in record(world).reason and "vm-a1" in record(world).reason
        assert world.power.orders == before


@pytest.mark.parametrize("owner", [None, "pacemaker"])
def test_a_vm_that_appears_between_the_two_questions_keeps_it_on(owner: str | None) -> None:
    late = VmSpec(name="late", host="c", present=False, owner=owner)
    base = spec()
    with World(replace(base, cluster=replace(base.cluster, vms=(*base.cluster.vms, late)))) as world:
        closing(world)
        before = list(world.power.orders)
        world.run(world.clock.monotonic() + 12)
        assert record(world).phase is CLOSING and record(world).empty_at is not None
        world.cluster.appear(world.cluster.named("late"), "c")
        world.run(world.clock.monotonic() + 60)
        assert record(world).phase is AWAKE and "late" in record(world).reason
        assert world.power.orders == before


def test_a_host_that_does_not_answer_is_not_empty() -> None:
    with World(spec()) as world:
        closing(world)
        before = list(world.power.orders)
        world.wires.set_reach("c", Reach.REFUSED)
        world.run(world.clock.monotonic() + 60)
        assert record(world).phase is AWAKE and "host_unreachable" in record(world).reason
        assert world.power.orders == before


# what stops it


def test_a_pause_stops_it_before_the_order() -> None:
    with World(spec()) as world:
        closing(world)
        before = list(world.power.orders)
        world.command(CommandKind.PAUSE, ())
        world.run(world.clock.monotonic() + 120)
        assert record(world).phase is AWAKE and "paused" in record(world).reason
        assert world.power.orders == before


def test_without_the_lease_nothing_is_ordered() -> None:
    with World(spec()) as world:
        closing(world)
        before = list(world.power.orders)
        world.lease.is_held = False
        world.run(world.clock.monotonic() + 600)
        assert world.power.orders == before
        world.lease.is_held = True
        world.run(world.clock.monotonic() + 60)
        assert record(world).phase is AWAKE, "back with the lease it begins with what is on record"


def test_without_a_ledger_nothing_is_ordered() -> None:
    with World(spec()) as world:
        closing(world)
        before = list(world.power.orders)
        world.ledger.full = True
        world.run(world.clock.monotonic() + 150)
        assert world.power.orders == before
        world.ledger.full = False
        seconds_until(world, "c", ASLEEP)


def test_guarded_waits_for_the_word_and_recommend_only_says_so() -> None:
    with World(spec(mode=Mode.GUARDED, folding=True)) as world:
        world.run(900)
        assert world.power.orders == [] and world.power_round is not None
        assert [host for host, _ in world.power_round.told.could_sleep] == ["c"]
        order(world, "power_test")
        seconds_until(world, "c", ASLEEP)
    with World(spec(mode=Mode.RECOMMEND, folding=True)) as world:
        order(world, "power_test")
        world.run(900)
        assert world.power.orders == [] and world.power_round is not None
        assert [host for host, _ in world.power_round.told.could_sleep] == ["c"]


# controllers that fail and lie


@pytest.mark.parametrize("bmc", [Bmc.UNREACHABLE, Bmc.TIMEOUT, Bmc.CREDENTIALS])
def test_without_a_clear_word_of_its_controller_it_stays_on(bmc: Bmc) -> None:
    with World(spec()) as world:
        closing(world)
        before = list(world.power.orders)
        world.power.machines["c"].bmc = bmc
        seconds_until(world, "c", AWAKE)
        assert "no clear word" in record(world).reason
        assert world.power.orders == before


def test_a_controller_that_says_off_while_libvirt_answers_is_trusted_with_nothing() -> None:
    with World(spec()) as world:
        closing(world)
        before = list(world.power.orders)
        world.power.machines["c"].bmc = Bmc.SAYS_OFF
        seconds_until(world, "c", AWAKE)
        assert record(world).disabled is not None and "while its libvirt answers" in record(world).disabled
        assert world.power.orders == before


def test_a_refused_order_closes_the_host_until_it_was_up_for_long() -> None:
    """It may shut down all the same, and later: until that is out of question it takes nothing in."""
    with World(spec()) as world:
        pass_test(world)
        world.power.machines["c"].bmc = Bmc.REFUSES
        order(world, "power_sleep")
        seconds_until(world, "c", STUCK)
        assert record(world).disabled is not None
        held = seconds_until(world, "c", AWAKE)
        assert held >= QUICK.stuck_hold_seconds - 10
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 120)
        assert record(world).phase is AWAKE, "power-off is disabled"
        world.power.machines["c"].bmc = Bmc.OK
        pass_test(world)
        assert record(world).disabled is None, "a passed test says that it is mended"


def test_a_shutdown_that_comes_long_after_its_deadline_finds_the_host_empty() -> None:
    with World(spec()) as world:
        pass_test(world)
        world.power.machines["c"].shutdown_seconds = QUICK.shutdown_deadline_seconds + 300
        order(world, "power_sleep")
        seconds_until(world, "c", STUCK)
        seconds_until(world, "c", ASLEEP)
        assert not world.cluster.hosts["c"].alive


def test_a_controller_that_says_on_for_a_dead_host_is_named() -> None:
    with World(spec()) as world:
        pass_test(world)
        world.power.machines["c"].bmc = Bmc.SAYS_ON
        order(world, "power_sleep")
        seconds_until(world, "c", STUCK)
        assert "libvirt is silent" in record(world).reason and "power is on" in record(world).reason
        world.run(world.clock.monotonic() + 1200)
        assert record(world).phase is STUCK, "neither trusted to be off nor used"


def test_one_that_cannot_tell_counts_as_off_after_a_long_silence() -> None:
    with World(spec()) as world:
        world.power.machines["c"].bmc = Bmc.MUTE
        asleep(world)
        assert "nothing else can tell" in record(world).reason
        order(world, "power_wake")
        seconds_until(world, "c", AWAKE)


# waking


def test_a_failed_wake_disables_power_off_and_wakes_another() -> None:
    with World(spec(hosts=4)) as world:
        pass_test(world, "c")
        pass_test(world, "d")
        for host in "cd":
            order(world, "power_sleep", host)
            seconds_until(world, host, ASLEEP)
        world.power.machines["c"].boot_seconds = NEVER
        order(world, "power_wake", "c")
        assert world.keeper is not None
        seconds_until(world, "c", WAKING)
        assert world.keeper.blocked()["c"].code is Code.HOST_ASLEEP
        seconds_until(world, "c", FAILED)
        assert world.keeper.blocked()["c"].code is Code.HOST_NOT_BACK
        assert record(world, "c").disabled is not None
        seconds_until(world, "d", AWAKE)
        assert "d" in {host for _, host, what in world.power.orders if what == "on"}
        assert "in the place of c" in "".join(world.story.text())


def test_one_that_comes_back_late_is_used_but_not_put_to_sleep_again() -> None:
    with World(spec()) as world:
        asleep(world)
        world.power.machines["c"].boot_seconds = QUICK.wake_deadline_seconds + 200
        order(world, "power_wake")
        seconds_until(world, "c", FAILED)
        seconds_until(world, "c", AWAKE)
        assert record(world).disabled is not None


def test_a_daemon_that_died_before_its_order_is_no_failed_wake() -> None:
    """Killed right after the order was written down, and away for longer than the deadline: the host never got it."""
    with World(spec()) as world:
        asleep(world)
        order(world, "power_wake")
        told = world.ledger.on_power

        def dies_before_the_order(written: PowerRecord) -> None:
            told(written)
            if written.phase is WAKING and written.orders == 1:
                world.lifeline.kill_after = world.lifeline.effects + 1

        world.ledger.on_power = dies_before_the_order
        while world.loop is not None:
            world.run(world.clock.monotonic() + 5)
        world.ledger.on_power = told
        assert record(world).phase is WAKING and not world.cluster.hosts["c"].alive
        given = len(world.power.orders)
        world.run(world.clock.monotonic() + QUICK.wake_deadline_seconds + 60)
        assert len(world.power.orders) == given, "nobody is there to order it again"
        world.start_daemon()
        world.run(world.clock.monotonic() + 30)
        assert [what for _, _, what in world.power.orders[given:]] == ["on"], "at once, not after the usual wait"
        seconds_until(world, "c", AWAKE)
        assert record(world).disabled is None


def test_another_machine_in_its_place_is_not_used() -> None:
    with World(spec()) as world:
        asleep(world)
        it = world.cluster.hosts["c"]
        it.spec = replace(it.spec, uuid="11111111-2222-3333-4444-555555555555")
        order(world, "power_wake")
        seconds_until(world, "c", FAILED)
        assert "was put to sleep" in record(world).reason
        world.run(world.clock.monotonic() + 900)
        assert record(world).phase is FAILED


def test_half_the_processors_are_not_the_same_machine() -> None:
    with World(spec()) as world:
        asleep(world)
        it = world.cluster.hosts["c"]
        it.spec = replace(it.spec, cpus=4)
        order(world, "power_wake")
        seconds_until(world, "c", FAILED)
        assert "4 of 8 CPUs" in record(world).reason


def test_who_powers_it_on_by_hand_is_respected() -> None:
    with World(spec(folding=True)) as world:
        seconds_until(world, "c", ASLEEP)
        seconds_until(world, "c", AWAKE)
        seconds_until(world, "c", ASLEEP)
        orders = len(world.power.orders)
        world.power.by_hand("c", on=True)
        seconds_until(world, "c", AWAKE)
        up = world.clock.monotonic()
        assert "by hand" in record(world).reason and len(world.power.orders) == orders
        seconds_until(world, "c", CLOSING)
        assert world.clock.monotonic() - up >= FEW.by_hand_seconds - 60


def test_only_hosts_that_were_put_to_sleep_are_woken() -> None:
    with World(spec()) as world:
        pass_test(world)
        orders = len(world.power.orders)
        world.power.by_hand("c", on=False)
        world.run(world.clock.monotonic() + 120)
        order(world, "power_wake")
        demand(world, 3.9)
        world.run(world.clock.monotonic() + 900)
        assert len(world.power.orders) == orders


def test_demand_that_surprises_wakes_at_once() -> None:
    with World(spec()) as world:
        asleep(world)
        demand(world, 3.5)
        assert seconds_until(world, "c", WAKING) <= 130


def test_a_dead_host_wakes_a_sleeper() -> None:
    with World(spec()) as world:
        asleep(world)
        disasters.kill_host(world.cluster, "a")
        assert seconds_until(world, "c", WAKING) <= 200


def test_wanted_back_while_it_shuts_down_it_turns_round_as_soon_as_it_is_off() -> None:
    with World(spec()) as world:
        pass_test(world)
        order(world, "power_sleep")
        seconds_until(world, "c", DOWN)
        order(world, "power_wake")
        seconds_until(world, "c", AWAKE)
        assert [what for _, _, what in world.power.orders][-2:] == ["off", "on"]


# restarts


def test_a_sleeper_that_left_the_configuration_is_named_and_left_alone() -> None:
    with World(spec()) as world:
        asleep(world)
        orders = len(world.power.orders)
        world.kill_daemon()
        del world.power.machines["c"]
        world.start_daemon()
        demand(world, 3.9)
        world.run(world.clock.monotonic() + 900)
        assert world.keeper is not None
        assert world.keeper.strangers() == {"c"}
        assert "c" in world.keeper.blocked()
        assert len(world.power.orders) == orders
        refusal = world.keeper.wake("c", "please", by="test")
        assert refusal is not None and refusal.code is Code.NO_POWER_CONTROL


def test_a_daemon_that_comes_back_and_cannot_ask_wakes_what_sleeps() -> None:
    with World(spec()) as world:
        asleep(world)
        world.kill_daemon()
        world.power.machines["c"].bmc = Bmc.UNREACHABLE
        world.start_daemon()
        seconds_until(world, "c", WAKING)
        world.power.machines["c"].bmc = Bmc.OK
        seconds_until(world, "c", AWAKE)


def test_a_daemon_that_comes_back_and_is_sure_lets_it_sleep() -> None:
    with World(spec()) as world:
        asleep(world)
        world.kill_daemon()
        world.start_daemon()
        world.run(world.clock.monotonic() + 900)
        assert record(world).phase is ASLEEP


def test_an_old_command_is_not_obeyed_after_a_long_absence() -> None:
    with World(spec(limits=replace(FEW, command_max_age_seconds=300.0))) as world:
        pass_test(world)
        orders = len(world.power.orders)
        world.kill_daemon()
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 900)
        world.start_daemon()
        world.run(world.clock.monotonic() + 600)
        assert record(world).phase is AWAKE and len(world.power.orders) == orders


def test_an_order_before_the_first_tick_is_not_taken_for_a_leftover() -> None:
    """What was ordered in this run is not cancelled as the work of an earlier one."""
    with World(spec()) as world:
        pass_test(world)
        world.kill_daemon()
        world.start_daemon()
        world.run(world.clock.monotonic() + 1)
        assert world.keeper is not None
        world.keeper._recovered = False
        assert world.keeper.sleep("c", "now", by="test") is None
        seconds_until(world, "c", ASLEEP)


def test_a_morning_that_comes_every_day_is_met_before_it_is_there() -> None:
    """A daily wave, two days of it on record: the sleeper is back before what is on would not carry the load any more."""
    wave = Demand(base=1.0, amplitude=0.8, period_seconds=86_400.0, phase_seconds=1800.0, noise=0.02)
    base = spec(folding=True, limits=replace(FEW, min_up_seconds=60.0, unfold_seconds=600.0))
    vms = tuple(replace(vm, demand=wave) for vm in base.cluster.vms)
    with World(replace(base, cluster=replace(base.cluster, vms=vms), past_days=2.0)) as world:
        seconds_until(world, "c", ASLEEP)
        seconds_until(world, "c", AWAKE)
        seconds_until(world, "c", ASLEEP)
        seconds_until(world, "c", WAKING, within=9000.0)
        assert "demand may reach" in record(world).reason
        seconds_until(world, "c", AWAKE)
        assert world.loop is not None and world.loop.view is not None
        busy = sum(host.load.cpu_cores or 0.0 for host in world.loop.view.snapshot.hosts)
        assert busy < 0.7 * 8, "what was on carries it still, with a host dead"


# which hosts are worth emptying


def test_the_planner_is_told_which_hosts_could_not_sleep_and_why() -> None:
    with World(spec(hosts=6)) as world:
        pass_test(world, "c")
        world.power.machines["d"].bmc = Bmc.CREDENTIALS
        world.power.machines["f"].bmc = Bmc.SAYS_OFF
        world.run(world.clock.monotonic() + 2 * QUICK.awake_poll_seconds)
        assert world.keeper is not None
        told = world.keeper.no_sleep("abcdef")
        assert {host: refusal.code for host, refusal in told.items()} == {
            "a": Code.NO_POWER_CONTROL,
            "b": Code.NO_POWER_CONTROL,
            "d": Code.POWER_FAULT,
            "e": Code.POWER_UNTESTED,
            "f": Code.POWER_FAULT,
        }
        assert "wrong_credentials" in told["d"].detail
        assert "while its libvirt answers" in told["f"].detail
        assert world.loop is not None and world.loop.view is not None and world.loop.view.inputs is not None
        assert world.loop.view.inputs.no_sleep == told
        assert world.loop.view.inputs.power == FEW
        world.power.machines["d"].bmc = Bmc.OK
        world.run(world.clock.monotonic() + 2 * QUICK.awake_poll_seconds)
        assert world.keeper.no_sleep("d")["d"].code is Code.POWER_UNTESTED


# bad input: each is named, nothing is powered off by it, and the rest goes on


@pytest.mark.parametrize("other", ["a", "d"], ids=["one without power control", "one with it"])
def test_a_controller_that_is_another_hosts_powers_nobody_off(other: str) -> None:
    """The same controller under two addresses, which no look at the configuration can tell."""
    with World(spec(hosts=4)) as world:
        world.power.machines["c"].of = other
        world.run(120)
        order(world, "power_test", "c")
        world.run(world.clock.monotonic() + 120)
        assert world.power.orders == []
        assert f"is that of {other} by its own word" in str(record(world).disabled)
        pass_test(world, "d")
        assert {host for _, host, _ in world.power.orders} == {"d"}, "the rest goes on"
        world.run(world.clock.monotonic() + QUICK.awake_poll_seconds)
        assert world.keeper is not None and world.keeper.no_sleep("d") == {}


def test_wrong_credentials_at_waking_are_named_and_another_is_woken() -> None:
    with World(spec(hosts=4)) as world:
        for host in "cd":
            pass_test(world, host)
        for host in "cd":
            order(world, "power_sleep", host)
            seconds_until(world, host, ASLEEP)
        world.power.machines["c"].bmc = Bmc.CREDENTIALS
        order(world, "power_wake", "c")
        seconds_until(world, "c", FAILED)
        assert "wrong_credentials" in record(world, "c").reason and record(world, "c").disabled is not None
        seconds_until(world, "d", AWAKE)
        world.power.machines["c"].bmc = Bmc.OK
        seconds_until(world, "c", AWAKE)


def test_a_dead_host_whose_controller_says_on_is_neither_trusted_nor_switched() -> None:
    """It died while it was in use: its VMs are gone, a sleeper is woken, and nothing is ordered of it."""
    with World(spec(hosts=4)) as world:
        pass_test(world, "c")
        pass_test(world, "d")
        order(world, "power_sleep", "d")
        seconds_until(world, "d", ASLEEP)
        world.power.machines["c"].bmc = Bmc.SAYS_ON
        disasters.kill_host(world.cluster, "c")
        disasters.kill_host(world.cluster, "a")
        orders = [entry for entry in world.power.orders if entry[1] == "c"]
        seconds_until(world, "d", AWAKE)
        assert [entry for entry in world.power.orders if entry[1] == "c"] == orders
        assert record(world, "c").phase is AWAKE
        assert world.power_round is not None
        refusal = world.power_round.why_not("c")
        assert refusal is not None, "what does not answer is not powered off"


def test_a_night_without_an_end_folds_keeps_hosts_on_and_still_wakes_for_demand() -> None:
    base = spec(hosts=4)
    endless = replace(base, plan=PlanSettings(policy="consolidate"), limits=replace(FEW, hosts_on_min=2))
    with World(endless) as world:
        seconds_until(world, "d", ASLEEP, within=7200)
        world.run(world.clock.monotonic() + 3600)
        up = [name for name, it in world.cluster.hosts.items() if it.alive]
        assert len(up) >= 2, "as many as must be on at any time"
        asleep_now = [h for h in "cd" if record(world, h).phase is ASLEEP]
        assert asleep_now
        demand(world, 3.9)
        for host in asleep_now:
            seconds_until(world, host, AWAKE)


def test_a_sleeper_that_is_no_host_any_more_is_named_and_the_others_are_woken(tmp_path: Path) -> None:
    base = spec(hosts=5)
    with World(base, state_dir=tmp_path) as world:
        for host in "cd":
            pass_test(world, host)
        for host in "cd":
            order(world, "power_sleep", host)
            seconds_until(world, host, ASLEEP)
        ends = world.clock.wall()
    hosts = tuple(h for h in base.cluster.hosts if h.name != "c")
    fewer = replace(base, cluster=replace(base.cluster, hosts=hosts), start_wall=ends + 60)
    with World(fewer, state_dir=tmp_path) as world:
        world.power.machines["d"].powered = False
        world.cluster.hosts["d"].alive = False
        world.run(300)
        assert world.keeper is not None and world.loop is not None and world.loop.view is not None
        assert world.keeper.strangers() == {"c"}
        assert world.loop.view.plan is not None, "planning goes on"
        refusal = world.keeper.wake("c", "please", by="test")
        assert refusal is not None and refusal.code is Code.NO_POWER_CONTROL
        demand(world, 3.9)
        until = world.clock.monotonic() + 3600
        while world.keeper._book.of("d").phase is not AWAKE:
            assert world.clock.monotonic() < until
            world.run(world.clock.monotonic() + 10)
        assert {host for _, host, _ in world.power.orders} == {"d"}
        assert world.keeper._book.of("c").phase is ASLEEP, "its record stays, for who configures it again"
