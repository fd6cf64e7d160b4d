"""P(hot) of hosts: ratios to a level, whatever is missing, learned on random groups; and the way into hotspots."""

from itertools import pairwise

import numpy as np
import pytest

from rebalancerd.predict.demand.host_chance import FEATURES, HostChance, host_features, smoothed_share
from rebalancerd.predict.demand.host_training import AHEAD, PATHS, group_case, moments, train_host_chance
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.synthetic import synthetic_series

FORECASTER = NAIVE["ewma"]


@pytest.fixture(scope="module")
def model():
    return train_host_chance([synthetic_series(60, 700, seed=3)], FORECASTER, seed=1)


@pytest.fixture(scope="module")
def unseen():
    """Groups of VMs that were not learned from, at levels they live near: (features, whether hot)."""
    series, rng = synthetic_series(60, 700, seed=99), np.random.default_rng(4)
    found, hot = [], []
    for moment in moments(series, FORECASTER, range(100, 690, 40), seed=1):
        members = np.stack([rng.choice(60, size=12, replace=False) for _ in range(40)])
        sizes = np.ones(members.shape, dtype=np.float32)
        level = moment.past[members].mean(axis=2).sum(axis=1) * rng.uniform(0.9, 1.7, 40)
        told = group_case(moment, members, sizes, level)
        found.append(told[0])
        hot.append(told[1])
    return np.concatenate(found), np.concatenate(hot)


def host(load=0.8, swing=0.05, seed=1, past=0.8, vms=10, largest=0.2):
    rng = np.random.default_rng(seed)
    paths = (load + swing * rng.standard_normal((1, PATHS, AHEAD))).astype(np.float32)
    history = np.full((1, 288), past, dtype=np.float32)
    return host_features(paths, history, np.array([vms], dtype=float), np.array([largest]))


def test_chances_are_calibrated_on_groups_never_seen(model, unseen):
    found, hot = unseen
    told = model.chances(found)
    assert 0.1 < hot.mean() < 0.9
    assert told.mean() == pytest.approx(hot.mean(), abs=0.06)
    for low, high in ((0.0, 0.2), (0.8, 1.01)):
        part = (told >= low) & (told < high)
        assert part.sum() > 20
        assert hot[part].mean() == pytest.approx(told[part].mean(), abs=0.12)
    assert np.mean((told - hot) ** 2) < 0.8 * hot.mean() * (1 - hot.mean())


def test_the_nearer_the_level_the_likelier(model):
    chances = [float(model.chances(host(load=x, past=x))[0]) for x in (0.3, 0.6, 0.8, 0.95, 1.1, 1.5)]
    assert chances[0] < 0.1
    assert chances[-1] > 0.9
    assert all(b >= a - 0.05 for a, b in pairwise(chances))


def test_one_vm_an_empty_past_and_gaps_are_answered(model):
    nothing = host_features(
        np.zeros((1, PATHS, AHEAD), np.float32), np.empty((1, 0), np.float32), np.array([1.0]), np.array([1.0])
    )
    gaps = np.full((1, 288), np.nan, dtype=np.float32)
    gaps[0, ::7] = 0.5
    holed = host_features(np.full((1, PATHS, AHEAD), 0.5, np.float32), gaps, np.array([3.0]), np.array([0.5]))
    for found in (nothing, holed):
        assert found.shape == (1, len(FEATURES))
        assert not np.isinf(found).any()
        assert 0 <= model.chances(found)[0] <= 1
    assert model.chances(np.empty((0, len(FEATURES)), np.float32)).shape == (0,)


def test_ratios_only_so_that_size_means_nothing(model, unseen):
    rng = np.random.default_rng(5)
    moment = next(iter(moments(synthetic_series(30, 400, seed=8), FORECASTER, [300], seed=1)))
    members = rng.permutation(30)[:24].reshape(2, 12)
    sizes = rng.choice((1.0, 4.0), size=members.shape).astype(np.float32)
    level = np.array([5.0, 9.0])
    small, large = (group_case(moment, members, sizes * f, level * f)[0] for f in (1.0, 1000.0))
    np.testing.assert_allclose(small, large, rtol=1e-3, atol=1e-3)


def test_a_share_of_paths_without_steps():
    peaks = np.linspace(0.5, 1.5, PATHS, dtype=np.float32)[None, :, None]
    assert smoothed_share(peaks)[0] == pytest.approx(0.5, abs=0.02)
    assert smoothed_share(np.full((1, PATHS, 1), 0.2, np.float32))[0] < 1e-6
    assert smoothed_share(np.full((1, PATHS, 1), 3.0, np.float32))[0] > 1 - 1e-6


def test_state_round_trips_and_what_is_wrong_with_one_is_named(model):
    again = HostChance.of_state(model.state)
    assert (again.chances(host()) == model.chances(host())).all()
    for broken, told in (
        ({**model.state, "features": ["moon"]}, "other features"),
        ({k: v for k, v in model.state.items() if k != "trees"}, "no trees"),
        ({**model.state, "line": 3}, "no line"),
        (None, "other features"),
    ):
        with pytest.raises(ValueError, match=told):
            HostChance.of_state(broken)


def test_too_little_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="too few"):
        train_host_chance([synthetic_series(3, 100, seed=1)], FORECASTER, seed=1)
