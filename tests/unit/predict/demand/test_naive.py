"""The naive ways: points as their names say, errors of their own, and nothing that breaks them."""

import numpy as np
import pytest

from rebalancerd.predict.demand.naive import LEVELS, NAIVE
from rebalancerd.predict.demand.panel import Panel

STEPS = (1, 6, 12)


def asked(way, values):
    return NAIVE[way].forecast(
        Panel(values=np.atleast_2d(values).astype(np.float32), step_seconds=300.0, end=0.0), STEPS
    )


def test_points():
    values = np.concatenate([np.full(276, 0.2), np.linspace(0.2, 0.5, 24)])
    assert asked("persistence", values).mean[0] == pytest.approx([0.5] * 3)
    assert asked("mean_2h", values).mean[0] == pytest.approx([values[-24:].mean()] * 3, abs=1e-5)
    level = values[0]
    for value in values:
        level += 0.3 * (value - level)
    assert asked("ewma", values).mean[0] == pytest.approx([level] * 3, abs=1e-3)


def test_autoregression_learns_what_comes_back():
    time = np.arange(400)
    values = np.stack([0.5 + 0.3 * np.sin(2 * np.pi * (time + p) / 24) for p in range(24)])
    ahead = np.array([[0.5 + 0.3 * np.sin(2 * np.pi * (399 + p + s) / 24) for s in STEPS] for p in range(24)])
    told = NAIVE["ar"].forecast(Panel(values=values.astype(np.float32), step_seconds=300.0, end=0.0), STEPS)
    assert np.abs(told.mean - ahead).max() < 0.05
    flat = NAIVE["persistence"].forecast(Panel(values=values.astype(np.float32), step_seconds=300.0, end=0.0), STEPS)
    assert np.abs(told.mean - ahead).mean() < 0.2 * np.abs(flat.mean - ahead).mean()


@pytest.mark.parametrize("way", NAIVE)
def test_ninety_of_a_hundred_lie_between_the_outer_quantiles(way):
    noise = 0.5 + 0.1 * np.random.default_rng(1).standard_normal((60, 300))
    told = asked(way, noise[:, :-12])
    came = noise[:, [-12, -7, -1]]
    inside = (came >= told.at(0.05)) & (came <= told.at(0.95))
    assert 0.8 <= inside.mean() <= 0.98


@pytest.mark.parametrize("way", NAIVE)
@pytest.mark.parametrize(
    "values",
    [
        np.full((2, 50), np.nan),
        np.empty((2, 0)),
        np.empty((0, 50)),
        np.array([[np.nan] * 49 + [0.3]]),
        np.array([[-1.0, np.inf, 99.0, 0.2]]),
        np.full((1, 300), 0.0),
    ],
)
def test_whatever_is_missing_a_forecast_is_finite_and_sorted(way, values):
    told = (
        asked(way, values)
        if values.size
        else NAIVE[way].forecast(Panel(values=values.astype(np.float32), step_seconds=300.0, end=0.0), STEPS)
    )
    assert told.mean.shape == (len(values), 3)
    assert np.isfinite(told.mean).all()
    assert np.isfinite(told.quantiles).all()
    assert (told.quantiles >= 0).all()
    assert (np.diff(told.quantiles, axis=2) >= 0).all()


def test_of_a_vm_that_nothing_is_known_of_anything_may_come():
    told = asked("persistence", np.full((1, 50), np.nan))
    assert told.quantiles[0, 0] == pytest.approx(LEVELS)
