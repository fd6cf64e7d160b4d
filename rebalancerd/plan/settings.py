"""Settings of planning."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """Headrooms are shares of a host's usable capacity above which it counts as hot.

    ``memory_overcommit``: bytes that may be granted to guests per byte of a host's capacity; what they use stays below
    the headroom whatever it is. ``link_share_max``: share of a link that the copies of one wave may take together, 0 for
    no such limit; ``failure_domain_link_bytes_per_second``: uplinks that the hosts of a failure domain share. ``vcpus_per_core_max``: vCPUs per usable core, 0 for no cap. ``n_plus_one`` (off, memory, memory_and_cpu): what the
    other hosts must have room for should any one host die.

    ``weight_*`` turn the parts of the objective into one currency: core-seconds of unmet demand. ``work_budget``:
    candidates the search may evaluate. ``max_moves``: steps of one plan. ``payback_max_seconds``: a plan whose gain does
    not repay its cost within this time is not proposed. ``weight_soft``: core-seconds one broken wish counts where
    destinations are compared; it neither starts a move nor forbids one.
    """

    cpu_headroom: float = 0.80
    memory_headroom: float = 0.85
    memory_overcommit: float = 1.0
    vcpus_per_core_max: float = 0.0
    n_plus_one: str = "off"
    quantile: float = 0.95
    hot_probability: float = 0.5
    weight_unmet: float = 1.0
    weight_imbalance: float = 0.05
    weight_cost: float = 1.0
    weight_soft: float = 1.0
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
    link_share_max: float = 1.0
    failure_domain_link_bytes_per_second: tuple[tuple[str, float], ...] = ()
