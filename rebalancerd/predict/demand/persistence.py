"""PersistenceDemand: the present load goes on, give or take what the recent past did from one hour to the next.

Historical simulation: path k takes one historic row t and adds to every VM's present load what its recorded load did
in the steps after t. All VMs of a path take the same rows, so whatever moved them together then moves them together
now. Rows are chosen by a hash of their absolute time: two cycles of the same minute see the same rows, and from one
cycle to the next only the rows that entered or left the window change, so sampling noise does not make decisions flap.
"""

from dataclasses import dataclass
from math import ceil
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.demand import sane
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.settings import PredictSettings

# Spread assumed at the horizon where no residual is recorded (one standard deviation): a share of the present load plus
# a share of the VM's size. The same path moves all such VMs alike, which is the cautious side for the sum on a host.
CPU_SPREAD_OF_LOAD, CPU_SPREAD_OF_SIZE = 0.20, 0.02
MEMORY_SPREAD_OF_LOAD, MEMORY_SPREAD_OF_SIZE = 0.02, 0.01
GONE = frozenset({DomainState.SHUTOFF, DomainState.ABSENT})  # asks for nothing
UNKNOWN_FLOOR = 0.25  # an idle past is no proof of an idle present

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Present:
    """One resource now, a float32 array of shape (V,) each: load (NaN unknown), the most it can be, what it falls back to."""

    load: Floats
    limit: Floats
    spread: Floats


class PersistenceDemand:
    """Demand scenarios by persistence plus resampled joint residuals; implements ``interface.DemandModel``."""

    basis = "persistence"

    def __init__(self, settings: PredictSettings) -> None:
        self._settings = settings
        self._steps = max(1, round(settings.horizon_seconds / settings.step_seconds))

    @property
    def forecaster(self) -> Forecaster:
        """The naive way of that name."""
        return NAIVE["persistence"]

    def scenarios(self, snapshot: Snapshot, cpu: Series, memory: Series) -> Scenarios:
        """K joint paths over H steps for every VM. ``cpu`` in cores of the VM's host, ``memory`` in bytes.

        CPU demand is that of ``cluster.demand.cpu_demand_cores``, in reference cores of the host the VM is on now. A VM whose load is unknown, or whose host is not usable, gets a flat cautious stand-in and
        ``known`` False: the highest CPU recorded in the window (no less than a quarter of its vCPUs), or all its vCPUs,
        and its configured memory. A VM with a known load but no usable history keeps ``known`` True and gets the
        assumed spread above. A VM that is shut off asks for nothing.
        """
        vms = snapshot.vms
        speed = np.array([snapshot.host(vm.host).speed_factor for vm in vms], dtype=np.float32)
        trusted = np.array([snapshot.host(vm.host).usable for vm in vms], dtype=np.bool_)
        off = np.array([vm.state in GONE for vm in vms], dtype=np.bool_)
        cpu_now, memory_now = _cpu_now(snapshot), _memory_now(vms)
        known = off | (trusted & np.isfinite(cpu_now.load) & np.isfinite(memory_now.load))
        uuids = tuple(vm.uuid for vm in vms)

        cores = self._paths(cpu_now, cpu, uuids)
        flat = ~(trusted & np.isfinite(cpu_now.load))
        cores[flat] = _recorded_peak(cpu, uuids, cpu_now.limit, self._settings.residual_window_steps)[flat, None]
        cores *= speed[:, None]

        held = self._paths(memory_now, memory, uuids)
        flat = ~(trusted & np.isfinite(memory_now.load))
        held[flat] = memory_now.limit[flat, None]
        cores[off] = 0.0
        held[off] = 0.0
        return Scenarios(
            vm_uuids=uuids,
            paths=self._settings.paths,
            steps=self._steps,
            step_seconds=self._settings.step_seconds,
            cpu_cores=cores,
            memory_bytes=held,
            known=known,
            basis=self.basis,
        )

    def _paths(self, now: _Present, series: Series, uuids: tuple[str, ...]) -> Floats:
        """Paths of shape (V, K·H), clipped to 0..limit, NaN rows read as 0 (the caller replaces them)."""
        paths, steps = self._settings.paths, self._steps
        load = np.nan_to_num(now.load, nan=0.0)
        with np.errstate(over="ignore"):  # an absurd load: clipped to the limit below
            assumed = (self._assumed_profile()[None, :] * now.spread[:, None]).astype(np.float32)
        residual = self._residuals(series, uuids)
        if residual is None:
            out = assumed
        else:
            out = residual.reshape(len(uuids), paths * steps)
            np.copyto(out, assumed, where=~np.isfinite(out))
        with np.errstate(over="ignore"):
            out += load[:, None]
        np.clip(out, 0.0, now.limit[:, None], out=out)
        return out

    def _residuals(self, series: Series, uuids: tuple[str, ...]) -> Floats | None:
        """What each VM's load did in the H steps after each of K historic rows: (V, K, H), NaN where not recorded."""
        after = np.array(
            [ceil((h + 1) * self._settings.step_seconds / series.step_seconds) for h in range(self._steps)]
        )
        window = min(series.values.shape[0], self._settings.residual_window_steps + int(after[-1]))
        starts = window - int(after[-1])
        if starts < 1 or not series.ids or not uuids:
            return None
        recent = columns_of(series, uuids, window)
        chosen = self._rows(series, window, starts)
        ends = (chosen[:, None] + after[None, :]).ravel()
        out: Floats = np.take(recent, ends, axis=1).reshape(len(uuids), len(chosen), self._steps)
        out -= np.take(recent, chosen, axis=1)[:, :, None]
        return out

    def _rows(self, series: Series, window: int, starts: int) -> NDArray[np.intp]:
        """K row numbers of the window, the ``starts`` oldest allowed; fewer than K allowed rows repeat in turn."""
        newest = round(series.end / series.step_seconds)
        absolute = np.arange(starts) + (newest - window + 1)
        order = np.argsort(_mix(absolute, self._settings.seed), kind="stable")
        return np.resize(order, self._settings.paths)

    def _assumed_profile(self) -> Floats:
        """Standard normal quantiles over the paths, in a fixed shuffled order, growing with √time: shape (K·H,)."""
        paths, steps = self._settings.paths, self._steps
        normal = NormalDist()
        z = np.array([normal.inv_cdf((k + 0.5) / paths) for k in range(paths)])
        z = z[np.argsort(_mix(np.arange(paths), self._settings.seed), kind="stable")]
        growth = np.sqrt((np.arange(steps) + 1) / steps)
        return (z[:, None] * growth[None, :]).ravel().astype(np.float32)


def memory_demand_bytes(vm: Vm) -> float | None:
    """Memory a VM holds now; None is unknown. A running VM that holds none is a fault of the telemetry, not a fact."""
    held = sane(vm.load.memory_bytes)
    return held if held else None


def _cpu_now(snapshot: Snapshot) -> _Present:
    vms = snapshot.vms
    load = np.array([_nan(snapshot.asked_cores[vm.uuid]) for vm in vms], dtype=np.float32)
    limit = np.array([max(1, vm.facts.vcpus) for vm in vms], dtype=np.float32)
    spread = CPU_SPREAD_OF_LOAD * np.nan_to_num(load) + CPU_SPREAD_OF_SIZE * limit
    return _Present(load, limit, spread.astype(np.float32))


def _memory_now(vms: tuple[Vm, ...]) -> _Present:
    load = np.array([_nan(memory_demand_bytes(vm)) for vm in vms], dtype=np.float32)
    configured = np.array([max(0, vm.facts.memory_bytes) for vm in vms], dtype=np.float32)
    # QEMU's own memory comes on top of the guest's, so the present figure may exceed the configured one
    limit = np.fmax(configured, load)
    spread = MEMORY_SPREAD_OF_LOAD * np.nan_to_num(load) + MEMORY_SPREAD_OF_SIZE * configured
    return _Present(load, limit, spread.astype(np.float32))


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def columns_of(series: Series, uuids: tuple[str, ...], window: int) -> Floats:
    """The last ``window`` rows of those VMs as (V, window), NaN where a VM has no column or a value is absurd."""
    place = {uuid: i for i, uuid in enumerate(series.ids)}
    column = np.array([place.get(uuid, -1) for uuid in uuids], dtype=np.intp)
    out = np.full((len(uuids), window), np.nan, dtype=np.float32)
    have = column >= 0
    out[have] = series.values[-window:].T[column[have]]
    out[~(out >= 0) | np.isinf(out)] = np.nan
    return out


def _recorded_peak(series: Series, uuids: tuple[str, ...], limit: Floats, window: int) -> Floats:
    """Highest recorded value of each VM in the window, a quarter of its limit at least; its limit if none is recorded."""
    rows = min(series.values.shape[0], window)
    if not rows or not series.ids or not uuids:
        return limit
    recent = np.nan_to_num(columns_of(series, uuids, rows), nan=-1.0)
    peak = recent.max(axis=1)
    return np.where(peak >= 0, np.clip(peak, UNKNOWN_FLOOR * limit, limit), limit).astype(np.float32)


def _mix(values: NDArray[np.int_], seed: int) -> NDArray[np.uint64]:
    """A well mixed 64-bit hash of integers (the finaliser of SplitMix64, Steele et al. 2014)."""
    z = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
