"""Drift: whether a model in use still deserves its trust, judged by the migrations that followed it. Pure.

Each migration is held against what the model predicted and against what physics predicts of the same facts. Only a
clear difference over enough migrations takes trust away, so that two bad runs do not; and it comes back only when, over
as many migrations since then, the model is no worse than physics and its bounds hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.labelled import LabelledMigration

WORSE = 1.1  # factor by which the typical error must exceed that of physics
SURE = 2.5  # standard errors by which it must
COVERAGE_PROMISED = 0.9
COVERAGE_MAX = 0.75  # a share within bounds above this is no reason for mistrust, however many migrations tell it
CHANCE_MAX = 0.001  # that bounds which hold in 90 % miss as often as was seen
COVERAGE_AGAIN = 0.8
LEAST_SECONDS = 1e-3


@dataclass(frozen=True, slots=True)
class Watched:
    """A migration that has ended, what the model said of it, and what physics says."""

    row: LabelledMigration
    model: MigrationCost
    physics: MigrationCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How a model fares. Errors: typical factor between predicted and actual total time, 1 is perfect.

    ``rows``: migrations with a time to compare, ``bounded``: those with a bound to hold, ``covered``: that it held for.
    ``excess``: mean of log error of the model less that of physics, ``excess_error`` its standard error.
    """

    rows: int = 0
    bounded: int = 0
    covered: int = 0
    model_error: float | None = None
    physics_error: float | None = None
    excess: float = 0.0
    excess_error: float = 0.0

    @property
    def coverage(self) -> float | None:
        """Share of migrations within their bound."""
        return self.covered / self.bounded if self.bounded else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whether a model is trusted, since when (epoch seconds) and why. ``after``: only later migrations judge it."""

    trusted: bool = True
    since: float = 0.0
    reason: str = ""
    after: float = 0.0


def measure(watched: Sequence[Watched]) -> Drift:
    """The figures over those migrations. One that was cut off at its deadline tells of bounds only."""
    pairs, bounded, covered = [], 0, 0
    for item in watched:
        row, seconds = item.row, item.row.seconds
        if not row.succeeded:
            # it would have taken longer: either the bound, or the chance of it, must have said so
            bounded += 1
            covered += item.model.seconds.upper >= row.deadline_seconds or item.model.non_convergence.upper >= 0.5
        elif seconds is not None and seconds > 0:
            bounded += 1
            covered += item.model.seconds.upper >= seconds
            pairs.append((_off(item.model, seconds), _off(item.physics, seconds)))
    if not pairs:
        return Drift(bounded=bounded, covered=covered)
    count = len(pairs)
    excess = [mine - theirs for mine, theirs in pairs]
    mean = math.fsum(excess) / count
    spread = math.fsum((e - mean) ** 2 for e in excess) / max(1, count - 1)
    return Drift(
        rows=count,
        bounded=bounded,
        covered=covered,
        model_error=math.exp(math.fsum(mine for mine, _ in pairs) / count),
        physics_error=math.exp(math.fsum(theirs for _, theirs in pairs) / count),
        excess=mean,
        excess_error=math.sqrt(spread / count),
    )


def judge(trust: Trust, drift: Drift, *, now: float, least_rows: int) -> Trust:
    """The trust that follows. ``drift``: over the newest migrations, all of them later than ``trust.after``.

    A verdict is followed by a blank sheet, so that the migrations that led to it do not lead to the next one as well.
    """
    if trust.trusted:
        reason = _why_not(drift, least_rows)
        return trust if reason is None else Trust(trusted=False, since=now, reason=reason, after=now)
    right = drift.rows >= least_rows and drift.excess <= 0 and (drift.coverage or 0.0) >= COVERAGE_AGAIN
    if not right:
        return trust
    reason = f"right again over {drift.rows} migrations: {_errors(drift)}, bounds held in {drift.coverage:.0%}"
    return Trust(trusted=True, since=now, reason=reason, after=now)


def _why_not(drift: Drift, least_rows: int) -> str | None:
    if drift.rows >= least_rows and drift.excess > max(math.log(WORSE), SURE * drift.excess_error):
        return f"clearly worse than physics over {drift.rows} migrations: {_errors(drift)}"
    missed = drift.bounded >= least_rows and drift.covered / drift.bounded < COVERAGE_MAX
    if missed and _chance(drift.covered, drift.bounded) < CHANCE_MAX:
        held = f"{drift.covered} of {drift.bounded} migrations"
        return f"its upper bounds held for {held}, where {COVERAGE_PROMISED:.0%} was promised"
    return None


def _off(cost: MigrationCost, seconds: float) -> float:
    """|log(predicted ÷ actual)|."""
    return abs(math.log(max(LEAST_SECONDS, cost.seconds.value) / max(LEAST_SECONDS, seconds)))


def _errors(drift: Drift) -> str:
    return f"off by a factor of {drift.model_error:.2f}, physics by {drift.physics_error:.2f}"


def _chance(covered: int, bounded: int) -> float:
    """P(at most so many held | each holds with the promised probability)."""
    p = COVERAGE_PROMISED
    return math.fsum(math.comb(bounded, k) * p**k * (1 - p) ** (bounded - k) for k in range(covered + 1))
