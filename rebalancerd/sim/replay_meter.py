"""What a simulated cluster went through: hot hosts, unmet demand, energy and a map of loads, integrated without sampling."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.spec import HostSpec

SECONDS_PER_HOUR = 3600.0
JOULES_PER_KWH = 3.6e6
# linear in utilisation: Fan, Weber, Barroso, "Power provisioning for a warehouse-sized computer", ISCA 2007
BASE_WATTS, WATTS_PER_CPU, IDLE_SHARE = 100.0, 5.0, 0.4

Floats = NDArray[np.float64]


def peak_watts(host: HostSpec) -> float:
    """Watts of a host with all its CPUs busy: 100 W and 5 W for each logical CPU. Idle it draws two fifths of that."""
    return BASE_WATTS + WATTS_PER_CPU * host.cpus


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Sums over the metered time. ``heat``: float64 (hosts, columns), CPU asked of a host as a share of what it may use."""

    hot_host_minutes: float
    hot_minutes: tuple[tuple[str, float], ...]
    asked_core_hours: float
    unmet_core_hours: float
    energy_kwh: float
    heat: Floats


class Meter:
    """Put in ``SimCluster.meter``; counts from virtual second ``begin`` for ``seconds``."""

    def __init__(self, cluster: SimCluster, *, begin: float, seconds: float, column_seconds: float, hot: float) -> None:
        hosts = cluster.spec.hosts
        self._guests, self._begin, self._end, self._column, self._hot = (
            cluster.guests,
            begin,
            begin + seconds,
            column_seconds,
            hot,
        )
        self._names = tuple(h.name for h in hosts)
        self._usable = np.array([max(h.cpus - h.reserved_cores, 1e-9) for h in hosts])
        self._cpus = np.array([float(h.cpus) for h in hosts])
        self._speed = np.array([h.speed_factor for h in hosts])
        self._peak = np.array([peak_watts(h) for h in hosts])
        self._hot_seconds = np.zeros(len(hosts))
        self._heat = np.zeros((len(hosts), max(1, int(np.ceil(seconds / column_seconds - 1e-9)))))
        self._asked = self._unmet = self._joules = 0.0

    def __call__(self, now: float, seconds: float) -> None:
        """Rates have been even from ``now`` for so many seconds."""
        if not self._begin - 1e-6 <= now < self._end - 1e-6:
            return
        guests = self._guests
        share = guests.asked / self._usable
        self._hot_seconds += np.where(share > self._hot, seconds, 0.0)
        running = guests.location >= 0
        speed = self._speed[np.where(running, guests.location, 0)]
        unmet = float((guests.delay * speed)[running].sum())
        asked = float(((guests.got + guests.delay) * speed)[running].sum())
        if not running.all():  # who stands still for its switch-over gets nothing of what it asks for
            standing = float(guests.demand.at(now)[~running].sum())
            unmet, asked = unmet + standing, asked + standing
        self._unmet += unmet * seconds
        self._asked += asked * seconds
        watts = self._peak * (IDLE_SHARE + (1 - IDLE_SHARE) * guests.busy / self._cpus)
        self._joules += float(watts.sum()) * seconds
        self._heat[:, min(int((now - self._begin) // self._column), self._heat.shape[1] - 1)] += share * seconds

    def readings(self) -> Readings:
        """The sums so far."""
        width = np.full(self._heat.shape[1], self._column)
        width[-1] = (self._end - self._begin) - self._column * (len(width) - 1)
        return Readings(
            hot_host_minutes=float(self._hot_seconds.sum()) / 60,
            hot_minutes=tuple(zip(self._names, (self._hot_seconds / 60).tolist(), strict=True)),
            asked_core_hours=self._asked / SECONDS_PER_HOUR,
            unmet_core_hours=self._unmet / SECONDS_PER_HOUR,
            energy_kwh=self._joules / JOULES_PER_KWH,
            heat=self._heat / width,
        )
