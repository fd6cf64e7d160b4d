"""What a plan's steps claim, written down so that it can be held against what comes: figures of the planner's own objective."""

from collections.abc import Collection
from math import isfinite

from rebalancerd.cluster.advice import Advice, AdvisedMove, HostTerms
from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.scenarios import Hotspot
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.objective import Objective
from rebalancerd.plan.price import cost_core_seconds
from rebalancerd.plan.state import PlacementState

LEAST_STEPS = 2  # of a window: one step of the history may be half over when it begins


def window_seconds(inputs: PlanInputs) -> float:
    """How long advice is held against what comes: the horizon over which relief was predicted, two steps at least."""
    scenarios = inputs.scenarios
    return max(scenarios.horizon_seconds, LEAST_STEPS * scenarios.step_seconds)


def advice_of(inputs: PlanInputs, plan: Plan, steps: Collection[int]) -> tuple[Advice, ...]:
    """Advice of those steps of a plan, each on top of the steps before it.

    A step claims nothing whose hosts have no known size, or whose VM is not where the step takes it from.
    """
    state = PlacementState(inputs)
    objective = Objective(state)
    found: list[Advice] = []
    before: list[Step] = []
    for step in sorted(plan.steps, key=lambda s: s.number):
        ends = _indices(state, step)
        if ends is None:
            continue
        vm, source, destination = ends
        unmet = float(objective.unmet.sum())
        state.apply(vm, destination)
        objective.touch((source, destination))
        if step.number in steps:
            relief = unmet - float(objective.unmet.sum())
            told = _advice(objective, plan, step, before, relief=relief)
            found += [told] if told is not None else []
        before.append(step)
    return tuple(found)


def _advice(objective: Objective, plan: Plan, step: Step, before: Collection[Step], *, relief: float) -> Advice | None:
    """The advice of one step, out of a state in which this step and those before it are done."""
    state, move = objective.state, step.move
    inputs = state.inputs
    vm = inputs.snapshot.vm(move.vm_uuid)
    moves = tuple(_moved(s) for s in before)
    names = sorted({name for m in (*moves, _moved(step)) for name in (m.source, m.destination)})
    hosts = tuple(t for name in names if (t := HostTerms.of(inputs.snapshot.host(name))) is not None)
    if len(hosts) < len(names):
        return None
    spot = _spot(inputs, move.source)
    peak = max(peak for _, peak in state.relative(state.host_index[move.destination]))
    return Advice(
        proposed_at=inputs.snapshot.taken_at,
        due_at=inputs.snapshot.taken_at + window_seconds(inputs),
        plan_id=plan.id,
        step=step.number,
        move=_moved(step),
        vm_name=move.vm_name,
        vcpus=vm.facts.vcpus,
        memory_bytes=vm.facts.memory_bytes,
        before=moves,
        hosts=hosts,
        cpu_headroom=inputs.settings.cpu_headroom,
        memory_headroom=inputs.settings.memory_headroom,
        cores_per_byte=objective.cores_per_byte,
        resource=None if spot is None else spot.resource,
        probability=None if spot is None else spot.probability,
        lead_seconds=None if spot is None else spot.lead_seconds,
        source_peak=None if spot is None else spot.peak_p95,
        destination_peak=peak if isfinite(peak) else None,
        relief=relief,
        cost=cost_core_seconds(move.cost, float(state.demand.mean_cores[state.vm_index[move.vm_uuid]])),
        move_seconds=move.cost.seconds.value,
        basis=plan.basis,
    )


def _indices(state: PlacementState, step: Step) -> tuple[int, int, int] | None:
    """VM, source and destination of a step that could be done now."""
    move = step.move
    vm = state.vm_index.get(move.vm_uuid)
    source, destination = state.host_index.get(move.source), state.host_index.get(move.destination)
    if vm is None or source is None or destination is None or source == destination or state.place[vm] != source:
        return None
    return vm, source, destination


def _moved(step: Step) -> AdvisedMove:
    return AdvisedMove(vm_uuid=step.move.vm_uuid, source=step.move.source, destination=step.move.destination)


def _spot(inputs: PlanInputs, host: str) -> Hotspot | None:
    """The forecast that makes the host hot: of two resources the likelier one."""
    spots = [spot for spot in inputs.hotspots if spot.host == host]
    return max(spots, key=lambda s: (s.probability, s.peak_p95 / s.headroom), default=None)


__all__ = ["advice_of", "window_seconds"]
