"""A week of a cluster that folds at night: its specification, and a driver under which wakes fail and the daemon dies.

The daemon is killed right after the ledger or a management controller was told of a step of the power sequences, a number
of times for every kind of step, and started anew soon after or only once deadlines have passed.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from rebalancerd.act.power.settings import PowerSettings
from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.power import PowerLimits, PowerPhase, PowerRecord
from rebalancerd.guard.settings import GuardSettings, PolicyWindow
from rebalancerd.observe.history import HOST_CPU, VM_CPU, VM_MEMORY, History
from rebalancerd.observe.settings import ObserveSettings
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.sim.invariants import InvariantError
from rebalancerd.sim.power import NEVER
from rebalancerd.sim.replay_meter import IDLE_SHARE, JOULES_PER_KWH, peak_watts
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.synthetic import synthetic_cluster
from rebalancerd.sim.world import World

MONDAY = 1_780_272_000.0  # 2026-06-01 00:00 UTC
NOON_SECONDS, DAY_SECONDS, HOUR_SECONDS = 43_200.0, 86_400.0, 3600.0
STEP_SECONDS = 30.0
DEAD_SECONDS = (20.0, 400.0)
BOOT_SECONDS = 180.0
PAST_DAYS, PAST_STEP_SECONDS, LONG_AGO = 2.0, 300.0, 1000 * DAY_SECONDS
BROKEN_FOR_SECONDS = 11 * HOUR_SECONDS


def cluster(hosts: int, vms: int, seed: int, begins: float = NOON_SECONDS) -> ClusterSpec:
    """Every machine has a controller; demand is highest around noon and a fraction of that at night.

    ``begins``: second of the day at which the run does.
    """
    made, rng = synthetic_cluster(hosts, vms, seed, fill=0.4), np.random.default_rng(seed)
    return replace(
        made,
        hosts=tuple(_host(h) for h in made.hosts),
        vms=tuple(
            _guest(v, float(rng.uniform(0.6, 0.9)), float(rng.normal(8.5, 0.7)) * HOUR_SECONDS - begins)
            for v in made.vms
        ),
    )


def _host(host: HostSpec) -> HostSpec:
    watts = peak_watts(host)
    return replace(host, power=True, boot_seconds=BOOT_SECONDS, idle_watts=IDLE_SHARE * watts, max_watts=watts)


def _guest(vm: VmSpec, depth: float, rises_at: float) -> VmSpec:
    """``rises_at``: virtual second at which it passes its mean upwards."""
    wave = replace(vm.demand, amplitude=depth * vm.demand.base, phase_seconds=rises_at % DAY_SECONDS)
    return replace(vm, demand=wave)


def week(made: ClusterSpec, days: float, *, nights: bool, begins: float = NOON_SECONDS) -> WorldSpec:
    """The run; without ``nights`` the same cluster is only balanced and no host is ever powered off."""
    window = PolicyWindow(start="0 22 * * *", end="0 6 * * *", name="night")
    return WorldSpec(
        cluster=made,
        start_wall=MONDAY + begins,
        run_seconds=days * DAY_SECONDS,
        decide_seconds=120.0,
        observe=ObserveSettings(
            sample_seconds=60.0, stale_after_seconds=180.0, flap_stable_seconds=60.0, probe_interval_seconds=300.0
        ),
        plan=PlanSettings(max_moves=32, per_cluster=16, out_per_host=2, in_per_host=2),
        guard=GuardSettings(
            policy_windows=(window,) if nights else (), per_cluster=16, out_per_host=2, in_per_host=2, per_hour=400
        ),
        act=ActSettings(),
        power=PowerSettings() if nights else None,
        limits=PowerLimits(boot_seconds=BOOT_SECONDS, hosts_on_min=min(4, len(made.hosts))),
    )


def watched(world: World, history: History) -> None:
    """What a daemon that looked on for the days before would have recorded; a night is not for a daemon without a past."""
    guests, steps = world.cluster.guests, int(PAST_DAYS * DAY_SECONDS / PAST_STEP_SECONDS)
    running = {uuid: row for uuid, row in world.cluster.rows.items() if guests.location[row] >= 0}
    names = [h.name for h in world.spec.cluster.hosts]
    for step in range(steps, 0, -1):
        before = (step - 0.5) * PAST_STEP_SECONDS
        guests.share_cpu(LONG_AGO - before, np.zeros(len(names)))  # the same hours, other noise
        history.append(
            world.clock.wall() - before,
            {
                VM_CPU: {uuid: float(guests.got[row]) for uuid, row in running.items()},
                VM_MEMORY: {uuid: float(guests.resident[row]) for uuid, row in running.items()},
                HOST_CPU: dict(zip(names, guests.busy.tolist(), strict=True)),
            },
        )


class Meter:
    """What truly happened: minutes of hosts above headroom, and energy; put in ``SimCluster.meter``."""

    def __init__(self, world: World, headroom: float) -> None:
        specs = world.spec.cluster.hosts
        self._world, self._hot_share = world, headroom
        self._names = [h.name for h in specs]
        self._cpus = np.array([float(h.cpus) for h in specs])
        self._idle = np.array([h.idle_watts or 0.0 for h in specs])
        self._most = np.array([h.max_watts or 0.0 for h in specs])
        self.hot_seconds, self.joules, self.off_seconds = 0.0, 0.0, 0.0

    def __call__(self, _now: float, seconds: float) -> None:
        """Rates have been even for so many seconds."""
        guests, machines = self._world.cluster.guests, self._world.power.machines
        on = np.array([machines[name].powered for name in self._names])
        self.hot_seconds += float((guests.asked > self._hot_share * self._cpus).sum()) * seconds
        watts = self._idle + (self._most - self._idle) * guests.busy / self._cpus
        self.joules += float(watts[on].sum()) * seconds
        self.off_seconds += float((~on).sum()) * seconds

    @property
    def kwh(self) -> float:
        """Energy so far."""
        return self.joules / JOULES_PER_KWH


@dataclass(slots=True)
class Lived:
    """What a run came to. ``steps``: kinds of steps of the power sequences, with how often the daemon died at each."""

    violations: list[str] = field(default_factory=list)
    steps: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    failed_wakes: set[tuple[str, float]] = field(default_factory=set)
    slept: int = 0

    @property
    def kills(self) -> int:
        """How often it was killed."""
        return self.steps.total()


class Driver:
    """Runs a world to its end: kills and restarts the daemon, breaks and mends machines.

    ``breaks_at``: virtual seconds from which on a machine that sleeps does not boot, until somebody mends it.
    """

    def __init__(self, world: World, *, kills_per_step: int, breaks_at: tuple[float, ...] = ()) -> None:
        self.world, self.lived = world, Lived()
        self._kills, self._back_at = kills_per_step, NEVER
        self._breaks = list(breaks_at)
        self._mends: list[tuple[float, str]] = []
        self._tell = world.ledger.on_power
        world.ledger.on_power = self._on_record
        self._carry_out = world.power.after_call
        world.power.after_call = self._on_order

    def live(self, seconds: float = NEVER) -> bool:
        """On for that long, to the end of the run, or to the first broken promise; False where it was over already."""
        end = self.world.spec.run_seconds
        until = min(end, self.world.clock.monotonic() + seconds)
        if self.lived.violations or self.world.clock.monotonic() >= end:
            return False
        while (now := self.world.clock.monotonic()) < until:
            try:
                self.world.run(min(until, now + STEP_SECONDS))
            except InvariantError as error:
                self.lived.violations.append(str(error))
                break
            self._after(self.world.clock.monotonic())
        return True

    def _after(self, now: float) -> None:
        if self.world.loop is None:
            if self._back_at == NEVER:
                self._back_at = now + DEAD_SECONDS[self.lived.kills % len(DEAD_SECONDS)]
            if now >= self._back_at:
                self._back_at = NEVER
                self.world.start_daemon()
        if self._breaks and now >= self._breaks[0] and self._break(now):
            self._breaks.pop(0)
        while self._mends and now >= self._mends[0][0]:
            self._mend(self._mends.pop(0)[1])

    def _on_record(self, record: PowerRecord) -> None:
        self._tell(record)
        if record.phase is PowerPhase.FAILED:
            self.lived.failed_wakes.add((record.host, record.since))
        self.lived.slept += record.phase is PowerPhase.ASLEEP and record.slept_at == record.since
        wanted = " wanted back" if record.wake_wanted else ""
        self._step(f"{'test ' if record.test else ''}{record.phase}, {min(record.orders, 2)} orders{wanted}")

    def _on_order(self) -> None:
        self._step(f"ordered {self.world.power.orders[-1][2]}")
        self._carry_out()

    def _step(self, kind: str) -> None:
        """Die with the effect that comes now, if there were not enough deaths of that kind."""
        if self.lived.steps[kind] < self._kills and self.world.lifeline.kill_after is None:
            self.lived.steps[kind] += 1
            self.world.lifeline.kill_after = self.world.lifeline.effects + 1

    def _break(self, now: float) -> bool:
        """The sleeper that would be woken first does not boot any more; whether there is one."""
        asleep = [r for r in self.world.ledger.power.values() if r.phase is PowerPhase.ASLEEP]
        if not asleep:
            return False
        host = min(asleep, key=lambda r: (r.disabled is not None, r.boot_seconds(BOOT_SECONDS), r.host)).host
        self.world.power.machines[host].boot_seconds = NEVER
        self.lived.broken.append(host)
        self._mends.append((now + BROKEN_FOR_SECONDS, host))
        return True

    def _mend(self, host: str) -> None:
        """Somebody repairs it and powers it on."""
        self.world.power.machines[host].boot_seconds = BOOT_SECONDS
        self.world.power.by_hand(host, on=True)
