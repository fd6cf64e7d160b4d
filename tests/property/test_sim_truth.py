"""Properties of the simulated truth, whatever happens in it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.sim import disasters
from rebalancerd.sim.clock import SimClock
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec

HOSTS = ("a", "b", "c")
EVENTS = ("migrate", "abort", "kill", "revive", "cut", "mend", "restart", "stop", "move")


def cluster(demands: list[float]) -> tuple[SimClock, SimCluster]:
    clock = SimClock()
    vms = tuple(
        VmSpec(
            name=f"v{i}",
            host=HOSTS[i % 2],
            vcpus=4,
            memory_bytes=1 * GIB,
            demand=Demand(base=d),
            dirty_bytes_per_second=d * 40 * MIB,
            working_set_bytes=200.0 * MIB,
        )
        for i, d in enumerate(demands)
    )
    return clock, SimCluster(ClusterSpec(hosts=tuple(HostSpec(name=h, cpus=4) for h in HOSTS), vms=vms), clock)


def happen(world: SimCluster, event: str, uuid: str, host: str) -> None:
    here = world.running_on(uuid)
    elsewhere = here not in (None, host)
    plain = {"kill": disasters.kill_host, "revive": disasters.revive_host, "restart": disasters.restart_libvirtd}
    if event in plain:
        plain[event](world, host)
    elif event == "migrate" and elsewhere:
        world.migrations.begin(uuid, here, host, options=MigrationOptions(), persistent=True, ours=None)
    elif event == "abort":
        world.migrations.abort(uuid)
    elif event in ("cut", "mend") and host != "a":
        (disasters.cut_link if event == "cut" else disasters.mend_link)(world, "a", host)
    elif event == "stop":
        disasters.stop_vm(world, uuid)
    elif event == "move" and elsewhere and uuid not in world.migrations.running and world.hosts[host].alive:
        disasters.relocate(world, uuid, host)


events = st.lists(
    st.tuples(st.floats(0.05, 40.0), st.sampled_from(EVENTS), st.integers(0, 5), st.sampled_from(HOSTS)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 4.0), min_size=1, max_size=6), events)
def test_no_guest_is_ever_doubled_and_none_lost_but_by_its_owner_or_its_host(
    demands: list[float], script: list
) -> None:
    """Migrations, aborts, deaths, cuts and restarts in any order."""
    clock, world = cluster(demands)
    for wait, event, number, host in script:
        clock.sleep(wait)
        world.advance()
        happen(world, event, world.spec.vms[number % len(demands)].key, host)
        ended = {e.vm_uuid for e in world.happened if e.kind in ("died with its host", "stopped by its owner")}
        for vm in world.spec.vms:
            running = [h for h in HOSTS if _running(world, h, vm.key)]
            assert len(running) <= 1
            if not running:
                assert vm.key in ended or vm.key in world.migrations.running
            assert world.running_on(vm.key) in (None, *running)
    clock.sleep(3600.0)
    world.advance()
    for vm in world.spec.vms:
        assert len(world.present_on(vm.key)) <= 1 or vm.key in world.migrations.running


def _running(world: SimCluster, host: str, uuid: str) -> bool:
    domain = world.hosts[host].domains.get(uuid)
    return domain is not None and domain.state is DomainState.RUNNING


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0, 4.0), min_size=1, max_size=6), st.lists(st.floats(0.1, 30.0), max_size=10))
def test_no_host_gives_more_than_it_has_and_nothing_is_lost_between_got_and_stolen(
    demands: list[float], waits: list[float]
) -> None:
    """CPU time plus steal is the demand; the sum of a host's guests and its own work is its busy time."""
    clock, world = cluster(demands)
    for wait in waits:
        clock.sleep(wait)
        world.advance()
    total = world.guests.cpu_seconds + world.guests.delay_seconds
    for i, demand in enumerate(demands):
        assert abs(total[i] - demand * world.now) < 1e-6 * max(1.0, world.now)
    assert (world.guests.busy_seconds <= 4 * world.now + 1e-6).all()
    assert abs(world.guests.busy_seconds.sum() - world.guests.cpu_seconds.sum() - 3 * 0.2 * world.now) < 1e-4
