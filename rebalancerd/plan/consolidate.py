"""The consolidate policy: as few hosts as the forecast of the whole window allows hold VMs; the empty ones can sleep.

Hot hosts are relieved first, by the rules of balancing, onto hosts that hold VMs already and only where that does not
help onto empty ones. Then hosts are emptied one after another (``consolidate_fold``), wholly or not at all, up to the
consolidation headrooms, while each pays back its moves within the window. The moves keep that sequence, so that a plan
cut short leaves whole hosts empty; planned anew from the middle it goes on. Unfolding is balancing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from rebalancerd.cluster.plan import Alternative, Plan, Step
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind, about_cluster, about_host
from rebalancerd.plan.balance import left_hot, relieve, unfit_to_plan
from rebalancerd.plan.consolidate_fold import Emptied, Fold, Placement
from rebalancerd.plan.consolidate_reserve import Reserve
from rebalancerd.plan.explain import unusual_options
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.propose import Chosen, nothing, propose
from rebalancerd.plan.search import Candidate, Search
from rebalancerd.plan.standing import CONSOLIDATE, core_seconds, occupied, saving_seconds, watts_per_capacity
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import energy, listed, percent, shown, span

POLICY = CONSOLIDATE
ALTERNATIVES = 3
OPENING = 8  # times as many empty hosts are opened while relief lacks room


def consolidate(inputs: PlanInputs, reserves: Sequence[Reserve] = ()) -> Plan:
    """The plan that folds the cluster as far as it is safe and pays. Same inputs, same plan.

    ``reserves``: asked after each emptied host, beside those of the inputs, with the state and the hosts that hold VMs; a
    refusal keeps it on.
    """
    inputs = replace(inputs, policy=POLICY)
    state = PlacementState(replace(inputs, settings=replace(inputs.settings, weight_imbalance=0.0)))
    if (unfit := unfit_to_plan(inputs)) is not None:
        return nothing(state, POLICY, [unfit], unfit.detail)
    relieved, search = _relieve(inputs, state)
    scratch = state.copy()
    for chosen in relieved:
        for v in chosen.candidate.unit.vms:
            scratch.apply(v, chosen.candidate.destination)
    fixed = frozenset(v for c in relieved for v in c.candidate.unit.vms)
    fold = Fold(Search(scratch), fixed, inputs.settings.max_moves - len(fixed), reserves)
    fold.run()
    folded = [c for emptied in fold.emptied for c in _chosen(fold, emptied)]
    bounded = len(fixed) >= inputs.settings.max_moves or search.exhausted
    hot = sorted(state.hot - {e.host for e in fold.emptied if not e.later})
    refusals = [r for h in hot for r in left_hot(state, search, h, bounded=bounded)]
    refusals += [fold.stays[h] for h in sorted(fold.stays)]
    if not relieved and not folded:
        why = _why_nothing(state, fold)
        return nothing(state, POLICY, refusals or [about_cluster(Code.BALANCED, why)], why)
    emptied = frozenset(e.host for e in fold.emptied)
    told = partial(_why, state, fold)
    return propose(state, POLICY, [*relieved, *folded], refusals, told, in_sequence=True, emptied=emptied)


def _relieve(inputs: PlanInputs, state: PlacementState) -> tuple[list[Chosen], Search]:
    """Moves off hot hosts, and the search they were found by last.

    Receivers are the hosts that hold VMs, then also as many empty ones as the excess would fill, the efficient first, and
    ever more while a host stays hot: spread over all that are empty, each move would open another one.
    """
    chosen: list[Chosen] = []
    empty, opened = _empty_hosts(state), 0
    while True:
        search = Search(_scratch(inputs, state, empty[opened:], chosen))
        found = relieve(search)
        chosen += found
        hot = [h for h in sorted(state.hot) if search.objective.counted[h] and search.state.above_headroom(h)]
        moves = sum(len(c.candidate.unit.vms) for c in chosen)
        if not hot or opened >= len(empty) or moves >= inputs.settings.max_moves or search.exhausted:
            return chosen, search
        more = OPENING * opened if found else len(empty)  # what no host of one kind helps may want another kind
        opened = more if opened else _needed(search.state, hot, empty)


def _empty_hosts(state: PlacementState) -> list[int]:
    """Hosts without VMs, the most efficient first, of equal ones the largest."""
    watts = watts_per_capacity(state)
    size = np.nan_to_num(state.capacity_cpu)
    return sorted((int(h) for h in np.flatnonzero(~occupied(state))), key=lambda h: (watts[h], -size[h], h))


def _needed(state: PlacementState, hot: Sequence[int], empty: Sequence[int]) -> int:
    """How many of the empty hosts what is above the headrooms would fill, one at least."""
    settings, rows = state.settings, list(hot)
    found = 1
    for load, capacity, headroom in (
        (state.settled_cpu, state.capacity_cpu, settings.cpu_headroom),
        (state.settled_memory, state.capacity_memory, settings.memory_headroom),
    ):
        limits = np.nan_to_num(capacity) * headroom
        excess = np.maximum(state.demand.peak(load[rows], settings.quantile) - limits[rows], 0.0).sum()
        room = np.cumsum(limits[list(empty)])
        found = max(found, int(np.searchsorted(room, excess)) + 1)
    return min(found, len(empty))


def _scratch(
    inputs: PlanInputs, state: PlacementState, shut: Sequence[int], chosen: Sequence[Chosen]
) -> PlacementState:
    """The placement after those moves, whose VMs stay now, with the shut hosts closed."""
    names = [state.hosts[h].name for h in shut]
    closed = {n: about_host(Code.NEEDED, n, f"{shown(n)} is empty and stays so") for n in names}
    moved = [v for c in chosen for v in c.candidate.unit.vms]
    resting = {state.vms[v].uuid: _moves_already(state.vms[v].uuid, state) for v in moved}
    made = PlacementState(
        replace(
            inputs,
            policy="balance",
            blocked_hosts={**closed, **inputs.blocked_hosts},
            resting_vms={**inputs.resting_vms, **resting},
            settings=replace(inputs.settings, max_moves=inputs.settings.max_moves - len(moved), inflow_max_per_host=0),
            returned={},  # few hosts are opened, to be filled at once
        ),
        state,
    )
    made.ruled = {}  # answers given here do not hold once more hosts are open
    for c in chosen:
        for v in c.candidate.unit.vms:
            made.apply(v, c.candidate.destination)
    return made


def _moves_already(uuid: str, state: PlacementState) -> Refusal:
    return Refusal(
        code=Code.NEEDED,
        kind=SubjectKind.VM,
        subject=uuid,
        detail=f"{shown(state.snapshot.vm(uuid).name)} moves in this plan already",
    )


def _chosen(fold: Fold, emptied: Emptied) -> list[Chosen]:
    """The moves that empty one host, with its reasons; they stand or fall together."""
    why = _why_emptied(fold.state, emptied)
    return [
        Chosen(
            _candidate(fold, p, emptied),
            _why_move(fold.state, p, emptied, why),
            _others(fold, p),
            bundle=-1 - emptied.host,
        )
        for p in emptied.placements
    ]


def _candidate(fold: Fold, placement: Placement, emptied: Emptied) -> Candidate:
    state, unit = fold.state, placement.unit
    cost = sum(
        state.costs.quote(v, placement.destination).core_seconds(float(state.demand.mean_cores[v])) for v in unit.vms
    )
    share = len(unit.vms) / (sum(len(p.unit.vms) for p in emptied.placements) + emptied.later)
    gain = emptied.benefit * share - state.settings.weight_cost * cost
    return Candidate(unit, placement.destination, 0.0, 0.0, cost, gain, emptied.payback_seconds)


def _window(inputs: PlanInputs) -> str:
    """What is left of the window, and how much of that is known."""
    left, known = inputs.window_left_seconds, inputs.scenarios.horizon_seconds
    beyond = f" (the forecast covers {span(known)} of it)" if known < left else ""
    return f"{span(left)} that are left of the window{beyond}"


def _why_emptied(state: PlacementState, emptied: Emptied) -> str:
    """What emptying that host is worth."""
    seconds = saving_seconds(state.inputs)
    later = f" ({emptied.later} more moves are left to the next plan)" if emptied.later else ""
    turn = f" {emptied.turn}" if emptied.turn else ""
    return (
        f"{shown(state.hosts[emptied.host].name)} is emptied{turn}{later}: asleep it saves "
        f"{energy(emptied.watts * seconds)} in the {_window(state.inputs)}, "
        f"worth {core_seconds(emptied.watts, seconds, state.settings):.0f} core-s; its moves cost {emptied.cost:.0f} and "
        f"take {span(emptied.seconds)}, it pays back after {span(emptied.payback_seconds)}"
    )


def _why_move(state: PlacementState, placement: Placement, emptied: Emptied, why: str) -> str:
    unit, there = placement.unit, shown(state.hosts[placement.destination].name)
    names = listed(shown(state.vms[v].name) for v in unit.vms)
    aside = "" if emptied.host in unit.sources else ", to make room there"
    return f"{why}; {names} goes to {there}{aside}{unusual_options(state, unit.vms, placement.destination)}"


def _others(fold: Fold, placement: Placement) -> tuple[Alternative, ...]:
    """Receivers it would have fitted on as well: as many hosts would stay on, so the score is the same."""
    state, vm = fold.state, fold.state.vms[placement.unit.vms[0]]
    score = fold.search.objective.score().total
    return tuple(
        Alternative(
            vm_uuid=vm.uuid,
            vm_name=vm.name,
            destination=state.hosts[h].name,
            score=score,
            reason="fits as well; a host that stays on, is more efficient or fuller is filled first",
        )
        for h in placement.others[:ALTERNATIVES]
    )


def _why_nothing(state: PlacementState, fold: Fold) -> str:
    return f"Nothing is folded: {_standing(fold, state)}"


def _standing(fold: Fold, state: PlacementState) -> str:
    """How many hosts hold VMs and what keeps them on, counted."""
    counts = Counter(r.code for r in fold.stays.values())
    reasons = ", ".join(f"{n} {code.value}" for code, n in sorted(counts.items(), key=lambda row: (-row[1], row[0])))
    settings = state.settings
    return (
        f"{fold.on} of {len(state.hosts)} hosts hold VMs (at least {fold.bound} must, at "
        f"{percent(settings.consolidate_cpu_headroom)} CPU and {percent(settings.consolidate_memory_headroom)} memory)"
        f"{f': {reasons}' if reasons else ''}"
    )


def _why(before: PlacementState, fold: Fold, steps: Sequence[Step], _after: Search) -> str:
    """One sentence for the whole plan: what is relieved, what is emptied, what stays on."""
    if not steps:
        return "Nothing is moved: no step of the plan can be started"
    hosts = {before.hosts[e.host].name: e for e in fold.emptied}
    gone = [shown(name) for name in hosts if any(s.move.source == name for s in steps)]
    relieved = sorted({s.move.source for s in steps} & {before.hosts[h].name for h in before.hot} - hosts.keys())
    parts = [f"relieving {listed(map(shown, relieved))}"] * bool(relieved)
    if gone:
        saved = sum(e.watts for e in fold.emptied) * saving_seconds(before.inputs)
        parts.append(f"emptying {listed(gone)}, {energy(saved)} saved asleep")
    return f"Consolidating, {'; '.join(parts) or 'moving VMs'} ({len(steps)} moves); then {_standing(fold, before)}"
