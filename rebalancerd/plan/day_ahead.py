"""The day ahead of a cluster that lacks a host of the evening: what would get hot in its course is relieved before it does.

By day a cluster may just carry its load. The VMs of a host that does not come back stand where the night moved them; by
the light load of dawn every host has room for them, and what takes them in gets hot at noon, one host after the other.
Relief is therefore planned against the forecast of the whole day, by the search and the constraints that serve the next
half hour: of the hosts that would get hot VMs go, those without a home or others, to where they fit all day long.

That waits until everybody who can go home is there. Who was moved so has a new home (the book of nights sees to that), and
nobody is sent to and fro when the old one comes back late; who still waits then goes home.
"""

from collections.abc import Sequence
from dataclasses import replace

from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code
from rebalancerd.plan.balance import relieve
from rebalancerd.plan.constraints import check_unit
from rebalancerd.plan.improve import improve
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.propose import Chosen, propose
from rebalancerd.plan.relief import unready
from rebalancerd.plan.search import Search
from rebalancerd.plan.standing import UNFOLD
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, shown

PASSING = frozenset(
    {
        Code.COOLDOWN,
        Code.VM_BUSY,
        Code.VM_LOAD_UNKNOWN,
        Code.HOST_ASLEEP,
        Code.HOST_LOAD_UNKNOWN,
        Code.RAMP,
        Code.LINK_CAP,
    }
)


def relieve_day(state: PlacementState) -> Plan | None:
    """Moves off hosts that would get hot in the day ahead, where VMs have lost their home; None where there are none.

    ``state``: of the snapshot, with ``inputs.homes``; nothing of it goes home in this cycle.
    """
    inputs = state.inputs
    if inputs.day is None or not (homeless := without_home(state)):
        return None
    settings = replace(inputs.settings, payback_max_seconds=inputs.day.horizon_seconds)
    day = PlacementState(replace(inputs, scenarios=inputs.day, hotspots=(), settings=settings))
    day.hot = frozenset(h for h in range(len(day.hosts)) if day.above_headroom(h))
    search = Search(day.copy())
    chosen = [_told(c, homeless) for c in improve(search, relieve(search)).chosen]
    if not chosen:
        return None
    names = listed((shown(day.vms[v].name) for v in sorted(homeless)), 3)

    def why(steps: Sequence[Step], _after: Search) -> str:
        return f"The night is over and {names} cannot go home: {len(steps)} moves keep hosts from getting hot in the day ahead"

    plan = propose(day, UNFOLD, chosen, [], why)
    return plan if plan.steps else None


def without_home(state: PlacementState) -> dict[int, str]:
    """VMs that cannot go home, and why; none while any VM still may, be it later."""
    found: dict[int, str] = {}
    whys = {home: why_lost(state.inputs, home) for home in sorted(set(state.inputs.homes.values()))}
    for v, vm in enumerate(state.vms):
        home = state.inputs.homes.get(vm.uuid)
        if home is None or vm.host == home:
            continue
        if v in state.flying:
            return {}
        found[v] = whys[home] or _refused(state, v, home) or ""
        if not found[v]:
            return {}
    return found


def why_lost(inputs: PlanInputs, home: str) -> str | None:
    """Why a host of the evening takes nobody in, None where it does or is waited for."""
    host, blocked, name = inputs.snapshot.host_by_name.get(home), inputs.blocked_hosts.get(home), shown(home)
    if host is None:
        return f"{name}, where it was in the evening, is not in the cluster any more"
    if blocked is not None and blocked.code is Code.HOST_NOT_BACK:
        return f"{name}, where it was in the evening, does not come back: {shown(blocked.detail)}"
    if inputs.homes_may_return or (blocked is not None and blocked.code is Code.HOST_ASLEEP):
        return None
    reason = None if blocked is None else shown(blocked.detail)
    if not host.usable:
        reason = shown(host.unusable or "its facts are unknown")
    elif host.mode is not HostMode.ACTIVE:
        reason = f"its mode is {host.mode.value}"
    elif home in inputs.drained:
        reason = "it is being drained"
    return None if reason is None else f"{name}, where it was in the evening, takes nothing in: {reason}"


def _refused(state: PlacementState, vm: int, home: str) -> str | None:
    """Why a home that takes VMs in does not take this one, None where that passes."""
    there = state.host_index[home]
    vms = state.groups.unit(vm, state.settled_on(int(state.place[vm])))
    refusal = unready(state, vms) or check_unit(state, vms, there)
    if refusal is None or refusal.code in PASSING or state.inputs.homes_may_return:
        return None
    return f"{shown(home)}, where it was in the evening, does not admit it: {refusal.detail}"


def _told(chosen: Chosen, homeless: dict[int, str]) -> Chosen:
    told = next((homeless[v] for v in chosen.candidate.unit.vms if v in homeless), None)
    return chosen if told is None else replace(chosen, why=f"{told}; {chosen.why}")
