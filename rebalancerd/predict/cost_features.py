"""Features of the learned cost model: calibrated physics first, as ratios that mean the same on any cluster; NaN: unknown."""

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.units import PAGE_BYTES
from rebalancerd.predict.calibration import Calibrated, Calibration, calibrated
from rebalancerd.predict.cost import EXPECTED, Physics

Floats = NDArray[np.float64]

FEATURES = (
    "converging_scale",
    "log_seconds",
    "log_first_copy_seconds",
    "log_rounds",
    "log_downtime",
    "log_max_downtime",
    "log_deadline_ratio",
    "auto_converge",
    "connections",
    "link_share",
    "vm_cpu_cores",
    "vm_steal_cores",
    "source_busy",
    "destination_short",
    "log_link",
    "log_cap_share",
    "log_memory_gib",
    "log_resident_share",
    "log_dirty_ratio_short",
    "log_dirty_ratio_long",
    "log_switch_ratio",
    "log_budget_ratio",
    "curvature",
    "curve_error",
    "switch_seen",
)
# what tells whether a pre-copy ends, by how far the dirty curve was looked into: with libvirt's whole seconds alone only
# what the simulation says means the same for guests that were never seen
CHANCE_FEATURES = {"seen": FEATURES, "unseen": ("converging_scale", "log_switch_ratio", "log_deadline_ratio")}
# "would it still end if the guest dirtied so many times as much?": asked of the simulation, from much less to much more
DIRTY_SCALES = (0.4, 0.55, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)
# whether the destination has CPU to spare, not how much: so candidates of one VM look alike, and are predicted at once
SHORT_OF_CPU = 0.85
AMPLE_TIME = 1.0  # log; a deadline further off than e times what is expected tells nothing more
SHORT_SECONDS, LONG_SECONDS = 1.0, 4.0
SEEN_FACTOR = 2.0  # the allowed downtime was looked into if the shortest period is no longer than twice that
_NOISE_BYTES = float(1024 * PAGE_BYTES)
_FLOOR_BYTES = float(64 * PAGE_BYTES)  # less than this is noise of the guest's own kernel


def features(physics: Physics, constants: Calibration) -> tuple[Floats, Calibrated]:
    """Shape (N, len(FEATURES)), in the order of FEATURES, never infinite; and the simulation they rest on, by kinds."""
    inputs, kind, row = physics.inputs, physics.kind, physics.inputs.row
    base = calibrated(physics, constants)
    ends = [
        base.converged if scale == 1.0 else calibrated(physics, constants, scale).converged for scale in DIRTY_SCALES
    ]
    downtime = np.maximum(inputs.downtime, 1e-3)
    measured = inputs.points > 0
    last = np.maximum(inputs.points - 1, 0)
    at = np.arange(len(last))
    curves = physics.curves(EXPECTED)
    short, long = (curves.at(np.full(len(last), seconds)) for seconds in (SHORT_SECONDS, LONG_SECONDS))
    switch = curves.take(physics.row).at(downtime[physics.first])
    deadline = inputs.deadline[physics.first]
    with np.errstate(invalid="ignore", divide="ignore"):
        by_kind = np.column_stack(
            (
                np.sum(ends, axis=0, dtype=np.float64),
                np.log(base.seconds),
                np.log(base.resident / base.rate),
                np.log1p(base.rounds),
                np.log(base.downtime_seconds),
                np.log(base.link),
                np.log(np.maximum(switch, _FLOOR_BYTES) / (base.rate * downtime[physics.first])),
                np.minimum(np.log(deadline / base.seconds), AMPLE_TIME),
                np.log(base.rate / base.link),
            )
        )[kind]
        rate = base.rate[kind]
        columns = (
            by_kind[:, 0],
            by_kind[:, 1],
            by_kind[:, 2],
            by_kind[:, 3],
            by_kind[:, 4],
            np.log(downtime),
            by_kind[:, 7],
            inputs.auto.astype(np.float64),
            np.maximum(1.0, inputs.parallel),
            inputs.share,
            inputs.cpu[row],
            inputs.steal[row],
            inputs.source_busy,
            np.where(np.isfinite(inputs.destination_busy), inputs.destination_busy >= SHORT_OF_CPU, np.nan),
            np.where(np.isfinite(inputs.link), by_kind[:, 5], np.nan),
            by_kind[:, 8],
            np.log(inputs.memory / 2**30)[row],
            np.log(inputs.resident / inputs.memory)[row],
            np.where(measured[row], np.log(np.maximum(short, _FLOOR_BYTES)[row] / (SHORT_SECONDS * rate)), np.nan),
            np.where(measured[row], np.log(np.maximum(long, _FLOOR_BYTES)[row] / (LONG_SECONDS * rate)), np.nan),
            np.where(measured[row], by_kind[:, 6], np.nan),
            np.where(measured[row], np.log(np.maximum(short, _FLOOR_BYTES)[row] / (rate * downtime)), np.nan),
            np.where(inputs.points > 1, np.maximum(long, _FLOOR_BYTES) / np.maximum(short, _FLOOR_BYTES), np.nan)[row],
            np.where(measured, inputs.error[at, last] / np.maximum(inputs.unique[at, last], _NOISE_BYTES), np.nan)[row],
            np.where(measured[row], inputs.periods[row, 0] <= downtime * SEEN_FACTOR, np.nan),
        )
    found = np.column_stack(columns)
    found[~np.isfinite(found)] = np.nan
    return found, base
