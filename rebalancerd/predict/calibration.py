"""Calibration: the constants of the simulated pre-copy, fitted to migrations that were measured.

Physics knows the shape of a migration; a few constants differ from cluster to cluster: what share of a link is reached,
what one migration thread can send at most and how much of that a busy guest takes, how much of a process's memory is
QEMU's own, what libvirt's handshakes take. They are fitted by least absolute log errors (Nelder and Mead 1965) and are
few, so that a hundred migrations are enough and what they say carries over to guests that were never seen.
"""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.units import MIB
from rebalancerd.predict.cost import EXPECTED, UNKNOWN_LINK_BYTES_PER_SECOND, Physics
from rebalancerd.predict.physics import DirtyCurves, Precopy, PrecopyInputs, simulate

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_RESIDENT_BYTES = 8.0 * MIB
LEAST_SPEED = 0.15  # of the sending thread, however busy the guest
MOST_ERROR = 1.0  # a log error beyond this counts as this: one odd run must not bend the constants
BYTES_WEIGHT, DOWNTIME_WEIGHT, OUTCOME_WEIGHT, DISTURBED_WEIGHT = 0.5, 0.2, 0.3, 0.5
ITERATIONS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Constants of one kind of cluster.

    ``link_efficiency``: share of a link's rating that a migration reaches. ``log_ceiling``: log of the bytes per second
    that one migration sends at most, on any link. ``cpu_drag``: share of that ceiling lost per core that the guest
    keeps busy. ``own_mib``: MiB of the VM's resident memory that are QEMU's own. ``overhead_seconds``: libvirt's
    handshakes. ``switchover_seconds``: device state and resume. ``left_weight``: shape of the dirty curve left of its
    first point (``DirtyCurves``). ``dirty_scale``: dirtying during a migration ÷ before it. ``downtime_scale``: downtime
    that QEMU in effect allows ÷ the limit it was given. ``share_power``: a share s of a link in effect gives s to that.
    """

    link_efficiency: float = 0.9
    log_ceiling: float = 20.7
    cpu_drag: float = 0.0
    own_mib: float = 0.0
    overhead_seconds: float = 2.0
    switchover_seconds: float = 0.06
    left_weight: float = 0.5
    dirty_scale: float = 1.0
    downtime_scale: float = 1.0
    share_power: float = 1.0

    @classmethod
    def of(cls, values: dict[str, float]) -> "Calibration":
        """Constants read from a file. Raises ValueError naming one that is missing, unknown or no sensible figure."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"the calibration has not exactly the constants {', '.join(sorted(names))}")
        for name, value in values.items():
            if not isinstance(value, float | int) or not np.isfinite(value) or abs(value) > 1e4:
                raise ValueError(f"the calibration's {name} is {value!r}")
        return cls(**{name: float(value) for name, value in values.items()})

    def values(self) -> dict[str, float]:
        """The constants by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A simulation of every kind of candidate (shape (K,)) under a calibration; figures as in MigrationCost."""

    seconds: Floats
    downtime_seconds: Floats
    bytes: Floats
    converged: Bools
    rounds: Floats
    resident: Floats
    rate: Floats
    link: Floats


def calibrated(
    physics: Physics,
    constants: Calibration,
    dirty_scale: float | Floats = 1.0,
    *,
    throttled: bool = True,
    kinds: NDArray[np.intp] | slice = slice(None),
) -> Calibrated:
    """Simulate every kind of candidate once, or those ``kinds`` alone.

    ``dirty_scale``, one or one for each of them, on top of the calibration's own asks "and if it dirtied more?"; without
    ``throttled`` auto-converge is left out of it.
    """
    inputs, first = physics.inputs, physics.first[kinds]
    row = physics.row[kinds]
    rated = np.nan_to_num(inputs.link[first], nan=UNKNOWN_LINK_BYTES_PER_SECOND)
    drag = np.clip(1 - constants.cpu_drag * np.nan_to_num(inputs.cpu[row]), LEAST_SPEED, 1.0)
    link = np.minimum(rated * constants.link_efficiency, np.exp(constants.log_ceiling) * drag)
    link = np.maximum(link * inputs.share[first] ** constants.share_power, 1.0)
    rate = np.minimum(inputs.cap[first], link)
    memory = inputs.memory[row]
    held = np.where(np.isfinite(inputs.resident[row]), inputs.resident[row], memory)
    own = constants.own_mib * MIB
    resident = np.clip(np.minimum(held, memory + own) - own, np.minimum(LEAST_RESIDENT_BYTES, memory), memory)
    measured = physics.curves(EXPECTED)
    curves = DirtyCurves.of(
        measured.seconds[row],
        measured.unique_bytes[row] * constants.dirty_scale * np.reshape(dirty_scale, (-1, 1)),
        resident,
        left_weight=min(1.0, max(0.0, constants.left_weight)),
        lone=physics.lone[kinds],
    )
    deadline = inputs.deadline[first]
    run: Precopy = simulate(
        PrecopyInputs(
            resident_bytes=resident,
            zero_bytes=memory - resident,
            rate_bytes_per_second=rate,
            link_bytes_per_second=link,
            max_downtime_seconds=inputs.downtime[first] * constants.downtime_scale,
            deadline_seconds=deadline,
            auto_converge=inputs.auto[first] & throttled,
            curves=curves,
            cpu_share=np.clip(np.nan_to_num(inputs.cpu[row] / np.maximum(1.0, inputs.vcpus[row]), nan=1.0), 0.0, 1.0),
        )
    )
    return Calibrated(
        seconds=np.minimum(run.seconds, deadline) + constants.overhead_seconds,
        downtime_seconds=run.downtime_seconds + constants.switchover_seconds,
        bytes=run.bytes,
        converged=run.converged,
        rounds=run.rounds.astype(np.float64),
        resident=resident,
        rate=rate,
        link=link,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What migrations really took, shape (N,), NaN where it was not told; ``weights`` of the rows."""

    succeeded: Bools
    seconds: Floats
    downtime_seconds: Floats
    bytes: Floats
    weights: Floats


def fit_calibration(
    physics: Physics, told: Measured, start: Calibration | None = None, *, iterations: int | None = None
) -> Calibration:
    """The constants that fit rows best; deterministic. ``physics`` is of these very rows.

    ``start``: where to look; without it two places are tried, plain physics and a slow machine, for the misfit has hollows.
    """
    from scipy.optimize import minimize

    def search(begin: Floats) -> tuple[float, Floats]:
        simplex = np.vstack([begin, begin + np.diag(STEPS)])
        done = minimize(
            lambda point: _misfit(physics, told, _sane(point)),
            begin,
            method="Nelder-Mead",
            options={
                "initial_simplex": simplex,
                "maxiter": iterations or ITERATIONS,
                "xatol": 1e-3,
                "fatol": 1e-5,
                "adaptive": True,
            },
        )
        return float(done.fun), done.x

    starts = (Calibration(), SLOW_MACHINE) if start is None else (start,)
    found = [search(np.array(astuple(begin))) for begin in starts]
    return _sane(min(found, key=lambda pair: pair[0])[1])


SLOW_MACHINE = Calibration(
    link_efficiency=0.95,
    log_ceiling=19.1,
    cpu_drag=0.3,
    own_mib=70.0,
    overhead_seconds=1.7,
    left_weight=0.4,
    dirty_scale=0.6,
    share_power=0.6,
)
# of the first simplex: what each constant may sensibly be off by
STEPS = np.array([-0.1, -0.3, 0.1, 20.0, -0.3, 0.02, 0.15, -0.15, 0.1, -0.15])
LOWS = np.array([0.3, 13.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.1, 0.5, 0.0])
HIGHS = np.array([1.1, 25.0, 2.0, 256.0, 10.0, 0.5, 1.0, 3.0, 2.0, 1.0])


def _sane(point: Sequence[float] | Floats) -> Calibration:
    """The constants nearest to a point that make sense."""
    inside = np.clip(np.asarray(point, dtype=np.float64), LOWS, HIGHS)
    return Calibration(**{f.name: float(v) for f, v in zip(fields(Calibration), inside, strict=True)})


def _misfit(physics: Physics, told: Measured, constants: Calibration) -> float:
    run, kind = calibrated(physics, constants), physics.kind
    weights = told.weights
    total = 0.0
    for actual, predicted, weight in (
        (told.seconds, run.seconds, 1.0),
        (told.bytes, run.bytes, BYTES_WEIGHT),
        (told.downtime_seconds, run.downtime_seconds, DOWNTIME_WEIGHT),
    ):
        known = told.succeeded & np.isfinite(actual) & (actual > 0)
        if known.any():
            error = np.abs(np.log(predicted[kind][known] / actual[known]))
            total += weight * float(np.average(np.minimum(error, MOST_ERROR), weights=weights[known]))
    wrong = run.converged[kind] != told.succeeded
    return total + OUTCOME_WEIGHT * float(np.average(wrong, weights=weights))
