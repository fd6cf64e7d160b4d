"""What a fitted demand model consists of, and the check of one that was read from a file."""

from collections.abc import Mapping
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from rebalancerd.predict.demand.features import FEATURES, KNOTS, LINEAR, LINEAR_OF_KNOT
from rebalancerd.predict.demand.naive import LEVELS

Numbers = NDArray[np.float64]

LINEAR_INPUTS = len(LINEAR) + len(LINEAR_OF_KNOT) + 1


class DemandState(TypedDict):
    """The parts of a model, by knot first. ``ridge``: (K, LINEAR_INPUTS); ``trees_share``: (K,), how much of what trees add to the mean is applied.

    ``means``: one regressor per knot; ``quantiles``: by level ("0.95") one per knot. ``median``: (K, 3), weights of the
    trees' median, the present and the 2-h mean. ``stretch``: (K, 2), factors on the distance of the lower and the upper
    quantiles from the median. ``clock``: whether the time of day was learned.
    """

    features: list[str]
    knots: list[int]
    levels: list[float]
    ridge: Numbers
    trees_share: Numbers
    means: list[Any]
    quantiles: dict[str, list[Any]]
    median: Numbers
    stretch: Numbers
    clock: bool


def check_demand_state(state: Any) -> DemandState:
    """The state as it is. Raises ValueError naming what is missing, of another kind, or of another version's features."""
    if not isinstance(state, Mapping):
        raise ValueError(f"a demand model is a table of parts, not {type(state).__name__}")  # noqa: TRY004 - one error for all
    missing = sorted(set(DemandState.__annotations__) - set(state))
    if missing:
        raise ValueError(f"the demand model has no {', '.join(missing)}")
    for name, ours in (("features", FEATURES), ("knots", KNOTS), ("levels", LEVELS)):
        if not isinstance(state[name], list | tuple) or list(state[name]) != list(ours):
            raise ValueError(f"its {name} are not this version's")
    _check_trees(state)
    shapes = {
        "ridge": (len(KNOTS), LINEAR_INPUTS),
        "trees_share": (len(KNOTS),),
        "median": (len(KNOTS), 3),
        "stretch": (len(KNOTS), 2),
    }
    for name, shape in shapes.items():
        try:
            figures = np.asarray(state[name], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be numbers: {error}") from error
        if figures.shape != shape or not np.isfinite(figures).all():
            raise ValueError(f"{name} must be finite numbers of shape {shape}")
        if name != "ridge" and (figures < 0).any():
            raise ValueError(f"{name} must not be negative")
    return cast("DemandState", {name: state[name] for name in DemandState.__annotations__})


def _check_trees(state: Mapping[str, Any]) -> None:
    names = [f"{level:g}" for level in LEVELS]
    if not isinstance(state["quantiles"], Mapping) or sorted(state["quantiles"]) != sorted(names):
        raise ValueError(f"quantiles must be of {', '.join(names)}")
    groups = {"means": state["means"], **{f"quantiles of {n}": state["quantiles"][n] for n in names}}
    for name, group in groups.items():
        if not isinstance(group, list | tuple) or len(group) != len(KNOTS):
            raise ValueError(f"{name}: one regressor for each of {len(KNOTS)} steps is needed")
        for part in group:
            if not hasattr(part, "predict"):
                raise ValueError(f"{name}: a part cannot predict")
            if getattr(part, "n_features_in_", len(FEATURES)) != len(FEATURES):
                raise ValueError(f"{name}: a part was trained on {part.n_features_in_} features, not {len(FEATURES)}")
