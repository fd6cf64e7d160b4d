"""Bundles: moves that only gain together, such as a swap or the moves of a chain, tried and judged as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass

from rebalancerd.plan.constraints import check_unit
from rebalancerd.plan.parking import Leg
from rebalancerd.plan.relief import NOTHING, worth_it
from rebalancerd.plan.search import Candidate, Search, Unit


@dataclass(frozen=True, slots=True)
class Shift:
    """VMs that move in one go, and where to. ``leg``: they come from a parking host."""

    vms: tuple[int, ...]
    host: int
    leg: Leg | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """Shifts and what they bring together. ``lead``: all their VMs with the figures of the whole, for the worth-it test."""

    shifts: tuple[Shift, ...]
    lead: Candidate


def tried(search: Search, shifts: Sequence[Shift]) -> Bundle | None:
    """The shifts from the search's present placement with their figures; None if a hard rule is broken at their end.

    Each destination is judged with every shift carried out. The states in between are `order`'s to judge.
    """
    search.evaluated += 1
    state, objective, settings = search.state, search.objective, search.state.settings
    pairs = [(v, s.host) for s in shifts if s.leg is None for v in s.vms]
    state.costs.fetch(pairs)
    if not all(state.costs.admissible(v, host) for v, host in pairs):
        return None
    hosts = {s.host for s in shifts} | {int(state.place[v]) for s in shifts for v in s.vms}
    lead_unit, before = Unit.of(state, tuple(sorted({v for s in shifts for v in s.vms}))), objective.score()
    undos = [state.apply(v, s.host) for s in shifts for v in s.vms]
    objective.touch(hosts)
    after = objective.score()
    last = {s.vms: s.host for s in shifts}
    valid = all(check_unit(state, vms, host) is None for vms, host in last.items())
    for undo in reversed(undos):
        state.undo(undo)
    objective.touch(hosts)
    if not valid:
        return None
    spent = sum(_spent(search, s) for s in shifts)
    relief = before.unmet - after.unmet
    gain = before.total - after.total - settings.weight_cost * spent
    imbalance_gain = objective.imbalance_core_seconds * (before.imbalance - after.imbalance)
    rate = settings.weight_unmet * relief / objective.horizon_seconds
    waiting = sum(_seconds(search, s) for s in shifts)
    payback = waiting + settings.weight_cost * spent / rate if rate > 0 else None
    lead = Candidate(lead_unit, shifts[-1].host, relief, imbalance_gain, spent, gain, payback)
    return Bundle(tuple(shifts), lead)


def _spent(search: Search, shift: Shift) -> float:
    cores, costs = search.state.demand.mean_cores, search.state.costs
    if shift.leg is not None:
        return sum(shift.leg.core_seconds(float(cores[v])) for v in shift.vms)
    return sum(costs.quote(v, shift.host).core_seconds(float(cores[v])) for v in shift.vms)


def _seconds(search: Search, shift: Shift) -> float:
    if shift.leg is not None:
        return shift.leg.priced.cost.seconds.upper
    return sum(search.state.costs.quote(v, shift.host).seconds for v in shift.vms)


def worthwhile(search: Search, bundle: Bundle) -> bool:
    """Whether the whole passes the test that a single move must pass."""
    return bundle.lead.gain > NOTHING and worth_it(search, bundle.lead) is None


def parts(search: Search, bundle: Bundle) -> list[Candidate]:
    """One candidate per shift with what it adds when they are applied in turn; only the last has the payback of all.

    The search is left at the end of the bundle.
    """
    found: list[Candidate] = []
    weight = search.state.settings.weight_cost
    for i, shift in enumerate(bundle.shifts):
        unit, before = Unit.of(search.state, shift.vms), search.objective.score()
        spent = _spent(search, shift)
        search.apply(Candidate(unit, shift.host, 0.0, 0.0, spent, 0.0, None))
        after = search.objective.score()
        payback = bundle.lead.payback_seconds if i == len(bundle.shifts) - 1 else None
        even = search.objective.imbalance_core_seconds * (before.imbalance - after.imbalance)
        gain = before.total - after.total - weight * spent
        found.append(Candidate(unit, shift.host, before.unmet - after.unmet, even, spent, gain, payback))
    return found
