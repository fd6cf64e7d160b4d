"""What tells a pre-copy that ends from one that does not: margins of the simulation, QEMU's slices, and how both are learned."""

from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.predict import calibration, training
from rebalancerd.predict.calibration import Calibration, calibrated
from rebalancerd.predict.cost import Physics
from rebalancerd.predict.cost_features import DIRTY_SCALES, FEATURES, MOST_MARGIN, features
from rebalancerd.predict.cost_inputs import CostInputs
from rebalancerd.predict.estimators import fit, predicted, regressors
from rebalancerd.predict.training import train_cost
from tests.unit.predict.cost_rows import FINE, SETTINGS, facts, synthetic

PLAIN = Calibration()


def asked(*rows, deadline=60.0):
    return Physics(CostInputs.of_facts(list(rows), [deadline] * len(rows)), SETTINGS)


def column(physics, name):
    return features(physics, PLAIN)[0][:, FEATURES.index(name)]


def guests(count=40, *, auto=False):
    random = np.random.default_rng(7)
    found = [facts(random, FINE) for _ in range(count)]
    return [replace(f, options=replace(f.options, auto_converge=auto)) for f in found]


def test_just_below_its_margin_a_guest_converges_and_just_above_not():
    physics = asked(*guests())
    margin = column(physics, "log_margin")
    inner = (margin > -1.3) & (margin < MOST_MARGIN - 0.1)
    assert inner.sum() >= 10
    below = calibrated(physics, PLAIN, np.exp(margin - 0.06)[physics.first])
    above = calibrated(physics, PLAIN, np.exp(margin + 0.06)[physics.first])
    assert below.converged[physics.kind][inner].all()
    assert not above.converged[physics.kind][inner].any()


def test_a_margin_above_nothing_is_what_converges():
    physics = asked(*guests())
    run, _ = calibrated(physics, PLAIN), None
    assert ((column(physics, "log_margin") > 0) == run.converged[physics.kind]).all()


def test_throttling_never_narrows_a_margin():
    physics = asked(*guests(auto=True))
    with_it, without = column(physics, "log_margin"), column(physics, "unthrottled_log_margin")
    assert (with_it >= without - 0.05).all()
    assert (with_it > without + 0.1).any()


def test_a_margin_passes_as_many_marks_as_scales_converge():
    physics = asked(*guests())
    ends = sum(calibrated(physics, PLAIN, scale).converged.astype(float) for scale in DIRTY_SCALES)[physics.kind]
    assert np.abs(column(physics, "converging_scale") - ends).max() <= 1.0
    assert np.mean(column(physics, "converging_scale") == ends) > 0.8


def test_kinds_asked_for_alone_are_simulated_as_among_all():
    physics = asked(*guests())
    some = np.array([3, 11, 20])
    alone, among = calibrated(physics, PLAIN, 1.3, kinds=some), calibrated(physics, PLAIN, 1.3)
    assert (alone.seconds == among.seconds[some]).all()


def steady(rate, working_set, downtime):
    points = tuple(
        DirtyPoint(period_seconds=t, unique_bytes=min(rate * t, working_set), standard_error_bytes=1e4, readings=4)
        for t in FINE
    )
    guest = facts(np.random.default_rng(1), FINE)
    return replace(
        guest,
        dirty=DirtyCurve(points=points, age_seconds=1.0),
        link_bytes_per_second=50e6,
        options=MigrationOptions(max_downtime_seconds=downtime),
    )


def test_what_is_dirtied_in_a_slice_is_held_against_what_the_link_sends():
    slow, fast = column(asked(steady(10e6, 400e6, 0.1), steady(90e6, 400e6, 0.1)), "log_slice_ratio_long")
    assert slow < -1.0 < 0.0 < fast


def test_a_hot_set_that_the_switchover_carries_costs_nothing_new():
    wide, hot = column(asked(steady(90e6, 400e6, 0.3), steady(90e6, 12e6, 0.3)), "log_slice_ratio_long")
    assert hot < wide - 1.5


@pytest.mark.parametrize("name", ["log_slice_ratio_short", "log_slice_ratio_long"])
def test_of_a_guest_that_was_not_measured_no_slice_is_known(name):
    assert np.isnan(column(asked(replace(guests(1)[0], dirty=None)), name)).all()


def test_support_vectors_summed_by_products_give_what_they_predict():
    random = np.random.default_rng(3)
    found = random.normal(size=(200, 5))
    found[::7, 2] = np.nan
    for name in ("seconds", "slowdown"):
        for model in regressors(name, 1):
            fitted = fit(model, found, np.nan_to_num(found[:, 0]) * 0.3, np.ones(200))
            assert predicted(fitted, found) == pytest.approx(fitted.predict(found), abs=1e-9)


def test_runs_that_nothing_could_have_told_blur_no_classifier(monkeypatch):
    monkeypatch.setattr(calibration, "ITERATIONS", 30)
    monkeypatch.setattr(training, "REFIT_ITERATIONS", 10)
    rows = synthetic(120, periods=FINE)
    silent = DirtyCurve(points=tuple(replace(p, unique_bytes=0.0) for p in rows[0].facts.dirty.points), age_seconds=1.0)
    odd = [
        replace(r, id=f"odd-{r.id}", facts=replace(r.facts, dirty=silent))
        for r in synthetic(60, seed=5, periods=FINE)
        if not r.succeeded
    ]
    assert len(odd) >= 8
    asked_of = [r.facts for r in rows]
    deadlines = [r.deadline_seconds for r in rows]
    without = train_cost(rows, SETTINGS, seed=1)
    having = train_cost([*rows, *odd], SETTINGS, seed=1)
    chances = [m.predict_facts(asked_of, deadlines).non_convergence.value for m in (without, having)]
    calm = np.array([r.succeeded for r in rows])
    assert np.median(chances[1][calm]) < np.median(chances[0][calm]) + 0.02
