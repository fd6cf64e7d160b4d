"""Joint paths: marginals as forecast, company as in history."""

import numpy as np
import pytest

from rebalancerd.predict.demand.forecast import Forecast
from rebalancerd.predict.demand.naive import LEVELS, NAIVE
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.paths import joint_paths
from rebalancerd.predict.demand.resolution import on_grid, resolution

PATHS, STEPS, END = 64, (1, 3, 6), 600_000.0


def panel(values):
    return Panel(values=np.asarray(values, dtype=np.float32), step_seconds=300.0, end=END)


def walk(seed, rows=1, width=300, spread=0.05):
    return 0.5 + spread * np.random.default_rng(seed).standard_normal((rows, width))


def made(values, forecast=None, paths=PATHS):
    told = panel(values)
    forecast = forecast or NAIVE["mean_2h"].forecast(told, STEPS)
    return forecast, joint_paths(forecast, told, paths=paths, seed=1).reshape(len(values), paths, len(forecast.steps))


def test_median_mean_and_quantiles_are_those_of_the_forecast():
    forecast, paths = made(walk(1, rows=5))
    np.testing.assert_allclose(paths.mean(axis=1), forecast.mean, atol=2e-3)
    np.testing.assert_allclose(np.median(paths, axis=1), forecast.at(0.5), atol=2e-3)
    np.testing.assert_allclose(np.quantile(paths, 0.95, axis=1), forecast.at(0.95), atol=0.01)
    assert paths.min() >= 0
    assert paths.max() <= 1


def test_a_skewed_mean_is_kept_beside_its_median():
    quantiles = np.tile(np.array([0.1, 0.15, 0.2, 0.4, 0.8], dtype=np.float32), (1, 3, 1))
    mean = np.full((1, 3), 0.29, dtype=np.float32)
    forecast = Forecast(steps=STEPS, mean=mean, levels=LEVELS, quantiles=quantiles, basis="x")
    _, paths = made(walk(2), forecast)
    np.testing.assert_allclose(paths.mean(axis=1), 0.29, atol=0.01)
    np.testing.assert_allclose(np.median(paths, axis=1), 0.2, atol=0.01)


def test_what_moved_together_moves_together_and_what_took_turns_takes_turns():
    one = walk(3)[0]
    _, paths = made([one, one, 1.0 - one])
    last = paths[:, :, -1]
    assert np.corrcoef(last[0], last[1])[0, 1] > 0.99
    assert np.corrcoef(last[0], last[2])[0, 1] < -0.9


def test_strangers_stay_strangers():
    _, paths = made(walk(4, rows=2, width=500))
    assert abs(np.corrcoef(paths[0, :, -1], paths[1, :, -1])[0, 1]) < 0.4


def test_vms_without_a_history_all_move_alike():
    values = np.full((2, 300), np.nan)
    values[:, -1] = 0.4
    _, paths = made(values)
    order = [np.argsort(paths[i, :, -1], kind="stable") for i in (0, 1)]
    assert (order[0] == order[1]).all()
    assert np.isfinite(paths).all()


def test_the_same_rows_are_taken_a_step_later():
    values = walk(5, width=400)
    earlier = joint_paths(
        NAIVE["mean_2h"].forecast(panel(values[:, :-1]), STEPS), panel(values[:, :-1]), paths=8, seed=1
    )
    again = joint_paths(NAIVE["mean_2h"].forecast(panel(values[:, :-1]), STEPS), panel(values[:, :-1]), paths=8, seed=1)
    assert (earlier == again).all()


def test_a_forecast_of_other_vms_is_refused():
    forecast = NAIVE["mean_2h"].forecast(panel(walk(1, rows=2)), STEPS)
    with pytest.raises(ValueError, match="2 VMs, a history of 3"):
        joint_paths(forecast, panel(walk(1, rows=3)), paths=8, seed=1)


def test_a_history_too_short_for_any_change_gives_valid_paths():
    forecast, paths = made(walk(6, rows=2, width=3))
    assert paths.shape == (2, PATHS, 3)
    np.testing.assert_allclose(np.median(paths, axis=1), forecast.at(0.5), atol=0.02)


@pytest.mark.parametrize("grid", [0.01, 0.001])
def test_the_resolution_of_a_history_is_found_and_kept(grid):
    values = (np.rint(walk(7, rows=3, spread=0.2) / grid) * grid).astype(np.float32)
    assert resolution(values) == grid
    off = on_grid(np.array([[0.12345, 0.9]], dtype=np.float32), grid)
    np.testing.assert_allclose(off, np.rint(np.array([[0.12345, 0.9]]) / grid) * grid, atol=1e-6)


def test_fine_values_and_few_ones_have_no_grid():
    assert resolution(walk(8, rows=3).astype(np.float32)) is None
    assert resolution(np.full((3, 50), 0.5, dtype=np.float32)) is None
    values = np.array([[0.12345]], dtype=np.float32)
    assert on_grid(values, None)[0, 0] == np.float32(0.12345)
