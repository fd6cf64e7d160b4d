"""From chosen candidates to a Plan: order, scores before and after, gain and payback per move, facts, expiry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rebalancerd.cluster.known import migration_facts
from rebalancerd.cluster.plan import Alternative, Move, Plan, Score, Step
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.plan.aggregate import grouped
from rebalancerd.plan.aggressiveness import told
from rebalancerd.plan.facts import move_facts
from rebalancerd.plan.order import Placed, order
from rebalancerd.plan.price import cost_core_seconds, price
from rebalancerd.plan.search import Candidate, Search
from rebalancerd.plan.standing import CONSOLIDATE, saving_seconds
from rebalancerd.plan.state import PlacementState, triggers


@dataclass(frozen=True, slots=True)
class Chosen:
    """A candidate that was taken, why, and what else was looked at.

    ``bundle``: it gains only together with those of the same number.
    """

    candidate: Candidate
    why: str
    alternatives: tuple[Alternative, ...] = ()
    bundle: int | None = None


@dataclass(frozen=True, slots=True)
class Worth:
    """What one VM's move brings: its share of the total score, in core-seconds, and the unit's payback."""

    gain: float
    payback_seconds: float | None


def propose(
    state: PlacementState,
    policy: str,
    chosen: Sequence[Chosen],
    refusals: Sequence[Refusal],
    explain: Callable[[Sequence[Step], Search], str],
    *,
    in_sequence: bool = False,
    emptied: frozenset[int] = frozenset(),
) -> Plan:
    """Order what was chosen and write it down. ``state`` is the placement of the snapshot, unchanged.

    ``in_sequence``: no move overtakes another; ``emptied``: hosts that the moves empty, or begin to.
    """
    placed = [
        Placed(v, c.candidate.destination, unit, c.bundle)
        for unit, c in enumerate(chosen)
        for v in c.candidate.unit.vms
    ]
    ordered = order(state, placed, in_sequence=in_sequence)
    kept = [(p, chosen[p.unit]) for i, p in enumerate(placed) if i not in ordered.dropped]
    before = Search(state.copy()).objective.score()
    search = Search(state.copy())
    search.objective.emptied = emptied
    worths = _worths(search, {p.unit: c for p, c in kept})
    steps = tuple(
        Step(
            number=number,
            wave=wave,
            move=_move(state, placed[i], chosen[placed[i].unit], worths[placed[i].unit, placed[i].vm]),
        )
        for number, (wave, i) in enumerate(
            ((w, i) for w, wave_moves in enumerate(ordered.waves, start=1) for i in wave_moves), start=1
        )
    )
    after = search.objective.score(sum(_cost(state, p.vm, c) for p, c in kept))
    inputs = state.inputs
    benefit = before.total - after.total + inputs.settings.weight_cost * after.cost
    return Plan(
        id=inputs.plan_id,
        policy=policy,
        created_at=inputs.snapshot.taken_at,
        expires_at=inputs.snapshot.taken_at + inputs.settings.expiry_seconds,
        snapshot_digest=inputs.snapshot.digest,
        steps=steps,
        before=before,
        after=after,
        why=explain(steps, search),
        hot_hosts=tuple(state.hosts[h].name for h in sorted(state.hot)),
        refusals=grouped((*refusals, *ordered.dropped.values())),
        basis=inputs.scenarios.basis,
        benefit=benefit if steps else None,
        payback_seconds=_payback(state, steps, benefit, after.cost),
        level=told(inputs.settings),
    )


def nothing(state: PlacementState, policy: str, refusals: Sequence[Refusal], why: str) -> Plan:
    """The plan that says "do nothing", scored, with its reason."""
    return propose(state, policy, (), refusals, lambda _steps, _search: why)


def _payback(state: PlacementState, steps: Sequence[Step], benefit: float, cost: float) -> float | None:
    """Seconds from the plan's start until what it brings has repaid what it costs; None if it never does.

    Waves run one after another, each as long as its longest migration at its upper bound. What the moves bring is taken
    to come evenly over the period it was counted for: the horizon, or the part of the window that a sleep saves.
    """
    inputs = state.inputs
    period = saving_seconds(inputs) if inputs.policy_now == CONSOLIDATE else inputs.scenarios.horizon_seconds
    if not steps or benefit <= 0 or period <= 0:
        return None
    longest: dict[int, float] = {}
    for step in steps:
        longest[step.wave] = max(longest.get(step.wave, 0.0), step.move.cost.seconds.upper)
    return sum(longest.values()) + inputs.settings.weight_cost * cost * period / benefit


def _hot_in(state: PlacementState, host: str) -> float | None:
    """Seconds until a host is predicted to be hot; 0 if it is, None if nothing says that it will be."""
    found = [
        0.0 if spot.now > spot.headroom or spot.contention is not None else spot.lead_seconds
        for spot in triggers(state.inputs)
        if spot.host == host
    ]
    return min((lead for lead in found if lead is not None), default=None)


def _cost(state: PlacementState, vm: int, chosen: Chosen) -> float:
    """Core-seconds that the move of one VM of a choice costs."""
    cost = state.costs.priced(vm, chosen.candidate.destination).cost
    return cost_core_seconds(cost, float(state.demand.mean_cores[vm]))


def _worths(search: Search, kept: Mapping[int, Chosen]) -> dict[tuple[int, int], Worth]:
    """Apply the kept units in the sequence they were found; the gains of all moves add up to the plan's.

    By (unit, VM).
    """
    state, weight = search.state, search.state.settings.weight_cost
    found: dict[tuple[int, int], Worth] = {}
    for unit, item in sorted(kept.items()):
        candidate = item.candidate
        for v in candidate.unit.vms:
            was: Score = search.objective.score()
            source = int(state.place[v])
            state.apply(v, candidate.destination)
            search.objective.touch((source, candidate.destination))
            gain = was.total - search.objective.score().total - weight * _cost(state, v, item)
            found[unit, v] = Worth(gain, candidate.payback_seconds)
    return found


def _move(state: PlacementState, placed: Placed, chosen: Chosen, worth: Worth) -> Move:
    vm, host = state.vms[placed.vm], state.hosts[placed.destination]
    priced = state.costs.priced(placed.vm, placed.destination)
    return Move(
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        source=vm.host,
        destination=host.name,
        why=chosen.why,
        cost=priced.cost,
        options=priced.candidate.options,
        gain=worth.gain,
        payback_seconds=worth.payback_seconds,
        alternatives=chosen.alternatives,
        facts=move_facts(state.snapshot, vm.uuid, host.name),
        known=migration_facts(state.snapshot, priced.candidate),
        price=price(priced.cost, float(state.demand.mean_cores[placed.vm])),
        hot_in_seconds=_hot_in(state, vm.host),
    )
