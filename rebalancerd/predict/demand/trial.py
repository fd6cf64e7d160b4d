"""Trial: a day of scores, hour by hour, the verdict that follows from it, and the widths that adapt to it. Pure.

A verdict needs a whole trial of scores that are later than the verdict before: a day of a skill below zero takes a
model's trust away, a day above zero gives it back. The central 90 % is widened or narrowed on either side by an online
rule, as in adaptive conformal inference (Gibbs, Candès 2021, "Adaptive conformal inference under distribution shift"),
here on the logarithm of the factor and within bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, floor, isfinite, log

from rebalancerd.predict.demand.skill import LOW, Skill, Tally, skill_of
from rebalancerd.predict.drift import Trust

PARTS = 24  # of a trial: an hour of a day
FULL_SHARE = 0.75  # of the parts that must hold scores, so that one lucky hour after a gap is no day
KEPT_TRIALS = 2
RATE = 0.2  # of the log factor per batch: an hour passes before a change shows, faster would overshoot
FACTOR_LEAST, FACTOR_MOST = 0.5, 4.0


@dataclass(frozen=True, slots=True)
class Factors:
    """By what the distances of the lower and the upper quantiles from the median are multiplied."""

    low: float = 1.0
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class Record:
    """Scores by part of a trial: ``parts[n]`` of those due in the n-th part since the epoch of ``part_seconds``."""

    part_seconds: float
    parts: Mapping[int, Tally]

    @property
    def trial_seconds(self) -> float:
        """Length of a trial."""
        return PARTS * self.part_seconds

    def plus(self, due: float, tally: Tally) -> "Record":
        """With the scores of forecasts that were due then."""
        number = floor(due / self.part_seconds)
        before = self.parts.get(number)
        return Record(self.part_seconds, {**self.parts, number: tally if before is None else before.plus(tally)})

    def kept(self, now: float) -> "Record":
        """Without what is too old, and without what a clock that went back has put into the future."""
        newest = floor(now / self.part_seconds)
        oldest = newest - KEPT_TRIALS * PARTS
        return Record(self.part_seconds, {n: t for n, t in self.parts.items() if oldest <= n <= newest})

    def over(self, now: float, after: float) -> tuple[Tally, bool]:
        """The scores of the last trial that are later than ``after``, and whether they are those of a whole trial."""
        newest = floor(now / self.part_seconds)
        later = sorted(n for n in self.parts if n * self.part_seconds >= after and n <= newest)
        counted = [n for n in later if n > newest - PARTS]
        total = Tally.none()
        for number in counted:
            total = total.plus(self.parts[number])
        begun = bool(later) and now - later[0] * self.part_seconds >= self.trial_seconds
        return total, begun and len(counted) >= FULL_SHARE * PARTS


def judge(trust: Trust, record: Record, *, now: float) -> tuple[Trust, Skill]:
    """The trust that follows, and the skill over what it rests on. ``now``: epoch seconds."""
    tally, whole = record.over(now, trust.after)
    skill = replace(skill_of(tally), judged=whole)
    if not whole or skill.overall is None or not isfinite(skill.overall):
        return trust, skill
    if trust.trusted and skill.overall < 0:
        reason = f"worse than {skill.best} over {_span(record)}: {words(skill)}"
        return Trust(trusted=False, since=now, reason=reason, after=now), skill
    if not trust.trusted and skill.overall > 0:
        reason = f"better than {skill.best} again over {_span(record)}: {words(skill)}"
        return Trust(trusted=True, since=now, reason=reason, after=now), skill
    return trust, skill


def words(skill: Skill) -> str:
    """The skill in words, by steps ahead."""
    if skill.best is None or skill.overall is None:
        return "nothing scored yet"
    each = (f"{by[skill.best]:+.2f} at {s} steps" for s, by in zip(skill.steps, skill.by_step, strict=True))
    return f"skill {skill.overall:+.2f} against it ({', '.join(each)}) over {skill.count} forecasts"


def adapted(factors: Factors, batch: Tally) -> Factors:
    """The factors after a batch of scores: wider where more than 5 % lay beyond a side, narrower where fewer did."""
    count = float(batch.count.sum())
    if count <= 0:
        return factors
    low, high = (float(side) / count for side in batch.missed.sum(axis=0))
    return Factors(_moved(factors.low, low), _moved(factors.high, high))


def _moved(factor: float, share: float) -> float:
    return min(FACTOR_MOST, max(FACTOR_LEAST, exp(log(factor) + RATE * (share - LOW))))


def _span(record: Record) -> str:
    hours = record.trial_seconds / 3600
    return "a day" if hours == 24 else f"{hours:g} hours"
