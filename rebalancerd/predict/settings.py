"""Settings of predicting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSettings:
    """Horizon and shape of the scenarios; ``link_efficiency`` is the share of a link that migration traffic reaches.

    ``overhead_seconds``: libvirt's own handshakes around a migration; ``deadline_seconds``: a pre-copy longer than this
    counts as not converging; ``switchover_seconds``: device state and resume, the part of the downtime that does not
    depend on memory. ``season_seconds``: after which load is expected to come again.
    """

    horizon_seconds: float = 1800.0
    step_seconds: float = 300.0
    paths: int = 64
    seed: int = 1
    residual_window_steps: int = 288
    season_seconds: float = 86_400.0
    link_efficiency: float = 0.9
    overhead_seconds: float = 2.0
    deadline_seconds: float = 900.0
    switchover_seconds: float = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentionLimits:
    """Signs of contention that make a host hot whatever its headroom says. Shares are 0 to 1.

    ``steal_share``: vCPU delay ÷ (CPU used + delay) over the host's guests, once the delay is at least ``steal_cores``
    and the host is short of CPU (``cluster.demand``).
    ``psi_cpu``, ``psi_memory``: share of the last 10 s in which some task waited. ``swap_share``: swap used ÷ the
    host's memory. Swap in use is a level, not a rate: pages parked long ago harm nobody, so it counts only while
    ``psi_memory`` is at least ``swap_psi_memory`` or unknown.
    """

    steal_share: float = 0.20
    steal_cores: float = 0.25
    psi_cpu: float = 0.40
    psi_memory: float = 0.10
    swap_share: float = 0.02
    swap_psi_memory: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Learned models: whether one is used, when one is trained, and what may make it lose its trust.

    ``cost``: "learned" or "physics"; ``demand``: "learned" or "persistence". ``train``: when, as a cron expression in the zone of windows ("": never). ``own_rows_min``: migrations
    of this cluster without which nothing is trained. ``drift_rows``: the newest migrations by which a model is judged,
    ``drift_rows_min``: without which it is not. ``demand_trial_hours``: how long a demand model must be worse than the best
    naive way to lose its trust, and better to regain it; ``demand_history_hours_min``: recorded load without which none
    is trained. ``keep``: own models of each kind that are kept.
    """

    cost: str = "learned"
    train: str = "17 3 * * *"
    own_rows_min: int = 50
    drift_rows: int = 50
    drift_rows_min: int = 12
    demand: str = "learned"
    demand_trial_hours: float = 24.0
    demand_history_hours_min: float = 24.0
    keep: int = 5
