"""Seeded synthetic clusters for benches of planners, as plain arrays: what every planner can be given.

Hosts are of three sizes (32 cores with 128 GiB, 48 with 256, 64 with 256). Sizes of VMs are heavy-tailed, and demand
for CPU and for memory are only loosely related. In sum the VMs ask for 62 % of the cluster's cores and 55 % of its
bytes; they are spread unevenly, so that about a quarter of the hosts is above a headroom of 80 % of its cores while the cluster as a
whole has room. No host grants more memory than it has, and none is asked for more than 1.15 of its cores.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

MIB = 1024**2
GIB = 1024**3
SIZES = ((10, 100), (20, 200), (50, 500), (100, 1000), (1000, 20000), (5000, 50000))
SHAPES = ((32, 128), (48, 256), (64, 256))
CPU_SHARE, MEMORY_SHARE = 0.62, 0.55
CPU_MOST, MEMORY_MOST = 1.15, 0.95
SKEW = 0.45
ROUNDS = 60


@dataclass(frozen=True)
class ArrayCase:
    """V VMs on H hosts. ``cpu`` (V,) cores asked for; ``memory`` (V,) bytes, whole MiB; ``place`` (V,) host indices.

    ``capacity_cpu`` (H,) cores, whole numbers; ``capacity_memory`` (H,) bytes, whole MiB.
    """

    cpu: Floats
    memory: Floats
    place: Indices
    capacity_cpu: Floats
    capacity_memory: Floats

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return len(self.capacity_cpu)

    @property
    def vms(self) -> int:
        """Number of VMs."""
        return len(self.cpu)

    @property
    def cores_per_byte(self) -> float:
        """Cores that go with a byte in this cluster: cluster cores ÷ cluster bytes."""
        return float(self.capacity_cpu.sum() / self.capacity_memory.sum())

    def per_host(self, rows: Floats) -> Floats:
        """Sums (H,) of figures of VMs (V,)."""
        sums: Floats = np.bincount(self.place, weights=rows, minlength=self.hosts).astype(np.float64)
        return sums

    def moved(self, place: Indices) -> "ArrayCase":
        """The same cluster with its VMs elsewhere."""
        return replace(self, place=np.asarray(place, dtype=np.intp))


def array_case(hosts: int, vms: int, seed: int) -> ArrayCase:
    """The cluster of that size and seed. Raises ValueError if its VMs find no place."""
    rng = np.random.default_rng((seed, hosts, vms))
    shapes = np.array(SHAPES, dtype=np.float64)[rng.integers(0, len(SHAPES), hosts)]
    capacity_cpu, capacity_memory = shapes[:, 0].copy(), shapes[:, 1] * GIB
    size = rng.choice([1.0, 2.0, 4.0, 8.0, 16.0], p=[0.25, 0.3, 0.25, 0.15, 0.05], size=vms)
    cpu = size * rng.beta(2.0, 2.0, size=vms)
    memory = size**0.8 * rng.lognormal(0.0, 0.4, size=vms)
    cpu *= CPU_SHARE * capacity_cpu.sum() / cpu.sum()
    memory *= MEMORY_SHARE * capacity_memory.sum() / memory.sum()
    memory = np.maximum(1.0, np.round(memory / MIB)) * MIB
    place = _spread(rng, cpu, memory, capacity_cpu * CPU_MOST, capacity_memory * MEMORY_MOST)
    return ArrayCase(cpu, memory, place, capacity_cpu, capacity_memory)


def _spread(rng: np.random.Generator, cpu: Floats, memory: Floats, most_cpu: Floats, most_memory: Floats) -> Indices:
    """Hosts drawn with uneven odds, again and again for the VMs that found theirs full, then the emptiest that fits."""
    hosts, vms = len(most_cpu), len(cpu)
    odds = most_cpu * rng.lognormal(0.0, SKEW, size=hosts)
    odds /= odds.sum()
    place = np.full(vms, -1, dtype=np.intp)
    used_cpu, used_memory = np.zeros(hosts), np.zeros(hosts)
    for _ in range(ROUNDS):
        waiting = np.flatnonzero(place < 0)
        if not len(waiting):
            break
        drawn = rng.choice(hosts, p=odds, size=len(waiting))
        _, first = np.unique(drawn, return_index=True)
        vm, host = waiting[first], drawn[first]
        fits = (used_cpu[host] + cpu[vm] <= most_cpu[host]) & (used_memory[host] + memory[vm] <= most_memory[host])
        vm, host = vm[fits], host[fits]
        place[vm] = host
        used_cpu[host] += cpu[vm]
        used_memory[host] += memory[vm]
    for left in np.flatnonzero(place < 0):
        room = np.minimum(
            (most_cpu - used_cpu - cpu[left]) / most_cpu, (most_memory - used_memory - memory[left]) / most_memory
        )
        best = int(room.argmax())
        if room[best] < 0:
            raise ValueError(f"VM {left} of {vms} finds no host among {hosts}")
        place[left] = best
        used_cpu[best] += cpu[left]
        used_memory[best] += memory[left]
    return place
