"""What keeps a host on although its VMs would fit elsewhere: those that stay on must do without it, whatever happens.

A host that is empty, or emptied, is about to sleep or asleep, so it is no room for anybody. One that cannot be put to
sleep stays on and is. Held against what stays on: the limits by which hosts are powered off (else a host would be emptied
that must stay on), and N+1 where it is asked for: whichever of them dies, its VMs find room on the others.
"""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

from rebalancerd.cluster.power import PowerLimits
from rebalancerd.cluster.refusal import Code, Refusal, about_cluster
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.n_plus_one import SLACK, SpareRoom, spare_room
from rebalancerd.plan.power import demand_of, lacking, supply_of
from rebalancerd.plan.state import PlacementState

Reserve = Callable[[PlacementState, Sequence[int]], Refusal | None]


def can_never_sleep(refusal: Refusal | None) -> bool:
    """Whether a host stays on for that reason. One that was never tested is tested as soon as it is empty."""
    return refusal is not None and refusal.code is not Code.POWER_UNTESTED


def stays_awake(state: PlacementState) -> frozenset[int]:
    """Usable hosts that cannot be put to sleep, empty or not."""
    told = state.inputs.no_sleep
    return frozenset(h for h, host in enumerate(state.hosts) if host.usable and can_never_sleep(told.get(host.name)))


def reserves_of(state: PlacementState) -> tuple[Reserve, ...]:
    """What the inputs ask for, held against each host that would be emptied. ``state``: before any is."""
    found: list[Reserve] = []
    if state.inputs.power is not None:
        found.append(_demand(state, state.inputs.power))
    if (spare := spare_room(state)) is not None:
        spare.follow(state)
        found.append(NPlusOneReserve(spare, stays_awake(state)))
    return tuple(found)


def _demand(start: PlacementState, limits: PowerLimits) -> Reserve:
    demand = demand_of(start.inputs.scenarios, start.snapshot, limits.quantile)
    awake, horizon = stays_awake(start), start.inputs.scenarios.horizon_seconds

    def reserve(state: PlacementState, on: Sequence[int]) -> Refusal | None:
        hosts = (state.hosts[h] for h in sorted(awake.union(on)))
        carried = [(h.capacity_cores or 0.0, float(h.capacity_memory_bytes or 0)) for h in hosts if h.usable]
        supply = supply_of(carried, limits.spare_hosts)
        need = lacking(demand, supply, limits, horizon)
        if need is None:
            return None
        code = Code.HOSTS_ON_MIN if supply.hosts < limits.hosts_on_min else Code.NEEDED_FOR_DEMAND
        return about_cluster(code, f"without it {need}")

    return reserve


class NPlusOneReserve:
    """Ways out among the hosts that stay on, followed from one emptied host to the next.

    A host that could not die as it was, with every host on, may not lose more; any other must keep its way out.
    """

    def __init__(self, spare: SpareRoom, awake: frozenset[int] = frozenset()) -> None:
        """``spare``: as it is with every host on; ``awake``: hosts that stay on whatever is asked."""
        self._before = [way.short for way in spare.ways]
        self._awake = awake
        self._kept = spare.copy()

    def __call__(self, state: PlacementState, on: Sequence[int]) -> Refusal | None:
        """Why those hosts alone would not be N+1."""
        closed = frozenset(range(len(state.hosts))).difference(on, self._awake)
        room = self._room(state, closed)
        for h, way in enumerate(room.ways):
            if way.short > self._before[h] * (1 + SLACK):
                return about_cluster(Code.N_PLUS_ONE, room.told(state, h, way, self._before[h]))
        self._kept = room
        return None

    def _room(self, state: PlacementState, closed: Iterable[int]) -> SpareRoom:
        closed, start = frozenset(closed), spare_room(state)
        assert start is not None
        # a host that was given up after all is open again: begun anew
        room = (self._kept if self._kept.closed <= closed else start).copy()
        room.follow(state)
        room.close(state, closed)
        return room


def without_asleep(inputs: PlanInputs) -> Callable[[AbstractSet[str]], Refusal | None] | None:
    """Asked with the names of the hosts that stay on: why those alone would not be N+1. None where it is not asked for."""
    state = PlacementState(inputs)
    if (spare := spare_room(state)) is None:
        return None
    reserve = NPlusOneReserve(spare)
    return lambda on: reserve(state, [h for h, host in enumerate(state.hosts) if host.name in on])
