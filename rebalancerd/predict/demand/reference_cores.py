"""Recorded CPU use in reference cores: an hour on a fast host counts for more than the same cores on a slow one.

History holds cores of the host that a VM was on. Of a VM that nights move between hosts of different speed, hours compare
only once each is counted by where the VM stood in it.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.stays import Stays

Span = tuple[float, str | None]


class ReferenceCores:
    """Keeps what it made last: hours that are over do not change."""

    def __init__(self) -> None:
        self._of: tuple[Series, dict[str, float]] | None = None
        self._made: Series | None = None

    def __call__(self, series: Series, stays: Stays, snapshot: Snapshot) -> Series:
        """``in_reference_cores`` for the hosts of the snapshot; a VM that has no stays was always where it is now."""
        speeds = {host.name: host.speed_factor for host in snapshot.hosts}
        known = self._of is not None and self._of[0] is series and self._of[1] == speeds
        if self._made is None or not known:
            now = {vm.uuid: vm.host for vm in snapshot.vms}
            self._made, self._of = in_reference_cores(series, stays, speeds, now), (series, speeds)
        return self._made


def in_reference_cores(
    series: Series, stays: Stays, speeds: Mapping[str, float], now: Mapping[str, str] | None = None
) -> Series:
    """CPU history of VMs in reference cores. ``speeds``: of a core, by host; ``now``: host of VMs without stays.

    A step in which a VM moved counts by the time on either side. Before its first stay it is taken to have stood there
    already; while it ran nowhere, or on a host whose speed is not known, the speed before holds.
    """
    if all(speed == 1.0 for speed in speeds.values()):
        return series
    factors = np.ones(series.values.shape, dtype=np.float32)
    begin = series.end - len(factors) * series.step_seconds
    for column, uuid in enumerate(series.ids):
        spans: tuple[Span, ...] = stays.of.get(uuid) or ((begin, (now or {}).get(uuid)),)
        _fill(factors[:, column], [((at - begin) / series.step_seconds, speeds.get(h or "")) for at, h in spans])
    return replace(series, values=series.values * factors)


def _fill(factors: NDArray[np.float32], changes: list[tuple[float, float | None]]) -> None:
    """``changes``: (row and part of it at which, speed from then on), oldest first; written into ``factors`` (T,)."""
    held = None
    for at, speed in changes:
        if speed is None or speed == held:
            continue
        row = int(at // 1) if held is not None and at > 0 else -1
        if row >= len(factors):
            return
        if row >= 0 and held is not None:
            factors[row] += (1.0 - (at - row)) * (speed - held)
        factors[row + 1 :] = speed
        held = speed
