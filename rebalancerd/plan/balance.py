"""The balance planner: relieve hot hosts with few, worthwhile moves; otherwise do nothing and say why.

Greedy best improvement: in each round the best admissible move among all units of VMs on hosts that are still above
headroom is taken. Units are tried by what their leaving relieves, destinations by the balance they leave; a round ends
once no remaining unit can beat the best by its relief. Every move is feasible from the state its predecessors leave, so
the sequence can always be executed. Ends when nothing admissible is left, at ``max_moves`` or at ``work_budget``.
"""

from collections.abc import Sequence
from functools import partial

from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind, about_cluster, about_host
from rebalancerd.plan.explain import (
    alternatives,
    contention,
    hottest,
    pressure,
    unknown_hosts,
    unusual_options,
    why_still_hot,
)
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.propose import Chosen, nothing, propose
from rebalancerd.plan.rounds import Rounds
from rebalancerd.plan.search import Candidate, Search
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, percent, shown, span

POLICY = "balance"


def balance(inputs: PlanInputs) -> Plan:
    """The plan for these inputs; without steps it says why. Same inputs, same plan."""
    state = PlacementState(inputs)
    if (unfit := unfit_to_plan(inputs)) is not None:
        return nothing(state, POLICY, [unfit], unfit.detail)
    if not state.hot:
        why = f"Balanced: no host is or will be above its headroom; the nearest, {hottest(state)}{unknown_hosts(state)}"
        return nothing(state, POLICY, [about_cluster(Code.BALANCED, why)], why)
    search = Search(state.copy())
    chosen = relieve(search)
    moves = sum(len(c.candidate.unit.vms) for c in chosen)
    bounded = moves >= inputs.settings.max_moves or search.exhausted
    refusals = [r for h in sorted(state.hot) for r in left_hot(state, search, h, bounded=bounded)]
    if not chosen:
        return nothing(state, POLICY, refusals, _why_nothing(state, refusals))
    return propose(state, POLICY, chosen, refusals, partial(_why, state))


def unfit_to_plan(inputs: PlanInputs) -> Refusal | None:
    """A cluster-wide reason to plan nothing at all."""
    if inputs.snapshot.frozen is not None:
        return about_cluster(Code.TELEMETRY_INSANE, f"Frozen: {shown(inputs.snapshot.frozen)}")
    if inputs.snapshot.warming_up:
        return about_cluster(Code.WARMING_UP, "Warming up: too little has been measured to decide on")
    return None


def relieve(search: Search) -> list[Chosen]:
    """The moves off hot hosts, found and applied one after another."""
    chosen: list[Chosen] = []
    for best, others in Rounds(search):
        chosen.append(Chosen(best, _why_move(search, best), alternatives(search, best, others)))
        search.apply(best)
    return chosen


def left_hot(before: PlacementState, search: Search, host: int, *, bounded: bool) -> tuple[Refusal, ...]:
    """Refusals about a host that called for relief, none if the plan relieves it."""
    state, name = search.state, before.hosts[host].name
    if not search.objective.counted[host]:
        code, reason = _out_of_reach(state, host)
        return (about_host(code, name, f"{pressure(state, host)}; nothing is moved off it: {reason}"),)
    hot = state.above_headroom(host) or search.objective.waits(host)
    if hot and bounded:
        bounds = f"{state.settings.max_moves} moves or {state.settings.work_budget} evaluations"
        return (
            about_host(Code.CLUSTER_CAP, name, f"{pressure(state, host)}; left to the next plan: one holds {bounds}"),
        )
    if hot:
        return why_still_hot(search, host)
    if before.above_headroom(host) or (search.objective.felt is not None and search.objective.felt.on(host)):
        return ()
    leaving = [v for v in sorted(state.flying) if state.vms[v].host == name]
    under_way = listed(shown(state.vms[v].name) for v in leaving)
    reason = f"{under_way} on the move already" if leaving else "no demand above headroom that a move could relieve"
    detail = f"{pressure(state, host)}{contention(state, host)}; {reason}"
    return (about_host(Code.GAIN_TOO_SMALL, name, detail),)


def _out_of_reach(state: PlacementState, host: int) -> tuple[Code, str]:
    """Why a hot host is neither measured against the objective nor relieved."""
    facts = state.hosts[host]
    if not facts.usable:
        return Code.HOST_STALE, shown(facts.unusable or "its facts are unknown")
    if facts.mode is HostMode.OBSERVE:
        return Code.HOST_MODE, "its mode is observe"
    return Code.HOST_LOAD_UNKNOWN, "its capacity is unknown or zero"


def _why_nothing(state: PlacementState, refusals: Sequence[Refusal]) -> str:
    """One sentence for a plan that leaves hot hosts as they are."""
    if len(state.hot) == len(state.hosts):
        headroom = percent(state.settings.cpu_headroom)
        return f"All {len(state.hosts)} hosts are hotspots (CPU headroom {headroom}); there is nowhere to move anything"
    told = [r.detail for r in refusals if r.kind is SubjectKind.HOST]
    return f"Nothing is moved: {listed(told, 2)}" if told else f"Nothing is moved: {hottest(state)}"


def _why_move(search: Search, candidate: Candidate) -> str:
    """What a move relieves, when, and what it costs."""
    state = search.state
    host = min(candidate.unit.sources)
    names = listed(shown(state.vms[v].name) for v in candidate.unit.vms)
    payback = "" if candidate.payback_seconds is None else f", pays back after {span(candidate.payback_seconds)}"
    return (
        f"{pressure(state, host)}; moving {names} to {shown(state.hosts[candidate.destination].name)} relieves "
        f"{candidate.relief:.0f} core-s of {search.objective.unmet[host]:.0f} unmet, costs {candidate.cost:.0f}{payback}"
        f"{unusual_options(state, candidate.unit.vms, candidate.destination)}"
    )


def _why(before: PlacementState, steps: Sequence[Step], after: Search) -> str:
    """One sentence for the whole plan: the trouble, the moves, what is left."""
    if not steps:
        return "Nothing is moved: no step of the plan can be started"
    hosts = sorted({before.host_index[s.move.source] for s in steps})
    moves = listed(f"{shown(s.move.vm_name)} to {shown(s.move.destination)}" for s in steps)
    left = listed(pressure(after.state, h) for h in hosts)
    return f"{listed(pressure(before, h) for h in hosts)}; moving {moves}; then {left}"
