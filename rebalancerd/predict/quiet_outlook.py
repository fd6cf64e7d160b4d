"""QuietOutlooks: when each VM is quiet, by the forecast of the hour to come where it says so, else by the hour of day."""

from collections.abc import Callable, Iterator, Mapping

import structlog

from rebalancerd.cluster.quiet import QuietOutlook, QuietSpell, present_dirty_rate
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.quiet import HOUR, quiet_hours
from rebalancerd.predict.quiet_spell import quiet_spells

log = structlog.get_logger(__name__)

RESOURCE = "vm_dirty_bytes_per_second"
FINE, HOURLY = 0, 1  # tiers of the history


class QuietOutlooks(Mapping[str, QuietOutlook]):
    """Outlooks of a snapshot's VMs by UUID, worked out host by host when a VM is first asked for, and then kept.

    ``history``: recorded dirty rates by resource and tier (0: minutes, 1: hours); asked only once a VM is looked up, for
    few VMs need it and the series of a large cluster are tens of MiB. ``forecaster``: who forecasts demand now; where it
    fails, the hour of day is told. A UUID the snapshot does not know raises KeyError.
    """

    def __init__(self, snapshot: Snapshot, history: Callable[[str, int], Series], forecaster: Forecaster) -> None:
        self._snapshot, self._history, self._forecaster = snapshot, history, forecaster
        self._series: dict[int, Series] = {}
        self._known: dict[str, QuietOutlook] = {}

    def __getitem__(self, vm_uuid: str) -> QuietOutlook:
        if vm_uuid not in self._known:
            # one question per host: who is asked of a VM is mostly asked of its neighbours next
            neighbours = self._snapshot.vms_on[self._snapshot.vm(vm_uuid).host]
            now = {vm.uuid: present_dirty_rate(vm.dirty) for vm in neighbours}
            found = quiet_hours(self._tier(HOURLY), lambda: self._tier(FINE), now, self._snapshot.taken_at)
            self._known.update((outlook.vm_uuid, outlook) for outlook in found)
            self._known.update(self._spells(now))
        return self._known[vm_uuid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot.vm_by_uuid)

    def __len__(self) -> int:
        return len(self._snapshot.vms)

    def __contains__(self, vm_uuid: object) -> bool:
        return vm_uuid in self._snapshot.vm_by_uuid

    def _spells(self, now: Mapping[str, float | None]) -> dict[str, QuietSpell]:
        fine, hourly = self._tier(FINE), self._tier(HOURLY)
        try:
            return quiet_spells(self._forecaster, fine, hourly, now, self._snapshot.taken_at)
        except Exception as error:
            log.exception("quiet_forecast_failed", bug=True, reason=str(error), instead="the hour of day")
            return {}

    def _tier(self, tier: int) -> Series:
        if tier not in self._series:
            try:
                self._series[tier] = self._history(RESOURCE, tier)
            except (KeyError, IndexError):  # a history of other tiers
                self._series[tier] = Series.empty(RESOURCE, HOUR, self._snapshot.taken_at)
        return self._series[tier]
