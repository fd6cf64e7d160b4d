"""Settings of predicting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSettings:
    """Horizon and shape of the scenarios; ``link_efficiency`` is the share of a link that migration traffic reaches.

    ``overhead_seconds``: libvirt's own handshakes around a migration; ``deadline_seconds``: a pre-copy longer than this
    counts as not converging.
    """

    horizon_seconds: float = 1800.0
    step_seconds: float = 300.0
    paths: int = 64
    seed: int = 1
    residual_window_steps: int = 288
    link_efficiency: float = 0.9
    overhead_seconds: float = 2.0
    deadline_seconds: float = 900.0
