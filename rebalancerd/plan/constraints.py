"""All hard constraints in their stated order; the first that refuses is the answer.

Order, cheap first: the VM alone (``rules_vm``), the destination host (``rules_host``), what the guest needs there
(``rules_fit``), the planned placement (``rules_place``, ``rules_ramp``), the predicted cost (``rules_cost``). No constraint is a
penalty: what one refuses is never chosen, however full the rest of the cluster is.
"""

from collections.abc import Iterable

from rebalancerd.cluster.refusal import Refusal
from rebalancerd.plan import rules_cost, rules_fit, rules_host, rules_place, rules_ramp, rules_vm
from rebalancerd.plan.ask import Ask, Rule
from rebalancerd.plan.state import PlacementState

UNCHANGING: tuple[Rule, ...] = (*rules_vm.RULES, *rules_host.RULES, *rules_fit.RULES)
PLACEMENT: tuple[Rule, ...] = (*rules_place.RULES, *rules_ramp.RULES)
COST: tuple[Rule, ...] = rules_cost.RULES
ALL: tuple[Rule, ...] = (*UNCHANGING, *PLACEMENT, *COST)


def first(rules: Iterable[Rule], ask: Ask) -> Refusal | None:
    """The first refusal among the rules."""
    return next((refusal for rule in rules if (refusal := rule(ask)) is not None), None)


def check(state: PlacementState, vm: int, destination: int, together: tuple[int, ...] = ()) -> Refusal | None:
    """Why that VM may not go to that destination in the state as planned so far, None if it may.

    ``together``: the VMs that move with it to the same destination (a whole affinity group), itself included or not.
    """
    ask = Ask(state, vm, destination, tuple(sorted({vm, *together})))
    return unchanging(state, vm, destination) or first(PLACEMENT, ask) or first(COST, ask)


def unchanging(state: PlacementState, vm: int, destination: int) -> Refusal | None:
    """The first refusal that no placement can change, remembered in the state."""
    key = (vm, destination)
    if key not in state.ruled:
        state.ruled[key] = first(UNCHANGING, Ask(state, vm, destination, (vm,)))
    return state.ruled[key]


def movable(state: PlacementState, vm: int) -> Refusal | None:
    """Why that VM stays whatever the destination, None if its destination decides."""
    here = state.host_index[state.vms[vm].host]
    refusal = first(rules_vm.RULES, Ask(state, vm, here, (vm,)))
    if refusal is None:
        return None
    return Refusal(code=refusal.code, kind=refusal.kind, subject=refusal.subject, detail=refusal.detail)


def check_unit(
    state: PlacementState, unit: tuple[int, ...], destination: int, rules: tuple[Rule, ...] = (*PLACEMENT, *COST)
) -> Refusal | None:
    """The first refusal of any VM of a unit that moves to one destination in one go, by unchanging and those rules."""
    for vm in unit:
        if (refusal := unchanging(state, vm, destination)) is not None:
            return refusal
    for vm in unit:
        if (refusal := first(rules, Ask(state, vm, destination, unit))) is not None:
            return refusal
    return None
