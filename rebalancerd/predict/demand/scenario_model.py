"""ScenarioDemand: joint demand scenarios from any forecaster's marginals, with a floor beneath it that cannot fail.

CPU is forecast in shares of each VM's vCPUs. The floor is ``PersistenceDemand``: it answers for a VM that is off or whose
load is unknown, for one with less than ``LEAST_STEPS`` recorded steps (its assumed spread is wider than what is learned
of a VM that is known), for all of them where the history is stale or dated ahead, and for a cycle in which the
forecaster fails. Memory is the floor's: it changes by jumps that its own past tells best.

A VM that moved keeps its past by its UUID, in shares of its vCPUs; one that was resized keeps what it used, in shares of
what it has now. What a VM waits for beyond its use (``cluster.demand``) is added to every step: a starved VM's use says
what it got, not what it asks for.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import structlog
from numpy.typing import NDArray

from rebalancerd.cluster.demand import cpu_demand_cores, sane
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import Vm
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.past import HISTORY_STEPS
from rebalancerd.predict.demand.paths import joint_paths
from rebalancerd.predict.demand.persistence import GONE, PersistenceDemand, columns_of
from rebalancerd.predict.settings import PredictSettings

log = structlog.get_logger(__name__)

LEAST_STEPS = 6  # known of the last ``LATELY`` steps
LATELY = 24
STALE_STEPS = 3  # a history that ended longer ago than this tells nothing of the present

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the forecaster is asked: rows of the snapshot's VMs (M,), their panel, and what each waits for, in shares (M,)."""

    rows: NDArray[np.intp]
    panel: Panel
    waits: Floats
    sizes: Floats


class ScenarioDemand:
    """Implements ``interface.DemandModel``. ``Scenarios.basis`` tells who forecast.

    ``hourly``: hourly means of the VMs' CPU in cores of their hosts, where a coarser history is kept. ``failures``: how
    often the forecaster failed and the floor answered instead.
    """

    def __init__(
        self, forecaster: Forecaster, settings: PredictSettings, hourly: Callable[[], Series] | None = None
    ) -> None:
        self._forecaster, self._settings, self._hourly = forecaster, settings, hourly
        self._floor = PersistenceDemand(settings)
        self.failures = 0

    @property
    def forecaster(self) -> Forecaster:
        """Who makes the marginals."""
        return self._forecaster

    def scenarios(self, snapshot: Snapshot, cpu: Series, memory: Series) -> Scenarios:
        """K joint paths over H steps for every VM. ``cpu`` in cores of the VM's host, ``memory`` in bytes. Never fails."""
        floor = self._floor.scenarios(snapshot, cpu, memory)
        try:
            return self._over(floor, snapshot, cpu)
        except Exception as error:
            self.failures += 1
            log.exception("forecast_failed", bug=True, reason=str(error), instead=floor.basis)
            return floor

    def _over(self, floor: Scenarios, snapshot: Snapshot, cpu: Series) -> Scenarios:
        """The floor with the rows of those that can be forecast replaced."""
        asked = self._asked(floor, snapshot, cpu)
        if asked is None:
            return floor
        steps = [ceil((h + 1) * self._settings.step_seconds / cpu.step_seconds - 1e-9) for h in range(floor.steps)]
        told = self._forecaster.forecast(asked.panel, steps)
        shares = joint_paths(
            told,
            asked.panel,
            paths=floor.paths,
            seed=self._settings.seed,
            window_steps=self._settings.residual_window_steps,
        )
        shares += asked.waits[:, None]
        speed = np.array([snapshot.host(snapshot.vms[row].host).speed_factor for row in asked.rows], dtype=np.float32)
        cores = floor.cpu_cores.copy()
        # what it was seen to use beyond its vCPUs before it was resized, it cannot use now
        top = np.maximum(1.0, np.nan_to_num(asked.panel.values[:, -1]))[:, None]
        cores[asked.rows] = np.minimum(shares, top) * (asked.sizes * speed)[:, None]
        return replace(floor, cpu_cores=cores, basis=told.basis)

    def _asked(self, floor: Scenarios, snapshot: Snapshot, cpu: Series) -> _Asked | None:
        """Who can be forecast, and from what; None if nobody can."""
        late = snapshot.taken_at - cpu.end
        if not len(cpu.values) or not -cpu.step_seconds <= late <= STALE_STEPS * cpu.step_seconds:
            return None
        running = floor.known & np.array([vm.state not in GONE for vm in snapshot.vms], dtype=np.bool_)
        width = min(len(cpu.values), self._width(cpu.step_seconds))
        history = columns_of(cpu, floor.vm_uuids, width)
        recorded = np.isfinite(history[:, -LATELY:]).sum(axis=1) >= LEAST_STEPS
        rows = np.flatnonzero(running & recorded)
        if not len(rows):
            return None
        vms = [snapshot.vms[row] for row in rows]
        sizes = np.array([max(1, vm.facts.vcpus) for vm in vms], dtype=np.float32)
        values = history[rows] / sizes[:, None]
        waits = np.array([_waits(vm, snapshot) for vm in vms], dtype=np.float32) / sizes
        number = {host.name: i for i, host in enumerate(snapshot.hosts)}
        panel = Panel(
            values=values,
            step_seconds=cpu.step_seconds,
            end=cpu.end,
            hourly=self._coarse(tuple(vm.uuid for vm in vms), sizes),
            starved=waits,
            siblings=np.array([number[vm.host] for vm in vms], dtype=np.intp),
            season_seconds=self._settings.season_seconds,
        )
        return _Asked(rows, panel, waits, sizes)

    def _width(self, step_seconds: float) -> int:
        """Steps of history that are looked at: two seasons and the steps ahead, and no less than the usual."""
        ahead = ceil(self._settings.horizon_seconds / step_seconds)
        return max(HISTORY_STEPS, 2 * ceil(self._settings.season_seconds / step_seconds) + ahead)

    def _coarse(self, uuids: tuple[str, ...], sizes: Floats) -> Floats | None:
        series = self._hourly() if self._hourly is not None else None
        if series is None or not len(series.values):
            return None
        shares: Floats = columns_of(series, uuids, len(series.values)) / sizes[:, None]
        return shares


def _waits(vm: Vm, snapshot: Snapshot) -> float:
    """Cores that a VM asks for beyond what it uses now."""
    asks, used = cpu_demand_cores(vm, snapshot.host(vm.host)), sane(vm.load.cpu_cores)
    return max(0.0, asks - used) if asks is not None and used is not None else 0.0
