"""A descent on `Deviations` within a number of moves, and then each move judged again in the light of those after it.

Steepest descent cannot know what its first moves will be worth once the last are made. So each VM that the first
half of the moves moved is put back in turn, and the best move from there is taken instead if the score ends lower (an exchange neighbourhood; the same
number of moves). Deterministic; bounded by passes and by the field's work budget.
"""

from collections.abc import Sequence

from rebalancerd.plan.demand import Indices
from rebalancerd.plan.descent import Descent
from rebalancerd.plan.deviations import LEAST_GAIN, Deviations

PASSES = 1


def descend(field: Deviations, moves: int, passes: int = PASSES) -> list[tuple[int, int]]:
    """At most that many moves (VM, host) that can be made in this order, and the field with them made.

    No VM is moved twice by what exchange leaves; where its moves would not fit one after the other in any order that is
    found, those of the plain descent stand.
    """
    start = field.place.copy()
    plain: list[tuple[int, int]] = []
    descent = iter(Descent(field))
    while len(plain) < moves and (offer := next(descent, None)) is not None:
        assert offer.best is not None
        field.apply(offer.best.vm, offer.best.destination)
        plain.append((offer.best.vm, offer.best.destination))
    greedy, score = field.place.copy(), field.score()
    early = [vm for vm, _ in plain[: (len(plain) + 1) // 2]]
    for _ in range(passes):
        if not _exchange(field, start, moves, early):
            break
    if field.score() < score - LEAST_GAIN:
        found = _sequence(field, start)
        if found is not None:
            return found
    _return_to(field, greedy)
    return plain


def _moved(field: Deviations, start: Indices) -> list[int]:
    return [int(v) for v in (field.place != start).nonzero()[0]]


def _exchange(field: Deviations, start: Indices, moves: int, early: Sequence[int]) -> bool:
    """One pass over those of the VMs that are moved; whether the score fell."""
    better = False
    for vm in early:
        host = int(field.place[vm])
        if field.exhausted or host == start[vm]:
            continue
        score = field.score()
        field.apply(vm, int(start[vm]))
        scores = field.scores()
        instead, target = divmod(int(scores.argmin()), field.hosts)
        if float(scores[instead, target]) < score - LEAST_GAIN:
            field.apply(instead, target)
            better = True
        else:
            field.apply(vm, host)
    while len(_moved(field, start)) < moves and not field.exhausted:
        offer = field.look((0,), 0)[0]
        if offer.best is None:
            break
        field.apply(offer.best.vm, offer.best.destination)
        better = True
    return better


def _sequence(field: Deviations, start: Indices) -> list[tuple[int, int]] | None:
    """The moves from ``start`` to the field's placement, each of which fits when its turn comes; None if none is found."""
    end = field.place.copy()
    _return_to(field, start)
    waiting, done = [int(v) for v in (end != start).nonzero()[0]], list[tuple[int, int]]()
    while waiting:
        ready = [v for v in waiting if field.fits(v, int(end[v]))]
        if not ready:
            _return_to(field, end)
            return None
        vm = ready[0]
        field.apply(vm, int(end[vm]))
        done.append((vm, int(end[vm])))
        waiting.remove(vm)
    return done


def _return_to(field: Deviations, place: Indices) -> None:
    for vm in (field.place != place).nonzero()[0]:
        field.apply(int(vm), int(place[vm]))
