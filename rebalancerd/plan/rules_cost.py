"""Vetoes by predicted cost, in words. The cost is that of the first allowed options that pass, else of the usual ones."""

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.deferral import deferral, dirtying, known_quiet, quieter, tried
from rebalancerd.plan.options import downtime_limit
from rebalancerd.plan.vetoes import may_not_converge, may_pause_too_long, may_take_too_long
from rebalancerd.plan.wording import percent, shown, span


def _cost(ask: Ask) -> MigrationCost:
    return ask.state.costs.cost(ask.vm, ask.destination)


def converges(ask: Ask) -> Refusal | None:
    """The probability that pre-copy never ends must be small."""
    cost, settings = _cost(ask), ask.state.settings
    if not may_not_converge(cost, settings):
        return None
    risk, limit = percent(cost.non_convergence.upper), percent(settings.non_convergence_max)
    return ask.refuse(
        Code.WILL_NOT_CONVERGE,
        f"may not converge: probability up to {risk}, limit {limit}; {dirtying(ask)}; {tried(ask)}; {deferral(ask)}",
    )


def short_enough(ask: Ask) -> Refusal | None:
    """The migration must end within its limit."""
    cost, settings = _cost(ask), ask.state.settings
    if not may_take_too_long(cost, settings):
        return None
    took = f"may take {span(cost.seconds.upper)}, limit {span(settings.max_migration_seconds)}"
    return ask.refuse(Code.COST_TOO_HIGH, f"migration to {shown(ask.target.name)} {took}{_deferred(ask)}")


def pause_short_enough(ask: Ask) -> Refusal | None:
    """The downtime must stay within what the VM accepts."""
    cost, settings = _cost(ask), ask.state.settings
    if not may_pause_too_long(cost, ask.guest, settings):
        return None
    limit = span(downtime_limit(ask.guest, settings))
    return ask.refuse(
        Code.COST_TOO_HIGH, f"downtime may be {span(cost.downtime_seconds.upper)}, limit {limit}{_deferred(ask)}"
    )


def _deferred(ask: Ask) -> str:
    """When it is quiet, if that is known: a VM that dirties less is moved faster and stands still for less time."""
    quiet = known_quiet(ask.state, ask.guest)
    return "" if quiet is None else f"; deferred: {quieter(quiet, ask.guest)}"


RULES = (converges, short_enough, pause_short_enough)
