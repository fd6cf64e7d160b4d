"""Nights as the API and the command line tell them."""

from collections.abc import Iterable

from rebalancerd.cluster.night import KWH_JOULES, Night, NightsTotal
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.serve.control import Control, ledger_away
from rebalancerd.serve.schemas import NightRow, NightsAnswer


def night_row(night: Night) -> NightRow:
    """One night, under way or over."""
    return NightRow(
        id=night.id,
        window=night.window,
        mode=night.mode,
        began_at=night.began_at,
        ends_at=night.ends_at,
        noted_at=night.noted_at,
        ended_at=night.ended_at,
        saved_kwh=night.saved_kwh,
        actual_kwh=night.actual_joules / KWH_JOULES,
        unfolded_kwh=night.unfolded_joules / KWH_JOULES,
        moves=night.moves,
        moves_kwh=night.moves_joules / KWH_JOULES,
        asleep_seconds=night.asleep_seconds,
        hot_seconds=night.hot_seconds,
        caused_seconds=night.caused_seconds,
        accounted_seconds=night.accounted_seconds,
        missed_seconds=night.missed_seconds,
    )


def nights_answer(now: float, found: Iterable[Night], total: NightsTotal) -> NightsAnswer:
    """Nights, newest first, and the sum of all that are over."""
    return NightsAnswer(
        now=now,
        nights=tuple(night_row(night) for night in found),
        nights_over=total.nights,
        saved_kwh=total.saved_kwh,
    )


def nights(control: Control, limit: int) -> NightsAnswer:
    """The last nights on record. Raises ProblemError while the ledger is away."""
    try:
        return nights_answer(control.clock.wall(), control.ledger.nights(limit), control.ledger.nights_total())
    except LedgerUnavailableError as error:
        raise ledger_away(error) from error
