"""Settings of acting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ActSettings:
    """Downtime ladder, stall test and deadlines, in seconds.

    The allowed downtime starts at ``downtime_start_seconds`` and rises in ``downtime_steps`` steps with the pre-copy's
    iterations to the move's limit. No smaller remainder for ``stall_seconds``: abort. A migration that runs for longer
    than its prediction's upper bound goes to the limit at once, and is given half of that from then on. The deadline is the least of
    ``deadline_seconds``, ``deadline_factor`` × the predicted upper bound, and 150 s per GiB; the last two are never
    taken below ``deadline_floor_seconds``. An abort without effect after ``abort_patience_seconds`` is STUCK.

    ``start_before_seconds``: the libvirt call begins within that of the intent or never. ``lease_seconds``: longest time
    for which a controller that lost its lease may believe to hold it. ``settle_seconds``: how long an indefinite picture
    of the two hosts must hold before it is believed. ``lost_source_seconds``: how long a source may be silent before the
    verdict is taken without it, and a destination before its autostart flag is given up.
    """

    downtime_start_seconds: float = 0.1
    downtime_steps: int = 5
    stall_seconds: float = 150.0
    deadline_seconds: float = 900.0
    deadline_factor: float = 3.0
    deadline_floor_seconds: float = 60.0
    abort_patience_seconds: float = 60.0
    start_before_seconds: float = 30.0
    lease_seconds: float = 30.0
    poll_seconds: float = 0.5
    settle_seconds: float = 30.0
    lost_source_seconds: float = 300.0
