"""What a daemon that ran before a simulated run began would have recorded of the guests' dirty rates."""

from rebalancerd.cluster.units import MIB
from rebalancerd.observe.history import VM_DIRTY, History
from rebalancerd.sim.scenario import WorldSpec

HOUR_SECONDS = 3600.0


def record_past(spec: WorldSpec, history: History, start: float) -> None:
    """Fill the ``spec.past_days`` days before ``start`` (epoch seconds), one sample an hour, each by its hour of day."""
    rates = {v.key: v.past_dirty_mib_s for v in spec.cluster.vms if v.past_dirty_mib_s}
    hours = int(spec.past_days * 24)
    first = int(start // HOUR_SECONDS) - hours
    for hour in range(first, first + hours):
        values: dict[str, float | None] = {key: day[hour % 24] * MIB for key, day in rates.items()}
        history.append((hour + 0.5) * HOUR_SECONDS, {VM_DIRTY: values})
