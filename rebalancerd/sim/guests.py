"""Guests of a simulated cluster as arrays: who runs where, what each gets, and the counters that add up from it."""

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.sim.demand import DemandTable
from rebalancerd.sim.spec import ClusterSpec

Cores = NDArray[np.float64]


class Guests:
    """One row per guest. CPU is shared in proportion to demand where a host is overcommitted; the rest is steal."""

    def __init__(self, spec: ClusterSpec) -> None:
        vms, hosts = spec.vms, spec.hosts
        count = len(vms)
        self._seed = spec.seed
        self.rows = {v.key: i for i, v in enumerate(vms)}
        self.demand = DemandTable([v.demand for v in vms], spec.seed)
        self.location: NDArray[np.int64] = np.full(count, -1, dtype=np.int64)  # host row, -1: does not run
        self.resident = np.array([v.resident_bytes for v in vms], dtype=np.float64)
        self.dirty_rate = np.array([v.dirty_bytes_per_second for v in vms], dtype=np.float64)
        self.working_set = np.array([v.working_set_bytes for v in vms], dtype=np.float64)
        self.network_rate = np.array([v.network_bytes_per_second for v in vms], dtype=np.float64)
        self.block_rate = np.array([v.block_bytes_per_second for v in vms], dtype=np.float64)
        self.throttled = np.zeros(count)  # by auto-converge, 0 to 1
        self.cpu_seconds, self.delay_seconds = np.zeros(count), np.zeros(count)
        self.network_bytes, self.block_bytes = np.zeros(count), np.zeros(count)
        self.got, self.delay = np.zeros(count), np.zeros(count)  # cores, at present
        self.run_share = np.ones(count)  # share of its demand a guest gets
        self.busy, self.busy_seconds = np.zeros(len(hosts)), np.zeros(len(hosts))  # per host
        self.asked = np.zeros(len(hosts))  # cores that guests, migrations and the host itself want of it
        self._vcpus = np.array([v.vcpus for v in vms], dtype=np.float64)
        self._speed = np.array([h.speed_factor for h in hosts], dtype=np.float64)
        self._cpus = np.array([float(h.cpus) for h in hosts], dtype=np.float64)
        self._overhead = np.array([h.overhead_cores for h in hosts], dtype=np.float64)

    def share_cpu(self, second: float, host_work: Cores) -> None:
        """Set what every guest gets around that second; ``host_work`` is what migrations take, cores per host."""
        running = self.location >= 0
        index = np.where(running, self.location, 0)
        wanted = np.where(running, np.minimum(self.demand.at(second) / self._speed[index], self._vcpus), 0.0)
        wanted *= 1 - self.throttled
        own = self._overhead + host_work
        load = np.bincount(index, weights=wanted, minlength=len(self._cpus))
        self.asked = load + own
        room = np.maximum(self._cpus - own, 0.01)
        factor = np.where(load > room, room / np.maximum(load, 1e-12), 1.0)
        self.got = wanted * factor[index]
        self.delay = wanted - self.got
        self.run_share = factor[index] * (1 - self.throttled)
        self.busy = np.minimum(np.bincount(index, weights=self.got, minlength=len(self._cpus)) + own, self._cpus)

    def integrate(self, seconds: float) -> None:
        """Add up the counters over a time in which no rate changes."""
        self.cpu_seconds += self.got * seconds
        self.delay_seconds += self.delay * seconds
        running = self.location >= 0
        self.network_bytes += np.where(running, self.network_rate, 0.0) * seconds
        self.block_bytes += np.where(running, self.block_rate, 0.0) * seconds
        self.busy_seconds += self.busy * seconds

    def reset_counters(self, row: int) -> None:
        """A new process begins its counters at zero."""
        for counter in (self.cpu_seconds, self.delay_seconds, self.network_bytes, self.block_bytes):
            counter[row] = 0.0

    def dirtying(self, row: int) -> float:
        """Bytes per second it writes now: less where it does not get the CPU it wants."""
        return float(self.dirty_rate[row] * self.run_share[row]) if self.location[row] >= 0 else 0.0

    def measure(self, row: int, ends: float, wall: float, period: float) -> DirtyReading:
        """Unique pages of the period by the guest's own law, with a sampling error of some per cent."""
        error = float(np.random.default_rng((self._seed, row, int(ends * 1000))).normal(1.0, 0.03))
        whole = float(self.working_set[row])
        unique = whole * (1 - float(np.exp(-self.dirtying(row) * period / whole))) if whole > 0 else 0.0
        return DirtyReading(
            taken_at=wall, period_seconds=period, rate_bytes_per_second=max(0.0, unique * error) / period
        )
