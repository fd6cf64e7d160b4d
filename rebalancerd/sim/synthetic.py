"""Made-up clusters of any size: for benchmarks, the demonstration without root, and long runs."""

import numpy as np

from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec

SIZES = ((1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 32))  # vCPUs, GiB


def synthetic_cluster(hosts: int, vms: int, seed: int = 1, *, fill: float = 0.55) -> ClusterSpec:
    """A cluster of ``hosts`` with ``vms`` spread unevenly, using ``fill`` of all CPU on average over a day.

    Every fourth host is a faster, larger generation; guests have daily waves, noise and sizes of a usual mix; memory
    always fits where a guest stands at the start. Raises ValueError for no hosts or negative numbers.
    """
    if hosts < 1 or vms < 0:
        raise ValueError(f"not a cluster: {hosts} hosts, {vms} VMs")
    rng = np.random.default_rng(seed)
    sizes = rng.choice(len(SIZES), size=vms, p=(0.2, 0.3, 0.2, 0.15, 0.1, 0.05))
    memory_each = 1.6 * float(sum(SIZES[s][1] for s in sizes)) / hosts + 16
    cores_each = max(8, int(np.ceil(sum(SIZES[s][0] for s in sizes) * 0.5 / hosts)))
    specs = tuple(_host(i, cores_each, memory_each, len(str(hosts))) for i in range(hosts))
    capacity = sum(h.cpus * h.speed_factor for h in specs)
    wanted = sum(SIZES[s][0] for s in sizes)
    share = 0.0 if wanted == 0 else fill * capacity / wanted
    room = np.array([h.memory_bytes / GIB - 8 for h in specs])
    liking = np.log(rng.gamma(8.0, 1.0, size=hosts))  # some hosts are popular: that is what balancing is for
    placed = []
    for i, size in enumerate(sizes):
        vcpus, memory = SIZES[size]
        # a draw in proportion to popularity among the hosts with memory left (Gumbel maximum)
        score = np.where(room >= memory, liking + rng.gumbel(size=hosts), -np.inf)
        at = int(np.argmax(score)) if np.isfinite(score).any() else int(np.argmax(room))
        room[at] -= memory
        name = f"vm-{i + 1:0{len(str(vms))}d}"
        placed.append(_vm(name, specs[at].name, (vcpus, memory), min(1.0, share), rng))
    return ClusterSpec(hosts=specs, vms=tuple(placed), seed=seed)


def _host(index: int, cores: int, memory: float, digits: int) -> HostSpec:
    newer = index % 4 == 3
    return HostSpec(
        name=f"host-{index + 1:0{digits}d}",
        cpus=cores,
        memory_bytes=int(memory * (1.25 if newer else 1.0)) * GIB,
        speed_factor=1.25 if newer else 1.0,
        link_bytes_per_second=1.25e9,
        failure_domain=f"rack-{index // 8 + 1}",
    )


def _vm(name: str, host: str, size: tuple[int, int], share: float, rng: np.random.Generator) -> VmSpec:
    vcpus, memory = size
    mean = vcpus * share * float(rng.uniform(0.4, 1.6))
    demand = Demand(
        base=mean,
        amplitude=mean * float(rng.uniform(0.0, 0.6)),
        phase_seconds=float(rng.choice((6.0, 6.0, 6.0, 18.0)) + rng.normal(0.0, 1.5)) * 3600 % 86_400,
        noise=mean * 0.1,
    )
    return VmSpec(
        name=name,
        host=host,
        vcpus=vcpus,
        memory_bytes=memory * GIB,
        rss_bytes=int(memory * float(rng.uniform(0.3, 0.95)) * GIB),
        demand=demand,
        dirty_bytes_per_second=float(rng.lognormal(2.0, 1.2)) * MIB,
        working_set_bytes=memory * GIB * float(rng.uniform(0.01, 0.2)),
        network_bytes_per_second=float(rng.lognormal(11, 1.5)),
        block_bytes_per_second=float(rng.lognormal(12, 1.5)),
    )
