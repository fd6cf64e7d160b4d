"""Advice beside the loop, on a simulated cluster and virtual time: what was advised is judged by what then came."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from rebalancerd.cluster.advice import Advice, AdviceScore, Verdict
from rebalancerd.cluster.decision import CommandKind, CycleRecord
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.observe.settings import ObserveSettings
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.record.readiness import RECORD_SECONDS
from rebalancerd.shadow import Shadow
from rebalancerd.sim.adapters import Reach
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.disasters import relocate, stop_vm
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.world import World

MINUTE = 60.0
QUIET, BUSY = 1.2, 1.8  # of four guests on 8 cores: 5.0 and 7.4 cores with the host's own, the headroom ends at 6.4
RISES = 30 * MINUTE
SETTINGS = PredictSettings()
Steps = tuple[tuple[float, float], ...]


class Foretold:
    """A demand model that believes in a script: by VM name, (virtual second, cores from then on)."""

    def __init__(self, script: dict[str, Steps], now: Callable[[], float]) -> None:
        self.script, self._now = script, now
        self._floor = PersistenceDemand(SETTINGS)
        self.forecaster = self._floor.forecaster

    def scenarios(self, snapshot: Snapshot, cpu: Series, memory: Series) -> Scenarios:
        plain = self._floor.scenarios(snapshot, cpu, memory)
        matrix = plain.cpu_cores.reshape(len(snapshot.vms), plain.paths, plain.steps).copy()
        ends = self._now() + plain.step_seconds * np.arange(1, plain.steps + 1)
        for row, uuid in enumerate(plain.vm_uuids):
            for at, cores in self.script.get(snapshot.vm(uuid).name, ()):
                matrix[row][:, ends > at] = cores
        return replace(plain, cpu_cores=matrix.reshape(plain.cpu_cores.shape), basis="foretold")


class Bench:
    """A world with the shadow beside its loop, which looks back after every cycle."""

    def __init__(
        self,
        real: dict[str, Steps],
        believed: dict[str, Steps] | None,
        *,
        state_dir: Path | None = None,
        mode: Mode = Mode.RECOMMEND,
        decide_seconds: float = 2 * MINUTE,
        **changes: Any,
    ) -> None:
        told = WorldSpec(
            cluster=ClusterSpec(
                hosts=tuple(HostSpec(name=h, cpus=8, memory_bytes=32 * GIB) for h in ("a", "b")),
                vms=(*(guest(f"vm{n}", "a", real) for n in range(4)), guest("calm", "b", real)),
            ),
            mode=mode,
            decide_seconds=decide_seconds,
            observe=ObserveSettings(sample_seconds=30.0, stale_after_seconds=120.0),
            **changes,
        )
        model = None if believed is None else Foretold(believed, self._now)
        self.world = World(told, demand=model, state_dir=state_dir)
        self.watch()

    def _now(self) -> float:
        return self.world.clock.monotonic()

    def watch(self) -> None:
        """A shadow as the daemon builds it."""
        world = self.world
        self.shadow = Shadow(loop=world.loop, observer=world.observer, ledger=world._sql, clock=world.clock)
        world.on_cycle = self._cycle

    def _cycle(self, record: CycleRecord) -> None:
        self.shadow.note(record)
        self.shadow.score()

    def run(self, minutes: float) -> None:
        self.world.run(minutes * MINUTE)

    @property
    def told(self) -> list[tuple[Advice, AdviceScore | None]]:
        """Oldest first."""
        return list(reversed(self.world._sql.advice(limit=100)))

    @property
    def verdicts(self) -> list[Verdict | None]:
        return [score.verdict if score else None for _, score in self.told]


def guest(name: str, host: str, real: dict[str, Steps]) -> VmSpec:
    return VmSpec(
        name=name,
        host=host,
        vcpus=8 if name == "calm" else 4,
        rss_bytes=3 * GIB,
        demand=Demand(base=QUIET, steps=real.get(name, ())),
        dirty_bytes_per_second=2.0 * MIB,
        working_set_bytes=64.0 * MIB,
    )


ALL_RISE: dict[str, Steps] = {f"vm{n}": ((RISES, BUSY),) for n in range(4)}


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*words: Any, **changes: Any) -> Bench:
        made.append(Bench(*words, **changes))
        return made[-1]

    with capture_logs():
        yield make
        for bench in made:
            bench.world.close()


def test_a_host_that_gets_hot_as_foretold(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE)
    bench.run(25)

    ((advice, score),) = bench.told
    assert score is None, "its window is not over"
    assert (advice.move.source, advice.move.destination, advice.basis) == ("a", "b", "foretold")
    assert advice.proposed_at - bench.world.clock.wall() < 0
    assert advice.lead_seconds is not None
    assert advice.probability == 1.0
    assert advice.relief > advice.cost > 0
    assert bench.world._sql.advice_record(0.0).open == 1

    bench.run(60)
    advice, score = bench.told[0]
    assert score is not None
    assert score.verdict is Verdict.RIGHT
    assert score.hot_after_seconds is not None
    assert score.hot_after_seconds >= 5 * MINUTE
    assert score.relief is not None
    assert score.relief > advice.cost
    assert score.source_peak == pytest.approx(7.4 / 8, abs=0.04)
    assert score.destination_peak == pytest.approx((QUIET + BUSY + 0.2) / 8, abs=0.04)
    assert bench.shadow.state() is not None


def test_a_hotspot_that_advice_had_seen_coming_is_counted_as_foreseen(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE)
    bench.run(125)

    state = bench.shadow.state()
    assert state is not None
    assert (state.record.foreseen, state.record.late, state.record.unadvised) == (1, 0, 0)
    assert state.record.watched_days == pytest.approx(2 / 24)
    assert state.record.hot_seconds == pytest.approx(90 * MINUTE, abs=5 * MINUTE)


def test_a_hotspot_that_nobody_saw_coming_is_counted_as_late(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, None)
    bench.run(70)

    state = bench.shadow.state()
    assert state is not None
    assert (state.record.foreseen, state.record.late, state.record.unadvised) == (0, 1, 0)


def test_a_forecast_that_does_not_come_true_is_needless(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench({}, ALL_RISE)
    bench.run(60)

    _, score = bench.told[0]
    assert score is not None
    assert (score.verdict, score.relief) == (Verdict.NEEDLESS, 0.0)
    assert score.reason.startswith("a never got hot (6")


def test_advice_on_a_spike_that_fades_is_needless(make_bench: Callable[..., Bench]) -> None:
    """Four minutes of a hot host, longer than the hold, too short for a move to be worth it."""
    spike: dict[str, Steps] = {f"vm{n}": ((RISES, BUSY), (RISES + 4 * MINUTE, 0.5)) for n in range(4)}
    bench = make_bench(spike, None, decide_seconds=MINUTE)
    bench.run(80)

    assert bench.verdicts
    assert set(bench.verdicts) == {Verdict.NEEDLESS}


def test_a_spike_shorter_than_the_hold_is_no_advice(make_bench: Callable[..., Bench]) -> None:
    spike: dict[str, Steps] = {f"vm{n}": ((RISES, BUSY), (RISES + 2 * MINUTE, 0.5)) for n in range(4)}
    patient = make_bench(spike, None, decide_seconds=MINUTE, guard=GuardSettings(hold_rounds=10))
    patient.run(80)
    hasty = make_bench(spike, None, decide_seconds=MINUTE, guard=GuardSettings(hold_rounds=0))
    hasty.run(80)

    assert patient.verdicts == []
    assert hasty.verdicts


def test_a_destination_whose_own_load_was_not_foreseen_is_harmed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench({**ALL_RISE, "calm": ((RISES, 5.5),)}, ALL_RISE)
    bench.run(60)

    assert bench.verdicts[0] is Verdict.HARMFUL
    assert bench.told[0][1].reason.startswith("b would have been hot")


def test_one_hotspot_is_one_piece_of_advice_in_a_window(make_bench: Callable[..., Bench]) -> None:
    """Whatever else is proposed for the host meanwhile: the guests are alike, so the planner's choice changes."""
    bench = make_bench(ALL_RISE, ALL_RISE)
    proposed: set[str] = set()
    note = bench.world.on_cycle

    def listen(record: CycleRecord) -> None:
        proposed.update(d.vm_uuid for d in record.decisions)
        note(record)

    bench.world.on_cycle = listen
    bench.run(100)

    times = [a.proposed_at for a, _ in bench.told]
    assert len(proposed) > 1
    assert 2 <= len(times) <= 4
    assert all(late - early >= SETTINGS.horizon_seconds for early, late in pairwise(times))


def test_advice_that_was_approved_is_judged_by_what_happened(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE, mode=Mode.GUARDED, plan=PlanSettings(expiry_seconds=1200.0))
    bench.run(11)
    (first, *_) = bench.told
    bench.world.command(CommandKind.APPROVE, ())
    bench.run(60)

    followed = [(a, s) for a, s in bench.told if s is not None and s.followed_at is not None]
    assert [r.vm_uuid for r in bench.world.ledger.migrations()] == [followed[0][0].move.vm_uuid]
    ((advice, score),) = followed
    assert advice.id == first[0].id
    assert score is not None
    assert score.verdict is Verdict.RIGHT
    assert score.source_peak == pytest.approx(7.4 / 8, abs=0.04), "as hot as it would have been"


def test_advice_that_was_followed_by_hand_is_judged_by_what_happened(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE)
    bench.run(25)
    ((advice, _),) = bench.told
    relocate(bench.world.cluster, advice.move.vm_uuid, "b")
    bench.run(60)

    _, score = bench.told[0]
    assert score is not None
    assert score.verdict is Verdict.RIGHT
    assert score.followed_at == pytest.approx(bench.world.clock.wall() - 35 * MINUTE, abs=30)
    assert score.source_peak == pytest.approx(7.4 / 8, abs=0.04), "as hot as it would have been"
    assert bench.shadow.state().record.followed == 1


def test_a_vm_that_ended_cannot_be_judged(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE)
    bench.run(25)
    ((advice, _),) = bench.told
    stop_vm(bench.world.cluster, advice.move.vm_uuid)
    bench.run(60)

    assert bench.verdicts[0] is Verdict.OVERTAKEN


def test_a_host_that_was_silent_is_unknown_never_right(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE)
    bench.run(15)
    bench.world.wires.reach["b"] = Reach.REFUSED
    bench.run(24)
    bench.world.wires.reach["b"] = Reach.OK
    bench.run(45)

    assert bench.verdicts[0] is Verdict.UNKNOWN


def test_what_was_not_judged_yet_is_judged_after_a_restart(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE, state_dir=tmp_path)
    bench.run(25)
    before = bench.told
    bench.world.kill_daemon()
    bench.world.start_daemon()
    bench.watch()
    bench.run(28)
    assert [a for a, _ in bench.told] == [a for a, _ in before], "known again, so the same advice"
    bench.run(60)

    assert bench.verdicts[0] is Verdict.RIGHT


class Away:
    """A ledger that is away while ``away`` is set."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.away = inner, False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise LedgerUnavailableError("disk full")
        return getattr(self.inner, name)


def test_a_ledger_that_is_away_costs_no_cycle_and_advice_is_noted_later(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE)
    away = Away(bench.world._sql)
    bench.shadow = Shadow(
        loop=bench.world.loop,
        observer=bench.world.observer,
        ledger=away,
        clock=bench.world.clock,
    )
    away.away = True
    bench.world.on_cycle = bench.shadow.note
    bench.run(20)
    with pytest.raises(LedgerUnavailableError, match="disk full"):
        bench.shadow.score()
    assert bench.shadow.state().error == "disk full"
    assert bench.told == []

    away.away = False
    bench.run(22)
    assert len(bench.told) == 1
    bench.shadow.score()
    assert bench.shadow.state().error is None


def test_one_odd_row_does_not_hold_up_the_others(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE)
    bench.run(25)
    ((advice, _),) = bench.told
    sql = bench.world._sql
    odd = sql.add_advice(replace(advice, hosts=()))
    with sql._writing() as connection:
        connection.exec_driver_sql(
            "INSERT INTO advice (proposed_at, due_at, vm_uuid, source, destination, body) "
            "SELECT proposed_at, due_at, vm_uuid, source, destination, 'no JSON' FROM advice LIMIT 1"
        )
    bench.run(60)

    assert bench.verdicts[0] is Verdict.RIGHT
    assert {a.id: s.verdict for a, s in bench.told if s}[odd] is Verdict.UNKNOWN
    assert [n for n, a in sql.unscored_advice() if a is None] == []


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.AUTO])
def test_other_modes_keep_no_such_record(make_bench: Callable[..., Bench], mode: Mode) -> None:
    bench = make_bench(ALL_RISE, ALL_RISE, mode=mode)
    cycles: list[CycleRecord] = []
    note = bench.world.on_cycle

    def listen(record: CycleRecord) -> None:
        cycles.append(record)
        note(record)

    bench.world.on_cycle = listen
    bench.run(25)

    assert any(record.decisions for record in cycles) or mode is Mode.OBSERVE
    assert cycles[-1].hot_hosts == ("a",) or mode is Mode.AUTO
    assert bench.told == []
    assert bench.shadow.state() is None


def test_a_clock_that_went_back_leaves_nothing_open_for_ever(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench({}, None)
    bench.run(10)
    ahead = bench.world.clock.wall() + 30 * 86_400.0
    sql = bench.world._sql
    foretold = make_bench(ALL_RISE, ALL_RISE)
    foretold.run(25)
    ((advice, _),) = foretold.told
    sql.add_advice(replace(advice, proposed_at=ahead, due_at=ahead + 1800))
    bench.shadow.score()

    assert bench.verdicts == [Verdict.UNKNOWN]
    assert sql.advice_record(bench.world.clock.wall() - RECORD_SECONDS).open == 0
