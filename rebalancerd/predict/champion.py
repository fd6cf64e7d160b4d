"""Champion and challenger: when a newly trained model takes the place of the one in use. Pure.

Both, and physics, predict the newest migrations of this cluster, which the challenger has not seen. It is promoted only
where it is better than both in time and worse than neither in anything else; whatever cannot be measured, or is not a
figure, keeps the champion in its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rebalancerd.cluster.labelled import LabelledMigration

TEST_SHARE = 0.3
LEAST_TEST_ROWS = 12
ABSURD_SHARE_MAX = 0.2
MARGIN = 0.02  # an error that is lower by less than this share is not lower
COVERAGE_MIN = 0.8  # of bounds that are meant to hold in 90 %


class Scored(Protocol):
    """How predictions fared (``training.CostScore``); None where nothing tells. All but coverage: lower is better."""

    @property
    def rows(self) -> int:
        """Migrations that were predicted."""
        ...

    @property
    def total_time_gmre(self) -> float | None:
        """Geometric mean of the relative errors of the total time."""
        ...

    @property
    def bad_share(self) -> float | None:
        """Share of predictions that were badly off."""
        ...

    @property
    def coverage90(self) -> float | None:
        """Share of times within their upper bound."""
        ...

    @property
    def false_converges(self) -> float | None:
        """Share of the runs that never ended and were said to."""
        ...


@dataclass(frozen=True, slots=True)
class Screened:
    """Rows that may be learned from, oldest first; id and reason of the absurd ones. ``stop``: why none may be used."""

    rows: tuple[LabelledMigration, ...]
    absurd: tuple[tuple[str, str], ...] = ()
    stop: str | None = None


def screen(
    rows: Sequence[LabelledMigration],
    sound: Callable[[LabelledMigration], str | None],
    absurd: Sequence[tuple[str, str]] = (),
) -> Screened:
    """Leave out rows that no migration can have been like; where they are many, believe none of the others either.

    ``absurd``: ids and reasons of rows that were left out for the same cause before.
    """
    kept, odd = [], list(absurd)
    for row in rows:
        reason = sound(row)
        if reason is None:
            kept.append(row)
        else:
            odd.append((row.id, reason))
    kept.sort(key=lambda r: (r.at, r.id))
    stop, total = None, len(rows) + len(absurd)
    if len(odd) > ABSURD_SHARE_MAX * total:
        example = ": ".join(odd[0])
        stop = f"{len(odd)} of {total} migrations are absurd, so the others are not believed either; such as {example}"
    return Screened(() if stop is not None else tuple(kept), tuple(odd), stop)


def split(rows: Sequence[LabelledMigration]) -> tuple[tuple[LabelledMigration, ...], tuple[LabelledMigration, ...]]:
    """Rows in order of time, parted into those to learn from and the newest, to be tested on."""
    ordered = sorted(rows, key=lambda r: (r.at, r.id))
    tested = min(len(ordered), max(LEAST_TEST_ROWS, round(TEST_SHARE * len(ordered))))
    return tuple(ordered[: len(ordered) - tested]), tuple(ordered[len(ordered) - tested :])


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger is promoted, and why or why not."""

    promote: bool
    why: str


def decide(challenger: Scored, champion: Scored | None, physics: Scored) -> Verdict:
    """Judge a challenger by scores on the same rows. ``champion`` None: physics alone is in use."""
    if challenger.rows < LEAST_TEST_ROWS:
        return Verdict(False, f"tested on {challenger.rows} migrations only, {LEAST_TEST_ROWS} are needed")
    coverage = challenger.coverage90
    if coverage is None or not coverage >= COVERAGE_MIN:
        return Verdict(False, f"its bounds held in {_percent(coverage)} of the cases, {COVERAGE_MIN:.0%} are needed")
    opponents = {"physics": physics} if champion is None else {"the champion": champion, "physics": physics}
    for name, other in opponents.items():
        if other.rows != challenger.rows:
            return Verdict(False, f"{name} was tested on {other.rows} other migrations")
        if not _lower(challenger.total_time_gmre, other.total_time_gmre):
            own, theirs = _percent(challenger.total_time_gmre), _percent(other.total_time_gmre)
            return Verdict(False, f"its error of {own} is not clearly below the {theirs} of {name}")
        for figure, what in (("bad_share", "bad predictions"), ("false_converges", "runs falsely said to converge")):
            mine, least = getattr(challenger, figure), getattr(other, figure)
            if not _no_higher(mine, least):
                return Verdict(False, f"{what}: {_percent(mine)}, more than the {_percent(least)} of {name}")
    beaten = " and ".join(f"{_percent(o.total_time_gmre)} of {n}" for n, o in opponents.items())
    return Verdict(True, f"its error of {_percent(challenger.total_time_gmre)} beats {beaten}")


def _lower(mine: float | None, theirs: float | None) -> bool:
    """Clearly lower. NaN is not lower than anything, and nothing is lower than NaN."""
    return mine is not None and theirs is not None and mine < theirs * (1 - MARGIN)


def _no_higher(mine: float | None, theirs: float | None) -> bool:
    """Not higher; a figure that neither has is no obstacle."""
    if mine is None or theirs is None:
        return mine is theirs
    return mine <= theirs


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
