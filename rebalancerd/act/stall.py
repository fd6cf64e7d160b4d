"""The stall test: pre-copy has no round limit, so one that does not converge runs for ever unless it is stopped.

What counts is the remainder at the beginning of an iteration, that is what the guest dirtied during the one before
(the idea of KubeVirt's stall detector). Within an iteration the remainder falls to zero every time, which says nothing.
A poll sees the remainder somewhere in an iteration; the largest one seen in it stands for its beginning.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from rebalancerd.cluster.migration import Progress

MARGIN = 0.96  # a remainder counts as smaller below this share of the best one (KubeVirt's 4 %)


class StallAction(StrEnum):
    """What the stall test asks for."""

    CONTINUE = "continue"
    RAISE_DOWNTIME = "raise_downtime"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class StallDecision:
    """The action and, unless it is to continue, why. ``standstill``: nothing is sent any more."""

    action: StallAction = StallAction.CONTINUE
    reason: str = ""
    standstill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StallTrack:
    """What the test remembers. ``best_bytes``: smallest remainder at a boundary; ``better_at``: when it was found.

    ``top_bytes``: largest remainder seen in the present iteration; ``moved_at``: when any figure last changed.
    """

    iteration: int | None = None
    top_bytes: int | None = None
    last_bytes: int | None = None
    best_bytes: int | None = None
    better_at: float | None = None
    moved_at: float | None = None


def observe_stall(
    track: StallTrack, progress: Progress, now: float, *, stall_seconds: float, at_limit: bool
) -> tuple[StallTrack, StallDecision]:
    """Take one reading of a job at the monotonic instant ``now``; returns the new track and what to do.

    ``at_limit``: the allowed downtime stands at its limit; below it a stall first raises that. Readings without an
    iteration or a remainder (setup) and readings in post-copy decide nothing.
    """
    remaining, iteration = progress.remaining_bytes, progress.iteration
    if progress.postcopy or remaining is None or not iteration or (remaining == 0 and not progress.processed_bytes):
        return track, StallDecision()
    moved = remaining != track.last_bytes or iteration != track.iteration
    moved_at = now if moved or track.moved_at is None else track.moved_at
    if iteration == track.iteration:
        top = max(remaining, track.top_bytes or 0)
        track = replace(track, top_bytes=top, last_bytes=remaining, moved_at=moved_at)
        if iteration == 1:  # the first, full copy: any byte sent is a smaller remainder
            track = replace(track, better_at=moved_at)
        if now - moved_at >= stall_seconds:
            reason = f"the transfer has stood still for {now - moved_at:.0f} s"
            return track, StallDecision(action=StallAction.ABORT, reason=reason, standstill=True)
        return track, StallDecision()
    return _boundary(track, remaining, iteration, now, stall_seconds=stall_seconds, at_limit=at_limit)


def _boundary(
    track: StallTrack, remaining: int, iteration: int, now: float, *, stall_seconds: float, at_limit: bool
) -> tuple[StallTrack, StallDecision]:
    """A new iteration: judge the one that ended by the largest remainder seen in it (not the first, full copy)."""
    best, better_at = track.best_bytes, track.better_at
    ended = track.top_bytes if track.iteration is not None and track.iteration > 1 else None
    if ended is not None and (best is None or ended < MARGIN * best):
        best, better_at = ended, now
    track = replace(
        track,
        iteration=iteration,
        top_bytes=remaining,
        last_bytes=remaining,
        best_bytes=best,
        better_at=now if better_at is None else better_at,
        moved_at=now,
    )
    quiet = now - (track.better_at if track.better_at is not None else now)
    if quiet < stall_seconds:
        return track, StallDecision()
    reason = f"no smaller remainder for {quiet:.0f} s (best {best or 0} bytes, now {remaining}, iteration {iteration})"
    return track, StallDecision(action=StallAction.ABORT if at_limit else StallAction.RAISE_DOWNTIME, reason=reason)
