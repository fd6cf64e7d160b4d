"""The objective: what a placement costs, in one currency, core-seconds of unmet demand over the horizon.

total = weight_unmet · unmet + weight_imbalance · imbalance · horizon · mean host capacity + weight_cost · cost
        + what the hosts that hold VMs cost (``standing``; only while the policy is to consolidate)

* unmet: Σ over hosts of the expected demand above headroom, Σ_h step · mean_k max(0, load(k, h) − headroom · capacity),
  the present load counted as one more step of every path. Memory above headroom counts as the cores that go with it in
  this cluster (cluster cores ÷ cluster bytes), so that CPU and memory can be added. Where contention is felt already,
  what waits counts as well, for the whole horizon, until as much load has left (``felt``).
* imbalance: weighted standard deviation of the hosts' mean relative load, weights = share of the cluster's capacity,
  mean of CPU and memory; no unit. It breaks ties between destinations and never starts a move: a plan without relief
  is no plan.
* cost of a migration: (seconds · slowdown + downtime) · mean cores of the VM, the work the guest loses, plus
  seconds · ``COPY_CORES`` that sending and receiving keep busy on the two hosts, all at upper bounds, divided by
  (1 − P(does not converge)): the expected number of attempts until one succeeds.

"Do nothing" is the score of the present placement without cost. Lower is better.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rebalancerd.cluster.plan import Score
from rebalancerd.cluster.policy import HostMode
from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.felt import NOTHING, Felt
from rebalancerd.plan.standing import CONSOLIDATE, held_share, occupied, standing_costs
from rebalancerd.plan.state import PlacementState


@dataclass(frozen=True, slots=True)
class Spread:
    """Weighted sums of one resource's relative loads, from which its standard deviation follows."""

    share: Floats
    relative: Floats
    first: float
    second: float

    def deviation(self) -> float:
        """Standard deviation as it is."""
        return float(np.sqrt(max(0.0, self.second - self.first**2)))

    def after(self, sources: Sequence[int], given: Floats, targets: Indices, taken: Floats) -> Floats:
        """Deviations after the sources give up ``given`` and each of the targets alone takes ``taken`` (relative)."""
        first, second = np.full(len(targets), self.first), np.full(len(targets), self.second)
        for host, part in zip(sources, given, strict=True):
            old = self.relative[host]
            first -= self.share[host] * part
            second += self.share[host] * ((old - part) ** 2 - old**2)
        old_there = self.relative[targets]
        first += self.share[targets] * taken
        second += self.share[targets] * ((old_there + taken) ** 2 - old_there**2)
        deviations: Floats = np.sqrt(np.maximum(0.0, second - first**2))
        return deviations


class Objective:
    """Evaluates a state, whole or by what a move would change; caches per-host parts until ``touch``."""

    def __init__(self, state: PlacementState) -> None:
        self.state = state
        settings, demand = state.settings, state.demand
        self.counted = np.array(
            [
                h.usable and h.mode is not HostMode.OBSERVE and bool(cpu > 0) and bool(memory > 0)
                for h, cpu, memory in zip(state.hosts, state.capacity_cpu, state.capacity_memory, strict=True)
            ],
            dtype=np.bool_,
        )
        self.capacity_cpu = np.where(self.counted, state.capacity_cpu, 0.0)
        self.capacity_memory = np.where(self.counted, state.capacity_memory, 0.0)
        total_cpu, total_memory = float(self.capacity_cpu.sum()), float(self.capacity_memory.sum())
        self.cores_per_byte = total_cpu / total_memory if total_memory > 0 else 0.0
        self.limit_cpu = np.nan_to_num(state.capacity_cpu) * settings.cpu_headroom
        self.limit_memory = np.nan_to_num(state.capacity_memory) * settings.memory_headroom
        self.seconds = np.full(demand.columns, demand.step_seconds / demand.paths)
        self.seconds[-1] = demand.step_seconds
        self.horizon_seconds = demand.step_seconds * demand.steps
        self.felt = Felt.of(state)
        mean_capacity = total_cpu / max(1, int(self.counted.sum()))
        self.imbalance_core_seconds = settings.weight_imbalance * self.horizon_seconds * mean_capacity
        self.unmet = self.unmet_rows(state.settled_cpu, state.settled_memory, np.arange(len(state.hosts)))
        self.unmet[~self.counted] = 0.0
        self._means = [load.mean(axis=1) for load in (state.settled_cpu, state.settled_memory)]
        self._spread()
        self.standing = standing_costs(state)
        self.emptied: frozenset[int] = frozenset()  # hosts to be emptied, by this plan or the next ones

    def unmet_rows(self, cpu: Floats, memory: Floats, hosts: Indices) -> Floats:
        """Expected unmet core-seconds of load rows (N, C) on those N hosts."""
        over_cpu: Floats = np.maximum(cpu - self.limit_cpu[hosts, None], 0.0) @ self.seconds
        over_memory: Floats = np.maximum(memory - self.limit_memory[hosts, None], 0.0) @ self.seconds
        over: Floats = over_cpu + over_memory * self.cores_per_byte
        if self.felt is None:
            return over
        cores, held = self.felt.waiting(cpu[:, -1], memory[:, -1], hosts)
        return over + (cores + held * self.cores_per_byte) * self.horizon_seconds

    def waits(self, host: int) -> bool:
        """Whether contention that was felt on a host is not relieved yet."""
        if self.felt is None or not self.counted[host]:
            return False
        rows = np.array([host], dtype=np.intp)
        cores, held = self.felt.waiting(self.state.settled_cpu[rows, -1], self.state.settled_memory[rows, -1], rows)
        return bool(cores[0] > NOTHING or held[0] > NOTHING)

    def _spread(self) -> None:
        self.spreads = tuple(
            self._spread_of(means, capacity)
            for means, capacity in zip(self._means, (self.capacity_cpu, self.capacity_memory), strict=True)
        )

    def _spread_of(self, mean_load: Floats, capacity: Floats) -> Spread:
        total = capacity.sum()
        share = capacity / total if total > 0 else capacity
        relative = np.divide(mean_load, capacity, out=np.zeros_like(mean_load), where=capacity > 0)
        return Spread(share, relative, float((share * relative).sum()), float((share * relative**2).sum()))

    def touch(self, hosts: Iterable[int]) -> None:
        """Refresh what is cached about hosts whose load has changed."""
        rows = np.array(sorted(hosts), dtype=np.intp)
        self.unmet[rows] = self.unmet_rows(self.state.settled_cpu[rows], self.state.settled_memory[rows], rows)
        self.unmet[~self.counted] = 0.0
        for means, load in zip(self._means, (self.state.settled_cpu, self.state.settled_memory), strict=True):
            means[rows] = load[rows].mean(axis=1)
        self._spread()

    def imbalance(self) -> float:
        """Mean of the two standard deviations, 0 for a cluster without known capacity."""
        return sum(s.deviation() for s in self.spreads) / 2

    def score(self, cost: float = 0.0) -> Score:
        """The score of the state; ``cost`` is the sum of the moves' costs in core-seconds."""
        unmet, imbalance, settings = float(self.unmet.sum()), self.imbalance(), self.state.settings
        total = settings.weight_unmet * unmet + self.imbalance_core_seconds * imbalance + settings.weight_cost * cost
        if self.state.inputs.policy_now != CONSOLIDATE:
            return Score(total=total, unmet=unmet, imbalance=imbalance, cost=cost)
        holding = occupied(self.state)
        total += float((self.standing * held_share(self.state, holding, self.emptied))[holding].sum())
        return Score(total=total, unmet=unmet, imbalance=imbalance, cost=cost, hosts=int(holding.sum()))

    def imbalance_gain(self, sources: dict[int, tuple[Floats, Floats]], targets: Indices) -> Floats:
        """Core-seconds by which imbalance falls if each target alone takes the sources' rows (CPU, memory)."""
        gains = np.zeros(len(targets))
        where = list(sources)
        for resource, (spread, capacity) in enumerate(
            zip(self.spreads, (self.capacity_cpu, self.capacity_memory), strict=True)
        ):
            means = np.array([float(rows[resource].mean()) for rows in sources.values()])
            own = capacity[where]
            given = np.divide(means, own, out=np.zeros_like(means), where=own > 0)
            room = capacity[targets]
            taken = np.divide(means.sum(), room, out=np.zeros(len(targets)), where=room > 0)
            gains += (spread.deviation() - spread.after(where, given, targets, taken)) / 2
        scaled: Floats = gains * self.imbalance_core_seconds
        return scaled
