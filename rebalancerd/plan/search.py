"""Candidates: which destination is best for a unit of VMs, evaluated in vectors and counted against the work budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.refusal import Refusal
from rebalancerd.plan.admission import Admission
from rebalancerd.plan.constraints import check_unit
from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.objective import Objective
from rebalancerd.plan.state import PlacementState

CHUNK = 16
PRICED = 4 * CHUNK  # destinations of a unit whose costs are asked for at once
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


Accept = Callable[[Candidate], Refusal | None]


class Search:
    """Evaluates candidates on a state. ``evaluated`` counts them; the search ends when the budget is used up.

    ``explained`` counts the pairs gone through afterwards to say why nothing more was done.
    """

    def __init__(self, state: PlacementState) -> None:
        self.state = state
        self.objective = Objective(state)
        self.evaluated = 0
        self.explained = 0
        self.admission = Admission(state)
        self._peak_cpu = state.demand.peak(state.held_cpu, state.settings.quantile)
        self._peak_memory = state.demand.peak(state.held_memory, state.settings.quantile)

    @property
    def exhausted(self) -> bool:
        """Whether the work budget is used up."""
        return self.evaluated >= self.state.settings.work_budget

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

    def with_room(self, unit: Unit) -> tuple[Indices, Floats]:
        """Receivers that nothing unchanging and no group closes and no bound on their peaks rules out, with gains.

        Best imbalance gain first. The bound: the peak of a sum is at least the peak of one part plus the least value of
        the other.
        """
        state, objective = self.state, self.objective
        open_to = self.admission.of_unit(unit.vms) & objective.counted
        open_to[list(unit.sources)] = False
        open_to[list(state.shunned)] = False
        self.close_groups(unit, open_to)
        hosts = np.flatnonzero(open_to)
        slack = 1 + TOLERANCE
        fits = state.hard_memory[hosts] + unit.hard_memory <= state.capacity_memory[hosts] * slack
        fits &= self._peak_cpu[hosts] + unit.cpu.min() <= objective.limit_cpu[hosts] * slack
        fits &= self._peak_memory[hosts] + unit.memory.min() <= objective.limit_memory[hosts] * slack
        hosts = hosts[fits]
        gains = objective.imbalance_gain(unit.sources, hosts)
        order = np.lexsort((hosts, -np.round(gains, 6)))
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
        most = WIDE if len(self.state.hosts) <= WIDE else PRICED
        return [(v, int(h)) for h in hosts[:most] for v in unit.vms]

    def evaluate(self, unit: Unit, accept: Accept, relief: float) -> list[Candidate]:
        """Admissible candidates of one unit, best first; only the first chunk of destinations that has any."""
        hosts, gains = self.with_room(unit)
        for start in range(0, len(hosts), CHUNK):
            if self.exhausted:
                break
            chunk = hosts[start : start + CHUNK]
            self.evaluated += len(chunk)
            kept = np.isin(chunk, self._fitting(unit, chunk), assume_unique=True)
            if not self.state.costs.covers([(v, int(h)) for h in chunk[kept] for v in unit.vms], 1.0):
                self.state.costs.fetch(self._pairs(unit, hosts[start:]))
            scored = self.scored(unit, chunk[kept], gains[start : start + CHUNK][kept], relief)
            found = sorted((c for c in scored if accept(c) is None), key=lambda c: (-c.gain, c.destination))
            while found and check_unit(self.state, unit.vms, found[0].destination) is not None:
                found.pop(0)  # the constraints themselves have the last word, not the masks
            if found:
                return found
        return []

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
        """The candidates among those destinations against which no veto by predicted cost stands, scored."""
        state = self.state
        state.costs.fetch((v, int(h)) for h in hosts for v in unit.vms)
        open_to = [i for i in range(len(hosts)) if all(state.costs.admissible(v, int(hosts[i])) for v in unit.vms)]
        if not open_to:
            return []
        targets = hosts[open_to]
        cpu, memory = state.settled_cpu[targets] + unit.cpu, state.settled_memory[targets] + unit.memory
        added = self.objective.unmet_rows(cpu, memory, targets) - self.objective.unmet[targets]
        return [
            self._candidate(unit, int(h), relief - float(more), float(gains[i]))
            for i, h, more in zip(open_to, targets, added, strict=True)
        ]

    def _candidate(self, unit: Unit, host: int, relief: float, imbalance_gain: float) -> Candidate:
        state, settings = self.state, self.state.settings
        asked = [state.costs.quote(v, host) for v in unit.vms]
        spent = sum(q.core_seconds(float(state.demand.mean_cores[v])) for v, q in zip(unit.vms, asked, strict=True))
        gain = settings.weight_unmet * relief + imbalance_gain - settings.weight_cost * spent
        rate = settings.weight_unmet * relief / self.objective.horizon_seconds
        waiting = sum(q.seconds for q in asked)
        payback = waiting + settings.weight_cost * spent / rate if rate > 0 else None
        return Candidate(unit, host, relief, imbalance_gain, spent, gain, payback)

    def apply(self, candidate: Candidate) -> None:
        """Move the unit in the state and refresh what depends on it."""
        changed = {*candidate.unit.sources, candidate.destination}
        for vm in candidate.unit.vms:
            self.state.apply(vm, candidate.destination)
        rows = np.array(sorted(changed), dtype=np.intp)
        quantile = self.state.settings.quantile
        self._peak_cpu[rows] = self.state.demand.peak(self.state.held_cpu[rows], quantile)
        self._peak_memory[rows] = self.state.demand.peak(self.state.held_memory[rows], quantile)
        self.objective.touch(changed)
