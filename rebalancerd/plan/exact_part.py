"""A small part of the cluster solved exactly: which VMs of a hot host and of a few receivers go where, by HiGHS.

The mixed-integer problem is linear where the objective is not: the hot host's unmet demand is summed over groups of
columns that are alike instead of all, and receivers are held below headroom in their most loaded columns. What it finds
is therefore only proposed: the caller judges it by the true score and every rule. Where a receiver turns out too full in
a column that was left out, that column is added and the problem solved again. The solver's bound is a number of nodes,
never the clock, so that the same part gives the same answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from rebalancerd.plan.demand import Floats
from rebalancerd.plan.parking import Leg
from rebalancerd.plan.search import Search, Unit

GROUPS = 5  # of columns, in which the hot host's unmet demand is summed
CRITICAL = 2  # columns in which a receiver is held below headroom, and as many again when solved anew
GAP = 0.01  # relative, at which the solver stops
PICKED = 0.5


@dataclass(frozen=True, slots=True)
class Choice:
    """A unit, one host it may go to, and what that costs (core-seconds). ``leg``: it comes from a parking host."""

    unit: Unit
    source: int
    host: int
    cost: float
    leg: Leg | None = None


@dataclass(slots=True)
class Part:
    """A hot host, receivers, and the choices there are. ``columns``: by host, those in which it is held below headroom."""

    search: Search
    hot: int
    choices: list[Choice]
    columns: dict[int, set[int]] = field(default_factory=dict)

    @property
    def hosts(self) -> list[int]:
        """Hosts that may receive."""
        return sorted({c.host for c in self.choices})

    def solve(self, nodes: int) -> list[Choice]:
        """The choices to take, none if staying is best (or nothing was found within that many nodes)."""
        if not self.choices:
            return []
        for host in self.hosts:
            if host not in self.columns:
                self.columns[host] = set(_fullest(self.search, self.search.state.held_cpu[host]))
        model = _Model(self)
        result = milp(
            model.objective(),
            integrality=model.integrality(),
            bounds=Bounds(0, model.upper_bounds()),
            constraints=model.constraints(),
            options={"node_limit": nodes, "mip_rel_gap": GAP},
        )
        if result.x is None:
            return []
        return [c for c, x in zip(self.choices, result.x, strict=False) if x > PICKED]

    def tighten(self, taken: Sequence[Choice]) -> bool:
        """Add the columns that those choices fill most on each host; whether there were any new ones."""
        new = False
        for host in {c.host for c in taken}:
            load = self.search.state.held_cpu[host] + sum(
                (c.unit.cpu * ((c.host == host) - (c.source == host)) for c in taken), np.zeros(1)
            )
            more = set(_fullest(self.search, load)) - self.columns[host]
            self.columns[host] |= more
            new |= bool(more)
        return new


def _fullest(search: Search, load: Floats) -> list[int]:
    """The columns with most load among those up to the quantile that counts, and "now"."""
    demand, settings = search.state.demand, search.state.settings
    limit = demand.peak(load, settings.quantile)
    counted = np.flatnonzero(load <= limit * (1 + 1e-9))
    ranked = counted[np.argsort(-load[counted], kind="stable")]
    return [int(c) for c in ranked[:CRITICAL]] + [demand.columns - 1]


class _Model:
    """Columns: x of each choice, the hot host's unmet demand of each group (CPU, memory), 1 if it may receive."""

    def __init__(self, part: Part) -> None:
        self.part, self.search = part, part.search
        state, objective = part.search.state, part.search.objective
        order = np.argsort(-state.settled_cpu[part.hot], kind="stable")
        self.groups = [g for g in np.array_split(order, GROUPS) if len(g)]
        self.weights = [float(objective.seconds[g].sum()) for g in self.groups]
        self.choices, self.slacks = len(part.choices), 2 * len(self.groups)
        self.opens = self.choices + self.slacks
        self.rows: list[dict[int, float]] = []
        self.limits: list[float] = []
        self._state()

    def objective(self) -> Floats:
        """Weighted unmet demand of the hot host and the cost of the moves, core-seconds."""
        settings = self.search.state.settings
        costs = [settings.weight_cost * c.cost for c in self.part.choices]
        return np.array([*costs, *(settings.weight_unmet * w for w in self.weights * 2), 0.0])

    def integrality(self) -> Floats:
        """Choices and the last column are whole numbers."""
        return np.array([1.0] * self.choices + [0.0] * self.slacks + [1.0])

    def upper_bounds(self) -> Floats:
        """One, but for unmet demand."""
        return np.array([1.0] * self.choices + [np.inf] * self.slacks + [1.0])

    def constraints(self) -> LinearConstraint:
        """All rows, each at most its limit."""
        cells = [(r, c, value) for r, row in enumerate(self.rows) for c, value in row.items()]
        rows, columns, values = zip(*cells, strict=True)
        shape = (len(self.rows), self.opens + 1)
        return LinearConstraint(coo_array((values, (rows, columns)), shape=shape).tocsr(), -np.inf, self.limits)

    def _row(self, row: dict[int, float], limit: float) -> None:
        if row:
            self.rows.append(row)
            self.limits.append(limit)

    def _change(self, host: int, size: Sequence[float]) -> dict[int, float]:
        """What each choice adds to a host or takes from it."""
        signs = [(c.host == host) - (c.source == host) for c in self.part.choices]
        return {i: sign * float(size[i]) for i, sign in enumerate(signs) if sign}

    def _state(self) -> None:
        choices = self.part.choices
        for vms in sorted({c.unit.vms for c in choices}):
            self._row({i: 1.0 for i, c in enumerate(choices) if c.unit.vms == vms}, 1.0)
        self._row(
            {i: float(len(c.unit.vms)) for i, c in enumerate(choices)}, float(self.search.state.settings.max_moves)
        )
        self._unmet()
        for host in self.part.hosts:
            self._below_headroom(host)
        for i, choice in enumerate(choices):
            if choice.host == self.part.hot:
                self._row({i: 1.0, self.opens: -1.0}, 0.0)
            self._apart(i, choice)

    def _unmet(self) -> None:
        """Load above headroom of the hot host in each group, at least what it is."""
        state, objective, hot = self.search.state, self.search.objective, self.part.hot
        rate = objective.cores_per_byte
        for block, (load, limit, scale, rows) in enumerate(
            (
                (state.settled_cpu[hot], objective.limit_cpu[hot], 1.0, [c.unit.cpu for c in self.part.choices]),
                (
                    state.settled_memory[hot],
                    objective.limit_memory[hot],
                    rate,
                    [c.unit.memory for c in self.part.choices],
                ),
            )
        ):
            for g, group in enumerate(self.groups):
                row = self._change(hot, [scale * float(r[group].mean()) for r in rows])
                row[self.choices + block * len(self.groups) + g] = -1.0
                self._row(row, scale * (float(limit) - float(load[group].mean())))

    def _below_headroom(self, host: int) -> None:
        """A receiver stays below both headrooms and grants no more memory than it has; the hot host only if it receives."""
        state, objective, quantile = self.search.state, self.search.objective, self.search.state.settings.quantile
        choices, memory = self.part.choices, state.held_memory[host]
        top = float(state.demand.peak(memory, quantile))
        held = [
            (float(state.held_cpu[host][c]), float(objective.limit_cpu[host]), c)
            for c in sorted(self.part.columns[host])
        ]
        for load, limit, column in held:
            self._limited(host, self._change(host, [float(c.unit.cpu[column]) for c in choices]), limit - load)
        scale = objective.cores_per_byte
        means = [scale * float(c.unit.memory.mean()) for c in choices]
        self._limited(host, self._change(host, means), scale * (float(objective.limit_memory[host]) - top))
        granted = [scale * c.unit.hard_memory for c in choices]
        free = scale * float(state.capacity_memory[host] - state.hard_memory[host])
        self._limited(host, self._change(host, granted), free)

    def _limited(self, host: int, row: dict[int, float], limit: float) -> None:
        if host == self.part.hot:  # it may be above headroom as long as nothing arrives there
            worst = sum(max(0.0, value) for value in row.values()) + max(0.0, -limit)
            row = {**row, self.opens: worst}
            limit += worst
        self._row(row, limit)

    def _apart(self, i: int, choice: Choice) -> None:
        """Anti-affinity with the VMs that stay, those that may leave, and those that may come."""
        state = self.search.state
        others = {m for v in choice.unit.vms for _, members in state.groups.apart(v) for m in members}
        mine = set(choice.unit.vms)
        for other in sorted(others - mine):
            arriving = {
                j: 1.0 for j, c in enumerate(self.part.choices) if other in c.unit.vms and c.host == choice.host
            }
            leaving = {
                j: -1.0 for j, c in enumerate(self.part.choices) if other in c.unit.vms and c.host != choice.host
            }
            if choice.host in state.presence[other]:
                self._row({i: 1.0, **leaving}, 0.0)
            elif arriving:
                self._row({i: 1.0, **arriving}, 1.0)
