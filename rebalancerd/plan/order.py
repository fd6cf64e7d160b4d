"""Step order: waves of moves that may run together, every intermediate state within the hard constraints.

While a wave runs, each of its VMs counts on both ends: memory, CPU and anti-affinity. Members of an affinity group are
necessarily apart while the group is on its way; the plan as a whole brings all of them or none. Steps that can never
start are dropped with the reason, and so is what depended on them. A VM may move twice, by way of a parking host: its
second leg waits for the end of the first.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.constraints import first
from rebalancerd.plan.rules_place import HARD_IN_FLIGHT
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import shown


@dataclass(frozen=True, slots=True)
class Placed:
    """A move to be ordered. ``unit``: moves of the same unit stand or fall together, and so do those of one ``bundle``."""

    vm: int
    destination: int
    unit: int
    bundle: int | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """``waves``: positions in the given sequence, in their order. ``dropped``: position to its refusal."""

    waves: tuple[tuple[int, ...], ...]
    dropped: dict[int, Refusal]


def order(state: PlacementState, moves: Sequence[Placed], *, in_sequence: bool = False) -> Ordered:
    """Order moves that start from the placement of the state's snapshot.

    Lower priority goes first and moves may overtake each other to fill waves; if that leaves a move without a place, the
    given sequence is kept. ``in_sequence``: it is kept in any case, and a move waits for every one before it to start.
    Deterministic.
    """
    if in_sequence:
        return _whole_units(state, moves, list(range(len(moves))), overtake=False)
    urgency = {m.unit: 0 for m in moves}
    for m in moves:
        urgency[m.unit] = max(urgency[m.unit], state.vms[m.vm].policy.priority)
    by_priority = sorted(range(len(moves)), key=lambda i: urgency[moves[i].unit])
    free = _whole_units(state, moves, by_priority, overtake=True)
    if not free.dropped:
        return free
    strict = _whole_units(state, moves, list(range(len(moves))), overtake=False)
    return strict if len(strict.dropped) < len(free.dropped) else free


def _whole_units(state: PlacementState, moves: Sequence[Placed], sequence: Sequence[int], *, overtake: bool) -> Ordered:
    """Pack until no unit is left half-moved: a unit with a dropped member is taken out and the rest packed anew."""
    dropped: dict[int, Refusal] = {}
    while True:
        found = _pack(state, moves, [i for i in sequence if i not in dropped], overtake=overtake)
        if not found.dropped:
            return Ordered(found.waves, dropped)
        lost = {_bond(moves[i]): found.dropped[i] for i in sorted(found.dropped, reverse=True)}
        waiting = {bond: sorted(i for i in found.dropped if _bond(moves[i]) == bond) for bond in lost}
        for i in sequence:
            bond = _bond(moves[i])
            if i not in dropped and bond in lost:
                own = found.dropped.get(i)
                dropped[i] = _why_dropped(state, moves[i], own, lost[bond], [moves[j] for j in waiting[bond]])


def _bond(move: Placed) -> tuple[bool, int]:
    """What stands or falls together with the move."""
    return (False, move.unit) if move.bundle is None else (True, move.bundle)


def _why_dropped(
    state: PlacementState, move: Placed, own: Refusal | None, cause: Refusal, waiting: Sequence[Placed]
) -> Refusal:
    """Its own refusal; for a member of a group or bundle that could have gone, that of what keeps it.

    ``waiting``: the moves of its bundle that could not start; where there are more than one, each waits for another.
    """
    ask = Ask(state, move.vm, move.destination, (move.vm,))
    if move.bundle is not None:
        return ask.refuse(cause.code, _stuck(state, waiting, cause))
    return own or ask.refuse(Code.AFFINITY, f"its group cannot move as a whole: {cause.detail}")


def _stuck(state: PlacementState, waiting: Sequence[Placed], cause: Refusal) -> str:
    if len(waiting) < 2:
        return f"it moves only together with others: {cause.detail}"
    ways = " and ".join(
        f"{shown(state.vms[m.vm].name)} ({shown(state.vms[m.vm].host)} to {shown(state.hosts[m.destination].name)})"
        for m in waiting
    )
    return f"a cycle: {ways} wait for each other, and no third host can take one of them meanwhile, or not for what it gains; {cause.detail}"


def _pack(state: PlacementState, moves: Sequence[Placed], sequence: Sequence[int], *, overtake: bool) -> Ordered:
    """One pass: fill a wave from the front, finish it, go on; whatever can never start is dropped."""
    scratch = state.copy()
    waiting, waves, dropped = list(sequence), [], {}
    while waiting:
        wave, refusals = _fill(scratch, moves, waiting, overtake=overtake)
        for i in wave:
            scratch.finish(moves[i].vm)
        if wave:
            waves.append(tuple(wave))
            waiting = [i for i in waiting if i not in wave]
        else:  # nothing runs, so nothing will change: what could not start now never can
            dropped.update(refusals)
            waiting = [i for i in waiting if i not in refusals]
    return Ordered(tuple(waves), dropped)


def _fill(
    scratch: PlacementState, moves: Sequence[Placed], waiting: Sequence[int], *, overtake: bool
) -> tuple[list[int], dict[int, Refusal]]:
    """Start what may start beside what this wave has started already; without overtaking, stop at the first that may not."""
    wave: list[int] = []
    refusals: dict[int, Refusal] = {}
    leaving: Counter[int] = Counter()
    arriving: Counter[int] = Counter()
    under_way: set[int] = set()
    for i in waiting:
        move = moves[i]
        ask = Ask(scratch, move.vm, move.destination, (move.vm,))
        source = int(scratch.place[move.vm])
        if move.vm in under_way:
            refusal: Refusal | None = ask.refuse(Code.VM_BUSY, "the first leg of its way comes first")
        else:
            refusal = _over_cap(ask, len(wave), leaving[source], arriving[move.destination])
            refusal = refusal or first(HARD_IN_FLIGHT, ask)
        under_way.add(move.vm)
        if refusal is None:
            scratch.begin(move.vm, move.destination)
            wave.append(i)
            leaving[source] += 1
            arriving[move.destination] += 1
        else:
            refusals[i] = refusal
            if not overtake or refusal.code is Code.CLUSTER_CAP:
                break
    return wave, refusals


def _over_cap(ask: Ask, running: int, out: int, into: int) -> Refusal | None:
    settings = ask.state.settings
    if running >= settings.per_cluster:
        return ask.refuse(Code.CLUSTER_CAP, f"at most {settings.per_cluster} migrations at once in the cluster")
    if out >= settings.out_per_host or into >= settings.in_per_host:
        return ask.refuse(
            Code.HOST_CAP, f"at most {settings.out_per_host} out of and {settings.in_per_host} into a host at once"
        )
    return None
