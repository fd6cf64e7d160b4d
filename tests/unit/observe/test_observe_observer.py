"""The observer: snapshots of a hand-made cluster, through outages, lies and odd VMs."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from observe_world import UUIDS, Guest, HandAgents, HandClock, HandProbe, HandRead, facts_of

from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.policy import HostMode, Mode, Owner, VmPolicy
from rebalancerd.cluster.sample import AgentSample, CpuFit, HostSample
from rebalancerd.cluster.snapshot import Doubled, Snapshot
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.observe.history import HOST_CPU, VM_CPU, VM_DIRTY, VM_MEMORY, History, Tier
from rebalancerd.observe.observer import Observer
from rebalancerd.observe.settings import HostSettings, ObserveSettings, PolicyRule
from rebalancerd.ports import HostUnreachableError


class World:
    """An observer on hand-made ports."""

    def __init__(self, path: Path) -> None:
        self.clock, self.probe, self.agents = HandClock(), HandProbe(), HandAgents()
        self.read = HandRead(self.clock)
        self.settings = ObserveSettings(
            rules=(
                PolicyRule(name="vm-01", owner="pacemaker"),
                PolicyRule(name="vm-02", policy=VmPolicy(mode=Mode.GUARDED, postcopy=True)),
            )
        )
        self.path = path
        self.hosts = [HostSettings(name=n, uri=f"qemu+tls://{n}/system") for n in self.read.names]
        self.open()

    def open(self, *, probe: bool = True, concurrent: bool = False) -> None:
        self.observer = Observer(
            hosts=self.hosts,
            settings=self.settings,
            read=self.read,
            probe=self.probe if probe else None,
            agents=self.agents,
            history=History(self.path, tiers=(Tier(20.0, 50),)),
            clock=self.clock,
            concurrent=concurrent,
        )

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.sleep(10.0)
            self.observer.sample()

    def look(self, *, drained: frozenset[str] = frozenset(), ours: tuple[MigrationRecord, ...] = ()) -> Snapshot:
        return self.observer.snapshot(operator=OperatorState(drained=drained), ours=ours)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.observer.close()


def test_a_quiet_cluster(world: World) -> None:
    world.read.guests = [Guest(UUIDS[n], f"h{1 + n % 3}", cores=0.25 * (n + 1)) for n in range(4)]
    world.tick()
    assert world.look().warming_up
    world.tick(2)
    seen = world.look()
    assert not seen.warming_up
    assert seen.frozen is None
    assert seen.unknowns == ()
    assert [h.unusable for h in seen.hosts] == [None] * 3
    host = seen.host("h1")
    assert (host.cores, host.memory_bytes, host.load.cpu_cores, host.load.memory_used_bytes) == (
        8.0,
        16 * GIB,
        pytest.approx(1.0),
        4 * GIB,
    )
    assert host.peer_uri == "qemu+tls://h1/system"
    assert [vm.load.cpu_cores for vm in seen.vms] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [vm.load.steal_cores for vm in seen.vms] == pytest.approx([0.1] * 4)
    assert seen.vms[0].load.memory_bytes == GIB // 2
    assert seen.vms[1].owner == Owner(name="pacemaker", evidence="configured for names like vm-01")
    assert seen.vms[2].policy == VmPolicy(mode=Mode.GUARDED, postcopy=True)


def test_settings_win_over_what_libvirt_says(world: World) -> None:
    world.hosts[0] = replace(world.hosts[0], cores=3.0, memory_bytes=GIB, mode=HostMode.NO_INBOUND)
    world.open()
    world.tick()
    host = world.look().host("h1")
    assert (host.cores, host.memory_bytes, host.mode) == (3.0, GIB, HostMode.NO_INBOUND)


def test_drained_by_command_except_where_only_observing_is_allowed(world: World) -> None:
    world.hosts[1] = replace(world.hosts[1], mode=HostMode.OBSERVE)
    world.open()
    world.tick()
    seen = world.look(drained=frozenset({"h1", "h2"}))
    assert [h.mode for h in seen.hosts] == [HostMode.DRAIN, HostMode.OBSERVE, HostMode.ACTIVE]


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_dead_host_and_a_bug_cost_only_themselves(world: World, concurrent: bool) -> None:
    world.open(concurrent=concurrent)
    world.read.guests = [Guest(UUIDS[0], "h1"), Guest(UUIDS[3], "h2"), Guest(UUIDS[4], "h3")]
    world.tick(3)
    world.read.down = {"h1": HostUnreachableError("h1", "no route"), "h2": RuntimeError("a bug")}
    world.tick()
    seen = world.look()
    assert seen.host("h1").unusable == "unreachable: no route"
    assert "RuntimeError: a bug" in (seen.host("h2").unusable or "")
    assert seen.host("h3").unusable is None
    assert len(seen.vms) == 3, "unknown is not empty"
    assert {u.subject for u in seen.unknowns} == {"h1", "h2"}


def test_a_host_that_comes_back_must_first_be_stable(world: World) -> None:
    world.tick(3)
    world.read.down = {"h1": HostUnreachableError("h1", "no route")}
    world.tick(2)
    world.read.down = {}
    world.tick()
    assert "flapping" in (world.look().host("h1").unusable or "")
    world.tick(6)
    assert world.look().host("h1").unusable is None


def test_figures_grow_stale_when_sampling_stops(world: World) -> None:
    world.tick(3)
    world.clock.sleep(61.0)
    seen = world.look()
    assert all("stale" in (h.unusable or "") for h in seen.hosts)
    world.tick()
    assert world.look().warming_up, "after a long silence of our own"


def test_duplicate_uuids_and_zero_cpus_are_unusable(world: World) -> None:
    world.read.host_uuids = {"h1": "same", "h2": "same"}
    world.read.cpus = {"h3": 0}
    world.tick(3)
    seen = world.look()
    assert ["duplicate" in (h.unusable or "") for h in seen.hosts] == [True, True, False]
    assert "0 CPUs" in (seen.host("h3").unusable or "")
    assert seen.host("h3").cores is None


def test_a_foreign_migration_is_in_flight_and_ours_is_ours(world: World) -> None:
    world.read.guests = [Guest(UUIDS[0], "h1")]
    world.tick(3)
    world.read.guests.append(Guest(UUIDS[0], "h2", state=DomainState.PAUSED_MIGRATION, cores=0.0))
    world.tick()
    (flight,) = world.look().in_flight
    assert (flight.source, flight.destination, flight.ours) == ("h1", "h2", False)
    record = MigrationRecord(
        id="m",
        vm_uuid=UUIDS[0],
        vm_name="v",
        source="h1",
        destination="h2",
        state=MigrationState.RUNNING,
        intent_at=0.0,
    )
    (flight,) = world.look(ours=(record,)).in_flight
    assert flight.ours
    world.read.guests = [Guest(UUIDS[0], "h2")]
    world.tick()
    seen = world.look()
    assert (seen.vms[0].host, seen.in_flight, seen.vms[0].busy) == ("h2", (), None)


def test_a_vm_on_two_hosts_is_named_and_blocks_nobody(world: World) -> None:
    world.read.guests = [Guest(UUIDS[0], "h1"), Guest(UUIDS[0], "h2"), Guest(UUIDS[3], "h3")]
    world.tick(3)
    seen = world.look()
    assert "active on 2 hosts" in (seen.vm(UUIDS[0]).busy or "")
    assert seen.vm(UUIDS[3]).busy is None


def test_a_second_copy_is_one_when_it_was_seen_twice_in_a_row(world: World) -> None:
    alone, twice = [Guest(UUIDS[0], "h1")], [Guest(UUIDS[0], "h1"), Guest(UUIDS[0], "h2")]
    seen = []
    for guests in (alone, twice, alone, twice, twice, alone):
        world.read.guests = guests
        world.tick()
        seen.append(world.look().doubled)
    copy = (Doubled(vm_uuid=UUIDS[0], hosts=("h1", "h2")),)
    assert seen == [(), (), (), (), copy, ()]


def test_a_vm_without_facts_is_counted_and_never_moved(world: World) -> None:
    world.read.guests = [Guest(UUIDS[0], "h1", fault="its XML is broken"), Guest(UUIDS[3], "h1")]
    world.tick(3)
    seen = world.look()
    odd = seen.vm(UUIDS[0])
    assert odd.facts.immovable == ("its XML is broken",)
    assert odd.policy.mode is Mode.OBSERVE
    assert odd.load.cpu_cores == pytest.approx(0.5)
    assert {u.reason for u in seen.unknowns if u.subject == UUIDS[0]} >= {"its XML is broken"}
    assert seen.vm(UUIDS[3]).facts.immovable == ()


def test_facts_once_read_survive_a_later_fault(world: World) -> None:
    guest = Guest(UUIDS[0], "h1")
    world.read.guests = [guest]
    world.tick(2)
    guest.fault = "timed out"
    world.tick()
    assert world.look().vms[0].facts == facts_of(UUIDS[0])


def test_telemetry_that_drops_to_zero_everywhere_freezes_decisions_for_a_while(world: World) -> None:
    world.read.guests = [Guest(UUIDS[n], "h1") for n in range(6)]
    world.tick(3)
    cpu = world.clock.now * 0.5
    for guest in world.read.guests:
        guest.cores = 0.0
    # a counter that stands still where it was
    world.read._domain = _standing_still(world.read, int(cpu * 1e9))  # type: ignore[method-assign]
    world.tick()
    assert "6 of 6" in (world.look().frozen or "")
    world.tick(3)
    assert world.look().frozen is not None
    world.tick(4)
    assert world.look().frozen is None


def _standing_still(read: HandRead, cpu_ns: int):  # type: ignore[no-untyped-def]
    original = type(read)._domain
    return lambda guest: replace(original(read, guest), cpu_time_ns=cpu_ns)


@pytest.mark.parametrize("count", [1, 5])
def test_a_host_that_suddenly_lists_nothing_is_doubted_for_an_hour(world: World, count: int) -> None:
    """It may be a libvirtd that has not found its guests yet, and to it the host looks free."""
    world.read.guests = [Guest(UUIDS[n], "h1") for n in range(count)]
    world.tick(3)
    world.read.guests = []
    world.tick()
    assert f"all of its VMs ({count}) vanished" in (world.look().host("h1").unusable or "")
    world.tick(300)
    assert "vanished" in (world.look().host("h1").unusable or "")
    world.tick(61)
    assert world.look().host("h1").unusable is None


@pytest.mark.parametrize("there", ["h1", "h2"])
def test_what_vanished_and_is_found_again_ends_the_doubt(world: World, there: str) -> None:
    world.read.guests = [Guest(UUIDS[0], "h1")]
    world.tick(3)
    world.read.guests = []
    world.tick()
    world.read.guests = [Guest(UUIDS[0], there)]
    world.tick()

    assert world.look().host("h1").unusable is None


def test_agents_figures_win_where_they_can_be_true(world: World) -> None:
    world.agents.samples = {
        "h1": AgentSample(host="h1", cpu_cores=3.5, memory_available_bytes=GIB, psi_cpu=0.4, swap_used_bytes=5),
        "h2": AgentSample(host="h2", cpu_cores=99.0, memory_available_bytes=64 * GIB),
    }
    world.tick(2)
    seen = world.look()
    one, two = seen.host("h1").load, seen.host("h2").load
    assert (one.cpu_cores, one.memory_used_bytes, one.psi_cpu, one.swap_used_bytes) == (3.5, 15 * GIB, 0.4, 5)
    assert (two.cpu_cores, two.memory_used_bytes) == (pytest.approx(1.0), 4 * GIB)


def test_probing_fills_curves_and_the_cpu_table(world: World) -> None:
    world.read.guests = [Guest(UUIDS[0], "h1"), Guest(UUIDS[3], "h2"), Guest(UUIDS[4], "h2", job="backup")]
    world.probe.refuse = {UUIDS[3]}
    world.tick(3)
    world.observer.probe_tick()
    assert world.probe.started == [("h1", UUIDS[0], 1)]
    world.read.guests[0].dirty = DirtyReading(
        taken_at=world.clock.wall(), period_seconds=1.0, rate_bytes_per_second=9.0 * MIB
    )
    world.tick(3)
    seen = world.look()
    curve = seen.vm(UUIDS[0]).dirty
    assert curve is not None
    assert curve.points[0].unique_bytes == 9 * MIB
    assert UUIDS[0] in world.observer.series(VM_DIRTY).ids
    fits = {(row.cpu_digest, row.host): row.fit for row in seen.cpu_fits}
    assert fits == {
        ("c0", "h1"): CpuFit.COMPATIBLE,
        ("c0", "h2"): CpuFit.COMPATIBLE,
        ("c0", "h3"): CpuFit.UNKNOWN,
    }
    asked = len(world.probe.compared)
    world.observer.probe_tick()
    assert len(world.probe.compared) == asked, "answers are kept"


def test_a_migrating_vm_is_never_probed(world: World) -> None:
    world.read.guests = [
        Guest(UUIDS[0], "h1"),
        Guest(UUIDS[0], "h2", state=DomainState.PAUSED_MIGRATION),
        Guest(UUIDS[3], "h3", state=DomainState.PAUSED),
    ]
    world.tick(3)
    world.observer.probe_tick()
    assert world.probe.started == []


def test_without_a_probe_port_probing_does_nothing(world: World) -> None:
    world.open(probe=False)
    world.read.guests = [Guest(UUIDS[0], "h1")]
    world.tick(3)
    world.observer.probe_tick()
    assert world.look().cpu_fits == ()


def test_history_is_recorded_and_survives_a_restart(world: World) -> None:
    world.read.guests = [Guest(UUIDS[0], "h1", cores=0.5)]
    world.tick(9)
    world.open()
    world.tick(4)
    series = world.observer.series(VM_CPU)
    assert series.ids == (UUIDS[0],)
    assert [round(float(v), 3) for v in series.values[-3:, 0]] == [0.5, 0.5, 0.5]
    assert set(world.observer.series(HOST_CPU).ids) == {"h1", "h2", "h3"}
    assert float(world.observer.series(VM_MEMORY).values[-1, 0]) == GIB // 2


def test_a_full_disk_costs_history_and_not_sight(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(History, "append", full)
    world.tick(3)
    assert not world.look().warming_up


def test_the_same_state_gives_the_same_digest(world: World) -> None:
    world.read.guests = [Guest(UUIDS[n], "h1") for n in range(3)]
    world.tick(3)
    assert world.look().digest == world.look().digest


def test_a_host_that_never_returns_does_not_hold_up_the_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are sampled on time; the late answer is taken at the tick after it came."""
    monkeypatch.setattr("rebalancerd.observe.observer.SLACK_SECONDS", 0.25)
    world.settings = replace(world.settings, call_deadline_seconds=0.02)
    world.open(concurrent=True)
    free, ask = threading.Event(), world.read.sample

    def hang(host: str) -> HostSample:
        if host == "h1":
            free.wait()
        return ask(host)

    monkeypatch.setattr(world.read, "sample", hang)
    world.tick(3)
    seen = world.look()
    assert "unreachable: no answer within" in (seen.host("h1").unusable or "")
    assert [seen.host(name).unusable for name in ("h2", "h3")] == [None, None]
    free.set()
    deadline = time.monotonic() + 5
    while not world.observer._pending["h1"].done() and time.monotonic() < deadline:
        time.sleep(0.002)
    world.tick()
    assert "no answer" not in (world.look().host("h1").unusable or "")
