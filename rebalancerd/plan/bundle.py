"""Bundles: moves that only gain together, such as a swap or the moves of a chain, tried and judged as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass

from rebalancerd.plan.ask import Ask
from rebalancerd.plan.constraints import PLACEMENT, check_unit, first
from rebalancerd.plan.parking import Leg
from rebalancerd.plan.relief import NOTHING, pays
from rebalancerd.plan.search import Candidate, Search, Unit
from rebalancerd.plan.state import PlacementState


@dataclass(frozen=True, slots=True)
class Shift:
    """VMs that move in one go, and where to. ``leg``: they come from a parking host.

    ``instead_of``: the destination that the plan has chosen for the VM so far; that move is replaced and its cost saved.
    """

    vms: tuple[int, ...]
    host: int
    leg: Leg | None = None
    instead_of: int | None = None

    def stays(self, state: PlacementState) -> bool:
        """Whether the VM stays where the snapshot has it after all."""
        return self.instead_of is not None and state.start.place[self.vms[0]] == self.host


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
    pairs = [(v, s.host) for s in shifts if s.leg is None and not s.stays(state) for v in s.vms]
    state.costs.fetch(pairs)
    if not all(state.costs.admissible(v, host) for v, host in pairs):
        return None
    hosts = {s.host for s in shifts} | {int(state.place[v]) for s in shifts for v in s.vms}
    lead_unit, before = Unit.of(state, tuple(sorted({v for s in shifts for v in s.vms}))), objective.score()
    undos = [state.apply(v, s.host) for s in shifts for v in s.vms]
    objective.touch(hosts)
    after = objective.score()
    last = {s.vms: s for s in shifts}
    valid = all(_allowed(state, s) for s in last.values())
    for undo in reversed(undos):
        state.undo(undo)
    objective.touch(hosts)
    if not valid:
        return None
    prices = [_price(search, s) for s in shifts]
    spent, waiting = sum(p[0] for p in prices), max(0.0, sum(p[1] for p in prices))
    relief = before.unmet - after.unmet
    gain = before.total - after.total - settings.weight_cost * spent
    imbalance_gain = objective.imbalance_core_seconds * (before.imbalance - after.imbalance)
    rate = settings.weight_unmet * relief / objective.horizon_seconds
    payback = waiting + settings.weight_cost * spent / rate if rate > 0 else None
    lead = Candidate(lead_unit, shifts[-1].host, relief, imbalance_gain, spent, gain, payback)
    return Bundle(tuple(shifts), lead)


def _allowed(state: PlacementState, shift: Shift) -> bool:
    """Whether every hard rule holds for a shift that is carried out in the state."""
    if (
        shift.stays(state) or shift.leg is not None
    ):  # nothing is asked of a move that is not made, a leg was asked before
        return first(PLACEMENT, Ask(state, shift.vms[0], shift.host, shift.vms)) is None
    return check_unit(state, shift.vms, shift.host) is None


def _price(search: Search, shift: Shift) -> tuple[float, float]:
    """What a shift costs more than the move it replaces: (core-seconds, seconds)."""
    state, spent, seconds = search.state, 0.0, 0.0
    for v in shift.vms:
        cores = float(state.demand.mean_cores[v])
        if shift.leg is not None:
            spent += shift.leg.core_seconds(cores)
            seconds += shift.leg.priced.cost.seconds.upper
        elif not shift.stays(state):
            quote = state.costs.quote(v, shift.host)
            spent, seconds = spent + quote.core_seconds(cores), seconds + quote.seconds
        if shift.instead_of is not None:
            quote = state.costs.quote(v, shift.instead_of)
            spent, seconds = spent - quote.core_seconds(cores), seconds - quote.seconds
    return spent, seconds


def worthwhile(search: Search, bundle: Bundle) -> bool:
    """Whether the whole passes the test that a single move must pass."""
    return bundle.lead.gain > NOTHING and pays(search, bundle.lead)


def parts(search: Search, bundle: Bundle) -> list[Candidate]:
    """One candidate per shift with what it adds when they are applied in turn; only the last has the payback of all.

    The search is left at the end of the bundle.
    """
    found: list[Candidate] = []
    weight = search.state.settings.weight_cost
    for i, shift in enumerate(bundle.shifts):
        unit, before = Unit.of(search.state, shift.vms), search.objective.score()
        spent, _ = _price(search, shift)
        search.apply(Candidate(unit, shift.host, 0.0, 0.0, spent, 0.0, None))
        after = search.objective.score()
        payback = bundle.lead.payback_seconds if i == len(bundle.shifts) - 1 else None
        even = search.objective.imbalance_core_seconds * (before.imbalance - after.imbalance)
        gain = before.total - after.total - weight * spent
        found.append(Candidate(unit, shift.host, before.unmet - after.unmet, even, spent, gain, payback))
    return found
