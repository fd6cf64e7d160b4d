"""Features of the learned cost model: calibrated physics first, as ratios that mean the same on any cluster; NaN: unknown."""

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.units import PAGE_BYTES
from rebalancerd.predict.calibration import Calibrated, Calibration, calibrated
from rebalancerd.predict.cost import EXPECTED, Physics

Floats = NDArray[np.float64]

# of the figures' regressors
FIGURE_FEATURES = (
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
# how far from not ending: with auto-converge as it is, and without; and what QEMU's own slices of time make of the curve
MARGIN_FEATURES = (
    "log_margin",
    "unthrottled_log_margin",
    "unthrottled_log_deadline_ratio",
    "log_slice_ratio_short",
    "log_slice_ratio_long",
)
FEATURES = (*FIGURE_FEATURES, *MARGIN_FEATURES)
FIGURE_COLUMNS = slice(0, len(FIGURE_FEATURES))
# what tells whether a pre-copy ends, by how far the dirty curve was looked into: only what the simulation says means the
# same for guests that were never seen
CHANCE_FEATURES = {
    "seen": ("log_deadline_ratio", "auto_converge", *MARGIN_FEATURES),
    "unseen": (
        "converging_scale",
        "log_switch_ratio",
        "log_deadline_ratio",
        "log_margin",
        "unthrottled_log_margin",
    ),
}
# "how many times as much could the guest dirty, and the pre-copy would still end?": searched between these, as logs
LEAST_MARGIN, MOST_MARGIN, MARGIN_STEPS = float(np.log(0.25)), float(np.log(6.0)), 6
DIRTY_SCALES = (0.4, 0.55, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)  # marks that a margin has passed, and how many
# whether the destination has CPU to spare, not how much: so candidates of one VM look alike, and are predicted at once
SHORT_OF_CPU = 0.85
AMPLE_TIME = 1.0  # log; a deadline further off than e times what is expected tells nothing more
SHORT_SECONDS, LONG_SECONDS = 1.0, 4.0
SEEN_FACTOR = 2.0  # the allowed downtime was looked into if the shortest period is no longer than twice that
SLICE_SECONDS = 0.1
LEAST_NEW = 0.05  # share of what is dirtied that is new, at the least
_SLICE_FLOOR = 1e5  # bytes per second
_NOISE_BYTES = float(1024 * PAGE_BYTES)
_FLOOR_BYTES = float(64 * PAGE_BYTES)  # less than this is noise of the guest's own kernel


def features(physics: Physics, constants: Calibration) -> tuple[Floats, Calibrated]:
    """Shape (N, len(FEATURES)), in the order of FEATURES, never infinite; and the simulation they rest on, by kinds."""
    inputs, kind, row = physics.inputs, physics.kind, physics.inputs.row
    base = calibrated(physics, constants)
    margin = free_margin = _margin(physics, constants, base)
    free = base
    if inputs.auto.any():
        free = calibrated(physics, constants, throttled=False)
        free_margin = _margin(physics, constants, free, throttled=False)
    downtime = np.maximum(inputs.downtime, 1e-3)
    measured = inputs.points > 0
    last = np.maximum(inputs.points - 1, 0)
    at = np.arange(len(last))
    curves = physics.curves(EXPECTED)
    short, long = (curves.at(np.full(len(last), seconds)) for seconds in (SHORT_SECONDS, LONG_SECONDS))
    switch = curves.take(physics.row).at(downtime[physics.first])
    slices = _slice_ratios(physics, constants, base)
    deadline = inputs.deadline[physics.first]
    with np.errstate(invalid="ignore", divide="ignore"):
        by_kind = np.column_stack(
            (
                _passed(margin),
                np.log(base.seconds),
                np.log(base.resident / base.rate),
                np.log1p(base.rounds),
                np.log(base.downtime_seconds),
                np.log(base.link),
                np.log(np.maximum(switch, _FLOOR_BYTES) / (base.rate * downtime[physics.first])),
                np.minimum(np.log(deadline / base.seconds), AMPLE_TIME),
                np.log(base.rate / base.link),
                margin,
                free_margin,
                np.minimum(np.log(deadline / free.seconds), AMPLE_TIME),
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
            *by_kind[:, 9:].T,
            *(np.where(measured[row], ratio[kind], np.nan) for ratio in slices),
        )
    found = np.column_stack(columns)
    found[~np.isfinite(found)] = np.nan
    return found, base


def _margin(physics: Physics, constants: Calibration, run: Calibrated, *, throttled: bool = True) -> Floats:
    """Log of the highest factor on each kind's dirtying with which it still converges, by bisection; shape (K,).

    ``run``: the simulation with a factor of 1, which halves the search.
    """

    def ends(at: Floats, kinds: NDArray[np.intp]) -> NDArray[np.bool_]:
        return calibrated(physics, constants, np.exp(at), throttled=throttled, kinds=kinds).converged

    low = np.where(run.converged, 0.0, LEAST_MARGIN)
    high = np.where(run.converged, MOST_MARGIN, 0.0)
    # most end however much they dirty: asked once, they need no search
    calm = np.flatnonzero(run.converged)
    low[calm[ends(high[calm], calm)]] = MOST_MARGIN
    left = np.flatnonzero(low < high)
    for _ in range(MARGIN_STEPS):
        middle = (low[left] + high[left]) / 2
        done = ends(middle, left)
        low[left] = np.where(done, middle, low[left])
        high[left] = np.where(done, high[left], middle)
    found: Floats = (low + high) / 2
    return found


def _slice_ratios(physics: Physics, constants: Calibration, base: Calibrated) -> tuple[Floats, Floats]:
    """Log of what is newly dirtied in a slice of time ÷ what the link sends in it, at the switch-over; shape (K,) each.

    QEMU looks at what is left after every ``SLICE_SECONDS`` or so of sending (migration_iteration_run and ram_save_iterate
    in migration/), not at the end of a round; and of the pages dirtied again by then the share that is still to be sent
    anyway, the allowed remainder ÷ the pages that are written at all (within 1 s, within 4 s), costs nothing.
    """
    curves = physics.curves(EXPECTED).take(physics.row)
    count = len(physics.row)
    allowed = base.rate * physics.downtime * constants.downtime_scale
    dirtied = np.maximum(curves.at(np.full(count, SLICE_SECONDS)) / SLICE_SECONDS, _SLICE_FLOOR)
    short, long = (
        np.log(dirtied / base.rate)
        + np.log(np.maximum(1 - allowed / np.maximum(curves.at(np.full(count, seconds)), _FLOOR_BYTES), LEAST_NEW))
        for seconds in (SHORT_SECONDS, LONG_SECONDS)
    )
    return short, long


def _passed(margin: Floats) -> Floats:
    """How many of ``DIRTY_SCALES`` lie within a margin."""
    return np.searchsorted(np.log(DIRTY_SCALES), margin, side="right").astype(np.float64)
