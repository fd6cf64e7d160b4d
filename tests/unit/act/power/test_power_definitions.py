"""Definitions of shut-off domains on a host that is to sleep: left alone unless asked for, then moved so that none is lost."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.policy import HostMode, Mode, Owner, VmPolicy
from rebalancerd.cluster.power import PowerPhase
from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.cluster.sample import Definition
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import Disk, DiskKind, DomainState, VmFacts
from rebalancerd.guard.definition_checks import homes
from rebalancerd.ports import HostRefusedError, HostUnreachableError
from rebalancerd.sim.adapters import Reach
from rebalancerd.sim.domains import Domain
from rebalancerd.sim.world import World
from tests.unit.act.power.power_cluster import QUICK, order, pass_test, record, seconds_until, spec
from tests.unit.plan.plan_cluster import host, vm

COLD = "c01d0000-0000-4000-8000-000000000001"
MOVES = replace(QUICK, move_shut_off_definitions=True)
FACTS = VmFacts(uuid=COLD, name="cold", vcpus=1, memory_bytes=1 << 30)


def define(world: World, *, autostart: bool = True, uuid: str = COLD, **facts: object) -> None:
    """A shut-off domain is defined on c."""
    told = replace(FACTS, uuid=uuid, name=f"cold-{uuid[-1]}", autostart=autostart, **facts)  # type: ignore[arg-type]
    domain = Domain(uuid=uuid, name=told.name, state=DomainState.SHUTOFF, autostart=autostart, facts=told)
    world.cluster.hosts["c"].domains[uuid] = domain
    world.cluster.changed()


def where(world: World, uuid: str = COLD) -> list[str]:
    return [name for name, it in world.cluster.hosts.items() if uuid in it.domains]


def moved(world: World) -> list[str]:
    return [call.detail for call in world.write.calls if call.kind == "move_definition"]


def test_it_is_moved_with_its_flag_and_the_host_sleeps() -> None:
    with World(spec(times=MOVES)) as world:
        pass_test(world)
        define(world)
        define(world, uuid=COLD[:-1] + "2", autostart=False)
        order(world, "power_sleep")
        seconds_until(world, "c", PowerPhase.ASLEEP)
        assert (where(world), where(world, COLD[:-1] + "2")) == (["a"], ["a"])
        assert world.cluster.hosts["a"].domains[COLD].autostart
        assert not world.cluster.hosts["a"].domains[COLD[:-1] + "2"].autostart
        assert record(world).definition is None
        order(world, "power_wake")
        seconds_until(world, "c", PowerPhase.AWAKE)
        assert where(world) == ["a"], "nothing is brought back"


def test_by_default_nothing_is_moved() -> None:
    with World(spec()) as world:
        pass_test(world)
        define(world)
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 300)
        assert (record(world).phase, where(world), moved(world)) == (PowerPhase.AWAKE, ["c"], [])
        assert "shut_off_definitions" in record(world).reason


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"disks": (Disk(target="vda", kind=DiskKind.FILE, source="/local/x", writable=True),)}, "storage_unreachable"),
        ({"has_managed_save": True}, "managed-save image"),
        ({"immovable": ("2 snapshots or checkpoints are recorded in libvirt",)}, "2 snapshots"),
        ({"owner": Owner(name="pacemaker", evidence="")}, "pacemaker"),
        ({"secrets": frozenset({"s-1"})}, "secret"),
    ],
)
def test_what_would_be_lost_keeps_the_host_on_and_is_named(facts: dict[str, object], words: str) -> None:
    with World(spec(times=MOVES)) as world:
        pass_test(world)
        define(world, **facts)
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 300)
        assert (record(world).phase, where(world), moved(world)) == (PowerPhase.AWAKE, ["c"], [])
        assert words in record(world).reason
        assert record(world).definition is None


def test_a_flag_that_could_not_be_set_again_is_not_lost() -> None:
    with World(spec(times=MOVES)) as world:
        pass_test(world)
        world.cluster.hosts["a"].may_set_autostart = False
        define(world)
        order(world, "power_sleep")
        seconds_until(world, "c", PowerPhase.ASLEEP)
        assert where(world) == ["b"], "a lacks the right, b has it"


def test_one_that_is_started_in_between_is_a_guest_like_any_other() -> None:
    with World(spec(times=MOVES)) as world:
        pass_test(world)
        define(world)
        original = world.ledger.on_power

        def start(made: object) -> None:
            original(made)  # type: ignore[arg-type]
            if getattr(made, "definition", None) is not None:  # the intent is written: its owner starts it now
                world.cluster.hosts["c"].domains[COLD].state = DomainState.PAUSED

        world.ledger.on_power = start
        before = list(world.power.orders)
        assert world.keeper is not None and world.keeper.sleep("c", "test", by="test") is None
        for _ in range(6):
            world.keeper.tick()
            world.clock.sleep(10)
        assert (where(world), moved(world), world.power.orders) == (["c"], [], before)
        assert "is not shut off any more" in record(world).reason


def test_a_call_that_is_refused_is_told_and_nothing_is_lost() -> None:
    with World(spec(times=MOVES)) as world:
        pass_test(world)
        define(world)

        def refuses(*_: str) -> None:
            raise HostRefusedError("c", "unable to connect to server at 'a'")

        world.write.before_definition = refuses
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 120)
        assert (where(world), record(world).phase, record(world).definition) == (["c"], PowerPhase.AWAKE, None)
        assert "was not moved to a" in record(world).reason and "unable to connect" in record(world).reason
        assert world.cluster.hosts["c"].domains[COLD].autostart


def test_one_whose_end_is_not_seen_is_settled_as_soon_as_it_is() -> None:
    with World(spec(times=MOVES)) as world:
        pass_test(world)
        define(world)
        world.write.before_definition = lambda *_: world.wires.set_reach("c", Reach.REFUSED)
        before = list(world.power.orders)
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 120)
        assert record(world).definition is not None, "nobody knows how it ended"
        assert world.power.orders == before
        world.wires.set_reach("c", Reach.OK)
        world.run(world.clock.monotonic() + 60)
        assert (where(world), record(world).definition) == (["a"], None)
        assert world.cluster.hosts["a"].domains[COLD].autostart


def test_one_that_stands_on_both_hosts_is_named_and_nothing_is_undefined() -> None:
    with World(spec(times=MOVES)) as world:
        pass_test(world)
        define(world)

        def dies(_vm: str) -> None:
            raise HostUnreachableError("c", "libvirtd died")

        world.write.amid_definition = dies
        before = list(world.power.orders)
        order(world, "power_sleep")
        world.run(world.clock.monotonic() + 300)
        assert sorted(where(world)) == ["a", "c"]
        assert record(world).phase is PowerPhase.AWAKE and world.power.orders == before
        assert "duplicate_vm" in record(world).reason
        assert "stands on c (shutoff) and a (shutoff)" in str(record(world).disabled)
        del world.cluster.hosts["c"].domains[COLD]  # a person puts it right
        world.run(world.clock.monotonic() + 120)
        assert record(world).definition is None
        assert world.cluster.hosts["a"].domains[COLD].autostart


def effects_of_a_move() -> tuple[int, int]:
    with World(spec(times=MOVES)) as world:
        pass_test(world)
        define(world)
        order(world, "power_sleep")
        first = world.lifeline.effects
        seconds_until(world, "c", PowerPhase.ASLEEP)
        return first, world.lifeline.effects


def test_killed_after_every_effect_it_stands_on_one_host_with_its_flag() -> None:
    first, last = effects_of_a_move()
    assert last - first >= 8
    found = set()
    for effect in range(first + 1, last + 1):
        with World(spec(times=MOVES)) as world:
            pass_test(world)
            define(world)
            order(world, "power_sleep")
            world.lifeline.kill_after = effect
            until = world.clock.monotonic() + 600
            while world.clock.monotonic() < until:
                world.run(min(until, world.clock.monotonic() + 5))
                if world.loop is None:
                    world.run(world.clock.monotonic() + 30)
                    world.start_daemon()
            places = where(world)
            assert len(places) == 1, f"killed after effect {effect}: on {places}"
            assert world.cluster.hosts[places[0]].domains[COLD].autostart, f"killed after effect {effect}"
            assert record(world).definition is None, f"killed after effect {effect}: {record(world)}"
            found.add(places[0])
    assert found == {"a", "c"}


# where it may stand, by what is declared


def definition(**facts: object) -> Definition:
    kept = facts.pop("kept", ())
    return Definition(facts=replace(FACTS, **facts), kept=kept)  # type: ignore[arg-type]


def asked(made: Definition, *changes: dict[str, object], blocked: dict[str, Refusal] | None = None) -> object:
    hosts = [host(f"h{i}", **(changes[i] if i < len(changes) else {})) for i in range(3)]
    shot = Snapshot(taken_at=0.0, hosts=tuple(hosts), vms=(vm("a", "h2"),))
    found = homes(made, "h0", shot, blocked or {})
    return found.code if isinstance(found, Refusal) else found


def test_hosts_that_hold_vms_come_first() -> None:
    assert asked(definition()) == ("h2", "h1")
    on_shared = Disk(target="vda", kind=DiskKind.FILE, source="/shared/x", writable=True)
    assert asked(definition(disks=(on_shared,))) == ("h2", "h1")
    assert asked(definition(), {}, {"mode": HostMode.NO_INBOUND}) == ("h2",)
    assert asked(definition(policy=VmPolicy(pin=frozenset({"h1"})))) == ("h1",)
    assert asked(definition(policy=VmPolicy(avoid=frozenset({"h2"})))) == ("h1",)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"disks": (Disk(target="a", kind=DiskKind.BLOCK, source="/dev/x", writable=True),)}, Code.STORAGE_UNREACHABLE),
        ({"autostart": None}, Code.PREFLIGHT_UNKNOWN),
        ({"faults": ("policy unreadable",)}, Code.PREFLIGHT_UNKNOWN),
        ({"kept": ("UEFI variables (NVRAM)",)}, Code.IMMOVABLE),
        ({"has_managed_save": True, "kept": ("a managed-save image",)}, Code.MANAGED_SAVE),
        ({"policy": VmPolicy(mode=Mode.RECOMMEND)}, Code.VM_MODE),
        ({"policy": VmPolicy(pin=frozenset({"h0"}))}, Code.PINNED),
        ({"owner": Owner(name="nova", evidence="")}, Code.FOREIGN_OWNER),
    ],
)
def test_what_stays_says_why(facts: dict[str, object], code: Code) -> None:
    assert asked(definition(**facts)) is code


def test_hosts_that_sleep_or_are_silent_are_no_home() -> None:
    asleep = {h: about_host(Code.HOST_ASLEEP, h, f"{h} is asleep") for h in ("h1", "h2")}
    assert asked(definition(), blocked=asleep) is Code.HOST_ASLEEP
    assert asked(definition(), {}, {"unusable": "silent"}, {"unusable": "silent"}) is Code.HOST_STALE
