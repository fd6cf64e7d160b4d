"""Features of the learned cost model: physics first, as ratios that mean the same on any cluster; NaN where unknown."""

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.units import PAGE_BYTES
from rebalancerd.predict.cost import EXPECTED, UPPER, VALUE_LEVELS, Physics
from rebalancerd.predict.physics import wire_bytes

Floats = NDArray[np.float64]

FEATURES = (
    "log_memory_gib",
    "log_resident_share",
    "log_first_copy_seconds",
    "log_physics_seconds",
    "log_physics_spread",
    "log_physics_rounds",
    "converging_levels",
    "log_dirty_ratio_first_period",
    "log_dirty_ratio_last_period",
    "log_dirty_ratio_first_copy",
    "log_switch_ratio",
    "log_switch_ratio_linear",
    "dirtied_share",
    "curvature",
    "log_link",
    "log_cap_share",
    "log_max_downtime",
    "auto_converge",
    "connections",
    "link_share",
    "vm_cpu_cores",
    "vm_steal_cores",
    "source_busy",
    "destination_busy",
    "curve_error",
    "log_deadline_ratio",
)
_FLOOR_BYTES = float(16 * PAGE_BYTES)  # less than this is noise of the guest's own kernel


def features(physics: Physics) -> Floats:
    """Shape (N, len(FEATURES)), in the order of FEATURES; infinite never occurs, NaN means that it is not known."""
    inputs, kind, row = physics.inputs, physics.kind, physics.inputs.row
    expected, upper = physics.runs[EXPECTED], physics.runs[UPPER]
    resident, zero = physics.resident, physics.zero
    rate, downtime = physics.rate(EXPECTED), physics.downtime
    copy = wire_bytes(resident, zero) / rate
    curves = physics.curves(EXPECTED).take(physics.row)
    dirtied = curves.at(copy)
    switch = np.minimum(curves.at(downtime), resident)
    first = inputs.unique[:, 0] / inputs.periods[:, 0]
    last = np.maximum(inputs.points - 1, 0)
    at = np.arange(len(last))
    final = inputs.unique[at, last] / inputs.periods[at, last]
    measured = inputs.points > 0
    error = np.where(measured, inputs.error[at, last] / np.maximum(inputs.unique[at, last], _FLOOR_BYTES), np.nan)
    converging = np.mean([run.converged for run in physics.runs[VALUE_LEVELS]], axis=0)
    link = inputs.link * inputs.share
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (
            np.log(inputs.memory / 2**30)[row],
            np.log(inputs.resident / inputs.memory)[row],
            np.log(copy)[kind],
            np.log(expected.seconds)[kind],
            np.log(upper.seconds / expected.seconds)[kind],
            np.log1p(expected.rounds)[kind],
            converging[kind],
            _ratio(first[row], rate[kind]),
            _ratio(final[row], rate[kind]),
            _ratio((dirtied / copy)[kind], rate[kind]),
            _ratio((switch / np.maximum(downtime, 1e-3))[kind], rate[kind]),
            _ratio(first[row], rate[kind]) + np.minimum(0.0, np.log(np.maximum(downtime, 1e-3)))[kind],
            (dirtied / resident)[kind],
            np.where(measured & (last > 0), final / np.maximum(first, _FLOOR_BYTES), np.nan)[row],
            np.log(link),
            np.where(np.isfinite(inputs.cap), np.minimum(0.0, np.log(inputs.cap / link)), 0.0),
            np.log(np.maximum(inputs.downtime, 1e-3)),
            inputs.auto.astype(np.float64),
            np.maximum(1.0, inputs.parallel),
            inputs.share,
            inputs.cpu[row],
            inputs.steal[row],
            inputs.source_busy,
            inputs.destination_busy,
            error[row],
            np.log(inputs.deadline / expected.seconds[kind]),
        )
    found = np.column_stack(columns)
    found[~np.isfinite(found)] = np.nan
    return found


def _ratio(dirty: Floats, rate: Floats) -> Floats:
    """Log of dirty rate over transfer rate, floored where nothing was seen to be dirtied."""
    found: Floats = np.log(np.maximum(dirty, _FLOOR_BYTES) / rate)
    return found
