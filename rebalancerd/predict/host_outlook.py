"""P(hot) of a snapshot's hosts from the learned model: their scenarios, and what their present guests asked for lately."""

from collections.abc import Mapping

import numpy as np
import structlog

from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.demand.host_chance import HostChance, host_features
from rebalancerd.predict.demand.persistence import columns_of
from rebalancerd.predict.demand.recorded import DAY_STEPS
from rebalancerd.predict.demand.scenario_model import STALE_STEPS
from rebalancerd.predict.hotspot import HostDemand

log = structlog.get_logger(__name__)


def cpu_chances(
    model: HostChance, snapshot: Snapshot, cpu: Series, demands: Mapping[str, HostDemand], headroom: float
) -> dict[str, float]:
    """P(CPU demand above ``headroom`` · capacity within the horizon) by host name, of those that it can be told of.

    ``cpu``: history in cores of the VM's host. A stale history, and a model that fails, tell of none: the paths do then.
    """
    fresh = len(cpu.values) and snapshot.taken_at - cpu.end <= STALE_STEPS * cpu.step_seconds
    hosts = [name for name, demand in demands.items() if demand.capacity and snapshot.vms_on[name]]
    if not fresh or not hosts:
        return {}
    try:
        parts = [_of_host(snapshot, cpu, name, demands[name], headroom) for name in hosts]
        paths, past, vms, largest = (np.stack(part) for part in zip(*parts, strict=True))
        told = model.chances(host_features(paths, past, vms, largest))
    except Exception as error:
        log.exception("host_chance_failed", bug=True, reason=str(error))
        return {}
    return {name: float(chance) for name, chance in zip(hosts, told, strict=True)}


def _of_host(
    snapshot: Snapshot, cpu: Series, name: str, demand: HostDemand, headroom: float
) -> tuple[np.ndarray, np.ndarray, np.floating, np.floating]:
    """Paths (K, H) and past (T,) as ratios to the level, how many VMs, and the largest one's share."""
    guests = snapshot.vms_on[name]
    scenarios = demand.scenarios
    level = np.float32(headroom * (demand.capacity or 1.0))
    rows = columns_of(cpu, tuple(vm.uuid for vm in guests), min(DAY_STEPS, len(cpu.values)))
    known = np.isfinite(rows).any(axis=0)
    past = np.where(known, np.nansum(rows, axis=0) * snapshot.host(name).speed_factor, np.nan) / level
    each = np.array([scenarios.cpu_cores[scenarios.row[vm.uuid]].mean() for vm in guests])
    paths = demand.paths.reshape(scenarios.paths, scenarios.steps) / level
    return paths, past.astype(np.float32), np.float32(len(guests)), np.float32(each.max() / max(each.sum(), 1e-9))
