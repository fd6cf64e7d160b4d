"""Settings of planning."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """Headrooms are shares of a host's usable capacity above which it counts as hot.

    ``weight_*`` turn the parts of the objective into one currency: core-seconds of unmet demand. ``work_budget``:
    candidates the search may evaluate. ``max_moves``: steps of one plan. ``payback_max_seconds``: a plan whose gain does
    not repay its cost within this time is not proposed. ``improve_budget``: swaps, chains and detours that are tried for
    hosts which no single move relieves, 0 for none. ``solver_nodes``: branch-and-bound nodes for each small part that is
    then solved exactly, 0 for none: what the solver misses in one plan it may find in the next, so that with it a plan may
    be followed by another.
    """

    cpu_headroom: float = 0.80
    memory_headroom: float = 0.85
    quantile: float = 0.95
    hot_probability: float = 0.5
    weight_unmet: float = 1.0
    weight_imbalance: float = 0.05
    weight_cost: float = 1.0
    min_gain: float = 0.05
    payback_max_seconds: float = 3600.0
    max_moves: int = 8
    work_budget: int = 200_000
    improve_budget: int = 2_000
    solver_nodes: int = 0
    expiry_seconds: float = 300.0
    max_downtime_seconds: float = 0.5
    max_migration_seconds: float = 600.0
    non_convergence_max: float = 0.3
    out_per_host: int = 1
    in_per_host: int = 1
    per_cluster: int = 2
