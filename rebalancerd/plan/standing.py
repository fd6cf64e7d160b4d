"""What hosts that hold VMs cost while the policy is to consolidate: joules, turned into the planner's currency.

A host that is on and idle draws ``idle_watts``. Its sleep saves idle_watts · (window left − power cycle) joules, for
while it shuts down and boots it draws power and carries nothing. Divided by ``watts_per_core``, the watts that one
reference core's work is worth, joules become core-seconds, in which unmet demand and moves are counted. What the VMs'
own work draws is left out: they draw it wherever they are.
"""

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster import power_curve
from rebalancerd.cluster.host import Host
from rebalancerd.plan.demand import Floats
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.state import PlacementState

CONSOLIDATE = "consolidate"
UNFOLD = "unfold"


def idle_watts(host: Host, settings: PlanSettings) -> float:
    """What the host draws when it is on and idle; the setting where nobody said."""
    return power_curve.idle_watts(host, settings.host_idle_watts)


def saving_seconds(inputs: PlanInputs) -> float:
    """How much of what is left of the window a host that slept from now on would save."""
    return max(0.0, inputs.window_left_seconds - inputs.settings.power_cycle_seconds)


def core_seconds(watts: float, seconds: float, settings: PlanSettings) -> float:
    """Energy in the planner's currency. Nothing where a core's work is worth nothing."""
    return settings.weight_hosts * watts * seconds / settings.watts_per_core if settings.watts_per_core > 0 else 0.0


def standing_costs(state: PlacementState) -> Floats:
    """(H,) core-seconds each host costs if it holds a VM in the end; zeros where the policy is another one."""
    inputs = state.inputs
    if inputs.policy_now != CONSOLIDATE:
        return np.zeros(len(state.hosts))
    seconds = saving_seconds(inputs)
    return np.array([core_seconds(idle_watts(h, inputs.settings), seconds, inputs.settings) for h in state.hosts])


def occupied(state: PlacementState) -> NDArray[np.bool_]:
    """(H,) hosts on which a VM stands, or will when its migration has ended."""
    there = state.place[state.place >= 0]
    found: NDArray[np.bool_] = np.bincount(there, minlength=len(state.hosts)) > 0
    return found


def held_share(state: PlacementState, holding: NDArray[np.bool_], emptied: frozenset[int]) -> Floats:
    """(H,) share of its standing cost that each host still has: of one that is being emptied, that of its VMs left.

    So the moves that empty a host share what its sleep saves, also where a plan can only begin with it. A host that was
    empty costs nothing: only relief opens one, and that is not held against it.
    """
    before, after = (np.bincount(p[p >= 0], minlength=len(state.hosts)) for p in (state.start.place, state.place))
    share = (holding & (before > 0)).astype(np.float64)
    for host in emptied:
        if before[host]:
            share[host] = min(1.0, after[host] / before[host])
    return share


def watts_per_capacity(state: PlacementState) -> Floats:
    """(H,) idle watts per reference core to three digits, all equal while no host says what it draws."""
    if all(h.idle_watts is None and not h.power_watts for h in state.hosts):
        return np.zeros(len(state.hosts))
    watts = np.array([idle_watts(h, state.settings) for h in state.hosts])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(state.capacity_cpu > 0, watts / state.capacity_cpu, np.inf)
    return np.array([float(f"{value:.3g}") for value in found])
