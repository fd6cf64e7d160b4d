"""How long 100,000 candidates take: 20,000 VMs with curves of their own, each to five hosts."""

import time

import numpy as np

from rebalancerd.cluster.cost import Candidate, MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.interface import CostModel

VMS, DESTINATIONS, HOSTS, ROUNDS = 20_000, 5, 200, 3


def measure_speed(model: CostModel) -> float:
    """Seconds of the best of three calls, every figure of every candidate computed."""
    random = np.random.default_rng(0)
    facts = HostFacts(uuid=None, cpus=32, memory_bytes=512 * GIB)
    hosts = tuple(
        Host(
            name=f"h{i:03d}",
            facts=facts,
            cores=32.0,
            load=HostLoad(cpu_cores=float(random.uniform(0, 32))),
            link_bytes_per_second=1.25e9,
        )
        for i in range(HOSTS)
    )
    vms = []
    for i in range(VMS):
        memory = int(random.choice([1, 2, 4, 8, 16])) * GIB
        rate = float(random.lognormal(np.log(20 * MIB), 1.5))
        points = tuple(
            DirtyPoint(
                period_seconds=t,
                unique_bytes=min(0.9 * memory, rate * t**0.8),
                standard_error_bytes=rate * 0.1,
                readings=5,
            )
            for t in (1.0, 4.0)
        )
        vms.append(
            Vm(
                facts=VmFacts(uuid=f"{i:05d}", name=f"vm{i}", vcpus=2, memory_bytes=memory),
                host=f"h{i % HOSTS:03d}",
                state=DomainState.RUNNING,
                load=VmLoad(cpu_cores=float(random.uniform(0, 2)), steal_cores=0.0, memory_bytes=int(0.7 * memory)),
                dirty=DirtyCurve(points=points, age_seconds=300.0),
            )
        )
    snapshot = Snapshot(taken_at=0.0, hosts=hosts, vms=tuple(vms))
    options = MigrationOptions()
    asked = [
        Candidate(vm_uuid=vm.uuid, source=vm.host, destination=f"h{(i + k) % HOSTS:03d}", options=options)
        for i, vm in enumerate(vms)
        for k in range(1, DESTINATIONS + 1)
    ]
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        found = model.costs(snapshot, asked)
        best = min(best, time.perf_counter() - begun)
        assert len(found) == len(asked)
    return best
