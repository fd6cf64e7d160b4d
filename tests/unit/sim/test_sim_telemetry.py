"""Distorted answers: each is wrong in its own way, and only from the moment it was ordered."""

from rebalancerd.sim.adapters import SimAgents, SimRead, Wires
from rebalancerd.sim.clock import SimClock
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.telemetry import Distorter, Distortion


def read() -> tuple[SimClock, Wires, SimRead]:
    clock = SimClock()
    spec = ClusterSpec(
        hosts=(HostSpec(name="a", agent=True),), vms=(VmSpec(name="v", host="a", demand=Demand(base=1.0)),)
    )
    wires = Wires(SimCluster(spec, clock))
    clock.sleep(100.0)
    return clock, wires, SimRead(wires)


def pair(kind: Distortion) -> tuple:
    clock, wires, reader = read()
    wires.distorted["a"] = Distorter(kind)
    first = reader.sample("a")
    clock.sleep(10.0)
    return first, reader.sample("a")


def test_zero_cpus() -> None:
    """No CPUs, no memory."""
    _, later = pair(Distortion.ZERO_CPUS)
    assert (later.facts.cpus, later.memory_total_bytes) == (0, 0)


def test_reset_counters_begin_at_zero_and_grow() -> None:
    """As after a reboot."""
    first, later = pair(Distortion.RESET)
    assert first.domains[0].cpu_time_ns == 0
    assert later.domains[0].cpu_time_ns == 10_000_000_000


def test_negative_counters_fall() -> None:
    """Deltas below zero."""
    first, later = pair(Distortion.NEGATIVE)
    assert later.domains[0].cpu_time_ns < first.domains[0].cpu_time_ns < 0
    assert later.cpu_busy_ns < first.cpu_busy_ns


def test_jump_is_beyond_any_cpu() -> None:
    """More CPU seconds than the interval has."""
    first, later = pair(Distortion.JUMP)
    assert later.domains[0].cpu_time_ns - first.domains[0].cpu_time_ns > 1e12


def test_frozen_and_stale_differ_in_the_time_stamp() -> None:
    """Frozen looks fresh, stale does not."""
    first, later = pair(Distortion.FROZEN)
    assert later.domains == first.domains
    assert later.taken_at == first.taken_at + 10
    first, later = pair(Distortion.STALE)
    assert later == first


def test_empty_and_silent() -> None:
    """No domains; domains without figures."""
    assert pair(Distortion.EMPTY)[1].domains == ()
    silent = pair(Distortion.SILENT)[1]
    assert silent.cpu_busy_ns is None
    assert silent.domains[0].cpu_time_ns is None
    assert silent.domains[0].fault == "no statistics"


def test_the_agent_tells_cores_and_pressure() -> None:
    """What psutil would say of the same host."""
    clock, wires, _ = read()
    sample = SimAgents(wires).read("a")

    assert sample is not None
    assert sample.cpu_cores == 1.2
    assert sample.psi_cpu == 0.0
    assert sample.clock_epoch_seconds == clock.wall()
    assert SimAgents(wires).read("nowhere") is None
