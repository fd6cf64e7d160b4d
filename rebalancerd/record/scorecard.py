"""How predictions fared: actual ÷ predicted of the migrations that succeeded, by what predicted them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.names import printable
from rebalancerd.record.archive import Archive, OutcomeRow

FIGURES = (
    ("seconds", "seconds", "predicted_seconds"),
    ("downtime_seconds", "downtime_seconds", "predicted_downtime_seconds"),
    ("bytes", "transferred_bytes", "predicted_bytes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure of one predictor over ``rows`` migrations.

    Ratios are actual ÷ predicted (1.0 is exact, above: it took more), None without rows; ``p10``, ``p90`` by the
    nearest rank. ``within_bound``: share of the migrations with a finite upper bound that stayed within it.
    """

    figure: str
    basis: str
    rows: int
    ratio_median: float | None
    ratio_p10: float | None
    ratio_p90: float | None
    within_bound: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorecard:
    """Scores, and how often each verdict was given."""

    since: float
    scores: tuple[Score, ...]
    verdicts: tuple[tuple[str, int], ...]


def scorecard(archive: Archive, since: float = 0.0) -> Scorecard:
    """The scorecard of the migrations that ended since then. Raises LedgerUnavailableError."""
    rows = archive.outcomes(since)
    succeeded = [row for row in rows if row.state == MigrationState.SUCCEEDED.value and row.basis is not None]
    scores = []
    for basis in sorted({row.basis for row in succeeded if row.basis is not None}):
        mine = [row for row in succeeded if row.basis == basis]
        scores += [_score(figure, basis, mine, actual, predicted) for figure, actual, predicted in FIGURES]
    verdicts = {state: sum(row.state == state for row in rows) for state in sorted({row.state for row in rows})}
    return Scorecard(since=since, scores=tuple(scores), verdicts=tuple(verdicts.items()))


def _score(figure: str, basis: str, rows: Iterable[OutcomeRow], actual: str, predicted: str) -> Score:
    ratios: list[float] = []
    bounded: list[bool] = []
    for row in rows:
        told, value, upper = getattr(row, actual), getattr(row, predicted), getattr(row, f"{predicted}_upper")
        if told is not None and value is not None and value > 0:
            ratios.append(told / value)
        if told is not None and upper is not None:
            bounded.append(told <= upper)
    ratios.sort()
    return Score(
        figure=figure,
        basis=basis,
        rows=len(ratios),
        ratio_median=median(ratios) if ratios else None,
        ratio_p10=_rank(ratios, 0.1),
        ratio_p90=_rank(ratios, 0.9),
        within_bound=sum(bounded) / len(bounded) if bounded else None,
    )


def _rank(ordered: Sequence[float], share: float) -> float | None:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def lines(card: Scorecard) -> tuple[str, ...]:
    """The scorecard in words."""
    told = [f"Verdicts: {', '.join(f'{state} {count}' for state, count in card.verdicts) or 'none yet'}."]
    for score in card.scores:
        if score.ratio_median is None:
            told.append(f"{score.figure} by {printable(score.basis)}: no migration told it.")
            continue
        bound = "" if score.within_bound is None else f", {score.within_bound * 100:.0f} % within the bound"
        told.append(
            f"{score.figure} by {printable(score.basis)}: actual ÷ predicted {score.ratio_median:.2f} in the median, "
            f"{score.ratio_p10:.2f} to {score.ratio_p90:.2f} (p10 to p90) over {score.rows} migrations{bound}."
        )
    return tuple(told)
