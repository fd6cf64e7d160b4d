"""What balancing asks beyond the hard constraints: a reason to move, and a gain that is worth its cost."""

from rebalancerd.cluster.refusal import Code, Refusal, about_vm
from rebalancerd.plan.constraints import movable
from rebalancerd.plan.search import Candidate, Search, Unit
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import shown, span

NOTHING = 1e-6


def unready(state: PlacementState, unit: tuple[int, ...]) -> Refusal | None:
    """Why none of a unit may be moved for balance now: a VM of it stays, rests after a move, or has an unknown load."""
    for v in unit:
        vm = state.vms[v]
        refusal = movable(state, v) or state.inputs.resting_vms.get(vm.uuid)
        if refusal is None and not state.demand.known[v]:
            refusal = about_vm(Code.VM_LOAD_UNKNOWN, vm.uuid, f"{shown(vm.name)}: its load is unknown, so is the gain")
        if refusal is not None:
            return refusal
    return None


def pays(search: Search, candidate: Candidate) -> bool:
    """Whether relief pays: a share of the source's unmet demand, more than the cost, repaid within the limit.

    Only relief counts here; a better balance alone never starts a move.
    """
    return _gains(search, candidate) and _repaid(search, candidate)


def _trouble(search: Search, candidate: Candidate) -> float:
    return search.state.settings.weight_unmet * sum(float(search.objective.unmet[h]) for h in candidate.unit.sources)


def _gains(search: Search, candidate: Candidate) -> bool:
    settings = search.state.settings
    relief = settings.weight_unmet * candidate.relief
    if relief <= NOTHING or candidate.gain <= NOTHING:
        return False
    too_little = relief - settings.weight_cost * candidate.cost < settings.min_gain * _trouble(search, candidate)
    return not too_little


def _repaid(search: Search, candidate: Candidate) -> bool:
    payback = candidate.payback_seconds
    return payback is not None and payback <= search.state.settings.payback_max_seconds


def worth_it(search: Search, candidate: Candidate) -> Refusal | None:
    """Why a candidate does not pay, in words; None if it `pays`."""
    if pays(search, candidate):
        return None
    state, settings = search.state, search.state.settings
    vm = state.vms[candidate.unit.vms[0]]
    host = state.hosts[candidate.destination].name
    relief = settings.weight_unmet * candidate.relief
    cost = settings.weight_cost * candidate.cost
    if not _gains(search, candidate):
        figures = f"relieves {relief:.0f} core-s of {_trouble(search, candidate):.0f}, costs {cost:.0f} core-s"
        return about_vm(Code.GAIN_TOO_SMALL, vm.uuid, f"{shown(vm.name)} to {shown(host)} {figures}", host)
    payback = candidate.payback_seconds
    after = "never" if payback is None else f"after {span(payback)}"
    return about_vm(
        Code.PAYBACK_TOO_LONG,
        vm.uuid,
        f"{shown(vm.name)} to {shown(host)} pays back {after}, limit {span(settings.payback_max_seconds)}",
        host,
    )


def hopeless(search: Search, unit: Unit, relief: float, cost: float = 0.0) -> bool:
    """Whether `worth_it` refuses a unit wherever it costs at least that: no destination relieves more than its leaving."""
    settings = search.state.settings
    trouble = settings.weight_unmet * sum(float(search.objective.unmet[h]) for h in unit.sources)
    most = settings.weight_unmet * relief - settings.weight_cost * cost
    return most < settings.min_gain * trouble * (1 - NOTHING)


def useless(search: Search, unit: Unit, relief: float) -> Refusal | None:
    """A unit whose leaving relieves nothing."""
    if relief > NOTHING:
        return None
    vm = search.state.vms[unit.vms[0]]
    return about_vm(Code.GAIN_TOO_SMALL, vm.uuid, f"{shown(vm.name)}: its leaving relieves nothing of {shown(vm.host)}")
