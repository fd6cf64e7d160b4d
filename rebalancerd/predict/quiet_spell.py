"""Quiet spells: within the hour, when the forecast of a VM's own dirty rate falls well below the present one.

The forecaster is the one that makes the scenarios of CPU. It is given the recorded dirty rates as shares of each VM's own
size: its recorded ``SIZE_QUANTILE`` or its present rate, whichever is higher; what lies above counts as the size. The last
value is the present rate, against which quiet is told. What is missing, negative or absurd is no figure, and no VM is
forecast of which too little is known: no gap reads as quiet.
"""

from collections.abc import Mapping
from math import ceil

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.quiet import QuietSpell
from rebalancerd.cluster.series import Series
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.persistence import columns_of
from rebalancerd.predict.demand.scenario_model import STALE_STEPS
from rebalancerd.predict.demand.trusted import check
from rebalancerd.predict.quiet import ABSURD, CLEARLY_BELOW, HOUR, QUANTILE

STEPS_AHEAD = 12  # an hour of the fine history
LEAST_STEPS = 24  # known of all that is recorded; two hours
LATELY, LEAST_LATELY = 24, 12  # of the last so many steps so many must be known
SIZE_QUANTILE = 0.99

Floats = NDArray[np.float64]


def quiet_spells(
    forecaster: Forecaster, fine: Series, hourly: Series, now: Mapping[str, float | None], at: float
) -> dict[str, QuietSpell]:
    """The next quiet spell of each VM that has one, by UUID.

    ``fine``, ``hourly``: recorded dirty rates in bytes per second; hourly ones that do not end with the last complete hour
    are left out. ``now``: present dirty rates in bytes per second by UUID. ``at``: epoch seconds.
    """
    steps = _steps(fine, at)
    uuids, rates = _asked(fine, now) if steps else ((), np.empty(0))
    if not uuids:
        return {}
    recorded = _recorded(fine, uuids)
    sizes = _sizes(recorded, rates)
    shares = _shares(recorded, sizes)
    shares[:, -1] = (rates / sizes).astype(np.float32)
    fits = len(hourly.values) and hourly.step_seconds == HOUR and hourly.end == fine.end // HOUR * HOUR
    panel = Panel(
        values=shares,
        step_seconds=fine.step_seconds,
        end=fine.end,
        hourly=_shares(_recorded(hourly, uuids), sizes) if fits else None,
    )
    told = forecaster.forecast(panel, steps)
    check(told, panel, steps)
    expected = told.at(QUANTILE) * sizes[:, None]
    quiet = expected <= CLEARLY_BELOW * rates[:, None]
    first = quiet.argmax(axis=1)
    return {
        uuids[i]: QuietSpell(
            vm_uuid=uuids[i],
            starts_in_seconds=fine.end + steps[first[i]] * fine.step_seconds - at,
            rate_bytes_per_second=float(expected[i, first[i]]),
            basis=told.basis,
        )
        for i in np.flatnonzero(quiet.any(axis=1))
    }


def _steps(fine: Series, at: float) -> tuple[int, ...]:
    """Steps ahead of the history's end that are still to come; none where it is stale or dated ahead."""
    late, step = at - fine.end, fine.step_seconds
    if not len(fine.values) or not -step <= late <= STALE_STEPS * step:
        return ()
    return tuple(h for h in range(1, STEPS_AHEAD + 1) if late < h * step <= HOUR)


def _asked(fine: Series, now: Mapping[str, float | None]) -> tuple[tuple[str, ...], Floats]:
    """Whose dirty rate can be forecast, and their present rates in bytes per second."""
    rates = {uuid: rate for uuid, rate in now.items() if rate is not None and 0 < rate <= ABSURD}
    known = np.isfinite(_recorded(fine, tuple(rates)))
    enough = (known.sum(axis=1) >= LEAST_STEPS) & (known[:, -LATELY:].sum(axis=1) >= LEAST_LATELY)
    uuids = tuple(uuid for uuid, told in zip(rates, enough, strict=True) if told)
    return uuids, np.array([rates[uuid] for uuid in uuids], dtype=np.float64)


def _recorded(series: Series, uuids: tuple[str, ...]) -> Floats:
    """Rates of those VMs, (N, T), NaN for what is no figure."""
    values = columns_of(series, uuids, len(series.values)).astype(np.float64)
    values[values > ABSURD] = np.nan
    return values


def _sizes(recorded: Floats, rates: Floats) -> Floats:
    """What counts as each VM's whole, bytes per second, above 0: (N,). Every VM has a known figure."""
    ordered = np.sort(recorded, axis=1)  # NaN last
    ranks = [ceil(SIZE_QUANTILE * (int(n) - 1)) for n in np.isfinite(recorded).sum(axis=1)]
    sizes: Floats = np.maximum(ordered[np.arange(len(ordered)), ranks], rates)
    return sizes


def _shares(recorded: Floats, sizes: Floats) -> NDArray[np.float32]:
    shares: NDArray[np.float32] = np.minimum(recorded / sizes[:, None], 1.0).astype(np.float32)
    return shares
