"""The day ahead of a cluster that lacks a host of the evening: what would get hot in its course is relieved before it does.

By day a cluster may just carry its load. The VMs of a host that does not come back stand where the night moved them; by
the light load of dawn every host has room for them, and what takes them in gets hot at noon, one host after the other.
Relief is therefore planned against the forecast of the whole day, by the search and the constraints that serve the next
half hour: of the hosts that would get hot VMs go, those without a home or others, to where they fit all day long.

That waits until everybody else is at home, though not all morning, and is done once (the book of nights sees to that): the
forecast of the day says little new from hour to hour, and relief by it over and over only moves what is well placed. Who was
moved so has a new home, and nobody is sent to and fro when the old one comes back late; who still waits then goes home.
"""

from collections.abc import Sequence
from dataclasses import replace

from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.plan.balance import relieve
from rebalancerd.plan.improve import improve
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.propose import Chosen, propose
from rebalancerd.plan.search import Search
from rebalancerd.plan.standing import UNFOLD
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, shown

TIGHT_QUANTILE = 0.8  # of the day's peaks: where no host has room by the usual one, this one's hot hosts are the worst


def relieve_day(state: PlacementState) -> Plan | None:
    """Moves off hosts that would get hot in the day ahead, where VMs have lost their home; None where there are none.

    ``state``: of the snapshot, with ``inputs.homes``; nothing of it goes home in this cycle.
    """
    inputs = state.inputs
    if inputs.day is None or not (lost := homeless(inputs)):
        return None
    usual = inputs.settings.quantile
    plan = _relief(inputs, inputs.day, lost, usual)
    return plan if plan is not None or usual <= TIGHT_QUANTILE else _relief(inputs, inputs.day, lost, TIGHT_QUANTILE)


def _relief(inputs: PlanInputs, ahead: Scenarios, lost: dict[str, str], quantile: float) -> Plan | None:
    """Moves off hosts that would get hot, by that quantile of the peaks of the day."""
    settings = replace(inputs.settings, payback_max_seconds=ahead.horizon_seconds, quantile=quantile)
    day = PlacementState(replace(inputs, scenarios=ahead, hotspots=(), settings=settings))
    day.hot = frozenset(h for h in range(len(day.hosts)) if day.above_headroom(h))
    search = Search(day.copy())
    chosen = [_told(c, day, lost) for c in improve(search, relieve(search)).chosen]
    if not chosen:
        return None
    names = listed((shown(vm.name) for vm in day.vms if vm.uuid in lost), 3)

    def why(steps: Sequence[Step], _after: Search) -> str:
        return f"The night is over and {names} cannot go home: {len(steps)} moves keep hosts from getting hot in the day ahead"

    plan = propose(day, UNFOLD, chosen, [], why)
    return plan if plan.steps else None


def homeless(inputs: PlanInputs) -> dict[str, str]:
    """VMs (UUID) of ``inputs.homes`` whose home is lost, and why; none while others may still go home."""
    found: dict[str, str] = {}
    flying = {flight.vm_uuid for flight in inputs.snapshot.in_flight}
    whys = {home: why_lost(inputs, home) for home in sorted(set(inputs.homes.values()))}
    for uuid, home in sorted(inputs.homes.items()):
        vm, why = inputs.snapshot.vm_by_uuid.get(uuid), whys[home]
        if vm is None or vm.host == home:
            continue
        if uuid in flying or (why is None and inputs.homes_may_return):
            return {}
        if why is not None:
            found[uuid] = why
    return found


def why_lost(inputs: PlanInputs, home: str) -> str | None:
    """Why a host of the evening takes nobody in, None where it does or is waited for."""
    host, blocked, name = inputs.snapshot.host_by_name.get(home), inputs.blocked_hosts.get(home), shown(home)
    if host is None:
        return f"{name}, where it was in the evening, is not in the cluster any more"
    if blocked is not None and blocked.code is Code.HOST_NOT_BACK:
        return f"{name}, where it was in the evening, does not come back: {shown(blocked.detail)}"
    if inputs.homes_may_return:
        return None
    reason = None if blocked is None else shown(blocked.detail)
    if not host.usable:
        reason = shown(host.unusable or "its facts are unknown")
    elif host.mode is not HostMode.ACTIVE:
        reason = f"its mode is {host.mode.value}"
    elif home in inputs.drained:
        reason = "it is being drained"
    return None if reason is None else f"{name}, where it was in the evening, takes nothing in: {reason}"


def _told(chosen: Chosen, day: PlacementState, lost: dict[str, str]) -> Chosen:
    told = next((lost[u] for v in chosen.candidate.unit.vms if (u := day.vms[v].uuid) in lost), None)
    return chosen if told is None else replace(chosen, why=f"{told}; {chosen.why}")
