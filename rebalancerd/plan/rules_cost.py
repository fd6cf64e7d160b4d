"""Vetoes by predicted cost, at the upper bound of each figure: what may go wrong counts, not what is hoped for."""

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.costbook import downtime_limit
from rebalancerd.plan.wording import percent, shown, span


def _cost(ask: Ask) -> MigrationCost:
    return ask.state.costs.cost(ask.vm, ask.destination)


def converges(ask: Ask) -> Refusal | None:
    """The probability that pre-copy never ends must be small."""
    risk, limit = _cost(ask).non_convergence.upper, ask.state.settings.non_convergence_max
    if risk <= limit:
        return None
    return ask.refuse(
        Code.WILL_NOT_CONVERGE, f"may not converge: probability up to {percent(risk)}, limit {percent(limit)}"
    )


def short_enough(ask: Ask) -> Refusal | None:
    """The migration must end within its limit."""
    seconds, limit = _cost(ask).seconds.upper, ask.state.settings.max_migration_seconds
    if seconds <= limit:
        return None
    return ask.refuse(
        Code.COST_TOO_HIGH, f"migration to {shown(ask.target.name)} may take {span(seconds)}, limit {span(limit)}"
    )


def pause_short_enough(ask: Ask) -> Refusal | None:
    """The downtime must stay within what the VM accepts."""
    downtime, limit = _cost(ask).downtime_seconds.upper, downtime_limit(ask.guest, ask.state.settings)
    if downtime <= limit:
        return None
    return ask.refuse(Code.COST_TOO_HIGH, f"downtime may be {span(downtime)}, limit {span(limit)}")


RULES = (converges, short_enough, pause_short_enough)
