"""What is left of the plan under way, judged anew beside a plan made from scratch.

A plan is made anew in every cycle. From the middle of one, greedy rounds may well end elsewhere, and worse: they no longer
see where it was going. So its open moves are tried as they are; the plan from scratch replaces them only if it is as good.
"""

from rebalancerd.plan.bundle import Bundle, Shift, tried, worthwhile
from rebalancerd.plan.improve import Improvement, improve
from rebalancerd.plan.relief import unready
from rebalancerd.plan.search import Search
from rebalancerd.plan.state import PlacementState


def continued(state: PlacementState) -> Improvement | None:
    """The open moves that are still possible, and what can be added to them; None if nothing of them is worth it."""
    search = Search(state.copy())
    work = Improvement(search, [])
    bundle = _open_moves(search)
    if bundle is None or not worthwhile(search, bundle) or work.refused(bundle) or not work.fits(bundle):
        return None
    work.take(bundle)
    return improve(search, (), work)


def better(one: Improvement, other: Improvement) -> bool:
    """Whether one ends with a lower score than the other, by more than rounding, the costs of the moves included."""
    return one.total < other.total - 1e-6 * max(1.0, abs(other.total))


def _open_moves(search: Search) -> Bundle | None:
    """What is left of the plan as one bundle, without the moves that have become impossible."""
    state = search.state
    going = {state.vm_index[uuid]: host for uuid, host in state.inputs.underway if uuid in state.vm_index}
    shifts: list[Shift] = []
    for v, name in going.items():
        host = state.host_index.get(name, -1)
        if host < 0 or int(state.place[v]) == host or any(v in s.vms for s in shifts):
            continue
        unit = state.groups.unit(v, [w for w, n in going.items() if n == name and state.place[w] == state.place[v]])
        if unready(state, unit) is None:
            shifts.append(Shift(unit, host))
    while shifts:
        bundle = tried(search, shifts)
        if bundle is not None:
            return bundle
        alone = [s for s in shifts if tried(search, [s]) is not None]
        shifts = alone if len(alone) < len(shifts) else shifts[:-1]
    return None
