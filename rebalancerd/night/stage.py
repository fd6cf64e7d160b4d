"""The cluster at a later instant of a forecast: every VM where it is by then, asking for what the forecast expects then."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.demand import sane
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import InFlight, Snapshot
from rebalancerd.predict.demand.window import MOST_STEPS

FINE_SECONDS = 300.0  # the daemon's own steps, where a window is so short that it needs no longer ones


class NightStage:
    """A snapshot and its forecast, asked for later instants. Beyond its horizon the forecast repeats."""

    def __init__(self, snapshot: Snapshot, scenarios: Scenarios) -> None:
        """Raises ValueError if a VM of the snapshot has no row in the scenarios."""
        missing = [vm.name for vm in snapshot.vms if vm.uuid not in scenarios.row]
        if missing:
            raise ValueError(f"the forecast lacks VMs of the snapshot: {', '.join(missing[:3])}")
        self._snapshot, self._scenarios = snapshot, scenarios
        shape = (len(scenarios.vm_uuids), scenarios.paths, scenarios.steps)
        self._cores, self._memory = scenarios.cpu_cores.reshape(shape), scenarios.memory_bytes.reshape(shape)
        self._own = {h.name: _own(h, snapshot) for h in snapshot.hosts}
        self._made: tuple[object, Snapshot] | None = None
        self._up: frozenset[str] = frozenset()

    @property
    def reaches_until(self) -> float:
        """The last instant the forecast speaks of."""
        return self._snapshot.taken_at + self._scenarios.horizon_seconds

    def step_at(self, at: float) -> int:
        """Which of the forecast's steps holds that instant."""
        return int(max(0.0, at - self._snapshot.taken_at) // self._scenarios.step_seconds) % self._scenarios.steps

    def next_step_at(self, at: float) -> float:
        """When the forecast's next step begins."""
        passed = max(0.0, at - self._snapshot.taken_at) // self._scenarios.step_seconds
        return self._snapshot.taken_at + (passed + 1) * self._scenarios.step_seconds

    def ahead(self, at: float, until: float) -> Scenarios:
        """The forecast from one instant to another, in as many steps as the daemon would make of it then."""
        s = self._scenarios
        seconds = max(until - at, min(FINE_SECONDS, s.step_seconds))
        steps = min(MOST_STEPS, ceil(seconds / min(FINE_SECONDS, s.step_seconds) - 1e-9))
        passed, step_seconds = max(0.0, at - self._snapshot.taken_at), seconds / steps
        edges = (passed + np.arange(steps + 1) * step_seconds) / s.step_seconds
        spans = [_covered(float(low), float(high)) % s.steps for low, high in pairwise(edges)]
        shape = (len(s.vm_uuids), s.paths * steps)
        return replace(
            s,
            steps=steps,
            step_seconds=step_seconds,
            cpu_cores=_highest(self._cores, spans).reshape(shape),
            memory_bytes=_highest(self._memory, spans).reshape(shape),
        )

    def at(
        self, at: float, places: Mapping[str, str], away: Mapping[str, str], flights: tuple[InFlight, ...] = ()
    ) -> Snapshot:
        """The cluster then. ``places``: VM UUID to host; ``away``: hosts that are down, and how; ``flights``: on the way."""
        step = self.step_at(at)
        key = (step, tuple(places.items()), tuple(sorted(away.items())), flights)
        if self._made is None or self._made[0] != key:
            self._made = (key, self._build(at, step, places, away, flights))
        return replace(self._made[1], taken_at=at)

    def _build(
        self, at: float, step: int, places: Mapping[str, str], away: Mapping[str, str], flights: tuple[InFlight, ...]
    ) -> Snapshot:
        given, row = self._snapshot, self._scenarios.row
        cores, memory = self._cores[:, :, step].mean(axis=1), self._memory[:, :, step].mean(axis=1)
        speed = {h.name: h.speed_factor for h in given.hosts}
        vms, used, held = [], dict.fromkeys(speed, 0.0), dict.fromkeys(speed, 0.0)
        for vm in given.vms:
            where, v = places[vm.uuid], row[vm.uuid]
            asks, holds = float(cores[v]) / speed[where], float(memory[v])
            used[where], held[where] = used[where] + asks, held[where] + holds
            asked = replace(vm.load, cpu_cores=asks, memory_bytes=int(holds), steal_cores=None)
            vms.append(replace(vm, host=where, load=asked, busy=None))
        hosts = []
        for host in given.hosts:
            own_cores, own_memory = self._own[host.name]
            load = replace(
                host.load,
                cpu_cores=None if own_cores is None else own_cores + used[host.name],
                memory_used_bytes=None if own_memory is None else int(own_memory + held[host.name]),
                psi_cpu=None,
                psi_memory=None,
            )
            unusable = away.get(host.name) or (None if host.name in self._up else host.unusable)
            hosts.append(replace(host, load=load, unusable=unusable))
        return replace(given, taken_at=at, hosts=tuple(hosts), vms=tuple(vms), in_flight=flights, warming_up=False)

    def came_up(self, host: str) -> None:
        """A host that was down as the snapshot was taken is usable from now on; what it uses itself is taken for nothing."""
        self._up |= {host}
        self._own[host] = (self._own[host][0] or 0.0, self._own[host][1] or 0.0)
        self._made = None


def _own(host: Host, snapshot: Snapshot) -> tuple[float | None, float | None]:
    """(cores, bytes) that the host uses beside its guests now, None where its use is not known."""
    guests = snapshot.vms_on[host.name]
    used, held = sane(host.load.cpu_cores), host.load.memory_used_bytes
    own_cores = None if used is None else max(0.0, used - sum(sane(vm.load.cpu_cores) or 0.0 for vm in guests))
    own_memory = None if held is None else max(0.0, held - sum(vm.load.memory_bytes or 0 for vm in guests))
    return own_cores, own_memory


def _covered(low: float, high: float) -> NDArray[np.int_]:
    """Steps of the forecast that lie within, in steps; one that is hardly touched does not speak for what is asked."""
    least = 0.5 * min(high - low, 1.0) - 1e-9
    touched = range(int(low), ceil(high))
    return np.array([step for step in touched if min(high, step + 1) - max(low, step) >= least])


def _highest(matrix: NDArray[np.float32], spans: list[NDArray[np.int_]]) -> NDArray[np.float32]:
    """(V, K, steps) the highest value within each span of columns."""
    return np.ascontiguousarray(np.stack([matrix[:, :, columns].max(axis=2) for columns in spans], axis=2))
