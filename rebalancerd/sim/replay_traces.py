"""A cluster made up around traces: whose load it carries is recorded, where it stands and how large it is is drawn.

VMs are drawn from all sets alike, the busier ones more often (in proportion to their load), each with its whole window
of time, so that VMs of one trace go on moving together. A
window is the history before the replay and the replay itself; it begins at a trace's own beginning or whole days later,
so that the time of day is the same for all. Hosts are alike and as large as it takes for the replay's mean demand to be
``FILL`` of what they have; some are liked better than others when VMs are placed: neither idle nor hopeless.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.trace import Trace
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.sim.clock import EPOCH
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.replay_case import Floats, ReplayCase, ReplayError, filled
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.synthetic import SIZES

VMS_PER_HOST = 10
FILL = 0.5
DAY_SECONDS = 86_400.0
PAST_HOURS, LEAST_PAST_HOURS = 24.0, 1.0
KNOWN_SHARE = 0.5
MOST_VCPUS, MOST_MEMORY = 8, 64 * GIB  # of a trace's own sizes: larger ones need hosts of another kind
LEAST_CPUS = 8
MEMORY_SPARE, HOST_MEMORY = 1.6, 8 * GIB
POPULARITY_SHAPE = 8.0
STEP_SECONDS = 300.0
IDLE_WEIGHT = 0.01
SIZE_SHARES = (0.2, 0.3, 0.2, 0.15, 0.1, 0.05)  # of synthetic.SIZES


@dataclass(frozen=True, slots=True)
class _Choice:
    """One VM of a window: which trace, its first row, its column."""

    trace: int
    first: int
    column: int


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Drawn VMs; arrays of one column each: CPU shares and bytes held (window rows, V), vCPUs and bytes of size (V,)."""

    cpu: Floats
    memory: Floats
    vcpus: NDArray[np.int64]
    size: NDArray[np.float64]
    names: tuple[str, ...]


def case_of_traces(traces: Sequence[Trace], *, hosts: int, hours: float, seed: int) -> ReplayCase:
    """A seeded cluster of so many hosts, ten VMs each if the traces have them. Raises ReplayError."""
    step = STEP_SECONDS
    rows = round(hours * 3600 / step)
    least = round(LEAST_PAST_HOURS * 3600 / step)
    usable = [t for t in traces if t.step_seconds == step and len(t.cpu) >= rows + least]
    if not usable:
        longest = max((len(t.cpu) * t.step_seconds / 3600 for t in traces), default=0.0)
        raise ReplayError(
            f"no trace is long enough for {hours:g} h of replay after {LEAST_PAST_HOURS:g} h of history; the longest has {longest:g} h"
        )
    past = min(round(PAST_HOURS * 3600 / step), min(len(t.cpu) for t in usable) - rows)
    rng = np.random.default_rng(seed)
    choices = _choices(usable, past + rows, past)
    wanted = hosts * VMS_PER_HOST
    if len(choices) < hosts:
        raise ReplayError(f"the traces have {len(choices)} usable VMs, fewer than {hosts} hosts")
    weights = _weights(usable, choices, past + rows)
    picked = [choices[i] for i in rng.choice(len(choices), size=min(wanted, len(choices)), replace=False, p=weights)]
    drawn = _draw(usable, picked, past + rows, rng)
    demand = (filled(drawn.cpu)[past:] * drawn.vcpus).astype(np.float64)
    specs = _hosts(drawn, demand, hosts)
    where = _place(drawn, specs, rng)
    vms = tuple(_vm(drawn, i, where[i], demand[:, i], rng) for i in range(len(picked)))
    cluster = ClusterSpec(hosts=specs, vms=vms, seed=seed)
    told = _told(usable, picked, cluster, past * step / 3600, hours)
    return ReplayCase(
        cluster=cluster,
        start=EPOCH + past * step,
        seconds=rows * step,
        step_seconds=step,
        past_cpu=drawn.cpu[:past] * drawn.vcpus,
        past_memory=drawn.memory[:past],
        memory=filled(drawn.memory)[past:].astype(np.float32),
        told=told,
    )


def _choices(traces: Sequence[Trace], window: int, past: int) -> list[_Choice]:
    """Every VM of every window that is known for half of both its parts and not larger than the hosts are meant for."""
    found = []
    for number, trace in enumerate(traces):
        fits = np.ones(trace.cpu.shape[1], dtype=np.bool_)
        if trace.cores is not None:
            fits &= trace.cores <= MOST_VCPUS
        if trace.memory_bytes is not None:
            fits &= trace.memory_bytes <= MOST_MEMORY
        for first in range(0, len(trace.cpu) - window + 1, round(DAY_SECONDS / trace.step_seconds)):
            known = np.isfinite(trace.cpu[first : first + window])
            good = fits & (known[:past].mean(axis=0) >= KNOWN_SHARE) & (known[past:].mean(axis=0) >= KNOWN_SHARE)
            found += [_Choice(number, first, int(column)) for column in np.flatnonzero(good)]
    return found


def _weights(traces: Sequence[Trace], choices: Sequence[_Choice], window: int) -> NDArray[np.float64]:
    """Chances that add up to 1: each set has the same, within a set they go by mean load; an idle VM has some, too."""
    means = {}
    for n, first in sorted({(c.trace, c.first) for c in choices}):
        part = traces[n].cpu[first : first + window]
        means[n, first] = np.nansum(part, axis=0) / np.maximum(np.isfinite(part).sum(axis=0), 1)
    weights = IDLE_WEIGHT + np.array([float(means[c.trace, c.first][c.column]) for c in choices])
    sets = np.array([traces[c.trace].set for c in choices])
    for name in np.unique(sets):
        weights[sets == name] /= weights[sets == name].sum()
    found: NDArray[np.float64] = weights / weights.sum()
    return found


def _draw(traces: Sequence[Trace], picked: Sequence[_Choice], window: int, rng: np.random.Generator) -> _Drawn:
    cpu = np.empty((window, len(picked)), dtype=np.float32)
    held = np.empty((window, len(picked)), dtype=np.float32)
    vcpus, size, names = np.empty(len(picked), dtype=np.int64), np.empty(len(picked)), []
    mix = rng.choice(len(SIZES), size=len(picked), p=SIZE_SHARES)
    at_rest = rng.uniform(0.3, 0.95, size=len(picked))
    for i, choice in enumerate(picked):
        trace, rows = traces[choice.trace], slice(choice.first, choice.first + window)
        own_cores = trace.cores is not None and np.isfinite(trace.cores[choice.column])
        own_size = trace.memory_bytes is not None and np.isfinite(trace.memory_bytes[choice.column])
        vcpus[i] = int(trace.cores[choice.column]) if trace.cores is not None and own_cores else SIZES[mix[i]][0]
        size[i] = (
            trace.memory_bytes[choice.column] if trace.memory_bytes is not None and own_size else SIZES[mix[i]][1] * GIB
        )
        cpu[:, i] = np.minimum(trace.cpu[rows, choice.column], 1.0)
        share = trace.memory[rows, choice.column] if trace.memory is not None else np.full(window, np.nan)
        known = np.isfinite(share).any()
        held[:, i] = (np.clip(share, 0.02, 1.0) if known else at_rest[i]) * size[i]
        names.append(f"{trace.set}-{trace.part}-{choice.first // max(1, window)}-{trace.ids[choice.column]}")
    return _Drawn(cpu, held, vcpus, size, tuple(names))


def _hosts(drawn: _Drawn, demand: NDArray[np.float64], count: int) -> tuple[HostSpec, ...]:
    """Hosts all alike."""
    cpus = max(LEAST_CPUS, int(np.ceil(demand.sum(axis=1).mean() / (count * FILL))))
    memory = max(MEMORY_SPARE * drawn.size.sum() / count, 2 * drawn.size.max()) + HOST_MEMORY
    digits = len(str(count))
    return tuple(
        HostSpec(
            name=f"host-{i + 1:0{digits}d}",
            cpus=cpus,
            memory_bytes=int(np.ceil(memory / GIB)) * GIB,
            link_bytes_per_second=1.25e9,
            failure_domain=f"rack-{i // 8 + 1}",
        )
        for i in range(count)
    )


def _place(drawn: _Drawn, hosts: tuple[HostSpec, ...], rng: np.random.Generator) -> list[str]:
    """Name of each VM's host: in proportion to how popular a host is, among those with memory left (Gumbel maximum)."""
    room = np.full(len(hosts), float(hosts[0].memory_bytes - HOST_MEMORY))
    liking = np.log(rng.gamma(POPULARITY_SHAPE, 1.0, size=len(hosts)))  # that is what balancing is for
    found = [""] * len(drawn.size)
    for i in np.argsort(-drawn.size, kind="stable"):  # the largest first, so that all find room
        score = np.where(room >= drawn.size[i], liking + rng.gumbel(size=len(hosts)), -np.inf)
        at = int(np.argmax(score)) if np.isfinite(score).any() else int(np.argmax(room))
        room[at] -= drawn.size[i]
        found[i] = hosts[at].name
    return found


def _vm(drawn: _Drawn, i: int, host: str, demand: NDArray[np.float64], rng: np.random.Generator) -> VmSpec:
    size, held = float(drawn.size[i]), drawn.memory[:, i]
    return VmSpec(
        name=f"{i + 1:05d}-{drawn.names[i]}",
        host=host,
        vcpus=int(drawn.vcpus[i]),
        memory_bytes=int(size),
        rss_bytes=int(np.nanmean(held)),
        demand=Demand(trace=tuple(demand.tolist()), trace_step_seconds=STEP_SECONDS),
        dirty_bytes_per_second=float(rng.lognormal(2.0, 1.2)) * MIB,
        working_set_bytes=size * float(rng.uniform(0.01, 0.2)),
        network_bytes_per_second=float(rng.lognormal(11, 1.5)),
        block_bytes_per_second=float(rng.lognormal(12, 1.5)),
    )


def _told(
    traces: Sequence[Trace], picked: Sequence[_Choice], cluster: ClusterSpec, past: float, hours: float
) -> tuple[str, ...]:
    sets = Counter(traces[choice.trace].set for choice in picked)
    drawn = ", ".join(f"{count} of {name}" for name, count in sorted(sets.items()))
    host = cluster.hosts[0]
    dropped: Counter[str] = Counter()
    for trace in traces:
        dropped.update(dict(trace.dropped))
    faults = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
    return (
        f"{len(cluster.hosts)} hosts of {host.cpus} CPUs and {host.memory_bytes / GIB:.0f} GiB, {len(cluster.vms)} VMs ({drawn})",
        f"{past:g} h of history, then {hours:g} h of replay; sizes not told by a trace, placement and dirty rates are drawn (seed {cluster.seed})",
        *([f"values of the traces that are unknown or cannot be a load: {faults}"] if faults else []),
    )
