"""How predictions of migrations fared, in the figures of the literature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.predict.cost_columns import CostColumns

Floats = NDArray[np.float64]
Predictor = Callable[[Sequence[Any], Sequence[float]], Any]

BAD_ERROR = 0.25  # Gudkov 2023: an error of 25 % or more, or a wrong "converges"
CHANCE_LIMIT = 0.3  # where a planner by default stops admitting


@dataclass(frozen=True, slots=True, kw_only=True)
class CostScore:
    """Total time and outcome predicted of rows; shares and relative errors, None where nothing tells.

    ``bad_share``: error of 25 % or more, or falsely said to converge. ``coverage90``: share within the upper bound.
    ``false_converges``: share of the runs that never ended whose upper bound of that chance was below ``CHANCE_LIMIT``.
    """

    rows: int
    total_time_median_ape: float | None = None
    total_time_gmre: float | None = None
    bad_share: float | None = None
    coverage90: float | None = None
    false_converges: float | None = None


def score_cost(predict: Predictor, rows: Sequence[LabelledMigration]) -> CostScore:
    """Score a predictor (``predict_facts`` of a model) on rows it did not learn from."""
    if not rows:
        return CostScore(rows=0)
    value, upper, chance = _arrays(predict([r.facts for r in rows], [r.deadline_seconds for r in rows]))
    succeeded = np.array([r.succeeded for r in rows], dtype=np.bool_)
    actual = np.array([np.nan if r.seconds is None else r.seconds for r in rows], dtype=np.float64)
    timed = succeeded & np.isfinite(actual) & (actual > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(timed, np.abs(value - actual) / actual, np.nan)
    falsely = ~succeeded & (chance <= CHANCE_LIMIT)
    errors = error[timed]
    return CostScore(
        rows=len(rows),
        total_time_median_ape=float(np.median(errors)) if len(errors) else None,
        total_time_gmre=float(np.exp(np.mean(np.log(np.maximum(errors, 1e-4))))) if len(errors) else None,
        bad_share=float(np.mean(np.where(timed, error >= BAD_ERROR, falsely))),
        coverage90=float(np.mean(actual[timed] <= upper[timed])) if len(errors) else None,
        false_converges=float(falsely.sum() / (~succeeded).sum()) if (~succeeded).any() else None,
    )


def _arrays(told: Any) -> tuple[Floats, Floats, Floats]:
    """Seconds, their bound and the bound of non-convergence of any sequence of costs."""
    if isinstance(told, CostColumns):
        return told.seconds.value, told.seconds.upper, told.non_convergence.upper
    rows = [(c.seconds.value, c.seconds.upper, c.non_convergence.upper) for c in told]
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]
