"""The downtime ladder: a short allowed downtime at first, raised with the pre-copy's iterations to the move's limit."""

from rebalancerd.act.settings import ActSettings


def allowed_downtime_seconds(settings: ActSettings, limit_seconds: float, iteration: int | None) -> float:
    """Allowed downtime (seconds) during an iteration of pre-copy, numbered from 1 (None or 0: not begun).

    Linear in the iteration from ``downtime_start_seconds`` to ``limit_seconds``, which is reached in iteration
    ``downtime_steps`` + 1; never above the limit, whole milliseconds (libvirt's unit), at least one.
    """
    start = min(settings.downtime_start_seconds, limit_seconds)
    rung = min(max(0, (iteration or 1) - 1), settings.downtime_steps)
    share = rung / settings.downtime_steps if settings.downtime_steps > 0 else 1.0
    return max(1, round((start + (limit_seconds - start) * share) * 1000)) / 1000
