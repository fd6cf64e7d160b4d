"""What a whole plan must keep beyond its states: what its inputs forbid, its costs, its figures, and how it ends.

The states themselves are `planner_checker`'s; like that it shares no code with the planner.
"""

from math import isclose

import numpy as np

from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.inputs import PlanInputs
from tests.bench.planner_checker import OFF, SLACK, Row, Simulation


def violations(inputs: PlanInputs, plan: Plan) -> list[str]:
    """Everything that is wrong with a plan made from those inputs, in words, empty if nothing is."""
    walk = Simulation(inputs.snapshot, inputs.scenarios, inputs.settings)
    found = walk.run(plan, inputs.drained, spare=False)
    if [s.number for s in plan.steps] != list(range(1, len(plan.steps) + 1)):
        found.append("steps are not numbered from 1")
    if plan.policy == "balance" and len(plan.steps) > inputs.settings.max_moves:
        found.append("too many moves")
    for step in plan.steps:
        found += [f"step {step.number}: {text}" for text in (*_forbidden(inputs, plan, step), *_cost(inputs, step))]
    return [*found, *_hot_in_the_end(inputs, plan, walk), *_figures(plan)]


def _forbidden(inputs: PlanInputs, plan: Plan, step: Step) -> list[str]:
    """What the inputs themselves keep from moving or from receiving."""
    uuid, target = step.move.vm_uuid, step.move.destination
    fine = {
        "blocked": target not in inputs.blocked_hosts and (uuid, target) not in inputs.blocked_pairs,
        "resting": plan.policy == "drain" or uuid not in inputs.resting_vms,
    }
    return [name for name, good in fine.items() if not good]


def _cost(inputs: PlanInputs, step: Step) -> list[str]:
    vm, cost, chosen, settings = (
        inputs.snapshot.vm_by_uuid.get(step.move.vm_uuid),
        step.move.cost,
        step.move.options,
        inputs.settings,
    )
    if vm is None:
        return []
    own = vm.policy.max_downtime_seconds
    limit = settings.max_downtime_seconds if own is None else own
    wrong = {
        "may not converge": cost.non_convergence.upper > settings.non_convergence_max,
        "takes too long": cost.seconds.upper > settings.max_migration_seconds,
        "downtime too long": cost.downtime_seconds.upper > limit,
        "post-copy without consent": chosen.postcopy and not vm.policy.postcopy,
        "throttled without consent": chosen.auto_converge and not vm.policy.auto_converge,
        "more downtime allowed than the VM accepts": chosen.max_downtime_seconds > limit,
    }
    return [text for text, bad in wrong.items() if bad]


def _memory(inputs: PlanInputs, vm: Vm) -> Row:
    """Bytes over all paths and now."""
    s, held = inputs.scenarios, vm.load.memory_bytes
    row = s.row.get(vm.uuid)
    if vm.state in OFF:
        return np.zeros(s.paths * s.steps + 1)
    paths = np.full(s.paths * s.steps, float(vm.facts.memory_bytes)) if row is None else s.memory_bytes[row]
    return np.append(paths.astype(np.float64), float(held or paths.max()))


def _hot_in_the_end(inputs: PlanInputs, plan: Plan, walk: Simulation) -> list[str]:
    """A host that received something for good must stay below both headrooms, whatever is still in flight to it."""
    found, settings, shot = [], inputs.settings, inputs.snapshot
    last = {s.move.vm_uuid: s.move.destination for s in plan.steps}
    for name in sorted(set(last.values()) & walk.at.keys()):
        host = shot.host(name)
        arriving = [f.vm_uuid for f in shot.in_flight if f.destination == name and f.vm_uuid in walk.need]
        own = max(0.0, walk.own(host)[1] - sum(walk.need[uuid][1] for uuid in arriving))
        there = [_memory(inputs, shot.vm(uuid)) for uuid in sorted(walk.there[name])]
        memory = walk.peak(np.sum(there, axis=0) + own) if there else own
        cpu = walk.peak(walk.cpu[walk.at[name]])
        if cpu > settings.cpu_headroom * (host.capacity_cores or 0) * SLACK:
            found.append(f"{name} is hot in the end: CPU {cpu:.2f} of {host.capacity_cores}")
        if memory > settings.memory_headroom * (host.capacity_memory_bytes or 0) * SLACK:
            found.append(f"{name} is hot in the end: memory {memory:.0f} of {host.capacity_memory_bytes}")
    return found


def _figures(plan: Plan) -> list[str]:
    gains = sum(s.move.gain for s in plan.steps)
    before, after, balance = plan.before, plan.after, plan.policy == "balance"
    wrong = {
        f"gains {gains} are not the difference of the scores": not isclose(
            before.total - after.total, gains, rel_tol=1e-6, abs_tol=1e-3
        ),
        "the score got worse": balance and after.total > before.total + 1e-6,
        "unmet demand got worse": balance and after.unmet > before.unmet + 1e-6,
        "nothing moves, yet the score changes": not plan.steps and before != after,
        "no reason given": not plan.why or (not plan.steps and not plan.refusals),
    }
    return [text for text, bad in wrong.items() if bad]
