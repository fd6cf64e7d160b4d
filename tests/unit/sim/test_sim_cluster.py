"""The simulated truth: sharing, counters, and what a guest's demand becomes."""

import pytest

from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.sim.adapters import SimRead, Wires
from rebalancerd.sim.clock import SimClock
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec


def world(*vms: VmSpec, hosts: tuple[HostSpec, ...] = ()) -> tuple[SimClock, SimCluster, SimRead]:
    clock = SimClock()
    cluster = SimCluster(ClusterSpec(hosts=hosts or (HostSpec(name="a", cpus=4), HostSpec(name="b")), vms=vms), clock)
    return clock, cluster, SimRead(Wires(cluster))


def cpu(sample_domains: tuple, name: str) -> float:
    (domain,) = [d for d in sample_domains if d.name == name]
    return domain.cpu_time_ns / 1e9


def test_counters_are_the_integral_of_demand() -> None:
    """Two cores for 90 s, then one core from the scripted step on."""
    clock, _, read = world(VmSpec(name="v", host="a", demand=Demand(base=2.0, steps=((90.0, 1.0),))))
    clock.advance_to(100.0)
    sample = read.sample("a")

    assert cpu(sample.domains, "v") == pytest.approx(190.0, abs=1e-6)
    assert sample.cpu_busy_ns == pytest.approx((190.0 + 0.2 * 100) * 1e9)
    assert sample.taken_at == 100.0


def test_an_overcommitted_host_shares_in_proportion_and_the_rest_is_steal() -> None:
    """6 cores wanted on 4 (0.2 of them the host's own)."""
    clock, _, read = world(
        VmSpec(name="v", host="a", vcpus=4, demand=Demand(base=4.0)), VmSpec(name="w", host="a", demand=Demand(base=2))
    )
    clock.advance_to(10.0)
    v, w = sorted(read.sample("a").domains, key=lambda d: d.name)

    assert v.cpu_time_ns == pytest.approx(10e9 * 3.8 * 4 / 6)
    assert w.cpu_time_ns == pytest.approx(10e9 * 3.8 * 2 / 6)
    assert v.vcpu_delay_ns == pytest.approx(10e9 * (4 - 3.8 * 4 / 6))
    assert read.sample("a").cpu_busy_ns == pytest.approx(40e9)


def test_demand_is_capped_by_vcpus_and_scaled_by_the_hosts_speed() -> None:
    """Reference cores become fewer cores on a faster host; nobody uses more than the vCPUs."""
    fast = HostSpec(name="fast", speed_factor=2.0)
    clock, _, read = world(
        VmSpec(name="v", host="fast", demand=Demand(base=2.0)),
        VmSpec(name="w", host="fast", vcpus=1, demand=Demand(base=8.0)),
        hosts=(fast,),
    )
    clock.advance_to(5.0)
    v, w = sorted(read.sample("fast").domains, key=lambda d: d.name)

    assert v.cpu_time_ns == pytest.approx(5e9)
    assert w.cpu_time_ns == pytest.approx(5e9)


@pytest.mark.parametrize("step", [0.7, 3.0, 60.0])
def test_the_result_does_not_depend_on_how_often_it_is_read(step: float) -> None:
    """Noise, waves and steps give one truth, whatever the sampling interval."""
    demand = Demand(base=1.0, amplitude=0.5, period_seconds=600.0, noise=0.2, steps=((33.3, 0.6),))
    clock, _, read = world(VmSpec(name="v", host="a", demand=demand))
    seconds = 0.0
    while seconds < 120.0:
        seconds = min(120.0, seconds + step)
        clock.advance_to(seconds)
        read.sample("a")
    once_clock, _, once = world(VmSpec(name="v", host="a", demand=demand))
    once_clock.advance_to(120.0)

    assert cpu(read.sample("a").domains, "v") == pytest.approx(cpu(once.sample("a").domains, "v"), abs=1e-6)


def test_memory_available_is_what_guests_leave() -> None:
    """Total minus the host's own minus resident memory."""
    _, cluster, _ = world(
        VmSpec(name="v", host="a", rss_bytes=3 * GIB), hosts=(HostSpec(name="a", memory_bytes=16 * GIB),)
    )

    assert cluster.memory_available("a") == 12 * GIB


def test_dirty_readings_saturate_at_the_working_set() -> None:
    """100 MiB/s on a 64 MiB working set: one second shows most of it, eight seconds no more than all."""
    clock, cluster, read = world(
        VmSpec(name="v", host="a", dirty_bytes_per_second=100.0 * MIB, working_set_bytes=64.0 * MIB)
    )
    uuid = cluster.named("v")
    seen = []
    for period in (1.0, 8.0):
        cluster.start_measuring(uuid, period)
        assert read.sample("a").domains[0].dirty_measuring
        clock.sleep(period)
        reading = read.sample("a").domains[0].dirty
        assert reading is not None
        seen.append(reading.unique_bytes / MIB)

    assert seen[0] == pytest.approx(64 * (1 - 2.718281828 ** (-100 / 64)), rel=0.15)
    assert seen[1] == pytest.approx(64, rel=0.15)


def test_a_spec_rejects_strays_and_twins() -> None:
    """A VM on an unknown host, a host named twice."""
    with pytest.raises(ValueError, match="not declared"):
        ClusterSpec(hosts=(HostSpec(name="a"),), vms=(VmSpec(name="v", host="z"),))
    with pytest.raises(ValueError, match="own name"):
        ClusterSpec(hosts=(HostSpec(name="a"), HostSpec(name="a")), vms=())
    with pytest.raises(ValueError, match="negative"):
        Demand(base=-1.0)
