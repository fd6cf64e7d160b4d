"""What a night is rehearsed for beside the cluster itself: its window, the limits of guard and power, who can sleep."""

from dataclasses import dataclass
from datetime import datetime

from rebalancerd.cluster.power import PowerLimits, PowerRecord
from rebalancerd.guard.policy_windows import coming, describe
from rebalancerd.guard.settings import GuardSettings, PolicyWindow
from rebalancerd.guard.windows import zone
from rebalancerd.plan.standing import CONSOLIDATE
from rebalancerd.record.codec import Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class NightTerms:
    """Times in epoch seconds. ``unfolds_at``: from when balancing spreads the VMs again.

    ``controlled``: hosts whose power can be controlled. ``records``: every host's power, as on record. ``mode``: of the
    daemon, for the reader; the rehearsal is of what ``auto`` would do. ``cycle_seconds``: time between two cycles.
    """

    window: str
    begins_at: float
    unfolds_at: float
    ends_at: float
    controlled: tuple[str, ...]
    records: tuple[PowerRecord, ...] = ()
    limits: PowerLimits = PowerLimits()
    guard: GuardSettings = GuardSettings()
    mode: str = "auto"
    cycle_seconds: float = 60.0


UNFOLD_SECONDS = PolicyWindow(start="", end="").unfold_seconds
TERMS: Codec[NightTerms] = Codec(NightTerms)


@dataclass(frozen=True, slots=True)
class Span:
    """A coming night: its name, when it begins, when it unfolds, when it ends."""

    window: str
    begins_at: float
    unfolds_at: float
    ends_at: float


def next_night(guard: GuardSettings, now: float) -> Span | None:
    """The window of consolidation that is open at ``now`` and still folds, else the next one; None without any.

    Raises ValueError for a zone or a schedule that is none.
    """
    found = []
    for window in guard.policy_windows:
        if window.policy != CONSOLIDATE:
            continue
        at: datetime | None = datetime.fromtimestamp(now, zone(guard.timezone))
        while at is not None and (times := coming(window, guard.timezone, at)) is not None:
            begin, end = times
            unfolds = end.timestamp() - window.unfold_seconds
            if unfolds > now:
                found.append(Span(describe(window), max(now, begin.timestamp()), unfolds, end.timestamp()))
                break
            at = end
    return min(found, key=lambda s: s.begins_at, default=None)


def given_night(now: float, seconds: float, unfold_seconds: float) -> Span:
    """A night of that length that begins now."""
    return Span("a window that begins now", now, now + seconds - min(unfold_seconds, seconds / 2), now + seconds)
