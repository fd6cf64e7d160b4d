"""N+1: any one host may die, and the others have room for its VMs.

For every host a way out is kept: where each VM that stands on it would go. It is found by fitting the largest first,
each where most is free, and if that leaves some over, each where it fits most tightly. What is found is a real fit, so a
host is never called safe wrongly; a host that only a cleverer packing could save is called unsafe. A move changes the
room of few hosts, so only the ways out that lead there are looked at again.

A VM goes where the rules leave it (CPU, storage, networks, pins, modes, groups), whatever a migration would cost: it is
started anew. One that no other host may run whatever its room is left out, for no spare capacity could save it. Copies
count where they will end. CPU, where asked for, is the sum of the VMs' own peaks, never less than what they ask for.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.admission import Admission, Mask
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.figures import FIRST_POOL, GRANTED
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import cores, shown, size

OFF, MEMORY, MEMORY_AND_CPU = "off", "memory", "memory_and_cpu"
SLACK = 1e-9
Block = tuple[int, ...]  # VMs that must be started on one host


@dataclass(frozen=True, slots=True)
class WayOut:
    """Where the VMs of a dead host go: block to host; ``taken``: (R,) by host. ``left``: blocks that fit nowhere."""

    goes: dict[Block, int]
    taken: dict[int, Floats]
    left: tuple[Block, ...]
    short: float  # bytes granted to what is left over, at least 1 if anything is


NOTHING: tuple[dict[int, int], Floats, dict[int, WayOut]] = ({}, np.zeros((0, 0)), {})


class SpareRoom:
    """Ways out of every host for one placement. Shapes: ``need`` (R, V), ``room`` (R, H); rows are resources.

    Rows: bytes granted, bytes used at most, vCPUs and huge pages where they are limited, and CPU where it is asked for.
    """

    def __init__(self, state: PlacementState, *, with_cpu: bool) -> None:
        figures = state.figures
        self._with_cpu = with_cpu
        self._admission = Admission(state)
        self._masks: dict[int, Mask] = {}
        self._home = np.array([state.host_index[vm.host] for vm in state.vms], dtype=np.intp)
        self.place = self._places(state)
        rows = [figures.need, state.demand.hard_memory[None, :]]
        limits = [figures.limit, state.capacity_memory[None, :]]
        if with_cpu:
            rows.append(state.demand.cpu.max(axis=1, initial=0).astype(np.float64)[None, :])
            limits.append(state.capacity_cpu[None, :])
        self.need: Floats = np.vstack(rows)
        self._hard, self._cpu = len(figures.need), len(figures.need) + 1
        self.room: Floats = np.vstack(limits) - self._held(state)
        self.members: list[set[int]] = [set() for _ in state.hosts]
        for v in np.flatnonzero(state.demand.active):
            self.members[int(self.place[v])].add(int(v))
        total = np.nansum(np.where(np.isfinite(self.room), np.maximum(self.room, 0.0), 0.0), axis=1)
        self._scale = 1.0 / np.maximum(total, 1.0)
        self.ways = [self._way_out(state, h, self.room, self.members[h]) for h in range(len(state.hosts))]
        self._last = NOTHING
        self.closed: frozenset[int] = frozenset()
        self.worst = max((way.short for way in self.ways), default=0.0)

    def copy(self) -> "SpareRoom":
        """The same ways out, for a placement of its own."""
        made = object.__new__(SpareRoom)
        made.__dict__.update(self.__dict__)
        made.place, made.room, made.ways = self.place.copy(), self.room.copy(), list(self.ways)
        made.members = [set(vms) for vms in self.members]
        return made

    def _places(self, state: PlacementState) -> Indices:
        """Where VMs stand or will stand; one whose destination nobody could name stays where it is."""
        places: Indices = np.where(state.place >= 0, state.place, self._home)
        return places

    def _held(self, state: PlacementState) -> Floats:
        held = np.zeros((len(self.need), len(state.hosts)))
        for row, need in enumerate(self.need):
            held[row] = np.bincount(self.place, weights=need, minlength=len(state.hosts))
            if FIRST_POOL <= row < self._hard:  # free pages are those that the snapshot's placement leaves
                held[row] -= np.bincount(self._home, weights=need, minlength=len(state.hosts))
        held[GRANTED] += state.figures.own
        held[self._hard] += state.figures.own
        if self._with_cpu:
            held[self._cpu] = state.settled_cpu.max(axis=1)
        return held

    def _may(self, state: PlacementState, vm: int) -> Mask:
        """Hosts that may run a VM, the one where the snapshot has it among them."""
        if vm not in self._masks:
            mask, home, policy = self._admission.of(vm).copy(), int(self._home[vm]), state.vms[vm].policy
            mask[home] = self._admission.receives[home] and (not policy.pin or state.vms[vm].host in policy.pin)
            self._masks[vm] = mask
        return self._masks[vm]

    def _mask(self, state: PlacementState, host: int, block: Block) -> Mask:
        """Where a block may be started when that host has died."""
        mask = self._may(state, block[0]).copy()
        for other in block[1:]:
            mask &= self._may(state, other)
        mask[host] = False
        return mask

    def _blocks(self, state: PlacementState, host: int, members: set[int]) -> list[tuple[Block, Mask]]:
        """What must be started anew and where it may be, largest first; what may be nowhere else is left out."""
        found: dict[Block, Mask] = {}
        for v in sorted(members):
            bound = state.groups.bound(v)
            block = tuple(sorted((v, *(m for m in bound if m in members)))) if bound else (v,)
            if block not in found and (mask := self._mask(state, host, block)).any():
                found[block] = mask
        weights = {block: float((self.need[:, list(block)].sum(axis=1) * self._scale).max()) for block in found}
        return sorted(found.items(), key=lambda row: (-weights[row[0]], row[0]))

    def _way_out(self, state: PlacementState, host: int, room: Floats, members: set[int]) -> WayOut:
        """The better of two ways of fitting, the first if it leaves nothing over."""
        blocks = self._blocks(state, host, members)
        first = self._fitted(state, blocks, room, tightly=False)
        if not first.left:
            return first
        second = self._fitted(state, blocks, room, tightly=True)
        return second if second.short < first.short else first

    def _fitted(
        self, state: PlacementState, blocks: Sequence[tuple[Block, Mask]], room: Floats, *, tightly: bool
    ) -> WayOut:
        """Fit blocks into that room in their order."""
        way = WayOut({}, {}, (), 0.0)
        return self._added(state, way, blocks, room.copy(), tightly=tightly)

    def _added(
        self,
        state: PlacementState,
        way: WayOut,
        blocks: Sequence[tuple[Block, Mask]],
        room: Floats,
        *,
        tightly: bool = False,
    ) -> WayOut:
        """A way out with more blocks; ``room`` is what it leaves and is changed."""
        goes, taken, left, short = dict(way.goes), dict(way.taken), list(way.left), way.short
        went = {v: h for block, h in goes.items() for v in block}
        for block, mask in blocks:
            need = self.need[:, block[0]] if len(block) == 1 else self.need[:, list(block)].sum(axis=1)
            open_to = mask & (room >= np.where(need > 0, need * (1 - SLACK), -np.inf)[:, None]).all(axis=0)
            self._keep_apart(state, block, open_to, went)
            hosts = np.flatnonzero(open_to)
            if not len(hosts):
                left.append(block)
                short += max(1.0, float(need[GRANTED]))
                continue
            free = room[GRANTED, hosts]
            host = int(hosts[free.argmin() if tightly else free.argmax()])
            room[:, host] -= need
            goes[block] = host
            taken[host] = taken[host] + need if host in taken else need
            went.update(dict.fromkeys(block, host))
        return WayOut(goes, taken, tuple(left), short)

    def _mended(
        self, state: PlacementState, host: int, room: Floats, gone: Iterable[int], come: Sequence[int]
    ) -> "WayOut | None":
        """The way out of a host with what left it and what came, and with a new place for what lost its own.

        None where that is not simple: with something left over already, or with what is bound together.
        """
        way = self.ways[host]
        if way.left or any(state.groups.bound(v) for v in (*gone, *come)):
            return None
        goes, taken = dict(way.goes), dict(way.taken)
        again: list[Block] = [(v,) for v in come]
        for v in gone:
            to = goes.pop((v,), None)
            if to is not None:
                taken[to] = taken[to] - self.need[:, v]
        full = {h for h, amount in taken.items() if ((amount * (1 - SLACK) > room[:, h]) & (amount > 0)).any()}
        for block in [b for b, h in goes.items() if h in full]:
            taken.pop(goes.pop(block), None)
            again.append(block)
        left_room = room.copy()
        for h, amount in taken.items():
            left_room[:, h] -= amount
        blocks = [(b, mask) for b in again if (mask := self._mask(state, host, b)).any()]
        mended = self._added(state, WayOut(goes, taken, (), 0.0), blocks, left_room)
        return None if mended.left else mended

    def _keep_apart(self, state: PlacementState, block: Block, open_to: Mask, went: dict[int, int]) -> None:
        """Close the hosts where a group has another member; one that has died stands where it went."""
        for v in block:
            for _, members in state.groups.apart(v):
                open_to[[went.get(m, int(self.place[m])) for m in members if m not in block]] = False
            others = [m for m in state.groups.on_its_cpus(v) if m not in block]
            open_to[[went.get(m, int(self.place[m])) for m in others]] = False

    def follow(self, state: PlacementState) -> None:
        """Take over what has moved since the last look."""
        now = self._places(state)
        moved = np.flatnonzero(now != self.place)
        if not len(moved):
            return
        moves = {int(v): int(now[v]) for v in moved}
        room, ways = self._last[1:] if self._last[0] == moves else self._trial(state, moves, settled=True)
        for v in moved[state.demand.active[moved]]:
            self.members[int(self.place[v])].discard(int(v))
            self.members[int(now[v])].add(int(v))
        for h in {int(h) for h in (*self.place[moved], *now[moved])}:
            self.room[:, h] = room[:, h]
            if self._with_cpu:
                self.room[self._cpu, h] = state.capacity_cpu[h] - float(state.settled_cpu[h].max())
        self.place = now
        for h, way in ways.items():
            self.ways[h] = way
        self._last = NOTHING

    def close(self, state: PlacementState, hosts: Iterable[int]) -> None:
        """Hosts that go to sleep: nothing finds room there any more, and ways out that led there are sought anew."""
        fresh = set(hosts) - self.closed
        if not fresh:
            return
        self.closed |= fresh
        self.room[:, sorted(fresh)] = -np.inf
        self._last = NOTHING
        for h in sorted(set(self._broken(self.room, fresh))):
            way = self._mended(state, h, self.room, (), ())
            self.ways[h] = way or self._way_out(state, h, self.room, self.members[h])

    def _trial(
        self, state: PlacementState, moves: dict[int, int], *, settled: bool = False
    ) -> tuple[Floats, dict[int, WayOut]]:
        """Room and the ways out that differ if those VMs stood elsewhere; ``settled``: in the state they do."""
        active = {v: to for v, to in moves.items() if state.demand.active[v]}
        room, gone, come = self.room.copy(), defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
        for v, to in active.items():
            here = int(self.place[v])
            room[:, here] += self.need[:, v]
            room[:, to] -= self.need[:, v]
            gone[here].append(v)
            come[to].append(v)
        if self._with_cpu:
            for h in gone.keys() | come.keys():
                load = state.settled_cpu[h]
                if not settled:
                    load = load - state.demand.cpu[gone[h]].sum(axis=0, dtype=np.float64)
                    load += state.demand.cpu[come[h]].sum(axis=0, dtype=np.float64)
                room[self._cpu, h] = state.capacity_cpu[h] - float(load.max())
        keep, self.place = self.place, self.place.copy()
        self.place[list(moves)] = list(moves.values())
        refit = set(self._of_their_groups(state, moves))
        again = gone.keys() | come.keys() | refit | set(self._broken(room, set(come)))
        ways = {}
        for h in sorted(again):
            way = None if h in refit else self._mended(state, h, room, gone.get(h, ()), come.get(h, ()))
            members = self.members[h].difference(gone.get(h, ())).union(come.get(h, ()))
            ways[h] = way or self._way_out(state, h, room, members)
        self.place = keep
        return room, ways

    def _of_their_groups(self, state: PlacementState, moves: Iterable[int]) -> Iterator[int]:
        """Hosts that have a member of a group of what moves, and so a way out that may lead beside it."""
        for v in moves:
            for _, members in state.groups.apart(v):
                yield from (int(self.place[m]) for m in members)
            yield from (int(self.place[m]) for m in state.groups.on_its_cpus(v))

    def _broken(self, room: Floats, grown: set[int]) -> Iterator[int]:
        """Hosts whose way out leads to where there is no longer room."""
        for h in grown:
            there = room[:, h]
            for f, way in enumerate(self.ways):
                taken = way.taken.get(h)
                if taken is not None and bool(((taken * (1 - SLACK) > there) & (taken > 0)).any()):
                    yield f

    def refuse(self, ask: Ask) -> Refusal | None:
        """Why a move would leave a host that could die without a way out, or worsen what is the worst already."""
        state = ask.state
        self.follow(state)
        moves = {v: ask.destination for v in ask.together if self.place[v] != ask.destination}
        room, ways = self._trial(state, moves)
        self._last = (moves, room, ways)
        for h, way in ways.items():
            before = self.ways[h].short
            if way.short > before * (1 + SLACK) and (not before or way.short > self.worst * (1 + SLACK)):
                return ask.refuse(Code.N_PLUS_ONE, self.told(state, h, way, before))
        return None

    def told(self, state: PlacementState, host: int, way: WayOut, before: float) -> str:
        """What a host's death would leave without room, in words; ``before``: bytes that it would have left."""
        left = [v for block in way.left for v in block]
        need = self.need[:, left].sum(axis=1)
        cpu = f" and {cores(need[self._cpu])}" if self._with_cpu else ""
        what = f"{len(left)} of its VMs ({size(need[GRANTED])}{cpu}) would find no room"
        change = f"now {size(before)}" if before else "now all do"
        return f"{shown(state.hosts[host].name)} could not die afterwards: {what} on the others ({change})"


def spare_room(state: PlacementState) -> SpareRoom | None:
    """Spare room of a state, made when first asked for and shared by its copies; None where it is not asked for."""
    if state.settings.n_plus_one == OFF:
        return None
    if state.spare is None:
        start = state.memo.get("spare room")
        if start is None:
            start = state.memo["spare room"] = SpareRoom(state, with_cpu=state.settings.n_plus_one == MEMORY_AND_CPU)
        state.spare = start.copy()
    found: SpareRoom = state.spare
    return found


def n_plus_one(ask: Ask) -> Refusal | None:
    """After the move any one host may still die, if it could before."""
    spare = spare_room(ask.state)
    return None if spare is None else spare.refuse(ask)
