"""Improvement after the greedy rounds: swaps and chains for hosts that no single move could relieve, then small parts.

A hot host may keep its demand because no host has room for the VM whose leaving would help. Room can be made: by a chain
(first a VM leaves the receiver to a third host) or a swap (it goes to the hot host, which is cool once both have moved).
What hangs together is judged as a whole by the same test as a single move, counted against ``improve_budget``, and stands
or falls together. Moves that wait for each other go by way of a parking host, if the whole still gains with that detour.
What remains hot is handed to the exact solver in small parts (`exact_part`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.plan.bundle import Bundle, parts, tried, worthwhile
from rebalancerd.plan.exchange import Standing, ways
from rebalancerd.plan.explain import pressure, unusual, unusual_options
from rebalancerd.plan.improve_part import exact_bundle
from rebalancerd.plan.order import Placed, order
from rebalancerd.plan.parking import parkings
from rebalancerd.plan.propose import Chosen
from rebalancerd.plan.relief import NOTHING, pays, unready
from rebalancerd.plan.search import Candidate, Search, Unit
from rebalancerd.plan.wording import listed, shown, span

UNITS = 8  # VMs or groups of a hot host that are tried, those that relieve most first
PARTS = 2  # hot hosts, the worst ones, that are given to the solver before it is given up
ORDERED = 8  # bundles of a host whose order is worked out, the best first


@dataclass(slots=True)
class Improvement:
    """The moves chosen so far on a search, and the refusals of bundles that would gain and can never start.

    ``bounded``: more would gain, but the plan has no room for it or the budget was used up.
    """

    search: Search
    chosen: list[Chosen]
    refusals: list[Refusal] = field(default_factory=list)
    bundles: int = 0
    bounded: bool = False

    @property
    def moves(self) -> dict[int, int]:
        """Destination by VM of what the plan moves already."""
        return {v: c.candidate.destination for c in self.chosen for v in c.candidate.unit.vms}

    @property
    def settled(self) -> set[int]:
        """VMs whose way is not changed any more: those that move in a group or by way of a parking host."""
        parked = {c.candidate.unit.vms for c in self.chosen if c.leg is not None}
        return {v for c in self.chosen for v in c.candidate.unit.vms if len(c.candidate.unit.vms) > 1 or (v,) in parked}

    @property
    def total(self) -> float:
        """The score at the end of the plan, the costs of its moves included."""
        return self.search.objective.score(sum(c.candidate.cost for c in self.chosen)).total

    @property
    def standing(self) -> Standing:
        """What an exchange has to go by."""
        return Standing(self.search, self.moves, self.settled)

    @property
    def room(self) -> int:
        """Moves that the plan may still take."""
        return self.search.state.settings.max_moves - sum(len(c.candidate.unit.vms) for c in self.chosen)

    def fits(self, bundle: Bundle) -> bool:
        """Whether the plan has room for its moves; that it has not is noted."""
        more = sum(len(s.vms) for s in bundle.shifts if s.instead_of is None)
        self.bounded |= more > self.room
        return more <= self.room

    def beside(self, bundle: Bundle) -> list[Chosen]:
        """The chosen moves that stay when a bundle is added, those whose fate it shares bound to it."""
        replaced = {s.vms for s in bundle.shifts if s.instead_of is not None}
        went_on = {s.vms for s in bundle.shifts if s.leg is not None}
        concerned = [c for c in self.chosen if c.candidate.unit.vms in replaced | went_on]
        shared = {c.bundle for c in concerned} - {None}
        kept = [c for c in self.chosen if c.candidate.unit.vms not in replaced]
        return [
            replace(c, bundle=self.bundles) if c.bundle in shared or c.candidate.unit.vms in went_on else c
            for c in kept
        ]

    def refused(self, bundle: Bundle) -> list[Refusal]:
        """Why its moves cannot all be started one after the other, beside the chosen ones; empty if they can."""
        placed = [
            Placed(v, c.candidate.destination, unit, c.bundle)
            for unit, c in enumerate(self.beside(bundle))
            for v in c.candidate.unit.vms
        ]
        units, before = len(self.chosen), len(placed)
        placed += [
            Placed(v, s.host, units + i, self.bundles)
            for i, s in enumerate(bundle.shifts)
            if not s.stays(self.search.state)
            for v in s.vms
        ]
        dropped = order(self.search.state, placed).dropped
        return [r for i, r in sorted(dropped.items()) if i >= before] or list(dropped.values())

    def take(self, bundle: Bundle) -> None:
        """Apply a bundle to the search and note its moves."""
        why = _why(self.search, bundle)
        self.chosen = self.beside(bundle)
        for shift, candidate in zip(bundle.shifts, parts(self.search, bundle), strict=True):
            if not shift.stays(self.search.state):
                self.chosen.append(Chosen(candidate, why, bundle=self.bundles, leg=shift.leg))
        self.bundles += 1


def improve(search: Search, chosen: Sequence[Chosen], begun: Improvement | None = None) -> Improvement:
    """What the rounds chose and what can be added for hosts that are still hot; the search is left at its end.

    ``begun``: work to go on with, single moves included, instead of what the rounds chose.
    """
    work = begun or Improvement(search, list(chosen))
    if begun is not None:
        _singles(work)
    if search.exhausted:  # what the rounds could not finish is not for bundles to do
        return work
    settings = search.state.settings
    last = search.evaluated + settings.improve_budget
    while work.room >= 1 and search.evaluated < last:
        bundle = next((b for h in _still_hot(search) if (b := _best_bundle(work, h, last)) is not None), None)
        if bundle is None and settings.solver_nodes:
            bundle = next((b for h in _still_hot(search)[:PARTS] if (b := _best_part(work, h)) is not None), None)
        if bundle is None:
            return work
        work.take(bundle)
        _singles(work)
    work.bounded |= settings.improve_budget > 0 and bool(_still_hot(search))
    return work


def _best_part(work: Improvement, host: int) -> Bundle | None:
    """What the solver finds for a hot host, if it is worth it and can be started."""
    units = [unit for unit, _ in _units(work, host)]
    if not units:
        return None
    bundle = exact_bundle(work.standing, host, units, work.search.state.settings.solver_nodes)
    if bundle is None or not worthwhile(work.search, bundle):
        return None
    for way in (bundle, *_detours(work, bundle)):
        if not work.refused(way) and work.fits(way):
            return way
    return None


def _still_hot(search: Search) -> list[int]:
    """Hosts that called for relief and are still above headroom, the worst first."""
    state, objective = search.state, search.objective
    hot = [h for h in state.hot if objective.counted[h] and state.above_headroom(h)]
    return sorted(hot, key=lambda h: (-objective.unmet[h], h))


def _singles(work: Improvement) -> None:
    """Single moves that a bundle has made possible."""
    search, found = work.search, True
    while found:
        found = False
        for host in _still_hot(search):
            for unit, relief in _units(work, host):
                if not search.state.above_headroom(host) or search.exhausted:
                    break
                best = search.evaluate(unit, partial(pays, search), relief)[:1]
                work.bounded |= bool(best) and len(unit.vms) > work.room
                if best and len(unit.vms) <= work.room:
                    work.chosen.append(Chosen(best[0], _why_single(search, best[0])))
                    search.apply(best[0])
                    found = True


def _units(work: Improvement, host: int) -> list[tuple[Unit, float]]:
    """What may leave a hot host and would relieve it, with its relief, the most useful first."""
    search, state, moved = work.search, work.search.state, work.moves.keys()
    here, found = state.settled_on(host), []
    for vms in sorted({state.groups.unit(v, here) for v in here}):
        if moved.isdisjoint(vms) and unready(state, vms) is None:
            unit = Unit.of(state, vms)
            relief = search.relief_at_source(unit)
            if relief > NOTHING:
                found.append((unit, relief))
    return sorted(found, key=lambda row: (-row[1], row[0].vms))


def _best_bundle(work: Improvement, host: int, last: int) -> Bundle | None:
    """The worthwhile bundle for a hot host that gains most and can be started."""
    search, found = work.search, []
    for unit, _ in _units(work, host)[:UNITS]:
        for shifts in ways(work.standing, host, unit):
            if search.evaluated >= last:
                break
            bundle = tried(search, shifts)
            if bundle is not None and worthwhile(search, bundle):
                found.append(bundle)
    ranked = sorted(found, key=lambda b: (-b.lead.gain, [(s.vms, s.host) for s in b.shifts]))[:ORDERED]
    stuck: list[Refusal] = []
    for bundle in ranked:
        if refused := work.refused(bundle):
            stuck += refused
        elif work.fits(bundle):
            return bundle
    for detour in (d for bundle in ranked for d in _detours(work, bundle)):
        if not work.refused(detour) and work.fits(detour):
            return detour
    if not work.bounded:
        work.refusals += stuck
        if stuck and work.chosen:
            work.refusals.append(_left_to_the_next(search, host))
    return None


def _left_to_the_next(search: Search, host: int) -> Refusal:
    detail = (
        f"{pressure(search.state, host)}; what would relieve it cannot start beside this plan: left to the next plan"
    )
    return about_host(Code.CLUSTER_CAP, search.state.hosts[host].name, detail)


def _detours(work: Improvement, bundle: Bundle) -> Iterator[Bundle]:
    """The bundle with one VM sent by way of a parking host, where that still pays."""
    search = work.search
    for i, shift in enumerate(bundle.shifts):
        if len(shift.vms) > 1 or shift.instead_of is not None:
            continue
        others = [s for j, s in enumerate(bundle.shifts) if j != i]
        for host, leg in parkings(search, shift.vms[0], shift.host):
            shifts = (replace(shift, host=host), *others, replace(shift, leg=leg))
            detour = tried(search, shifts)
            if detour is not None and worthwhile(search, detour):
                yield detour


def _why(search: Search, bundle: Bundle) -> str:
    """The trouble, the moves that go together, and what they bring and cost as a whole."""
    state, lead = search.state, bundle.lead
    hot = min(_still_hot(search), key=lambda h: (-_leaving(search, bundle, h), h), default=None)
    trouble = "the plan under way goes on" if hot is None else f"{pressure(state, hot)}; no single move relieves it"
    ways = listed(
        f"{listed(shown(state.vms[v].name) for v in s.vms)} to {shown(state.hosts[s.host].name)}" for s in bundle.shifts
    )
    payback = "" if lead.payback_seconds is None else f", pays back after {span(lead.payback_seconds)}"
    special = "".join(
        unusual_options(state, s.vms, s.host) if s.leg is None else unusual(state, s.vms[0], s.leg.priced)
        for s in bundle.shifts
    )
    return (
        f"{trouble}; together, moving {ways} relieves {lead.relief:.0f} core-s "
        f"of {search.objective.unmet.sum():.0f} unmet, costs {lead.cost:.0f}{payback}{special}"
    )


def _leaving(search: Search, bundle: Bundle, host: int) -> float:
    """Unmet demand of a host that a VM of the bundle leaves, zero for others."""
    leaves = any(int(search.state.place[v]) == host for s in bundle.shifts for v in s.vms)
    return float(search.objective.unmet[host]) if leaves else 0.0


def _why_single(search: Search, candidate: Candidate) -> str:
    state, host = search.state, min(candidate.unit.sources)
    names = listed(shown(state.vms[v].name) for v in candidate.unit.vms)
    payback = "" if candidate.payback_seconds is None else f", pays back after {span(candidate.payback_seconds)}"
    return (
        f"{pressure(state, host)}; moving {names} to {shown(state.hosts[candidate.destination].name)} relieves "
        f"{candidate.relief:.0f} core-s of {search.objective.unmet[host]:.0f} unmet, costs {candidate.cost:.0f}{payback}"
        f"{unusual_options(state, candidate.unit.vms, candidate.destination)}"
    )
