"""Balance after a host came back: with no host hot, a few moves onto it where evening out the load is worth their cost.

Otherwise imbalance never starts a move. Only hosts that came back lately receive, as many VMs as their ramp allows
(``rules_ramp``); the load comes off the fullest hosts. Off unless ``rebalance_min_gain`` is set.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode
from rebalancerd.plan.constraints import check_unit
from rebalancerd.plan.demand import Indices
from rebalancerd.plan.explain import alternatives
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.propose import Chosen, propose
from rebalancerd.plan.relief import unready
from rebalancerd.plan.search import Candidate, Search, Unit
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, percent, shown, span

POLICY = "rebalance"
FULLEST = 8  # hosts that VMs are taken off


def rebalance(inputs: PlanInputs) -> Plan | None:
    """A plan of moves onto hosts that came back, None where there is none to make."""
    if inputs.settings.rebalance_min_gain <= 0 or not inputs.returned:
        return None
    state = PlacementState(inputs)
    targets = _targets(state)
    if state.hot or not len(targets):
        return None
    search = Search(state.copy())
    chosen: list[Chosen] = []
    moved: set[int] = set()
    before = search.objective.imbalance()
    while len(moved) < inputs.settings.max_moves and not search.exhausted:
        found = _candidates(search, targets, moved, inputs.settings.max_moves - len(moved))
        if not found:
            break
        best = found[0]
        chosen.append(Chosen(best, _why_move(search, best), alternatives(search, best, found[1:])))
        moved.update(best.unit.vms)
        search.apply(best)
    if not chosen:
        return None
    after = search.objective.imbalance()

    def why(steps: Sequence[Step], _after: Search) -> str:
        names = listed(shown(state.hosts[h].name) for h in targets)
        return (
            f"No host is hot; {names} came back: {len(steps)} moves even out the load, "
            f"imbalance {percent(before)} → {percent(after)}"
        )

    plan = propose(state, POLICY, chosen, [], why)
    return plan if plan.steps else None


def _targets(state: PlacementState) -> Indices:
    back = state.inputs.returned
    return np.array(
        [h for h, host in enumerate(state.hosts) if host.name in back and host.mode is HostMode.ACTIVE], dtype=np.intp
    )


def _candidates(search: Search, targets: Indices, moved: set[int], room: int) -> list[Candidate]:
    """Admissible moves that are worth it, best first, off the fullest hosts."""
    state, objective = search.state, search.objective
    load = np.sum([s.figure for s in objective.spreads], axis=0)
    sources = [int(h) for h in np.lexsort((np.arange(len(load)), -load)) if objective.counted[h] and h not in targets]
    found: list[Candidate] = []
    for host in sources[:FULLEST]:
        here = state.settled_on(host)
        for vms in sorted({state.groups.unit(v, here) for v in here}):
            if moved.intersection(vms) or len(vms) > room or unready(state, vms) is not None:
                continue
            found += _of_unit(search, Unit.of(state, vms), targets)
    return sorted(found, key=lambda c: (-c.gain, c.unit.vms, c.destination))


def _of_unit(search: Search, unit: Unit, targets: Indices) -> list[Candidate]:
    state = search.state
    search.evaluated += len(targets)
    open_to = np.array([h for h in targets if check_unit(state, unit.vms, int(h)) is None], dtype=np.intp)
    if not len(open_to):
        return []
    gains = search.objective.imbalance_gain(unit.sources, open_to)
    scored = search.scored(unit, open_to, gains, search.relief_at_source(unit))
    return [c for found in scored if (c := _worth_it(search, found)) is not None]


def _worth_it(search: Search, candidate: Candidate) -> Candidate | None:
    """With its payback, None where it brings too little: less than its cost, or than the stated share of all imbalance."""
    settings, objective = search.state.settings, search.objective
    cost = settings.weight_cost * candidate.cost
    brings = candidate.gain + cost
    whole = objective.imbalance_core_seconds * objective.imbalance()
    if candidate.gain <= 0 or candidate.gain < settings.rebalance_min_gain * whole:
        return None
    waiting = sum(search.state.costs.quote(v, candidate.destination).seconds for v in candidate.unit.vms)
    payback = waiting + cost * objective.horizon_seconds / brings
    return replace(candidate, payback_seconds=payback) if payback <= settings.payback_max_seconds else None


def _why_move(search: Search, candidate: Candidate) -> str:
    state, there = search.state, search.state.hosts[candidate.destination].name
    names = listed(shown(state.vms[v].name) for v in candidate.unit.vms)
    since, payback = state.inputs.returned[there], candidate.payback_seconds or 0.0
    return (
        f"{shown(there)} came back {span(since)} ago; moving {names} there evens out the load: brings "
        f"{candidate.gain + state.settings.weight_cost * candidate.cost:.0f} core-s, costs {candidate.cost:.0f}, "
        f"pays back after {span(payback)}"
    )
