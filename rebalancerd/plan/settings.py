"""Settings of planning."""

from dataclasses import dataclass

from rebalancerd.cluster.power_curve import PowerDefaults


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

    ``inflow_max_per_host``: VMs that may come to a host within an hour (0: any number); a host that came back grows to
    that over ``ramp_seconds``. ``rebalance_min_gain``: share of all imbalance that a move onto a host that came back must
    gain to be made for balance alone (0: none is).
    ``aggressiveness``: the level whose values these are, where none was set singly (``plan.aggressiveness``).
    ``policy``: ``balance`` or ``consolidate``. Consolidating fills hosts up to the ``consolidate_*_headroom`` only, which
    are below the headrooms so that what was folded is not hot at the next surprise. ``consolidate_hosts_min``: hosts that
    keep VMs. ``host_idle_watts``: of a host that gives none. ``watts_per_core``: what one reference core's work is worth
    in watts; it turns joules into core-seconds. ``power_cycle_seconds``: of every sleep this much saves nothing.
    ``improve_budget``: swaps, chains and detours that are tried for
    hosts which no single move relieves, 0 for none. ``solver_nodes``: branch-and-bound nodes for each small part that is
    then solved exactly, 0 for none: what the solver misses in one plan it may find in the next, so that with it a plan may
    be followed by another.
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
    improve_budget: int = 2_000
    solver_nodes: int = 0
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
    link_share_max: float = 1.0
    failure_domain_link_bytes_per_second: tuple[tuple[str, float], ...] = ()

    @property
    def power_defaults(self) -> PowerDefaults:
        """What a host draws of which nobody said."""
        return PowerDefaults(idle_watts=self.host_idle_watts, watts_per_core=self.watts_per_core)
