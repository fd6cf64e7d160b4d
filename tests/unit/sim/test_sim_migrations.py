"""Simulated live migrations and the ports over them."""

import pytest

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.ports import HostRefusedError, HostUnreachableError
from rebalancerd.sim import disasters
from rebalancerd.sim.adapters import Reach, SimHandle, SimProbe, SimRead, SimWrite, Wires
from rebalancerd.sim.clock import SimClock
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.transfer import PlannedFailure

LINK = 125_000_000.0 * 0.94


class Bench:
    """Two or three hosts, a clock and the ports."""

    def __init__(self, *vms: VmSpec, hosts: tuple[str | HostSpec, ...] = ("a", "b", "c")) -> None:
        self.clock = SimClock()
        specs = tuple(h if isinstance(h, HostSpec) else HostSpec(name=h) for h in hosts)
        self.cluster = SimCluster(ClusterSpec(hosts=specs, vms=vms), self.clock)
        self.wires = Wires(self.cluster)
        self.read, self.probe, self.write = SimRead(self.wires), SimProbe(self.wires), SimWrite(self.wires)

    def uuid(self, name: str) -> str:
        return self.cluster.named(name)

    def migrate(self, name: str, source: str = "a", destination: str = "b", **options: object) -> SimHandle:
        record = MigrationRecord(
            id=f"m-{name}-{self.clock.monotonic()}",
            vm_uuid=self.uuid(name),
            vm_name=name,
            source=source,
            destination=destination,
            state=MigrationState.INTENT,
            intent_at=self.clock.wall(),
            options=MigrationOptions(**options),  # type: ignore[arg-type]
        )
        return self.write.migrate(record)

    def finish(self, handle: SimHandle, limit: float = 3600.0) -> float:
        begun = self.clock.monotonic()
        while not handle.done():
            assert self.clock.monotonic() - begun < limit
            self.clock.sleep(0.1)
        return self.clock.monotonic() - begun

    def states(self, name: str) -> tuple[str, ...]:
        return tuple(self.read.locate(h, self.uuid(name)).value for h in ("a", "b"))


def idle(name: str, **more: object) -> VmSpec:
    fields = {"rss_bytes": 1 * GIB, "dirty_bytes_per_second": 1.0 * MIB, "working_set_bytes": 8.0 * MIB} | more
    return VmSpec(name=name, host="a", memory_bytes=1 * GIB, **fields)  # type: ignore[arg-type]


def busy(name: str) -> VmSpec:
    """Dirties 400 MiB/s on 512 MiB: no 1 Gbit/s link carries that."""
    return idle(name, dirty_bytes_per_second=400.0 * MIB, working_set_bytes=512.0 * MIB)


def test_an_idle_guest_moves_in_the_time_its_memory_needs_on_the_link() -> None:
    """1 GiB at 117.5 MB/s plus handshakes; the source's definition is gone, the destination's is persistent."""
    bench = Bench(idle("v", autostart=True))
    seconds = bench.finish(bench.migrate("v"))
    completion = bench.read.completion("b", bench.uuid("v"))

    assert seconds == pytest.approx(GIB * 1.002 / LINK + 2.0, abs=0.3)
    assert bench.states("v") == ("absent", "running")
    assert completion is not None
    assert completion.downtime_seconds == pytest.approx(0.1, abs=0.1)
    assert bench.cluster.facts("b", bench.uuid("v")).persistent


def test_autostart_is_lost_and_can_be_set_again() -> None:
    """1 on the source before, 0 on the destination after, as measured with libvirt 9."""
    bench = Bench(idle("v", autostart=True))
    assert bench.cluster.facts("a", bench.uuid("v")).autostart
    bench.finish(bench.migrate("v"))

    assert bench.cluster.facts("b", bench.uuid("v")).autostart is False
    bench.write.set_autostart("b", bench.uuid("v"), True)
    assert bench.read.domain_facts("b", bench.uuid("v")).autostart is True


def test_the_destination_shows_a_paused_copy_and_counters_begin_anew() -> None:
    """What an observer sees during the move and after it."""
    bench = Bench(idle("v", demand=Demand(base=1.0)))
    bench.clock.sleep(100.0)
    handle = bench.migrate("v")
    bench.clock.sleep(5.0)

    assert bench.states("v") == ("running", "paused_migration")
    assert bench.read.sample("b").domains[0].rss_bytes > 100 * MIB
    progress = bench.read.progress("a", bench.uuid("v"))
    assert progress is not None
    assert progress.rate_bytes_per_second == pytest.approx(LINK)
    assert 0 < progress.remaining_bytes < GIB
    bench.finish(handle)
    assert bench.read.sample("b").domains[0].cpu_time_ns < 20e9
    assert bench.read.progress("a", bench.uuid("v")) is None


def test_migrations_share_a_link() -> None:
    """Two from one source take about twice as long as one."""
    alone = Bench(idle("v"))
    single = alone.finish(alone.migrate("v"))
    bench = Bench(idle("v"), idle("w"))
    first, second = bench.migrate("v"), bench.migrate("w", destination="c")
    bench.finish(first)
    bench.finish(second)

    assert bench.clock.monotonic() == pytest.approx(2 * single - 2, rel=0.05)


def test_a_hot_guest_never_converges_until_more_downtime_is_allowed() -> None:
    """An hour of rounds, the guest on its source; allowing the working set's time ends it."""
    bench = Bench(busy("v"))
    handle = bench.migrate("v", max_downtime_seconds=0.3)
    bench.clock.sleep(3600.0)
    assert not handle.done()
    assert bench.states("v")[0] == "running"
    iterations = bench.read.progress("a", bench.uuid("v")).iteration
    assert iterations > 100
    bench.write.set_max_downtime("a", bench.uuid("v"), 6.0)
    bench.finish(handle, limit=30.0)

    assert bench.states("v") == ("absent", "running")


def test_auto_converge_slows_the_guest_until_it_fits() -> None:
    """Throttle rises step by step and is gone after the move."""
    bench = Bench(busy("v"))
    handle = bench.migrate("v", max_downtime_seconds=0.5, auto_converge=True)
    bench.clock.sleep(60.0)
    assert bench.read.progress("a", bench.uuid("v")).throttle > 0.1
    bench.finish(handle, limit=1200.0)

    assert bench.states("v") == ("absent", "running")
    assert bench.cluster.guests.throttled.max() == 0.0


def test_an_abort_takes_effect_a_while_later_and_leaves_the_guest_where_it_was() -> None:
    """Code 78 from the call, nothing left on the destination."""
    bench = Bench(busy("v"))
    handle = bench.migrate("v")
    bench.clock.sleep(20.0)
    bench.write.abort("a", bench.uuid("v"))
    assert not handle.done()
    bench.clock.sleep(2.5)

    assert handle.done()
    assert handle.error().code == 78
    assert bench.states("v") == ("running", "absent")


def test_a_bandwidth_cap_slows_the_copy_but_not_the_switch_over() -> None:
    """QEMU lifts the cap for the last part."""
    bench = Bench(idle("v"))
    seconds = bench.finish(bench.migrate("v", bandwidth_bytes_per_second=20.0 * MIB))

    assert seconds == pytest.approx(1024 / 20 + 2, rel=0.05)
    assert bench.read.completion("a", bench.uuid("v")).downtime_seconds < 0.1


@pytest.mark.parametrize(
    ("vm", "host", "code"),
    [
        (idle("v", disks=("/local/v.img",)), HostSpec(name="b"), 81),
        (idle("v", networks=("vlan7",)), HostSpec(name="b"), 43),
        (idle("v", cpu_generation=2), HostSpec(name="b"), 91),
    ],
)
def test_libvirt_refuses_what_cannot_run_there(vm: VmSpec, host: HostSpec, code: int) -> None:
    """The call fails after the handshake; the guest does not notice."""
    bench = Bench(vm, hosts=("a", host))
    handle = bench.migrate("v")
    bench.finish(handle, limit=5.0)

    assert handle.error().code == code
    assert bench.states("v") == ("running", "absent")


def test_a_second_migration_of_the_same_guest_meets_the_job_lock() -> None:
    """At most one migration per VM, by libvirt's own lock."""
    bench = Bench(idle("v"))
    bench.migrate("v")
    second = bench.migrate("v", destination="c")

    assert second.done()
    assert second.error().code == 68


def test_a_call_may_fail_although_the_guest_moved() -> None:
    """The verdict must come from where it runs."""
    bench = Bench(idle("v"))
    bench.cluster.migrations.quirks.add(("lie", bench.uuid("v")))
    handle = bench.migrate("v")
    bench.finish(handle)

    assert handle.error() is not None
    assert bench.states("v") == ("absent", "running")


def test_an_ordered_failure_rolls_back() -> None:
    """Half way through the first round."""
    bench = Bench(idle("v"))
    bench.cluster.migrations.failures["*"] = [PlannedFailure(9, "internal error: qemu unexpectedly closed", 0.5)]
    handle = bench.migrate("v")
    seconds = bench.finish(handle)

    assert seconds == pytest.approx(0.6 + GIB / LINK / 2, abs=0.3)
    assert handle.error().code == 9
    assert bench.states("v") == ("running", "absent")


@pytest.mark.parametrize("after", [0.3, 5.0, 9.79, 10.5])
def test_the_destination_dies_and_the_guest_lives_or_dies_with_where_it_runs(after: float) -> None:
    """In preparation, in the copy, around the switch-over: never on both hosts, never a ghost."""
    bench = Bench(idle("v"))
    handle = bench.migrate("v")
    bench.clock.sleep(after)
    bench.cluster.advance()
    disasters.kill_host(bench.cluster, "b")
    bench.finish(handle, limit=45.0)

    running = bench.cluster.running_on(bench.uuid("v"))
    assert running in ("a", None)
    assert (running is None) == (bench.cluster.present_on(bench.uuid("v")) == ())
    assert handle.error() is not None


@pytest.mark.parametrize("after", [0.3, 5.0, 10.5])
def test_the_source_dies(after: float) -> None:
    """The guest is lost unless it runs on the destination already."""
    bench = Bench(idle("v"))
    handle = bench.migrate("v")
    bench.clock.sleep(after)
    bench.cluster.advance()
    disasters.kill_host(bench.cluster, "a")
    bench.clock.sleep(60.0)

    assert handle.done()
    assert bench.cluster.running_on(bench.uuid("v")) == ("b" if after > 10 else None)
    with pytest.raises(HostUnreachableError):
        bench.read.sample("a")


def test_a_cut_link_ends_a_migration_after_the_keepalive_and_a_mended_one_lets_it_go_on() -> None:
    """30 s of nothing, then rolled back; a gap of 10 s costs 10 s."""
    bench = Bench(idle("v"), idle("w"))
    handle = bench.migrate("v")
    bench.clock.sleep(3.0)
    bench.cluster.advance()
    disasters.cut_link(bench.cluster, "a", "b")
    assert bench.finish(handle) == pytest.approx(30.0, abs=0.3)
    assert bench.states("v") == ("running", "absent")
    again = bench.migrate("w")
    bench.clock.sleep(10.0)
    bench.cluster.advance()
    disasters.mend_link(bench.cluster, "b", "a")
    bench.finish(again)
    assert bench.states("w") == ("absent", "running")


def test_owners_may_stop_pause_or_move_their_guest() -> None:
    """None of it leaves anything behind."""
    bench = Bench(idle("v"), idle("w"), idle("x"))
    handle = bench.migrate("v")
    bench.clock.sleep(3.0)
    bench.cluster.advance()
    disasters.stop_vm(bench.cluster, bench.uuid("v"))
    disasters.relocate(bench.cluster, bench.uuid("w"), "b")
    disasters.pause_vm(bench.cluster, bench.uuid("x"), paused=True)

    assert handle.done()
    assert bench.states("v") == ("shutoff", "absent")
    assert bench.states("w") == ("absent", "running")
    assert bench.states("x") == ("paused", "absent")
    assert [e.kind for e in bench.cluster.happened] == ["stopped by its owner", "moved by hand", "paused by its owner"]


def test_a_hanging_host_costs_its_deadline_and_others_nothing() -> None:
    """Virtual seconds pass for the hanging one only; migrations go on meanwhile."""
    bench = Bench(idle("v"))
    handle = bench.migrate("v")
    bench.wires.reach["a"] = Reach.HANGS
    with pytest.raises(HostUnreachableError, match="no answer within 5 s"):
        bench.read.sample("a")
    assert bench.clock.monotonic() == 5.0
    bench.read.sample("b")
    assert bench.clock.monotonic() == 5.0
    bench.finish(handle)
    assert bench.cluster.running_on(bench.uuid("v")) == "b"


def test_probing_a_migrating_guest_blocks_and_fails() -> None:
    """As libvirt does: 30 s, code 68."""
    bench = Bench(busy("v"))
    bench.migrate("v")
    with pytest.raises(HostRefusedError) as caught:
        bench.probe.start_dirty_rate("a", bench.uuid("v"), 1)

    assert caught.value.code == 68
    assert bench.clock.monotonic() == 30.0


def test_cpu_fit_follows_generations() -> None:
    """A newer host runs older guests, not the other way round."""
    bench = Bench(idle("v", cpu_generation=2), hosts=(HostSpec(name="a", cpu_generation=2), HostSpec(name="b"), "c"))

    assert bench.probe.cpu_fit(bench.uuid("v"), "a", "a")[0] is CpuFit.COMPATIBLE
    assert bench.probe.cpu_fit(bench.uuid("v"), "a", "b")[0] is CpuFit.INCOMPATIBLE


def test_autostart_needs_its_right() -> None:
    """Code 29 without it, as a polkit rule gives."""
    bench = Bench(idle("v"))
    bench.cluster.hosts["a"].may_set_autostart = False

    assert not bench.write.may_set_autostart("a")
    with pytest.raises(HostRefusedError) as caught:
        bench.write.set_autostart("a", bench.uuid("v"), True)
    assert caught.value.code == 29


def test_the_write_port_has_no_way_to_end_or_start_a_guest() -> None:
    """Nothing but migrate, abort, two tunings, autostart, and the definition of a VM that is off."""
    calls = {name for name in dir(SimWrite) if not name.startswith("_")}

    of_running = {"migrate", "abort", "set_max_downtime", "set_bandwidth", "set_autostart", "may_set_autostart"}
    assert calls == of_running | {"move_definition"}


def test_a_namesake_on_the_destination_is_in_the_inventory_and_refused() -> None:
    """Inactive definitions count as well."""
    bench = Bench(idle("v"))
    disasters.define_namesake(bench.cluster, bench.uuid("v"), "b")
    handle = bench.migrate("v")
    bench.finish(handle)

    assert [(name, state) for _, name, state in bench.read.inventory("b").domains] == [("v", DomainState.SHUTOFF)]
    assert handle.error().code == 9
