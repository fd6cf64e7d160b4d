"""A large neighbourhood: everything that a hot host and a few receivers could exchange at once, chosen by the solver.

What comes back is judged like any other bundle: by the true score, every hard rule at the end, and the worth-it test.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rebalancerd.plan.bundle import Bundle, Shift, tried
from rebalancerd.plan.exact_part import Choice, Part
from rebalancerd.plan.exchange import Standing, lacking, receivers
from rebalancerd.plan.parking import second_leg
from rebalancerd.plan.relief import NOTHING
from rebalancerd.plan.search import Unit

LEAVING = 6  # units of the hot host
WANTED = 3  # of them, whose likeliest receivers take part
HOSTS = 6  # that take part beside the hot one: half of them receivers, half of them those with most room
EACH = 2  # VMs of each of those
SOLVED = 3  # times that one part is solved, tightened in between


def exact_bundle(standing: Standing, hot: int, units: Sequence[Unit], nodes: int) -> Bundle | None:
    """The best that HiGHS finds for a hot host within that many nodes; None if nothing, or nothing that keeps the rules."""
    search = standing.search
    hosts = _hosts(standing, units)
    leaving = list(units[:LEAVING])
    evicted = [Unit.of(search.state, (v,)) for h in hosts for v in _evictable(standing, h)]
    choices = [c for unit in (*evicted, *leaving) for c in _choices(standing, unit, (hot, *hosts))]
    part = Part(search, hot, choices)
    for _ in range(SOLVED):
        taken = part.solve(nodes)
        if not taken:
            return None
        shifts = [Shift(c.unit.vms, c.host, c.leg) for c in taken]
        bundle = tried(search, shifts)
        if bundle is not None:
            return _pruned(standing, bundle)
        if not part.tighten(taken):
            return None
    return None


def _hosts(standing: Standing, units: Sequence[Unit]) -> list[int]:
    """The likeliest receivers of what should leave, and the hosts with most room that could take what makes way."""
    search, state = standing.search, standing.search.state
    near = [h for rank in zip(*(receivers(search, u) for u in units[:WANTED]), strict=False) for h in rank]
    cool = _cool(standing)
    likely = [h for h in dict.fromkeys(near) if cool[h]][: HOSTS // 2]
    free = np.minimum(
        1 - state.held_cpu[:, -1] / np.maximum(state.capacity_cpu, NOTHING),
        1 - state.hard_memory / np.maximum(state.capacity_memory, NOTHING),
    )
    others = set(np.flatnonzero(cool & search.objective.counted).tolist()) - state.shunned - set(likely)
    roomy = sorted(others, key=lambda h: (-float(free[h]), h))
    return sorted([*likely, *roomy[: HOSTS - len(likely)]])


def _cool(standing: Standing) -> NDArray[np.bool_]:
    """Hosts that are within every limit as they are, so that leaving all as it is solves the part."""
    search, state = standing.search, standing.search.state
    every = np.arange(len(state.hosts))
    within = state.hard_memory <= state.capacity_memory
    found: NDArray[np.bool_] = within & (lacking(search, every, state.held_cpu, state.held_memory) <= 0)
    return found


def _evictable(standing: Standing, host: int) -> list[int]:
    state = standing.search.state
    found = [v for v in state.settled_on(host) if state.demand.mean_cores[v] > 0 and standing.may_be_evicted(v)]
    return sorted(found, key=lambda v: (float(state.demand.hard_memory[v]), v))[:EACH]


def _choices(standing: Standing, unit: Unit, hosts: Sequence[int]) -> list[Choice]:
    """Where a unit may go among those hosts, priced; a VM that the plan moves goes on from where it was sent."""
    search, state = standing.search, standing.search.state
    if len(unit.sources) > 1:
        return []
    ((source, _),) = unit.sources.items()
    if unit.vms[0] in standing.moves:
        return _onward_choices(standing, unit, source, hosts)
    mask = search.admission.of_unit(unit.vms) & search.objective.counted
    mask[[source, *state.shunned]] = False
    state.costs.fetch((v, h) for h in hosts if mask[h] for v in unit.vms)
    cores = state.demand.mean_cores
    return [
        Choice(unit, source, h, sum(state.costs.quote(v, h).core_seconds(float(cores[v])) for v in unit.vms))
        for h in hosts
        if mask[h] and all(state.costs.admissible(v, h) for v in unit.vms)
    ]


def _onward_choices(standing: Standing, unit: Unit, source: int, hosts: Sequence[int]) -> list[Choice]:
    search, state, (vm,) = standing.search, standing.search.state, unit.vms
    found = []
    for host in hosts:
        if host in (source, int(state.start.place[vm])) or host in state.shunned or not search.objective.counted[host]:
            continue
        if (leg := second_leg(search, vm, source, host)) is not None:
            found.append(Choice(unit, source, host, leg.core_seconds(float(state.demand.mean_cores[vm])), leg))
    return found


def _pruned(standing: Standing, bundle: Bundle) -> Bundle:
    """Without the moves that it does not need: the solver stops near the optimum."""
    shifts = list(bundle.shifts)
    for shift in bundle.shifts:
        fewer = [s for s in shifts if s is not shift]
        less = tried(standing.search, fewer) if fewer else None
        if less is not None and less.lead.gain >= bundle.lead.gain:
            bundle, shifts = less, fewer
    return bundle
