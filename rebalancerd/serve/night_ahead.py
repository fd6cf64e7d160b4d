"""What the coming night is rehearsed from, as the daemon sees it; the rehearsal is made by who asks."""

from dataclasses import replace

from rebalancerd.guard.policy_windows import MORNING_SECONDS
from rebalancerd.night.terms import TERMS, UNFOLD_SECONDS, NightTerms, given_night, next_night
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record import snapshotfile
from rebalancerd.serve.control import Control, ledger_away
from rebalancerd.serve.problem import ProblemError
from rebalancerd.serve.schemas import NightAheadAnswer

NO_WINDOW = "no window of consolidation is configured"
NO_WINDOW_HINT = "add [[guard.policy_windows]], or say how long the night is to be with --window 8h"


def night_ahead(control: Control, seconds: float | None) -> NightAheadAnswer:
    """The cluster with a forecast of the whole night, and its terms. ``seconds``: of a night that would begin now.

    Raises ProblemError where no window comes, or the data forbid planning.
    """
    now, guard = control.clock.wall(), control.loop.settings.guard
    try:
        night = next_night(guard, now) if seconds is None else given_night(now, seconds, UNFOLD_SECONDS)
    except ValueError as error:
        raise ProblemError("NO_WINDOW", f"the windows cannot be read: {error}", NO_WINDOW_HINT, status=409) from error
    if night is None:
        raise ProblemError("NO_WINDOW", NO_WINDOW, NO_WINDOW_HINT, status=409)
    made = control.about.power
    try:
        records = made.keeper.records() if made is not None else ()
    except LedgerUnavailableError as error:
        raise ledger_away(error) from error
    terms = NightTerms(
        window=night.window,
        begins_at=night.begins_at,
        unfolds_at=night.unfolds_at,
        ends_at=night.ends_at,
        controlled=tuple(sorted(made.keeper.controlled())) if made is not None else (),
        records=records,
        guard=guard,
        mode=control.mode.value,
        cycle_seconds=control.about.cycle_seconds,
    )
    if made is not None:
        terms = replace(terms, limits=made.limits)
    kept = control.inputs(night.ends_at + MORNING_SECONDS - now)
    return NightAheadAnswer(document=snapshotfile.document(kept), terms=TERMS.tree(terms))
