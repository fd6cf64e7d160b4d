"""Unfold: VMs that a night moved together go back to where they were in the evening, off the fullest hosts first.

Balancing relieves hosts that get hot, one after the other and only then; a cluster that was folded would meet the morning
that way. What was moved in the night is owed its way back, whatever it costs: it was counted when the night was folded.
Every constraint holds as ever, so that no host gets too full on the way. What becomes of VMs whose home does not take them
in any more is in ``day_ahead``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.constraints import check_unit
from rebalancerd.plan.day_ahead import relieve_day
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.propose import Chosen, propose
from rebalancerd.plan.relief import unready
from rebalancerd.plan.search import Candidate, Search, Unit
from rebalancerd.plan.standing import UNFOLD
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import shown


def unfold(inputs: PlanInputs) -> Plan | None:
    """A plan of moves to ``inputs.homes``, or for the day ahead where homes are lost; None where there is none to make."""
    if not inputs.homes:
        return None
    inputs = replace(inputs, blocked_pairs=_allowed(inputs))
    state = PlacementState(inputs)
    homes = _homes(state)
    search = Search(state.copy())
    chosen: list[Chosen] = []
    moved: set[int] = set()
    while len(moved) < inputs.settings.max_moves and not search.exhausted:
        best = _next(search, homes, moved, inputs.settings.max_moves - len(moved))
        if best is None:
            break
        home = shown(state.hosts[best.destination].name)
        chosen.append(Chosen(best, f"back to {home}, where it was before the night"))
        moved.update(best.unit.vms)
        search.apply(best)
    if not chosen:
        return relieve_day(state)

    def why(steps: Sequence[Step], _after: Search) -> str:
        return f"The night is over: {len(steps)} of {len(homes)} VMs go back to where they were in the evening"

    plan = propose(state, UNFOLD, chosen, [], why)
    return plan if plan.steps else None


def _allowed(inputs: PlanInputs) -> dict[tuple[str, str], Refusal]:
    """Pairs that stay blocked: what folding did may be undone, and nothing else."""
    blocked = inputs.blocked_pairs.items()
    return {p: r for p, r in blocked if r.code is not Code.REVERSE_MOVE or inputs.homes.get(p[0]) != p[1]}


def _homes(state: PlacementState) -> dict[int, int]:
    """Home by VM, of those that are elsewhere and whose home takes VMs in."""
    hosts = {host.name: h for h, host in enumerate(state.hosts) if host.mode is HostMode.ACTIVE}
    away: dict[int, int] = {}
    for v, vm in enumerate(state.vms):
        home = hosts.get(state.inputs.homes.get(vm.uuid, ""))
        if home is not None and int(state.place[v]) != home:
            away[v] = home
    return away


def _next(search: Search, homes: Mapping[int, int], moved: set[int], room: int) -> Candidate | None:
    """The best admissible move off the fullest host that has one."""
    state = search.state
    load = np.sum([s.figure for s in search.objective.spreads], axis=0)
    waiting: dict[int, list[int]] = {}
    for v in sorted(homes.keys() - moved):
        waiting.setdefault(int(state.place[v]), []).append(v)
    for host in sorted(waiting, key=lambda h: (-float(load[h]), h)):
        here = state.settled_on(host)
        units = {state.groups.unit(v, here) for v in waiting[host] if v in here}
        found = [c for vms in sorted(units) if len(vms) <= room and (c := _home(search, vms, homes)) is not None]
        if found:
            return min(found, key=lambda c: (-c.gain, c.unit.vms))
    return None


def _home(search: Search, vms: tuple[int, ...], homes: Mapping[int, int]) -> Candidate | None:
    """Of VMs that belong together: their way to the home they share."""
    state, there = search.state, {homes.get(v) for v in vms}
    home = there.pop()
    if there or home is None or unready(state, vms) is not None or check_unit(state, vms, home) is not None:
        return None
    search.evaluated += 1
    unit, to = Unit.of(state, vms), np.array([home], dtype=np.intp)
    gains = search.objective.imbalance_gain(unit.sources, to)
    return next(iter(search.scored(unit, to, gains, search.relief_at_source(unit))), None)
