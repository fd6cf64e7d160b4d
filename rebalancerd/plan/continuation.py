"""What is left of the plan under way, judged anew beside a plan made from scratch.

A plan is made anew in every cycle. From the middle of one, greedy rounds may well end elsewhere, and worse: they no longer
see where it was going. So its open moves are tried as they are; the plan from scratch replaces them only if it is as good.
The plan was worth it when it was made: of what is left of it only a gain is asked.
"""

from rebalancerd.plan.bundle import Bundle, Shift, tried
from rebalancerd.plan.improve import Improvement, improve
from rebalancerd.plan.parking import second_leg
from rebalancerd.plan.relief import NOTHING, unready
from rebalancerd.plan.search import Search
from rebalancerd.plan.state import PlacementState


def continued(state: PlacementState) -> Improvement | None:
    """The open moves that are still possible, and what can be added to them; None if nothing of them is worth it."""
    search = Search(state.copy())
    work = Improvement(search, [])
    bundle = _open_moves(search)
    if bundle is None or bundle.lead.gain <= NOTHING or work.refused(bundle) or not work.fits(bundle):
        return None
    work.take(bundle)
    return improve(search, (), work)


def better(one: Improvement, other: Improvement) -> bool:
    """Whether one ends with a lower score than the other, by more than rounding, the costs of the moves included."""
    return one.total < other.total - 1e-6 * max(1.0, abs(other.total))


def _open_moves(search: Search) -> Bundle | None:
    """What is left of the plan as one bundle, without the moves that have become impossible."""
    shifts = _open_shifts(search)
    while shifts:
        bundle = tried(search, shifts)
        if bundle is not None:
            return bundle
        alone = [s for s in shifts if tried(search, [s]) is not None]
        shifts = alone if len(alone) < len(shifts) else shifts[:-1]
    return None


def _open_shifts(search: Search) -> list[Shift]:
    """The open moves in their order, groups together; the second leg of a VM that goes by way of a parking host as one."""
    state, shifts = search.state, []
    ends = [
        (state.vm_index[uuid], state.host_index[name])
        for uuid, name in state.inputs.underway
        if uuid in state.vm_index and name in state.host_index
    ]
    parked: dict[int, int] = {}
    for v, host in ends:
        if v in parked:
            leg = second_leg(search, v, parked[v], host)
            shifts += [] if leg is None else [Shift((v,), host, leg)]
        elif int(state.place[v]) != host and not any(v in s.vms for s in shifts):
            unit = state.groups.unit(v, [w for w, h in ends if h == host and state.place[w] == state.place[v]])
            if unready(state, unit) is None:
                shifts.append(Shift(unit, host))
                parked.update({v: host} if len(unit) == 1 else {})
    return shifts
