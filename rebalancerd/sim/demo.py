"""The story of the demonstration where no real hosts can be started: one host becomes hot and is relieved."""

from rebalancerd.cluster.policy import Mode, VmPolicy
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.observe.settings import ObserveSettings
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec


def demo_spec(minutes: float = 20.0, *, mode: Mode = Mode.AUTO) -> WorldSpec:
    """Three hosts, seven VMs; after a quarter of the time three VMs of the first host triple their demand."""
    hot_at = minutes * 60 / 4
    hosts = tuple(HostSpec(name=f"host-{n}", cpus=8, memory_bytes=32 * GIB) for n in (1, 2, 3))
    busy = tuple(
        VmSpec(
            name=f"shop-{n}",
            host="host-1",
            vcpus=4,
            memory_bytes=4 * GIB,
            autostart=True,
            demand=Demand(base=0.8, noise=0.05, steps=((hot_at, 2.4),)),
            dirty_bytes_per_second=20.0 * MIB,
            working_set_bytes=300.0 * MIB,
        )
        for n in (1, 2, 3)
    )
    quiet = (
        VmSpec(name="mail", host="host-1", demand=Demand(base=0.4, noise=0.05)),
        VmSpec(
            name="build", host="host-2", demand=Demand(base=1.2, noise=0.1), policy=VmPolicy(pin=frozenset({"host-2"}))
        ),
        VmSpec(name="wiki", host="host-2", demand=Demand(base=0.3, noise=0.02)),
        VmSpec(name="nova-1", host="host-3", demand=Demand(base=0.5, noise=0.02), owner="nova"),
    )
    return WorldSpec(
        cluster=ClusterSpec(hosts=hosts, vms=busy + quiet, seed=7),
        mode=mode,
        run_seconds=minutes * 60,
        decide_seconds=30.0,
        observe=ObserveSettings(),
        guard=GuardSettings(),
    )
