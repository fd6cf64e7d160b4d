"""Replay: recorded load through the daemon's own loop on a simulated cluster and virtual time, or through none at all."""

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.decision import CycleRecord, Outcome
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.policy import Mode
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.observe.history import History
from rebalancerd.observe.settings import ObserveSettings
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.predict.interface import CostModel, DemandModel
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.sim.replay_case import ReplayCase
from rebalancerd.sim.replay_meter import Meter, Readings
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.world import World

NOTHING = "do nothing"
HOT_SHARE = 0.9
SAMPLE_SECONDS = 30.0  # a recording has one value every 5 min: finer samples would tell the same
POLL_SECONDS = 2.0
WARM_UP_TICKS, WARM_UP_TICK_SECONDS = 16, 10.0
MOST_COLUMNS = 240
CELL_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """The settings of one configuration under which a case is replayed, and what predicts under it.

    ``demand`` and ``costs`` None: persistence and physics. They may keep a state of their own, so they are made anew
    for every replay.
    """

    name: str
    decide_seconds: float = 60.0
    observe: ObserveSettings = ObserveSettings()
    predict: PredictSettings = PredictSettings()
    plan: PlanSettings = PlanSettings()
    guard: GuardSettings = GuardSettings()
    act: ActSettings = ActSettings()
    demand: Callable[[], DemandModel] | None = None
    costs: Callable[[], CostModel] | None = None


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """What a replay came to. ``refusals``: how often each code was given over all cycles, most often first."""

    name: str
    readings: Readings
    cycles: int = 0
    migrations: int = 0
    failed: int = 0
    bytes_moved: float = 0.0
    refusals: tuple[tuple[str, int], ...] = ()
    demand_basis: str | None = None


def replay(
    case: ReplayCase,
    settings: ReplaySettings | None,
    *,
    hot: float = HOT_SHARE,
    progress: Callable[[float], None] = lambda _share: None,
    past: Path | None = None,
) -> ReplayResult:
    """Replay a case under the settings, as if their mode were ``auto``; None: without a daemon.

    A host is hot while more than ``hot`` of the CPU that guests may use is asked of it. ``past``: a directory with the
    case's past already written (``write_past``), copied instead of written again. ``progress`` is told the share that
    is done. Raises InvariantError where the daemon breaks a promise, OSError.
    """
    with tempfile.TemporaryDirectory(prefix="rebalancerd-replay-") as name:
        if settings is not None and past is not None:
            shutil.copytree(past, Path(name) / "history")
        return _replay(case, settings, Path(name), hot, progress, written=past is not None)


def write_past(case: ReplayCase, directory: Path) -> None:
    """Record the case's past in a directory of its own, for several replays. Raises OSError."""
    history = History(directory)
    case.write_past(history)
    history.close()


def _replay(
    case: ReplayCase,
    settings: ReplaySettings | None,
    directory: Path,
    hot: float,
    progress: Callable[[float], None],
    *,
    written: bool,
) -> ReplayResult:
    def begin(_world: World, history: History) -> None:
        if settings is not None and not written:
            case.write_past(history)

    warm_up = WARM_UP_TICKS * WARM_UP_TICK_SECONDS if settings is not None else 0.0
    demand = settings.demand() if settings is not None and settings.demand is not None else None
    costs = settings.costs() if settings is not None and settings.costs is not None else None
    spec = _world_spec(case, settings, warm_up)
    with World(
        spec, state_dir=None, history_dir=directory / "history", begin=begin, demand=demand, costs=costs
    ) as world:
        tally: Counter[str] = Counter()
        world.on_cycle = lambda record: _count(record, tally)
        meter = Meter(
            world.cluster, begin=warm_up, seconds=case.seconds, column_seconds=_column_seconds(case.seconds), hot=hot
        )
        world.cluster.meter = meter
        if settings is None:
            world.kill_daemon()
        else:
            _warm_up(world)
        _run(world, case, warm_up, progress)
        done = [r for r in world.ledger.records.values() if not r.state.is_open]
        moves = (*world.cluster.migrations.finished, *world.cluster.migrations.running.values())
        return ReplayResult(
            name=NOTHING if settings is None else settings.name,
            readings=meter.readings(),
            cycles=world.invariants.cycles_run,
            migrations=sum(r.state is MigrationState.SUCCEEDED for r in done),
            failed=sum(r.state is not MigrationState.SUCCEEDED for r in done),
            bytes_moved=float(sum(move.sent for move in moves)),
            refusals=tuple(sorted(tally.items(), key=lambda item: (-item[1], item[0]))),
            demand_basis=world.demand_basis if settings is not None else None,
        )


def _world_spec(case: ReplayCase, settings: ReplaySettings | None, warm_up: float) -> WorldSpec:
    start = case.start - warm_up
    # guests ask for their first value while the daemon warms up
    vms = tuple(replace(vm, demand=replace(vm.demand, trace_start_seconds=warm_up)) for vm in case.cluster.vms)
    cluster = replace(case.cluster, vms=vms)
    if settings is None:
        return WorldSpec(cluster=cluster, mode=Mode.OBSERVE, start_wall=start)
    # a sample falls on every decision, whatever the ticks are
    sample = settings.decide_seconds / math.ceil(settings.decide_seconds / SAMPLE_SECONDS)
    return WorldSpec(
        cluster=cluster,
        mode=Mode.AUTO,
        start_wall=start,
        decide_seconds=settings.decide_seconds,
        observe=replace(settings.observe, sample_seconds=sample),
        predict=settings.predict,
        plan=settings.plan,
        guard=settings.guard,
        act=replace(settings.act, poll_seconds=max(POLL_SECONDS, settings.act.poll_seconds)),
    )


def _warm_up(world: World) -> None:
    """Samples and probes until rates, dirty curves and CPU fits are known, as a daemon that ran before would know them."""
    assert world.observer is not None
    cluster = world.cluster
    for tick in range(WARM_UP_TICKS):
        period = float(world.spec.observe.probe_periods_seconds[tick % len(world.spec.observe.probe_periods_seconds)])
        for uuid, row in cluster.rows.items():
            cluster.readings[uuid] = cluster.guests.measure(row, cluster.now, cluster.clock.wall(), period)
        world.observer.sample()
        world.observer.probe_tick()
        world.clock.sleep(WARM_UP_TICK_SECONDS)
        cluster.advance()
    world.begin_ticks()


def _run(world: World, case: ReplayCase, begin: float, progress: Callable[[float], None]) -> None:
    """Slice by slice, memory changing where the recording's rows do."""
    end, at = begin + case.seconds, begin
    while at < end - 1e-6:
        if case.memory is not None:
            row = min(int((at - begin + 1e-6) // case.step_seconds), len(case.memory) - 1)
            world.cluster.guests.resident[:] = case.memory[row]
        at = min(at + min(CELL_SECONDS, case.step_seconds), end)
        world.run(at)
        progress((at - begin) / case.seconds)


def _count(record: CycleRecord, tally: Counter[str]) -> None:
    for refusal in record.refusals:
        tally[str(refusal.code)] += refusal.count
    for decision in record.decisions:
        if decision.refusal is not None and decision.outcome is not Outcome.STARTED:
            tally[str(decision.refusal.code)] += decision.refusal.count


def _column_seconds(seconds: float) -> float:
    """Width of a column of the heat map: whole minutes, at most 240 columns."""
    return 60.0 * max(1, math.ceil(seconds / 60.0 / MOST_COLUMNS))
