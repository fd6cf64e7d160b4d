"""Which VMs a demand model is judged by, and their history as a panel."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.demand.panel import Panel

MOST_VMS = 2000


@dataclass(frozen=True, slots=True)
class WatchedPanel:
    """A panel, and of each of its N VMs the id, the host it is on and its size (cores, float64 (N,))."""

    panel: Panel
    ids: tuple[str, ...]
    hosts: tuple[str, ...]
    sizes: NDArray[np.float64]


def watched(snapshot: Snapshot, cpu: Series, hourly: Series | None, most: int = MOST_VMS) -> WatchedPanel | None:
    """CPU history of at most ``most`` VMs; None where there is none. ``cpu``, ``hourly``: cores of the VM's host.

    Whole hosts, in an order that stays, so that the same VMs are judged from cycle to cycle with their siblings beside
    them; a host is left out before its VMs are parted.
    """
    column = {vm: i for i, vm in enumerate(cpu.ids)}
    chosen: list[str] = []
    for host in sorted(snapshot.hosts, key=lambda h: (crc32(h.name.encode("utf-8", "surrogatepass")), h.name)):
        here = [vm.uuid for vm in snapshot.vms_on[host.name] if vm.uuid in column]
        if host.usable and len(chosen) + len(here) <= most:
            chosen.extend(here)
    if not chosen or not len(cpu.values):
        return None
    vms = [snapshot.vm_by_uuid[uuid] for uuid in chosen]
    number = {host.name: i for i, host in enumerate(snapshot.hosts)}
    sizes = np.array([max(1, vm.facts.vcpus) for vm in vms], dtype=np.float64)
    panel = Panel(
        values=_shares(cpu, chosen, sizes),
        step_seconds=cpu.step_seconds,
        end=cpu.end,
        hourly=_shares(hourly, chosen, sizes) if hourly is not None and len(hourly.values) else None,
        siblings=np.array([number[vm.host] for vm in vms], dtype=np.intp),
    )
    return WatchedPanel(panel, tuple(chosen), tuple(vm.host for vm in vms), sizes)


def _shares(series: Series, uuids: list[str], sizes: NDArray[np.float64]) -> NDArray[np.float32]:
    place = {vm: i for i, vm in enumerate(series.ids)}
    out = np.full((len(uuids), len(series.values)), np.nan, dtype=np.float32)
    rows = [i for i, uuid in enumerate(uuids) if uuid in place]
    out[rows] = (series.values[:, [place[uuids[i]] for i in rows]] / sizes[rows]).T
    return out
