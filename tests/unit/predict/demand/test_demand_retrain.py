"""Trainings of the demand model: split in time, tested against champion and naive ways, promoted only if clearly better."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rebalancerd.predict.demand.contest import DemandScore, cut, decide, measure, split_column
from rebalancerd.predict.demand.kind import DEMAND, DemandParts
from rebalancerd.predict.demand.own_load import NAME, read_load, write_load
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.retrain import DemandTraining, retrain_demand
from rebalancerd.predict.demand.synthetic import synthetic_series
from rebalancerd.predict.demand.training import train_demand
from rebalancerd.predict.demand.windows import TrainingSeries
from rebalancerd.predict.manifest import ArtefactError, Fault
from rebalancerd.predict.retrain import KEPT, NOT_TRAINED, PROMOTED
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore
from tests.unit.predict.demand import demand_world as worlds
from tests.unit.predict.demand.demand_world import Cluster, model, promote

STEPS = 432  # 36 h
Store = ModelStore[DemandParts]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return worlds.opened(tmp_path)


@pytest.fixture(scope="module")
def load() -> Panel:
    return Cluster(vms=8, past_steps=STEPS).panel()


class Trainer:
    """Gives that model, and keeps what it was given."""

    def __init__(self, made: DemandParts) -> None:
        self.made = made
        self.seen: list[TrainingSeries] = []

    def __call__(self, series: Any, seed: int) -> DemandParts:
        self.seen = list(series)
        return self.made


def training(store: Store, load: Panel, made: DemandParts | None = None, **changes: Any) -> DemandTraining:
    values: dict[str, Any] = {"predict": PredictSettings(), "models": ModelSettings(), "now": 5000.0}
    return retrain_demand(load, store, train=Trainer(made or model()), **{**values, **changes})


def test_the_first_challenger_that_beats_the_naive_ways_is_promoted(store: Store, load: Panel) -> None:
    trainer = Trainer(model())
    found = retrain_demand(load, store, predict=PredictSettings(), models=ModelSettings(), now=5000.0, train=trainer)

    assert (found.outcome, found.champion) == (PROMOTED, None), found.why
    assert set(found.scores) == {"challenger", "persistence", "mean_2h", "ewma", "ar"}
    own, synthetic = trainer.seen
    assert own.values.shape == (8, STEPS * 2 // 3), "the newest third is for the test alone"
    assert np.array_equal(own.values, load.values[:, : STEPS * 2 // 3])
    assert synthetic.name == "synthetic"
    champion = store.champion()
    assert champion is not None and champion.id == found.model and champion.why == found.why
    manifest = store.examine(store.own / f"{found.model}.json")
    assert manifest.kind == "demand" and manifest.trained_at == 5000.0
    assert manifest.errors["challenger"]["rmse"] == pytest.approx(found.scores["challenger"].rmse)
    assert store.load(store.pick(found.model or ""), PredictSettings()).id == found.model


def test_one_that_is_not_clearly_better_than_the_champion_is_kept_back(store: Store, load: Panel) -> None:
    champion = promote(store, model())
    found = training(store, load, model(0.001))

    assert (found.outcome, found.champion) == (KEPT, champion)
    assert "of the champion" in found.why
    assert len(store.found()) == 1, "nothing was written"


def test_one_that_beats_the_champion_but_not_the_best_naive_way_is_kept_back(store: Store, load: Panel) -> None:
    promote(store, model(0.4))
    found = training(store, load, model(0.2, spread=0.145))

    assert found.outcome == KEPT and "of the best naive way" in found.why


def test_better_succeeds_the_champion_and_a_dry_run_changes_nothing(store: Store, load: Panel) -> None:
    old = promote(store, model(0.05))
    dry = training(store, load, dry_run=True)
    assert dry.outcome == KEPT and dry.why.startswith("it would be promoted")
    assert [f.id for f in store.found()] == [old]
    found = training(store, load)
    assert (found.outcome, found.champion) == (PROMOTED, old)


@pytest.mark.parametrize("spread", [0.003, 0.5])
def test_coverage_that_is_not_sane_is_kept_back(store: Store, load: Panel, spread: float) -> None:
    found = training(store, load, model(spread=spread))

    assert found.outcome == KEPT and "its central 90 % held" in found.why


@pytest.mark.parametrize("poison", [1e30, -1.0, float("inf"), 17.0])
def test_a_poisoned_history_leaves_the_champion(store: Store, load: Panel, poison: float) -> None:
    champion = promote(store, model())
    values = load.values.copy()
    values[:, ::4] = poison
    found = training(store, replace(load, values=values))

    assert found.outcome == NOT_TRAINED and "are absurd" in found.why
    assert found.absurd == 8 * STEPS // 4
    assert store.champion() is not None and store.champion().id == champion


def test_a_few_absurd_values_are_left_out(store: Store, load: Panel) -> None:
    values = load.values.copy()
    values[0, 10:20] = 1e30
    trainer = Trainer(model())
    found = retrain_demand(
        replace(load, values=values), store, predict=PredictSettings(), models=ModelSettings(), now=1.0, train=trainer
    )

    assert (found.outcome, found.absurd) == (PROMOTED, 10)
    assert np.isnan(trainer.seen[0].values[0, 10:20]).all()


def test_values_that_are_wrong_but_possible_do_not_get_past_the_test(store: Store, load: Panel) -> None:
    """A history that lies in its first two thirds makes a challenger that is wrong about the newest third."""
    champion = promote(store, model(0.02))
    found = training(store, load, model(0.25))

    assert found.outcome == KEPT
    assert store.champion() is not None and store.champion().id == champion


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: replace(p, values=p.values[:, :100]), "8 h of this cluster's load, 24 are needed"),
        (lambda p: replace(p, values=np.full_like(p.values, np.nan)), "are needed"),
        (lambda p: replace(p, values=p.values[:0]), "are needed"),
    ],
)
def test_too_little_load(store: Store, load: Panel, change: Callable[[Panel], Panel], why: str) -> None:
    found = training(store, change(load))

    assert found.outcome == NOT_TRAINED and why in found.why


def test_load_that_does_not_suffice_to_learn_from_and_a_training_that_was_had(store: Store, load: Panel) -> None:
    def short(*_: Any) -> DemandParts:
        raise ValueError("300 windows to learn demand from")

    found = retrain_demand(load, store, predict=PredictSettings(), models=ModelSettings(), now=1.0, train=short)
    assert (found.outcome, found.why) == (NOT_TRAINED, "300 windows to learn demand from")
    first = training(store, load)
    again = training(store, load)
    assert again.outcome == NOT_TRAINED and again.why == f"{first.model} was trained on this very load"


def test_a_champion_that_cannot_be_loaded_is_none(store: Store, load: Panel) -> None:
    broken = promote(store, model())
    (store.own / f"{broken}.skops").write_bytes(b"")
    found = training(store, load, model(0.001))

    assert found.outcome == PROMOTED and found.champion is None
    assert broken in found.problems[0]


@pytest.mark.parametrize(
    ("challenger", "promoted"),
    [
        (DemandScore(900, 0.05, 0.03, 0.005, 0.9), True),
        (DemandScore(200, 0.05, 0.03, 0.005, 0.9), False),
        (DemandScore(900, float("nan"), 0.03, 0.005, 0.9), False),
        (DemandScore(900, 0.05, 0.03, None, 0.9), False),
        (DemandScore(900, 0.05, 0.03, 0.02, 0.9), False),
        (DemandScore(900, 0.11, 0.03, 0.001, 0.9), False),
        (DemandScore(900, 0.0998, 0.03, 0.0099, 0.9), False),
        (DemandScore(900, 0.05, 0.03, 0.005, 0.7), False),
        (DemandScore(900, 0.05, 0.03, 0.005, None), False),
        (DemandScore(901, 0.05, 0.03, 0.005, 0.9), False),
    ],
)
def test_who_wins(challenger: DemandScore, promoted: bool) -> None:
    naive = {"persistence": DemandScore(900, 0.1, 0.05, 0.02, 0.9), "ewma": DemandScore(900, 0.2, 0.05, 0.01, 0.9)}

    assert decide(challenger, None, naive).promote is promoted
    assert not decide(challenger, DemandScore(), naive).promote, "a champion that cannot be measured stays"


def test_what_was_known_at_a_column() -> None:
    values = np.arange(40, dtype=np.float32)[None, :]
    load = Panel(values=values, step_seconds=300.0, end=7200.0, hourly=np.array([[1.0, 2.0, 3.0]], dtype=np.float32))

    then = cut(load, 20)
    assert then.values[0, -1] == 20 and then.end == 7200.0 - 19 * 300
    assert then.hourly is not None and then.hourly.tolist() == [[1.0]], "hours 1 and 2 were not over at 1500 s"
    assert split_column(load) == 25
    assert measure(worlds.FakeForecaster({"bias": 0.0, "spread": 1.0}), replace(load, values=values[:, :12])).rows == 0


# what the daemon hands over


def test_load_is_handed_over_as_it_is(tmp_path: Path, load: Panel) -> None:
    given = replace(load, hourly=np.full((8, 5), np.nan, dtype=np.float32), siblings=np.arange(8, dtype=np.intp) % 2)
    write_load(tmp_path, given)
    found = read_load(tmp_path)

    assert np.array_equal(found.values, given.values) and found.hourly is not None and found.hourly.shape == (8, 5)
    assert (found.step_seconds, found.end) == (given.step_seconds, given.end)
    assert found.siblings is not None and found.siblings.tolist() == [0, 1] * 4


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "text", "format", "shape", "pickle"])
def test_load_that_cannot_be_read_is_named(tmp_path: Path, load: Panel, damage: str) -> None:
    write_load(tmp_path, load)
    path = tmp_path / NAME
    parts = {
        "format": 1,
        "values": load.values,
        "hourly": np.empty((8, 0)),
        "siblings": np.arange(8),
        "times": np.array([300.0, 1.0]),
    }
    match damage:
        case "absent":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-200])
        case "text":
            path.write_text("values")
        case "format":
            np.savez(path, **{**parts, "format": 9})
        case "shape":
            np.savez(path, **{**parts, "siblings": np.arange(3)})
        case "pickle":
            np.savez(path, **{**parts, "values": np.array([{}, []], dtype=object)}, allow_pickle=True)
    with pytest.raises(ArtefactError) as told:
        read_load(tmp_path)
    want = {"absent": Fault.ABSENT, "format": Fault.OUTDATED}.get(damage, Fault.CORRUPT)
    assert told.value.fault is want and str(path) in str(told.value)


def test_the_keeper_hands_over_what_it_watches(store: Store) -> None:
    cluster = Cluster(vms=6, past_steps=40)
    keeper = cluster.keeper(store)
    keeper.hand_over(cluster.snapshot, cluster.cpu)

    found = read_load(store.own)
    assert found.values.shape == (6, 40) and found.end == cluster.end
    assert found.siblings is not None and sorted(found.siblings.tolist()) == [0, 0, 0, 1, 1, 1]


# the real thing, small


def test_a_real_model_is_trained_promoted_loaded_and_seated(tmp_path: Path) -> None:
    """Regular days: a learned model wins over every naive way, is written, checked at load and answers."""
    store: Store = ModelStore(tmp_path / "own", tmp_path / "shipped", kind=DEMAND)
    made = synthetic_series(21, 500, seed=3)
    load = Panel(values=made.values, step_seconds=300.0, end=499 * 300.0)

    def small(series: Any, seed: int) -> DemandParts:
        return DemandParts(train_demand(series, seed=seed, windows=4000))

    found = retrain_demand(load, store, predict=PredictSettings(), models=ModelSettings(), now=5.0, train=small)

    assert found.scores["challenger"].rows > 1000, found.why
    if found.outcome != PROMOTED:
        pytest.fail(f"{found.why}: {found.scores}")
    loaded = store.load(store.pick(found.model or ""), PredictSettings())
    assert loaded.model.forecaster.basis == found.model
    assert (store.own / f"{found.model}.skops").stat().st_size < 5 * 2**20
