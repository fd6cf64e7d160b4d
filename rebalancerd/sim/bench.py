"""A large simulated world for timing: virtual time for the cluster, a real stopwatch for the loop's own steps."""

import time
from pathlib import Path

import numpy as np

from rebalancerd.cluster.policy import Mode
from rebalancerd.observe.history import HOST_CPU, HOST_MEMORY, VM_CPU, VM_MEMORY, History
from rebalancerd.observe.settings import ObserveSettings
from rebalancerd.sim.clock import SimClock
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.synthetic import synthetic_cluster
from rebalancerd.sim.world import World

HISTORY_SECONDS = 86_400.0
HISTORY_STEP_SECONDS = 300.0
WARM_UP_TICKS = 16


class Stopwatch:
    """ports.Clock whose intervals are real and whose date is the simulated one."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        """Real seconds."""
        return time.perf_counter()

    def wall(self) -> float:
        """Virtual date."""
        return self._clock.wall()

    def sleep(self, seconds: float) -> None:
        """Virtual seconds pass."""
        self._clock.sleep(seconds)


class BenchWorld:
    """A synthetic cluster with a day of history behind it, observed in recommend mode, its ledger a file."""

    def __init__(self, *, hosts: int, vms: int, seed: int, state_dir: Path) -> None:
        cluster = synthetic_cluster(hosts, vms, seed)
        observe = ObserveSettings(sample_seconds=10.0)
        self.world = World(
            WorldSpec(cluster=cluster, mode=Mode.RECOMMEND, observe=observe),
            state_dir=state_dir,
            stopwatch=Stopwatch,
            begin=self._fill_history,
        )

    def _fill_history(self, world: World, history: History) -> None:
        """What a daemon that ran since yesterday would have recorded of these guests."""
        guests, spec = world.cluster.guests, world.spec.cluster
        speed = np.array([h.speed_factor for h in spec.hosts])[np.maximum(guests.location, 0)]
        most = np.array([v.vcpus for v in spec.vms], dtype=np.float64)
        names = [v.key for v in spec.vms]
        held = dict(zip(names, guests.resident.tolist(), strict=True))
        host_held = {h.name: float(h.memory_bytes - world.cluster.memory_available(h.name)) for h in spec.hosts}
        for second in np.arange(0.0, HISTORY_SECONDS, HISTORY_STEP_SECONDS):
            cores = np.minimum(guests.demand.at(float(second)) / speed, most)
            sums = np.bincount(np.maximum(guests.location, 0), weights=cores, minlength=len(spec.hosts))
            values: dict[str, dict[str, float | None]] = {
                VM_CPU: dict(zip(names, cores.tolist(), strict=True)),
                VM_MEMORY: dict(held),
                HOST_CPU: dict(zip([h.name for h in spec.hosts], sums.tolist(), strict=True)),
                HOST_MEMORY: dict(host_held),
            }
            history.append(world.clock.wall() + float(second), values)
        world.clock.sleep(HISTORY_SECONDS)
        world.cluster.advance()

    def warm_up(self) -> None:
        """Samples until rates, dirty curves and CPU fits are known; nothing of it is timed."""
        world = self.world
        assert world.observer is not None
        for tick in range(WARM_UP_TICKS):
            world.clock.sleep(10.0)
            world.cluster.advance()
            self._measure_dirt(float((1, 4)[tick % 2]))
            world.observer.sample()
            world.observer.probe_tick()
        self.timed_cycle()

    def _measure_dirt(self, period: float) -> None:
        """The readings that rolling probes would have brought one by one over the last half hour."""
        cluster = self.world.cluster
        for uuid, row in cluster.rows.items():
            if cluster.guests.location[row] >= 0:
                wall = cluster.clock.wall()
                cluster.readings[uuid] = cluster.guests.measure(row, cluster.now, wall, period)

    def timed_cycle(self) -> tuple[float, tuple[tuple[str, float], ...], int]:
        """One sample of every host and one cycle: real seconds, the parts, and the steps of its plan.

        The sample's part includes what the simulator needs to make up the answers. Raises RuntimeError for a failed cycle.
        """
        world = self.world
        assert world.observer is not None
        assert world.loop is not None
        world.clock.sleep(10.0)
        world.cluster.advance()
        begun = time.perf_counter()
        world.observer.sample()
        sampled = time.perf_counter()
        record = world.loop.iterate()
        ended = time.perf_counter()
        if record.outcome.value == "failed":
            raise RuntimeError(record.reason)
        plan = world.ledger.plan(record.plan_id) if record.plan_id else None
        parts = (("sample", sampled - begun), *record.step_seconds)
        return ended - begun, parts, 0 if plan is None else len(plan.steps)

    def close(self) -> None:
        """Release ledger and history."""
        self.world.close()


__all__ = ["BenchWorld", "Stopwatch"]
