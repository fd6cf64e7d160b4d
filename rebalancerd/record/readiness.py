"""Whether the record of advice is good enough for the next mode, and what is missing if it is not."""

from dataclasses import dataclass

from rebalancerd.cluster.advice import AdviceRecord, Verdict
from rebalancerd.cluster.policy import Mode

RECORD_SECONDS = 30 * 86_400.0  # older advice says little of the load and the model of today


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a mode asks of the record.

    ``watched_days``: time measured; ``scored``: pieces of advice right, needless or harmful, on ``advised_days`` days, so
    that one bad afternoon told many times is not a record; shares are of the scored. ``quiet_days``: a cluster with too few
    hotspots for that many pieces is ready after so long without a needless or a harmful one.
    """

    watched_days: float
    scored: int
    advised_days: int
    right_share: float
    harmful_share: float
    quiet_days: float


# A week holds every weekday once, two weeks twice. A person still looks at every move in `guarded`, so one in twenty may
# have been wrong to the destination and one in five wrong at all; nobody looks in `auto`. With 50 pieces a harmful share of
# 2 % is a single one.
BARS = {
    Mode.GUARDED: Bar(watched_days=7, scored=20, advised_days=3, right_share=0.8, harmful_share=0.05, quiet_days=14),
    Mode.AUTO: Bar(watched_days=14, scored=50, advised_days=7, right_share=0.9, harmful_share=0.02, quiet_days=28),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the record is good enough for that mode; ``reason``: what is missing, or on what it rests, in words."""

    mode: Mode
    ready: bool
    reason: str


def readiness(record: AdviceRecord) -> tuple[Readiness, ...]:
    """One answer per mode that asks for a record, the lower mode first. A mode is never ready before the one below it."""
    found: list[Readiness] = []
    for mode, bar in BARS.items():
        answer = _answer(mode, bar, record)
        below = next((r for r in found if not r.ready), None)
        if below is not None and answer.ready:
            answer = Readiness(mode=mode, ready=False, reason=f"not ready for {below.mode} yet")
        found.append(answer)
    return tuple(found)


def _answer(mode: Mode, bar: Bar, record: AdviceRecord) -> Readiness:
    wrong = record.count(Verdict.NEEDLESS) + record.count(Verdict.HARMFUL)
    judged = record.count(Verdict.UNKNOWN) <= record.scored
    if wrong == 0 and judged and record.watched_days >= bar.quiet_days:
        reason = f"{record.watched_days:.0f} days without a needless or harmful piece"
        return Readiness(mode=mode, ready=True, reason=reason)
    missing = _missing(bar, record)
    return Readiness(
        mode=mode, ready=not missing, reason="; ".join(missing) or "enough pieces on enough days, and right"
    )


def _missing(bar: Bar, record: AdviceRecord) -> list[str]:
    found = []
    if record.watched_days < bar.watched_days:
        found.append(f"{record.watched_days:.1f} of {bar.watched_days:g} days watched")
    if record.scored < bar.scored:
        found.append(f"{record.scored} of {bar.scored} pieces of advice scored")
    elif record.advised_days < bar.advised_days:
        found.append(f"advice on {record.advised_days} of {bar.advised_days} days")
    if record.count(Verdict.UNKNOWN) > record.scored:
        found.append(f"{record.count(Verdict.UNKNOWN)} pieces could not be judged, more than were scored")
    right, harmful = _share(record, Verdict.RIGHT), _share(record, Verdict.HARMFUL)
    if record.scored and right < bar.right_share:
        found.append(f"{right * 100:.0f} % right, {bar.right_share * 100:.0f} % needed")
    if record.scored and harmful > bar.harmful_share:
        found.append(f"{harmful * 100:.1f} % harmful, at most {bar.harmful_share * 100:.0f} % allowed")
    return found


def _share(record: AdviceRecord, verdict: Verdict) -> float:
    return record.count(verdict) / record.scored if record.scored else 0.0
