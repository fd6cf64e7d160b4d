"""What a fitted cost model consists of, and the check of one that was read from a file."""

from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.calibration import Calibration
from rebalancerd.predict.cost_features import FEATURES

VIEWS = ("seen", "unseen")
REGRESSED = ("seconds", "downtime_seconds", "bytes", "slowdown")


class CostState(TypedDict):
    """The parts of a model. ``lows``, ``highs``: range of every feature, shape (F,).

    ``shares``: how much of each figure's correction is applied, 0 to 1, as it did best on rows it had not seen.
    ``classifiers``, ``chance_factors``: of P(does not converge), by ``VIEWS``: whether the dirty curve was looked into as
    far as the allowed downtime, or libvirt's whole seconds are all there is.
    """

    features: list[str]
    calibration: dict[str, float]
    regressors: dict[str, list[Any]]
    shares: dict[str, float]
    spreads: dict[str, Any]
    quantiles: dict[str, float]
    classifiers: dict[str, list[Any]]
    chance_factors: dict[str, float]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]


def check_state(state: Any) -> CostState:
    """The state as it is. Raises ValueError naming what is missing, of another kind, or trained on other features."""
    if not isinstance(state, dict):
        raise ValueError(f"a cost model is a table of parts, not {type(state).__name__}")  # noqa: TRY004 - one error for all
    missing = sorted(set(CostState.__annotations__) - set(state))
    if missing:
        raise ValueError(f"the cost model has no {', '.join(missing)}")
    if not isinstance(state["features"], list) or list(state["features"]) != list(FEATURES):
        own, ours = set(map(str, state["features"] or ())), set(FEATURES)
        unknown = ", ".join(sorted(own - ours)) or "none"
        lacking = ", ".join(sorted(ours - own)) or "none"
        raise ValueError(f"its features are not this version's: unknown {unknown}; not used {lacking}")
    if not isinstance(state["calibration"], dict):
        raise ValueError("the calibration is no table of constants")  # noqa: TRY004
    Calibration.of(state["calibration"])
    for name in ("regressors", "shares", "spreads", "quantiles"):
        table = state[name]
        if not isinstance(table, dict) or set(table) != set(REGRESSED):
            raise ValueError(f"{name} must be of {', '.join(REGRESSED)}")
    parts = [p for name in REGRESSED for p in (*state["regressors"][name], state["spreads"][name])]
    for name in ("classifiers", "chance_factors"):
        if not isinstance(state[name], dict) or set(state[name]) != set(VIEWS):
            raise ValueError(f"{name} must be of {', '.join(VIEWS)}")
    if not all(hasattr(p, "predict") for p in parts):
        raise ValueError("a part of the cost model cannot predict")
    told = [p for view in VIEWS for p in state["classifiers"][view]]
    if not all(state["classifiers"].values()) or not all(hasattr(p, "predict_proba") for p in told):
        raise ValueError("a classifier of the cost model tells no probability")
    for name in ("lows", "highs"):
        bound = np.asarray(state[name], dtype=np.float64)
        if bound.shape != (len(FEATURES),) or np.isnan(bound).any():
            raise ValueError(f"{name} must be one figure for each feature")
    figures = [*state["quantiles"].values(), *state["shares"].values(), *state["chance_factors"].values()]
    if not all(isinstance(f, float | int) and np.isfinite(f) and f >= 0 for f in figures):
        raise ValueError("quantiles, shares and chance_factors must be finite and not negative")
    return cast("CostState", {name: state[name] for name in CostState.__annotations__})
