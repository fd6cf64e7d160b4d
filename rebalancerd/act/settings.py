"""Settings of acting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ActSettings:
    """Downtime ladder, stall test and deadlines, in seconds.

    The allowed downtime starts at ``downtime_start_seconds`` and rises in ``downtime_steps`` steps with the pre-copy's
    iterations to the move's limit. No smaller remainder for ``stall_seconds``: abort. The deadline is the least of
    ``deadline_seconds``, ``deadline_factor`` × the predicted upper bound (never under ``deadline_floor_seconds``), and
    150 s per GiB.
    """

    downtime_start_seconds: float = 0.1
    downtime_steps: int = 5
    stall_seconds: float = 150.0
    deadline_seconds: float = 900.0
    deadline_factor: float = 3.0
    deadline_floor_seconds: float = 60.0
    abort_patience_seconds: float = 60.0
    start_before_seconds: float = 30.0
    poll_seconds: float = 0.5
    settle_seconds: float = 30.0
