"""Candidates: which destination is best for a unit of VMs, evaluated in vectors and counted against the work budget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rebalancerd.plan import soft
from rebalancerd.plan.admission import Admission
from rebalancerd.plan.constraints import check_unit
from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.objective import Objective
from rebalancerd.plan.state import PlacementState

CHUNK = 16
RANKED = 2 * CHUNK  # destinations of a unit that are ranked, and tried for room, at once
KEPT = 4  # candidates of a unit that are told of: the best and those that may be named as alternatives
WIDE = 128  # hosts of a cluster that is small enough for all of them
KNOWN_SHARE = 0.75  # of those: what is missing beyond is asked for when it is needed
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Unit:
    """VMs that move to one destination in one go: one VM, or what affinity binds to it. Rows are their sums per source."""

    vms: tuple[int, ...]
    sources: dict[int, tuple[Floats, Floats]]
    cpu: Floats
    memory: Floats
    hard_memory: float

    @cached_property
    def least_cpu(self) -> float:
        """The least value of its CPU row."""
        return float(self.cpu.min())

    @cached_property
    def least_memory(self) -> float:
        """The least value of its memory row."""
        return float(self.memory.min())

    @classmethod
    def of(cls, state: PlacementState, vms: tuple[int, ...]) -> "Unit":
        """Sum up the rows of those VMs."""
        sources: dict[int, tuple[Floats, Floats]] = {}
        for v in vms:
            cpu, memory = state.demand.cpu[v].astype(np.float64), state.demand.memory[v].astype(np.float64)
            had = sources.get(int(state.place[v]))
            sources[int(state.place[v])] = (cpu, memory) if had is None else (had[0] + cpu, had[1] + memory)
        return cls(
            vms=vms,
            sources=sources,
            cpu=np.sum([rows[0] for rows in sources.values()], axis=0),
            memory=np.sum([rows[1] for rows in sources.values()], axis=0),
            hard_memory=float(state.demand.hard_memory[list(vms)].sum()),
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A unit and a destination, evaluated. Core-seconds; ``gain`` is what the total score would fall by."""

    unit: Unit
    destination: int
    relief: float
    imbalance_gain: float
    cost: float
    gain: float
    payback_seconds: float | None
    soft: float = 0.0  # what broken wishes count where destinations are compared; no part of the gain


Accept = Callable[[Candidate], bool]


class Search:
    """Evaluates candidates on a state. ``evaluated`` counts them; the search ends when the budget is used up.

    ``explained`` counts the pairs gone through afterwards to say why nothing more was done.
    """

    def __init__(self, state: PlacementState) -> None:
        self.state = state
        self.objective = Objective(state)
        self.evaluated = 0
        self.explained = 0
        self._units: dict[tuple[int, ...], Unit] = {}
        self._receivers = self.objective.counted.copy()
        self._receivers[list(state.shunned)] = False
        slack = 1 + TOLERANCE
        self._most_memory = state.capacity_memory * slack
        self._limits = self.objective.limit_cpu * slack, self.objective.limit_memory * slack

    @cached_property
    def admission(self) -> Admission:
        """Masks of what no placement changes."""
        return Admission(self.state)

    @cached_property
    def _peaks(self) -> tuple[Floats, Floats]:
        """Peak quantiles of the held CPU and memory of every host, kept up by ``apply``."""
        state = self.state
        loads = state.held_cpu, state.held_memory
        return state.demand.peak(loads[0], state.settings.quantile), state.demand.peak(
            loads[1], state.settings.quantile
        )

    @property
    def exhausted(self) -> bool:
        """Whether the work budget is used up."""
        return self.evaluated >= self.state.settings.work_budget

    def unit(self, vms: tuple[int, ...]) -> Unit:
        """`Unit.of` those VMs where they are now, remembered."""
        known = self._units.get(vms)
        if known is None or any(int(self.state.place[v]) not in known.sources for v in vms):
            known = self._units[vms] = Unit.of(self.state, vms)
        return known

    def least_cost(self, unit: Unit) -> float:
        """Core-seconds that moving a unit costs at least, of the destinations whose costs are known; 0 if none is."""
        state = self.state
        return sum(state.costs.least_core_seconds(v, float(state.demand.mean_cores[v])) for v in unit.vms)

    def relief_at_source(self, unit: Unit) -> float:
        """Core-seconds of unmet demand that vanish where the unit leaves: no destination can give more."""
        hosts = np.array([h for h in unit.sources if self.objective.counted[h]], dtype=np.intp)
        if not len(hosts):
            return 0.0
        cpu = self.state.settled_cpu[hosts] - np.array([unit.sources[int(h)][0] for h in hosts])
        memory = self.state.settled_memory[hosts] - np.array([unit.sources[int(h)][1] for h in hosts])
        return float((self.objective.unmet[hosts] - self.objective.unmet_rows(cpu, memory, hosts)).sum())

    def reliefs(self, host: int, vms: Sequence[int]) -> Floats:
        """`relief_at_source` of VMs of one host, each leaving alone: shape (N,)."""
        state, rows = self.state, list(vms)
        if not rows or not self.objective.counted[host]:
            return np.zeros(len(rows))
        cpu = state.settled_cpu[host] - state.demand.cpu[rows]
        memory = state.settled_memory[host] - state.demand.memory[rows]
        there = np.full(len(rows), host, dtype=np.intp)
        found: Floats = self.objective.unmet[host] - self.objective.unmet_rows(cpu, memory, there)
        return found

    def with_room(self, unit: Unit, most: int | None = None) -> tuple[Indices, Floats]:
        """Receivers that nothing unchanging and no group closes and no bound on their peaks rules out, with gains.

        Best imbalance gain first; the best ``most`` of them and their equals, if that is given. The bound: the peak of a
        sum is at least the peak of one part plus the least value of the other.
        """
        state, objective = self.state, self.objective
        open_to = self.admission.of_unit(unit.vms) & self._receivers
        open_to[list(unit.sources)] = False
        self.close_groups(unit, open_to)
        open_to &= state.hard_memory + unit.hard_memory <= self._most_memory
        open_to &= self._peaks[0] + unit.least_cpu <= self._limits[0]
        open_to &= self._peaks[1] + unit.least_memory <= self._limits[1]
        hosts = np.flatnonzero(open_to)
        hosts = hosts[state.figures.fits(unit.vms, hosts)]
        gains = objective.imbalance_gain(unit.sources, hosts)
        rank = -np.round(gains - soft.penalty(state, unit.vms, hosts), 6)
        if most is not None and len(hosts) > most:
            kept = np.flatnonzero(rank <= np.partition(rank, most - 1)[most - 1])
            hosts, gains, rank = hosts[kept], gains[kept], rank[kept]
        order = np.lexsort((hosts, rank))
        return hosts[order], gains[order]

    def close_groups(self, unit: Unit, open_to: NDArray[np.bool_]) -> None:
        """Close the hosts where anti-affinity has another member, and all but the one where affinity wants the unit."""
        state = self.state
        for vm in unit.vms:
            for _, members in state.groups.apart(vm):
                for member in members:
                    if member in unit.vms:
                        open_to[:] = False
                    open_to[list(state.presence[member])] = False
            for member in state.groups.on_its_cpus(vm):
                if member not in unit.vms:
                    open_to[list(state.presence[member])] = False
            for other in state.groups.bound(vm):
                if other not in unit.vms:
                    there = int(state.place[other])
                    kept = there >= 0 and bool(open_to[there])
                    open_to[:] = False
                    open_to[there] = kept

    def prefetch(self, units: Sequence[Unit]) -> None:
        """Ask for the costs that evaluating those units will need, in one call: every destination, or the likeliest of many."""
        pairs = [pair for unit in units for pair in self._pairs(unit, self.with_room(unit)[0])]
        if not self.state.costs.covers(pairs, KNOWN_SHARE):
            self.state.costs.fetch(pairs)

    def _pairs(self, unit: Unit, hosts: Indices) -> list[tuple[int, int]]:
        """What is asked for together: a call costs more than the candidates in it."""
        most = WIDE if len(self.state.hosts) <= WIDE else CHUNK
        return [(v, int(h)) for h in hosts[:most] for v in unit.vms]

    def evaluate(
        self, unit: Unit, accept: Accept, relief: float, give_up: Callable[[], bool] | None = None
    ) -> list[Candidate]:
        """The best ``KEPT`` admissible candidates of one unit, best first.

        Destinations are gone through in the order of the balance they leave, `RANKED` at a time; of those that have room
        the first chunk that has any admissible candidate is the last, or that after which ``give_up`` says so.
        """
        for hosts, gains in self._windows(unit):
            self.evaluated += len(hosts)
            fits = np.flatnonzero(np.isin(hosts, self._fitting(unit, hosts), assume_unique=True))
            for start in range(0, len(fits), CHUNK):
                chunk = fits[start : start + CHUNK]
                self._ask(unit, hosts[chunk], hosts[fits[start:]])
                found = self._accepted(unit, hosts[chunk], gains[chunk], accept, relief)
                if found or (give_up is not None and give_up()):
                    return found
            if self.exhausted:
                break
        return []

    def _windows(self, unit: Unit) -> Iterator[tuple[Indices, Floats]]:
        """Destinations with room and their gains, best first, in parts; only what is gone through is ranked."""
        hosts, gains = self.with_room(unit, RANKED)
        whole = len(hosts) < RANKED
        yield hosts[:RANKED], gains[:RANKED]
        if not whole:
            hosts, gains = self.with_room(unit)
            for start in range(RANKED, len(hosts), RANKED):
                yield hosts[start : start + RANKED], gains[start : start + RANKED]

    def _ask(self, unit: Unit, needed: Indices, likely: Indices) -> None:
        """Have the costs of what is needed, and with them, if any is missing, of what may be needed later."""
        if not self.state.costs.covers([(v, int(h)) for h in needed for v in unit.vms], 1.0):
            self.state.costs.fetch(self._pairs(unit, likely))

    def _accepted(self, unit: Unit, hosts: Indices, gains: Floats, accept: Accept, relief: float) -> list[Candidate]:
        """The best of the candidates to which neither cost nor ``accept`` nor, for the first, any constraint objects."""
        found: list[Candidate] = []
        for candidate in self.ranked(unit, hosts, gains, relief):
            if accept(candidate):
                # the constraints themselves have the last word, not the masks
                if found or check_unit(self.state, unit.vms, candidate.destination) is None:
                    found.append(candidate)
                if len(found) == KEPT:
                    break
        return found

    def _fitting(self, unit: Unit, hosts: Indices) -> Indices:
        """Those of the hosts that the unit leaves below capacity and headroom, in every path that counts."""
        state, objective = self.state, self.objective
        slack, quantile = 1 + TOLERANCE, state.settings.quantile
        cpu = state.demand.peak(state.held_cpu[hosts] + unit.cpu, quantile)
        fits = cpu <= np.minimum(objective.limit_cpu, state.capacity_cpu)[hosts] * slack
        hosts = hosts[fits]
        memory = state.demand.peak(state.held_memory[hosts] + unit.memory, quantile)
        kept: Indices = hosts[memory <= objective.limit_memory[hosts] * slack]
        return kept

    def scored(self, unit: Unit, hosts: Indices, gains: Floats, relief: float) -> list[Candidate]:
        """The candidates among those destinations against which no veto by predicted cost stands, in the given order."""
        place = {int(h): i for i, h in enumerate(hosts)}
        return sorted(self.ranked(unit, hosts, gains, relief), key=lambda c: place[c.destination])

    def ranked(self, unit: Unit, hosts: Indices, gains: Floats, relief: float) -> Iterator[Candidate]:
        """As `scored`, the greatest gain first, the lowest host among equals; made one by one as they are asked for."""
        state, settings = self.state, self.state.settings
        quotes = [[state.costs.quote(v, h) for v in unit.vms] for h in hosts.tolist()]
        open_to = [i for i, asked in enumerate(quotes) if all(q.admissible for q in asked)]
        if not open_to:
            return
        targets, balance = hosts[open_to], gains[open_to]
        cpu, memory = state.settled_cpu[targets] + unit.cpu, state.settled_memory[targets] + unit.memory
        reliefs = relief - (self.objective.unmet_rows(cpu, memory, targets) - self.objective.unmet[targets])
        cores = [float(state.demand.mean_cores[v]) for v in unit.vms]
        spent = np.array([sum(q.core_seconds(c) for c, q in zip(cores, quotes[i], strict=True)) for i in open_to])
        total = settings.weight_unmet * reliefs + balance - settings.weight_cost * spent
        broken = soft.penalty(state, unit.vms, targets)
        for i in np.lexsort((targets, broken - total)).tolist():
            rate = settings.weight_unmet * float(reliefs[i]) / self.objective.horizon_seconds
            waiting, cost = sum(q.seconds for q in quotes[open_to[i]]), float(spent[i])
            payback = waiting + settings.weight_cost * cost / rate if rate > 0 else None
            gained, wished = float(total[i]), float(broken[i])
            yield Candidate(unit, int(targets[i]), float(reliefs[i]), float(balance[i]), cost, gained, payback, wished)

    def apply(self, candidate: Candidate) -> None:
        """Move the unit in the state and refresh what depends on it."""
        changed = {*candidate.unit.sources, candidate.destination}
        for vm in candidate.unit.vms:
            self.state.apply(vm, candidate.destination)
        if "_peaks" in self.__dict__:
            rows = np.array(sorted(changed), dtype=np.intp)
            quantile = self.state.settings.quantile
            for peaks, load in zip(self._peaks, (self.state.held_cpu, self.state.held_memory), strict=True):
                peaks[rows] = self.state.demand.peak(load[rows], quantile)
        self.objective.touch(changed)
