"""The learned forecaster: trained once on synthetic load, asked about other load."""

import numpy as np
import pytest

from rebalancerd.predict.demand.learned import LearnedDemand
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.synthetic import synthetic_series
from rebalancerd.predict.demand.training import TrainingSeries, train_demand

STEPS = (1, 2, 3, 6, 12, 20)
DAY = 288


@pytest.fixture(scope="module")
def model() -> LearnedDemand:
    return train_demand([synthetic_series(56, 3 * DAY, seed=1)], seed=1, windows=6000)


def panel(values: np.ndarray, **more: object) -> Panel:
    return Panel(values=np.asarray(values, np.float32), step_seconds=300.0, end=(len(values[0]) - 1) * 300.0, **more)


def test_a_model_beats_persistence_on_load_it_never_saw(model: LearnedDemand) -> None:
    other = synthetic_series(140, 3 * DAY, seed=2).values
    errors = {"ours": [], "persistence": []}
    for at in range(2 * DAY, 3 * DAY - 12, 60):
        past = panel(other[:, : at + 1])
        for name, way in (("ours", model), ("persistence", NAIVE["persistence"])):
            errors[name].append((way.forecast(past, (6, 12)).mean - other[:, [at + 6, at + 12]]) ** 2)
    assert np.mean(errors["ours"]) < 0.8 * np.mean(errors["persistence"])


def test_a_strict_schedule_is_forecast_by_its_season_before_it_happens(model: LearnedDemand) -> None:
    on = (np.arange(3 * DAY) % DAY) // 36 % 2 == 1
    values = np.where(on, 0.8, 0.1)[None, :]
    begin = 2 * DAY + 36 - 4  # four steps before the load comes
    got = model.forecast(panel(values[:, :begin]), tuple(range(1, 13)))
    assert got.mean[0, :4].max() < 0.3
    assert got.mean[0, 5:].min() > 0.6
    assert got.at(0.5)[0, 5:].min() > 0.6


def test_what_is_unknown_is_wide_and_never_nothing(model: LearnedDemand) -> None:
    values = np.full((4, 300), np.nan)
    values[1, -1] = 0.4
    values[2, :100] = 0.3  # nothing since
    values[3] = np.where(np.arange(300) % 3, 0.2, np.nan)
    for way in (model, *NAIVE.values()):
        got = way.forecast(panel(values), STEPS)
        assert np.isfinite(got.mean).all() and np.isfinite(got.quantiles).all()
        assert (got.quantiles[0, :, -1] >= 0.9).all() and (got.mean[0] > 0).all()
        assert (np.diff(got.quantiles, axis=-1) >= 0).all()
        nothing = way.forecast(panel(np.empty((2, 0))), STEPS)
        assert (nothing.at(0.95) >= 0.9).all()


def test_state_round_trips_and_what_is_wrong_with_one_is_named(model: LearnedDemand) -> None:
    values = synthetic_series(14, 2 * DAY, seed=3).values
    again = LearnedDemand.of_state(dict(model.state), "again")
    np.testing.assert_array_equal(
        again.forecast(panel(values), STEPS).quantiles, model.forecast(panel(values), STEPS).quantiles
    )
    assert again.basis == "again"
    for name in model.state:
        broken = {k: v for k, v in model.state.items() if k != name}
        with pytest.raises(ValueError, match=name):
            LearnedDemand.of_state(broken, "x")
    with pytest.raises(ValueError, match="features"):
        LearnedDemand.of_state({**model.state, "features": ["now"]}, "x")
    with pytest.raises(ValueError, match="stretch"):
        LearnedDemand.of_state({**model.state, "stretch": np.full((3, 2), np.nan)}, "x")
    with pytest.raises(ValueError, match="cannot predict"):
        LearnedDemand.of_state({**model.state, "means": [1, 2, 3]}, "x")


def test_recalibration_stretches_only_its_own_side(model: LearnedDemand) -> None:
    values = panel(synthetic_series(28, 2 * DAY, seed=4).values)
    before, after = model.forecast(values, (6,)), model.recalibrated(1.0, 1.5).forecast(values, (6,))
    np.testing.assert_array_equal(before.at(0.5), after.at(0.5))
    np.testing.assert_array_equal(before.at(0.05), after.at(0.05))
    assert (after.at(0.95) >= before.at(0.95)).all() and (after.at(0.95) > before.at(0.95)).any()
    with pytest.raises(ValueError, match="positive"):
        model.recalibrated(0.0, 1.0)


def test_training_needs_enough_and_is_the_same_for_the_same_seed() -> None:
    with pytest.raises(ValueError, match="no recorded load"):
        train_demand([], seed=1)
    with pytest.raises(ValueError, match="long enough"):
        train_demand([TrainingSeries(values=np.full((3, 10), 0.5, np.float32), step_seconds=300.0)], seed=1)
    with pytest.raises(ValueError, match="are needed"):
        train_demand([synthetic_series(4, 60, seed=1)], seed=1)
    small = synthetic_series(20, 2 * DAY, seed=5)
    one, two = (train_demand([small], seed=3, windows=3000) for _ in range(2))
    values = panel(small.values[:, -300:])
    np.testing.assert_array_equal(one.forecast(values, STEPS).quantiles, two.forecast(values, STEPS).quantiles)
