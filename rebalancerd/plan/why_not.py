"""Why a VM or a host is left as it is, for anyone who asks."""

from dataclasses import replace

import numpy as np

from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind, about_host, about_vm
from rebalancerd.plan.balance import balance
from rebalancerd.plan.consolidate import consolidate
from rebalancerd.plan.constraints import check_unit
from rebalancerd.plan.explain import hottest, no_other_host, pressure, why_still_hot
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.relief import unready, useless, worth_it
from rebalancerd.plan.search import Search, Unit
from rebalancerd.plan.standing import CONSOLIDATE
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, shown


def why_not(inputs: PlanInputs, vm_uuid: str) -> tuple[Refusal, ...]:
    """Why the policy does not move that VM: nothing calls for it, it stays, or each destination's refusal.

    Empty if the plan does move it. While consolidating, what keeps its host on comes first. A VM that the snapshot does not know gives VM_GONE.
    """
    if vm_uuid not in inputs.snapshot.vm_by_uuid:
        return (about_vm(Code.VM_GONE, vm_uuid, "no VM of that UUID is in the snapshot"),)
    plan = _by_policy(inputs)
    if any(step.move.vm_uuid == vm_uuid for step in plan.steps):
        return ()
    search = Search(PlacementState(inputs))
    state = search.state
    vm = state.vm_index[vm_uuid]
    host = state.host_index[state.vms[vm].host]
    found: list[Refusal] = []
    if host not in state.hot:
        calm = f"{shown(state.vms[vm].name)}: nothing calls for a move, {pressure(state, host)}"
        kept = [replace(r, kind=SubjectKind.VM, subject=vm_uuid) for r in _about_host(plan, state.vms[vm].host)]
        found += kept if plan.policy == CONSOLIDATE and kept else [about_vm(Code.BALANCED, vm_uuid, calm)]
    unit = state.groups.unit(vm, state.settled_on(host))
    if (stays := unready(state, unit)) is not None:
        return (*found, stays)
    rows = Unit.of(state, unit)
    relief = search.relief_at_source(rows)
    if host in state.hot and (idle := useless(search, rows, relief)) is not None:
        found.append(idle)
    instead = listed(f"{shown(s.move.vm_name)} to {shown(s.move.destination)}" for s in plan.steps)
    for h in range(len(state.hosts)):
        if h != host:
            found += _about_destination(search, rows, relief, h, instead)
    return tuple(found) or (no_other_host(state, vm),)


def _by_policy(inputs: PlanInputs) -> Plan:
    return consolidate(inputs) if inputs.policy_now == CONSOLIDATE else balance(inputs)


def _about_host(plan: Plan, host: str) -> tuple[Refusal, ...]:
    return tuple(r for r in plan.refusals if r.kind is SubjectKind.HOST and r.subject == host)


def _about_destination(search: Search, unit: Unit, relief: float, host: int, instead: str) -> list[Refusal]:
    """What speaks against one destination; on a calm host only the hard constraints do."""
    state = search.state
    refusal = check_unit(state, unit.vms, host)
    if refusal is not None:
        return [refusal]
    if not state.hot.intersection(unit.sources):
        return []
    target = np.array([host])
    scored = search.scored(unit, target, search.objective.imbalance_gain(unit.sources, target), relief)
    if scored and (poor := worth_it(search, scored[0])) is not None:
        return [poor]
    vm = state.vms[unit.vms[0]]
    other = f"the plan relieves more by moving {instead}" if instead else "the plan's bounds leave it out"
    detail = f"{shown(vm.name)} could go to {shown(state.hosts[host].name)}, but {other}"
    return [about_vm(Code.GAIN_TOO_SMALL, vm.uuid, detail, state.hosts[host].name)]


def why_not_host(inputs: PlanInputs, host: str) -> tuple[Refusal, ...]:
    """Why the policy takes nothing off that host; empty if the plan does. An unknown host gives HOST_UNREACHABLE."""
    if host not in inputs.snapshot.host_by_name:
        return (about_host(Code.HOST_UNREACHABLE, host, f"{shown(host)} is not in the snapshot"),)
    plan = _by_policy(inputs)
    if any(step.move.source == host for step in plan.steps):
        return ()
    search = Search(PlacementState(inputs))
    state, index = search.state, search.state.host_index[host]
    if index not in state.hot:
        if plan.policy == CONSOLIDATE and (kept := _about_host(plan, host)):
            return kept
        detail = f"nothing calls for relief: {pressure(state, index)}; the nearest to its headroom, {hottest(state)}"
        return (about_host(Code.BALANCED, host, detail),)
    told = tuple(r for r in plan.refusals if r.subject == host or _lives_on(state, r, host))
    return told or why_still_hot(search, index)


def _lives_on(state: PlacementState, refusal: Refusal, host: str) -> bool:
    vm = state.vm_index.get(refusal.subject)
    return vm is not None and state.vms[vm].host == host
