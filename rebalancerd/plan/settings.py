"""Settings of planning."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """Headrooms are shares of a host's usable capacity above which it counts as hot.

    ``weight_*`` turn the parts of the objective into one currency: core-seconds of unmet demand. ``work_budget``:
    candidates the search may evaluate. ``max_moves``: steps of one plan. ``payback_max_seconds``: a plan whose gain does
    not repay its cost within this time is not proposed.

    ``inflow_max_per_host``: VMs that may come to a host within an hour (0: any number); a host that came back grows to
    that over ``ramp_seconds``. ``rebalance_min_gain``: share of all imbalance that a move onto a host that came back must
    gain to be made for balance alone (0: none is).
    ``aggressiveness``: the level whose values these are, where none was set singly (``plan.aggressiveness``).
    ``policy``: ``balance`` or ``consolidate``. Consolidating fills hosts up to the ``consolidate_*_headroom`` only, which
    are below the headrooms so that what was folded is not hot at the next surprise. ``consolidate_hosts_min``: hosts that
    keep VMs. ``host_idle_watts``: of a host that gives none. ``watts_per_core``: what one reference core's work is worth
    in watts; it turns joules into core-seconds. ``power_cycle_seconds``: of every sleep this much saves nothing.
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
    expiry_seconds: float = 300.0
    max_downtime_seconds: float = 0.5
    max_migration_seconds: float = 600.0
    non_convergence_max: float = 0.3
    out_per_host: int = 1
    in_per_host: int = 1
    per_cluster: int = 2
    inflow_max_per_host: int = 0
    ramp_seconds: float = 900.0
    rebalance_min_gain: float = 0.0
    aggressiveness: str = "moderate"
    policy: str = "balance"
    consolidate_cpu_headroom: float = 0.70
    consolidate_memory_headroom: float = 0.80
    consolidate_hosts_min: int = 1
    weight_hosts: float = 1.0
    host_idle_watts: float = 100.0
    watts_per_core: float = 10.0
    power_cycle_seconds: float = 600.0
