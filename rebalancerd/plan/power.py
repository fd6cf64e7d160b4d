"""Which hosts must wake now, and whether one may sleep: the demand's upper bound against what is on.

Pure. The bound of a step is a quantile over the joint demand paths of the cluster's summed demand, so that VMs that peak
together are seen to do so, and it is held against the capacity that is on with the largest hosts dead (N+1).
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.power import US, PowerLimits, PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import Snapshot

GIB = float(1 << 30)
LATE_SECONDS = 300.0  # a forecast begins where the recorded load ends, up to a step of it before now


@dataclass(frozen=True, kw_only=True)
class PowerInputs:
    """What a decision rests on. ``records``: every host on record, by name; others are awake.

    ``foreseen_cores``: the bound that the last decision put on the demand of now, None without one. ``n_plus_one``: asked
    with the hosts that would stay on, why one of them could then not die; None where that is not asked for.
    """

    snapshot: Snapshot
    scenarios: Scenarios
    records: Mapping[str, PowerRecord]
    limits: PowerLimits
    foreseen_cores: float | None = None
    n_plus_one: Callable[[AbstractSet[str]], Refusal | None] | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """Upper bounds of the cluster's demand per step: reference cores and bytes, shape H each; and what is measured now."""

    cores: NDArray[np.float64]
    memory: NDArray[np.float64]
    now_cores: float
    step_seconds: float


@dataclass(frozen=True, slots=True)
class Supply:
    """What a set of hosts carries when its largest are dead."""

    cores: float
    memory: float
    hosts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerDecision:
    """``wake``: (host, why), the soonest back first. ``sleep``: hosts that demand does not need, the best to go first.

    ``kept``: why each host that is empty and on must stay on. ``next_cores``: the bound on the demand of the next step.
    """

    wake: tuple[tuple[str, str], ...] = ()
    sleep: tuple[tuple[str, str], ...] = ()
    kept: tuple[Refusal, ...] = ()
    next_cores: float | None = None


def after_window(records: Mapping[str, PowerRecord]) -> tuple[tuple[str, str], ...]:
    """(host, why) of those to wake once nobody is put to sleep any more, whether demand needs them or not.

    By day a cluster that is just carried has hot hosts: demand is not spread as evenly as its sum suggests. Whom an
    operator sent to sleep sleeps on.
    """
    going = (PowerPhase.ASLEEP, PowerPhase.CLOSING)
    ours = [r for r in records.values() if r.phase in going and r.by == US and not r.test and r.wake_wanted is None]
    return tuple((r.host, "the window is over") for r in ours)


def demand_of(scenarios: Scenarios, snapshot: Snapshot, quantile: float) -> Demand:
    """The cluster's demand: per step the quantile over paths of the sum over VMs, and what hosts use for themselves."""
    cores = _bounds(scenarios.cpu_cores, scenarios.paths, scenarios.steps, quantile)
    memory = _bounds(scenarios.memory_bytes, scenarios.paths, scenarios.steps, quantile)
    busy = own = 0.0
    for host in snapshot.hosts:
        if host.usable and host.load.cpu_cores:
            guests = sum(vm.load.cpu_cores or 0.0 for vm in snapshot.vms_on[host.name])
            busy += host.load.cpu_cores * host.speed_factor
            own += max(0.0, host.load.cpu_cores - guests) * host.speed_factor
    return Demand(cores + own, memory, busy, scenarios.step_seconds)


def _bounds(rows: NDArray[np.float32], paths: int, steps: int, quantile: float) -> NDArray[np.float64]:
    total = rows.astype(np.float64).sum(axis=0) if len(rows) else np.zeros(paths * steps)
    bounds: NDArray[np.float64] = np.quantile(total.reshape(paths, steps), quantile, axis=0)
    return bounds


def supply_of(hosts: list[tuple[float, float]], spare: int) -> Supply:
    """What hosts of these capacities carry without the ``spare`` largest in each resource."""
    cores = sorted((c for c, _ in hosts), reverse=True)[spare:]
    memory = sorted((m for _, m in hosts), reverse=True)[spare:]
    return Supply(float(sum(cores)), float(sum(memory)), len(hosts))


def lacking(demand: Demand, supply: Supply, limits: PowerLimits, seconds: float) -> str | None:
    """Why that supply does not carry the demand for that long, in words; None if it does."""
    if supply.hosts < limits.hosts_on_min:
        return f"{supply.hosts} hosts on, at least {limits.hosts_on_min} must be"
    late = min(LATE_SECONDS, demand.step_seconds)
    steps = min(len(demand.cores), max(1, ceil((seconds + late) / demand.step_seconds)))
    for what, bounds, capacity, share, unit, scale in (
        ("CPU", demand.cores, supply.cores, limits.cpu_headroom, "cores", 1.0),
        ("memory", demand.memory, supply.memory, limits.memory_headroom, "GiB", GIB),
    ):
        over = np.flatnonzero(bounds[:steps] > share * capacity)
        if len(over):
            first = int(over[0])
            return (
                f"{what} demand may reach {bounds[first] / scale:.1f} {unit} in {(first + 1) * demand.step_seconds:.0f} s, "
                f"{share * capacity / scale:.1f} are carried with {limits.spare_hosts} host(s) dead"
            )
    if demand.now_cores > limits.cpu_headroom * supply.cores:
        carried = limits.cpu_headroom * supply.cores
        return f"{demand.now_cores:.1f} cores are busy now, {carried:.1f} are carried with {limits.spare_hosts} host(s) dead"
    return None


def decide(inputs: PowerInputs) -> PowerDecision:
    """Whom to wake now, else who may sleep. A host on its way up counts as on, so that one need wakes once."""
    limits = inputs.limits
    demand = demand_of(inputs.scenarios, inputs.snapshot, limits.quantile)
    on = {h.name: _capacity(h, inputs.records.get(h.name)) for h in inputs.snapshot.hosts if _counts(h, inputs)}
    soon = float(demand.cores[0]) if len(demand.cores) else None
    wake = _whom_to_wake(inputs, demand, on)
    if wake:
        return PowerDecision(wake=wake, next_cores=soon)
    sleep, kept = _who_may_sleep(inputs, demand, on)
    return PowerDecision(sleep=sleep, kept=kept, next_cores=soon)


def _counts(host: Host, inputs: PowerInputs) -> bool:
    """On and usable, or on its way up. What is shut down, dead, stuck or stale counts for nothing."""
    record = inputs.records.get(host.name)
    if host.mode in (HostMode.OBSERVE, HostMode.DRAIN, HostMode.NO_INBOUND):
        return False
    if record is None:
        return host.usable
    if record.phase is PowerPhase.WAKING:
        return True
    if record.phase not in (PowerPhase.AWAKE, PowerPhase.CLOSING):
        return False
    return host.usable or record.is_arriving(inputs.snapshot.taken_at)


def _capacity(host: Host | None, record: PowerRecord | None) -> tuple[float, float]:
    """(reference cores, bytes), as observed, else as it had when it was put to sleep; nothing where neither is known."""
    if host is not None and host.capacity_cores is not None and host.capacity_memory_bytes is not None:
        return host.capacity_cores, float(host.capacity_memory_bytes)
    if host is None or record is None or record.cpus is None or record.memory_bytes is None:
        return 0.0, 0.0
    cores = max(0.0, record.cpus - host.reserved_cores) * host.speed_factor
    return cores, float(max(0, record.memory_bytes - host.reserved_memory_bytes))


def _lead_seconds(record: PowerRecord | None, limits: PowerLimits) -> float:
    boot = record.boot_seconds(limits.boot_seconds) if record is not None else limits.boot_seconds
    return boot + limits.unfold_seconds + limits.margin_seconds


def _whom_to_wake(
    inputs: PowerInputs, demand: Demand, on: Mapping[str, tuple[float, float]]
) -> tuple[tuple[str, str], ...]:
    """As few as make up for what is lacking, those that are back soonest first."""
    limits = inputs.limits
    sleepers = sorted(
        (r for r in inputs.records.values() if _may_be_woken(r)),
        key=lambda r: (r.disabled is not None, r.boot_seconds(limits.boot_seconds), r.host),
    )
    if not sleepers:
        return ()
    lead = max(_lead_seconds(r, limits) for r in sleepers)
    supply = dict(on)
    for record in inputs.records.values():
        if record.phase in (PowerPhase.SHUTTING_DOWN, PowerPhase.STUCK) and record.wake_wanted is not None:
            supply[record.host] = _capacity(inputs.snapshot.host_by_name.get(record.host), record)
    why = _surprise(inputs, demand)
    chosen: list[tuple[str, str]] = []
    for record in sleepers:
        need = why or lacking(demand, supply_of(list(supply.values()), limits.spare_hosts), limits, lead)
        if need is None:
            break
        chosen.append((record.host, need))
        supply[record.host] = _capacity(inputs.snapshot.host_by_name.get(record.host), record)
        why = None
    return tuple(chosen)


def _may_be_woken(record: PowerRecord) -> bool:
    if record.phase is PowerPhase.ASLEEP:
        return record.wake_wanted is None
    return record.phase is PowerPhase.SHUTTING_DOWN and record.wake_wanted is None


def _surprise(inputs: PowerInputs, demand: Demand) -> str | None:
    foreseen = inputs.foreseen_cores
    if foreseen is None or demand.now_cores <= foreseen * (1 + inputs.limits.surprise_share) + 1.0:
        return None
    return f"{demand.now_cores:.1f} cores are busy now, {foreseen:.1f} at most were foreseen"


def _who_may_sleep(
    inputs: PowerInputs, demand: Demand, on: Mapping[str, tuple[float, float]]
) -> tuple[tuple[tuple[str, str], ...], tuple[Refusal, ...]]:
    """Empty hosts one after the other, each against what would be left, over the whole forecast."""
    limits = inputs.limits
    awake = [
        h.name
        for h in inputs.snapshot.hosts
        if h.name in on
        and not inputs.snapshot.vms_on[h.name]
        and (h.name not in inputs.records or inputs.records[h.name].phase is PowerPhase.AWAKE)
    ]
    # a host that takes little to lose and comes back fast goes first
    order = sorted(awake, key=lambda name: (_lead_seconds(inputs.records.get(name), limits), on[name][0], name))
    left = {name: capacity for name, capacity in on.items() if not _closing(inputs, name)}
    sleep: list[tuple[str, str]] = []
    kept: list[Refusal] = []
    for name in order:
        rest = [capacity for other, capacity in left.items() if other != name]
        supply = supply_of(rest, limits.spare_hosts)
        lead = _lead_seconds(inputs.records.get(name), limits) + limits.min_down_seconds
        need = lacking(demand, supply, limits, max(lead, len(demand.cores) * demand.step_seconds))
        if need is not None:
            code = Code.HOSTS_ON_MIN if supply.hosts < limits.hosts_on_min else Code.NEEDED_FOR_DEMAND
            kept.append(about_host(code, name, f"without {name}: {need}"))
            continue
        staying = left.keys() - {name}
        if inputs.n_plus_one is not None and (broken := inputs.n_plus_one(staying)) is not None:
            kept.append(about_host(broken.code, name, f"without {name}: {broken.detail}"))
            continue
        sleep.append((name, f"empty, and {supply.hosts} hosts carry the demand of the whole forecast"))
        del left[name]
    return tuple(sleep), tuple(kept)


def _closing(inputs: PowerInputs, name: str) -> bool:
    record = inputs.records.get(name)
    return record is not None and record.phase is PowerPhase.CLOSING
