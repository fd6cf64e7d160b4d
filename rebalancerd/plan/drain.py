"""The drain planner: empty hosts for maintenance, under the same hard rules, whatever the load says about gain.

Cooldowns do not count and neither does payback: the operator asked. Units go by priority, then largest memory first
(what is hard to place is placed while there is room); each goes to the destination with the best score. What stays is
named with every destination's refusal. The hosts to be emptied receive nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.refusal import Code, Refusal, about_cluster, about_host
from rebalancerd.plan import soft
from rebalancerd.plan.aggregate import grouped, tally
from rebalancerd.plan.balance import unfit_to_plan
from rebalancerd.plan.constraints import movable
from rebalancerd.plan.deferral import awaited
from rebalancerd.plan.explain import alternatives, unit_refusals, unusual_options
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.propose import Chosen, nothing, propose
from rebalancerd.plan.search import Search, Unit
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, shown

POLICY = "drain"


def drain(inputs: PlanInputs, hosts: Iterable[str]) -> Plan:
    """The plan that empties those hosts as far as the rules allow. Same inputs, same plan."""
    named = frozenset(hosts)
    inputs = replace(inputs, drained=inputs.drained | named)
    state = PlacementState(inputs)
    if (unfit := unfit_to_plan(inputs)) is not None:
        return nothing(state, POLICY, [unfit], unfit.detail)
    strangers = [
        about_host(Code.HOST_UNREACHABLE, name, f"{shown(name)} is not a host of this cluster")
        for name in sorted(named - state.host_index.keys())
    ]
    emptied = [state.host_index[name] for name in sorted(named & state.host_index.keys())]
    search = Search(state.copy())
    chosen, stuck = _place(search, emptied)
    refusals = [*strangers, *_staying(search, emptied, stuck)]
    if not chosen and not refusals:
        why = _why_idle(state, named)
        return nothing(state, POLICY, [about_cluster(Code.BALANCED, why)], why)
    return propose(state, POLICY, chosen, refusals, partial(_why, [state.hosts[h].name for h in emptied], refusals))


def _why_idle(state: PlacementState, named: frozenset[str]) -> str:
    if not named:
        return "No host is to be drained"
    leaving = [shown(state.vms[v].name) for v in sorted(state.flying) if state.vms[v].host in named]
    rest = f"the last VMs are on the move: {listed(leaving)}" if leaving else "no VM is left there"
    return f"Nothing more to drain from {listed(map(shown, sorted(named)))}: {rest}"


def _units(search: Search, emptied: Sequence[int]) -> list[Unit]:
    """What must leave, hardest first within a priority."""
    state = search.state
    leaving = [v for h in emptied for v in state.settled_on(h)]
    found = [Unit.of(state, vms) for vms in sorted({state.groups.unit(v, leaving) for v in leaving})]

    def rank(unit: Unit) -> tuple[int, float, tuple[int, ...]]:
        return max(state.vms[v].policy.priority for v in unit.vms), -unit.hard_memory, unit.vms

    return sorted(found, key=rank)


def _place(search: Search, emptied: Sequence[int]) -> tuple[list[Chosen], list[tuple[Unit, list[Refusal]]]]:
    """Place unit after unit; what finds no place is kept with its refusals as they were at its turn."""
    state = search.state
    chosen: list[Chosen] = []
    stuck: list[tuple[Unit, list[Refusal]]] = []
    for unit in _units(search, emptied):
        stays = [r for v in unit.vms if (r := movable(state, v)) is not None]
        found = [] if stays else search.evaluate(unit, lambda _: True, search.relief_at_source(unit))
        if found:
            best, others = found[0], found[1:]
            chosen.append(Chosen(best, _why_move(state, unit, best.destination), alternatives(search, best, others)))
            search.apply(best)
        else:
            stuck.append((unit, stays))
    return chosen, stuck


def _staying(search: Search, emptied: Sequence[int], stuck: Sequence[tuple[Unit, list[Refusal]]]) -> list[Refusal]:
    """What stays on each host and why: one summary per host, then each VM's own reasons."""
    state, found = search.state, []
    by_host: dict[int, list[Refusal]] = {h: [] for h in emptied}
    for unit, stays in stuck:
        reasons = stays or unit_refusals(search, unit.vms, lambda _: None)
        for v in unit.vms:
            mine = [replace(r, subject=state.vms[v].uuid) for r in reasons]
            by_host[int(state.place[v])] += mine
    for host, reasons in by_host.items():
        if reasons:
            vms = [state.vm_index[uuid] for uuid in sorted({r.subject for r in reasons})]
            names = listed(shown(state.vms[v].name) for v in vms)
            name = state.hosts[host].name
            detail = f"{len(vms)} VMs stay on {shown(name)}: {names} ({tally(reasons)}){awaited(state, reasons)}"
            found += [about_host(Code.NO_DESTINATION, name, detail), *grouped(reasons)]
    return found


def _why_move(state: PlacementState, unit: Unit, destination: int) -> str:
    names = listed(shown(state.hosts[h].name) for h in sorted(unit.sources))
    group = f" (moves with {len(unit.vms) - 1} bound to it)" if len(unit.vms) > 1 else ""
    unusual, against = unusual_options(state, unit.vms, destination), soft.told(state, unit.vms, destination)
    return f"{names} is being drained{group}{unusual}{against}"


def _why(names: Sequence[str], refusals: Sequence[Refusal], steps: Sequence[Step], _after: Search) -> str:
    left = [r.detail for r in refusals if r.code in (Code.NO_DESTINATION, Code.HOST_UNREACHABLE)]
    moves = listed(f"{shown(s.move.vm_name)} to {shown(s.move.destination)}" for s in steps) or "nothing"
    tail = f"; {listed(left)}" if left else ""
    return f"Draining {listed(map(shown, names)) or 'no host'}: moving {moves}{tail}"
