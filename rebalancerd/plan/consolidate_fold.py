"""Folding: hosts are emptied one after another, each wholly or not at all, while it pays.

Which host first: one that is being emptied already, then one that is known to come back from sleep, the least efficient
(idle watts per core), the one with the least memory to copy (``consolidate_turn``). So a plan made half-way goes on with
the same host. One that cannot be put to sleep stays on, and is filled before all others. What does not fit directly is tried once
more by making room on a receiver (one VM of it moves on to another receiver).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.consolidate_fit import Receivers, lower_bound
from rebalancerd.plan.consolidate_reserve import Reserve, can_never_sleep, reserves_of, stays_awake
from rebalancerd.plan.consolidate_room import make_room
from rebalancerd.plan.consolidate_turn import turns, why_before
from rebalancerd.plan.constraints import COST, check_unit, first
from rebalancerd.plan.demand import Floats
from rebalancerd.plan.relief import unready
from rebalancerd.plan.search import Search, Unit
from rebalancerd.plan.standing import core_seconds, idle_watts, occupied, saving_seconds, watts_per_capacity
from rebalancerd.plan.state import PlacementState, Undo
from rebalancerd.plan.what_if import moved
from rebalancerd.plan.wording import cores, shown, size, span

ROOMS = 32  # units of one plan for which room is sought: it seldom helps and costs more than all the rest
FIRST = -2.0  # rank of receivers that stay on whatever is planned


@dataclass(frozen=True, slots=True)
class Placement:
    """A unit and where it goes; ``others``: receivers it would have fitted on as well, best first."""

    unit: Unit
    destination: int
    others: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Emptied:
    """A host that is emptied, and what that is worth. ``placements`` in the order in which they can be carried out.

    ``watts``: idle power saved; ``seconds``: predicted duration of its moves; ``cost``: of its moves, ``unmet``: added
    on the receivers, ``benefit``: energy saved, all in core-seconds; ``later``: moves left to the next plan. ``turn``:
    before which host it goes, and why.
    """

    host: int
    placements: tuple[Placement, ...]
    watts: float
    seconds: float
    cost: float
    unmet: float
    benefit: float
    payback_seconds: float
    later: int = 0
    turn: str = ""


class Fold:
    """One folding run on a search's state. ``stays``: per host that is not emptied, why."""

    def __init__(self, search: Search, fixed: frozenset[int], room: int, reserves: Sequence[Reserve] = ()) -> None:
        self.search, self.state, self.fixed, self.room = search, search.state, fixed, room
        self.settings, self.reserves = search.state.settings, reserves
        self.own_reserves = reserves_of(self.state)
        self.emptied: list[Emptied] = []
        self.stays: dict[int, Refusal] = {}
        self.moves = 0
        self.rooms = 0
        holding = occupied(self.state)
        self.watts = watts_per_capacity(self.state)
        open_to = holding & search.objective.counted
        open_to[list(self.state.shunned)] = False
        classes = np.unique(self.watts, return_inverse=True)[1].astype(np.float64)
        told = self.state.inputs.no_sleep
        proven = np.array([bool(told) and h.name not in told for h in self.state.hosts])
        self.receivers = Receivers(search, open_to, 2 * (classes + (classes.max(initial=0.0) + 1) * proven) + 1)
        self._prefer({int(self.state.place[v]) for v in fixed})
        self.receivers.rank[sorted(stays_awake(self.state))] = FIRST
        self.turn: dict[int, str] = {}
        self.holding = holding
        self.bound = max(self.settings.consolidate_hosts_min, lower_bound(self.state, self.receivers))
        self._unmet: Floats = search.objective.unmet.copy()

    def run(self) -> None:
        """Empty what can be emptied."""
        hosts = self._in_turn()
        for position, host in enumerate(hosts):
            ended = self._ended(host)
            if ended is not None:
                self.stays.update({h: replace(ended, subject=self._name(h)) for h in hosts[position:]})
                return
            found = self._try(host)
            if isinstance(found, Refusal):
                self.stays[host] = found
                self._prefer([host])
            else:
                self._take(found)

    def first_host(self) -> int | None:
        """The host that would be emptied first, None if none can be. The state is not fit for anything else afterwards."""
        self.room = len(self.state.vms)
        for host in self._in_turn():
            if self._ended(host) is not None:
                return None
            if isinstance(self._try(host), Emptied):
                return host
            self._prefer([host])
        return None

    @property
    def on(self) -> int:
        """Hosts that hold VMs."""
        return int(self.holding.sum())

    def _prefer(self, hosts: Iterable[int]) -> None:
        """Hosts that stay on for certain are filled before others that are as efficient."""
        rows = list(hosts)
        self.receivers.rank[rows] = 2 * (self.receivers.rank[rows] // 2)

    def _name(self, host: int) -> str:
        return self.state.hosts[host].name

    def _in_turn(self) -> list[int]:
        """Hosts that may be emptied, first choice first; the reason for every other that holds VMs is noted."""
        state, found = self.state, []
        received = {int(state.place[v]) for v in self.fixed}
        for host in (int(h) for h in np.flatnonzero(self.holding)):
            name, facts = self._name(host), state.hosts[host]
            if not self.search.objective.counted[host]:
                reason = facts.unusable or ("its mode is observe" if facts.mode is HostMode.OBSERVE else "its capacity")
                self.stays[host] = about_host(Code.HOST_STALE, name, f"{shown(name)} stays on: {shown(reason)}")
            elif name in state.inputs.drained:
                self.stays[host] = about_host(Code.HOST_MODE, name, f"{shown(name)} is being drained")
            elif host in received:
                self.stays[host] = self._needed(host)
            elif (awake := state.inputs.no_sleep.get(name)) is not None and can_never_sleep(awake):
                detail = f"{shown(name)} stays on, for it could not sleep: {awake.detail}"
                self.stays[host] = about_host(awake.code, name, detail)
            else:
                found.append(host)
        ordered = turns(state, found, self.watts)
        names = [shown(self._name(t.host)) for t in ordered]
        pairs = zip(ordered, ordered[1:], names[1:], strict=False)
        self.turn = {turn.host: why_before(turn, other, name) for turn, other, name in pairs}
        return [turn.host for turn in ordered]

    def _needed(self, host: int) -> Refusal:
        name = self._name(host)
        return about_host(Code.NEEDED, name, f"{shown(name)} stays on: this plan moves VMs to it")

    def _ended(self, host: int) -> Refusal | None:
        """Why no further host is emptied."""
        name = self._name(host)
        if self.on <= self.bound:
            least = self.settings.consolidate_hosts_min
            if self.on <= least:
                detail = f"at least {least} hosts stay on"
            else:
                detail = f"the demand needs at least {self.bound} hosts"
            code = Code.HOSTS_MIN if self.on <= least else Code.NEEDED
            return about_host(code, name, f"No further host is emptied: {detail}, {self.on} hold VMs")
        if self.receivers.evaluated >= self.settings.work_budget:
            detail = f"one plan is bounded to {self.settings.work_budget} evaluations"
            return about_host(Code.CLUSTER_CAP, name, f"No further host is emptied: {detail}")
        if self.moves >= self.room:
            return about_host(
                Code.CLUSTER_CAP, name, f"Left to the next plan: one holds {self.settings.max_moves} moves"
            )
        return None

    def _units(self, host: int) -> tuple[list[Unit], Refusal | None]:
        """What must leave, hardest to place first; or why something of it cannot."""
        state = self.state
        here = state.settled_on(host)
        found = []
        for vms in sorted({state.groups.unit(v, here) for v in here}):
            refusal = unready(state, vms)
            if refusal is not None:
                detail = f"{shown(self._name(host))} stays on, one of its {len(here)} VMs stays: {refusal.detail}"
                return [], about_host(refusal.code, self._name(host), detail)
            found.append(Unit.of(state, vms))
        cpu, memory = (
            self.receivers.limit_cpu.max(initial=0.0) or 1.0,
            self.receivers.limit_memory.max(initial=0.0) or 1.0,
        )

        def hardness(unit: Unit) -> float:
            return max(float(unit.cpu.max()) / cpu, unit.hard_memory / memory)

        return sorted(found, key=lambda unit: (-hardness(unit), unit.vms)), None

    def _try(self, host: int) -> Emptied | Refusal:
        """Empty one host; what was done is taken back where it cannot be or does not pay."""
        if host in {p.destination for e in self.emptied for p in e.placements}:
            return self._needed(host)
        units, refusal = self._units(host)
        if refusal is not None:
            return refusal
        was_open = bool(self.receivers.open_to[host])
        self.receivers.open_to[host] = False
        undos: list[Undo] = []
        found = self._emptied(host, units, undos)
        if isinstance(found, Refusal):
            self.receivers.undo(undos)
            self.receivers.open_to[host] = was_open
        return found

    def _emptied(self, host: int, units: Sequence[Unit], undos: list[Undo]) -> Emptied | Refusal:
        while True:
            placements = self._place(units, undos)
            if isinstance(placements, Unit):
                return self._nowhere(host, placements)
            vetoed = self._vetoed(placements)
            if not vetoed:
                break
            self.receivers.undo(undos)
            undos.clear()
            for v, hosts in vetoed.items():
                self.receivers.close(v, hosts)
        worth = self._worth(host, placements)
        if isinstance(worth, Refusal):
            return worth
        on = [int(h) for h in np.flatnonzero(self.holding) if h != host]
        for reserve in (*self.own_reserves, *self.reserves):
            if (refusal := reserve(self.state, on)) is not None:
                detail = f"{shown(self._name(host))} stays on: {refusal.detail}"
                return about_host(refusal.code, self._name(host), detail)
        return self._bounded(host, worth)

    def _place(self, units: Sequence[Unit], undos: list[Undo]) -> list[Placement] | Unit:
        """Place unit after unit, room made where there is none; the unit that fits nowhere if one does not."""
        found: list[Placement] = []
        for unit in units:
            fits = self.receivers.choose(unit)
            if not fits:
                made = self._make_room(unit, found)
                if made is None:
                    return unit
                aside, to, freed = made
                undos += self.receivers.apply(aside, to)
                found.append(Placement(aside, to))
                fits = [freed]
            undos += self.receivers.apply(unit, fits[0])
            found.append(Placement(unit, fits[0], tuple(fits[1:])))
        return found

    def _make_room(self, unit: Unit, found: Sequence[Placement]) -> tuple[Unit, int, int] | None:
        if self.rooms >= ROOMS:
            return None
        self.rooms += 1
        return make_room(self.receivers, unit, {v for p in found for v in p.unit.vms} | self._moved())

    def _moved(self) -> set[int]:
        return {v for e in self.emptied for p in e.placements for v in p.unit.vms} | self.fixed

    def _vetoed(self, placements: Sequence[Placement]) -> dict[int, list[int]]:
        """Of VMs against whose move a veto by predicted cost stands: every receiver against which one does."""
        costs = self.state.costs
        costs.fetch((v, p.destination) for p in placements for v in p.unit.vms)
        bad = sorted(v for p in placements for v in p.unit.vms if not costs.admissible(v, p.destination))
        asked = np.flatnonzero(self.receivers.open_to)
        here = {v: int(self.state.start.place[v]) for v in bad}
        costs.fetch((v, int(h)) for v in bad for h in asked if h != here[v])
        return {v: [int(h) for h in asked if h != here[v] and not costs.admissible(v, int(h))] for v in bad}

    def _nowhere(self, host: int, unit: Unit) -> Refusal:
        """Why a host keeps its VMs: the one that fits nowhere, and what it lacks."""
        state, name = self.state, self._name(host)
        for v in unit.vms:
            for h in self.receivers.closed_to(v)[:1]:
                if (refusal := first(COST, Ask(state, v, h, unit.vms))) is not None:
                    return about_host(refusal.code, name, f"{shown(name)} stays on: {refusal.detail}")
        open_to = [int(h) for h in np.flatnonzero(self.receivers.open_to) if h not in unit.sources]
        if open_to and not self.receivers.allowed(unit).any():
            refusal = check_unit(state, unit.vms, open_to[0])
            if refusal is not None:
                detail = f"{shown(name)} stays on: {refusal.detail}, so on all {len(open_to)} others"
                return about_host(
                    refusal.code, name, detail if len(open_to) > 1 else f"{shown(name)} stays on: {refusal.detail}"
                )
        guest, peak = state.vms[unit.vms[0]], float(state.demand.peak(unit.cpu, state.settings.quantile))
        bound = f" (with {len(unit.vms) - 1} bound to it)" if len(unit.vms) > 1 else ""
        detail = (
            f"{shown(name)} stays on: {shown(guest.name)}{bound}, {cores(peak)} and {size(unit.hard_memory)} at its peak, "
            f"fits nowhere: {self.receivers.why_nowhere(unit)}"
        )
        return about_host(Code.NO_DESTINATION, name, detail)

    def _worth(self, host: int, placements: Sequence[Placement]) -> Emptied | Refusal:
        """What emptying saves and costs; refused where it does not pay back in time."""
        state, settings, name = self.state, self.settings, self._name(host)
        quoted = [(v, state.costs.quote(v, p.destination)) for p in placements for v in p.unit.vms]
        cost = sum(q.core_seconds(float(state.demand.mean_cores[v])) for v, q in quoted)
        at_once = max(1, min(settings.out_per_host, settings.per_cluster))
        seconds = sum(q.seconds for _, q in quoted) / at_once
        rows = np.array(sorted({p.destination for p in placements} | {host}), dtype=np.intp)
        unmet_rows = self.search.objective.unmet_rows(state.settled_cpu[rows], state.settled_memory[rows], rows)
        unmet = float((unmet_rows - self._unmet[rows]).sum())
        watts = idle_watts(state.hosts[host], settings)
        left = saving_seconds(state.inputs) - seconds - sum(e.seconds for e in self.emptied)
        benefit = core_seconds(watts, max(0.0, left), settings)
        spent = settings.weight_cost * cost + settings.weight_unmet * unmet
        rate = core_seconds(watts, 1.0, settings)
        payback = seconds + settings.power_cycle_seconds + max(0.0, spent) / rate if rate > 0 else float("inf")
        limit = min(settings.payback_max_seconds, state.inputs.window_left_seconds)
        figures = f"saves {benefit:.0f} core-s in the window, costs {spent:.0f}"
        if benefit - spent <= 0 or benefit - spent < settings.min_gain * benefit:
            return about_host(Code.GAIN_TOO_SMALL, name, f"{shown(name)} stays on: emptying it {figures}")
        if payback > limit:
            detail = f"{shown(name)} stays on: emptying it pays back after {span(payback)}, limit {span(limit)}"
            return about_host(Code.PAYBACK_TOO_LONG, name, detail)
        turn = self.turn.get(host, "")
        return Emptied(host, tuple(placements), watts, seconds, cost, unmet, benefit, payback, turn=turn)

    def _bounded(self, host: int, found: Emptied) -> Emptied | Refusal:
        """Within the moves of one plan: the first host may be begun where more are needed, further ones only if they fit."""
        room = self.room - self.moves
        counts = np.cumsum([len(p.unit.vms) for p in found.placements])
        if counts[-1] <= room:
            return found
        begun = int(np.searchsorted(counts, room, side="right"))
        while begun and found.host not in found.placements[begun - 1].unit.sources:
            begun -= 1  # room made on a receiver, for what is not to move yet
        if self.moves == 0 and begun > 0 and self._goes_on(host, found.placements[:begun]):
            later = int(counts[-1] - counts[begun - 1])
            return replace(found, placements=found.placements[:begun], later=later)
        detail = (
            f"{shown(self._name(host))} is left to the next plan: it takes {counts[-1]} moves, {room} are left of this"
        )
        return about_host(Code.CLUSTER_CAP, self._name(host), detail)

    def _goes_on(self, host: int, placements: Sequence[Placement]) -> bool:
        """Whether planning anew after those moves would go on with that host: else plans could undo each other."""
        state, inputs = self.state, self.state.inputs
        to = {v: int(state.place[v]) for v in self.fixed} | {v: p.destination for p in placements for v in p.unit.vms}
        after = moved(inputs, {state.vms[v].uuid: self._name(h) for v, h in to.items()})
        again = Fold(Search(PlacementState(after)), frozenset(), 0, self.reserves)
        return again.first_host() == host

    def _take(self, found: Emptied) -> None:
        """Keep what was done. A host that is only begun leaves the rest of the plan as it would be when it is empty."""
        self.emptied.append(found)
        self.moves += sum(len(p.unit.vms) for p in found.placements)
        self.holding[found.host] = False
        self._prefer(p.destination for p in found.placements)
        rows = np.array(sorted({p.destination for p in found.placements} | {found.host}), dtype=np.intp)
        state = self.state
        self._unmet[rows] = self.search.objective.unmet_rows(state.settled_cpu[rows], state.settled_memory[rows], rows)
        if found.later:
            self.room = self.moves
