"""The four public sets as they stand in .npz files, each file to its traces. All have one row every 300 seconds.

planetlab: ``cpu_<day>`` [VM, 288] per cent, ``name_<day>``: one trace per day. google2011: ``cpu_pct100`` and
``mem_pct100`` [VM, T] per cent × 100, ``name``. bitbrains: ``cpu_permille`` and ``mem_permille`` [VM, T] of what is
provisioned, ``meta`` [VM, 4] = id, cores, MHz, KB, ``t0`` = epoch seconds of the first row. azure: ``avg`` and ``max``
[T, VM] per cent × 100; the mean is the load, and VMs have no names. 65535 is missing wherever values are uint16.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from rebalancerd.cluster.trace import Trace
from rebalancerd.cluster.units import KIB
from rebalancerd.observe.traces.archive import Archive
from rebalancerd.observe.traces.shares import MOST_CPU, MOST_MEMORY, WHOLE, Floats, drop_rows, shares, sizes

STEP_SECONDS = 300.0
ROWS_PER_DAY = 288
LATEST_START = 4_102_444_800.0  # the year 2100: a clock beyond it is wrong

PERCENT, PERMILLE, PERCENT_100 = 1e-2, 1e-3, 1e-4


def planetlab(archive: Archive) -> list[Trace]:
    """One trace per day; ``part`` is the day, ``start`` its midnight where the day is a date."""
    days = sorted({name.partition("_")[2] for name in archive.names if name.startswith(("cpu_", "name_"))})
    if not days:
        raise archive.refuse("no array cpu_<day>")
    return [_planetlab_day(archive, day) for day in days]


def _planetlab_day(archive: Archive, day: str) -> Trace:
    raw = archive.numbers(f"cpu_{day}", 2)
    if raw.shape[1] != ROWS_PER_DAY:
        step = 86_400 / raw.shape[1]
        raise archive.refuse(
            f"cpu_{day} has {raw.shape[1]} rows in its day, one every {step:g} s; {ROWS_PER_DAY} expected"
        )
    dropped: Counter[str] = Counter()
    return Trace(
        set="planetlab",
        part=day,
        ids=archive.ids(f"name_{day}", raw.shape[0]),
        step_seconds=STEP_SECONDS,
        start=_midnight(day),
        cpu=_usable(archive, shares(raw, PERCENT, WHOLE, "cpu", dropped)),
        dropped=_counted(dropped),
    )


def google(archive: Archive) -> list[Trace]:
    """One trace; memory is a share of what the job asked for and can exceed it. The date is not told."""
    cpu, memory = archive.numbers("cpu_pct100", 2), archive.numbers("mem_pct100", 2)
    if cpu.shape != memory.shape:
        raise archive.refuse(f"cpu_pct100 has shape {cpu.shape}, mem_pct100 {memory.shape}")
    dropped: Counter[str] = Counter()
    return [
        Trace(
            set="google",
            part=_part(archive),
            ids=archive.ids("name", cpu.shape[0]),
            step_seconds=STEP_SECONDS,
            start=0.0,
            cpu=_usable(archive, shares(cpu, PERCENT_100, MOST_CPU, "cpu", dropped)),
            memory=_by_time(shares(memory, PERCENT_100, MOST_MEMORY, "memory", dropped)),
            dropped=_counted(dropped),
        )
    ]


def bitbrains(archive: Archive) -> list[Trace]:
    """One trace. A VM to which ``meta`` gives no CPUs or no memory has no size: its shares mean nothing and are dropped."""
    cpu, memory = archive.numbers("cpu_permille", 2), archive.numbers("mem_permille", 2)
    meta = archive.numbers("meta", 2)
    if cpu.shape != memory.shape or meta.shape != (cpu.shape[0], 4):
        raise archive.refuse(f"cpu_permille has shape {cpu.shape}, mem_permille {memory.shape}, meta {meta.shape}")
    start = archive.scalar("t0")
    if not 0 <= start <= LATEST_START:
        raise archive.refuse(f"t0 is {start:g}, not the epoch second of a first row")
    if not np.isfinite(meta[:, 0].astype(np.float64)).all():
        raise archive.refuse("meta has a VM without an id")
    ids = tuple(f"{number:.15g}" for number in meta[:, 0].astype(np.float64).tolist())
    cores, held = sizes(meta[:, 1]), sizes(meta[:, 3]) * KIB
    dropped: Counter[str] = Counter()
    shares_of_cpu = shares(cpu, PERMILLE, MOST_CPU, "cpu", dropped)
    shares_of_memory = shares(memory, PERMILLE, MOST_MEMORY, "memory", dropped)
    drop_rows(shares_of_cpu, np.isnan(cores), "cpu_no_cpus", dropped)
    drop_rows(shares_of_memory, np.isnan(held), "memory_no_memory", dropped)
    return [
        Trace(
            set="bitbrains",
            part=_part(archive),
            ids=archive.unique(ids, cpu.shape[0], "meta"),
            step_seconds=STEP_SECONDS,
            start=start,
            cpu=_usable(archive, shares_of_cpu),
            memory=_by_time(shares_of_memory),
            cores=cores,
            memory_bytes=held,
            dropped=_counted(dropped),
        )
    ]


def azure(archive: Archive) -> list[Trace]:
    """One trace of the means; a mean above its own step's maximum is a fault. Ids are column numbers, as none are told."""
    mean, most = archive.numbers("avg", 2), archive.numbers("max", 2)
    if mean.shape != most.shape:
        raise archive.refuse(f"avg has shape {mean.shape}, max {most.shape}")
    dropped: Counter[str] = Counter()
    cpu = shares(mean, PERCENT_100, WHOLE, "cpu", dropped)
    peak = shares(most, PERCENT_100, WHOLE, "max", Counter())
    with np.errstate(invalid="ignore"):
        above = cpu > peak
    if above.any():
        dropped["cpu_above_its_maximum"] += int(above.sum())
        cpu[above] = np.nan
    return [
        Trace(
            set="azure",
            part=_part(archive),
            ids=tuple(f"vm{column:05d}" for column in range(cpu.shape[1])),
            step_seconds=STEP_SECONDS,
            start=0.0,
            cpu=_usable(archive, cpu.T).copy(),
            dropped=_counted(dropped),
        )
    ]


FORMATS: dict[str, Callable[[Archive], list[Trace]]] = {
    "planetlab_": planetlab,
    "google2011_": google,
    "bitbrains_": bitbrains,
    "azure_": azure,
}


def _by_time(values: Floats) -> Floats:
    return np.ascontiguousarray(values.T)


def _usable(archive: Archive, values: Floats) -> Floats:
    """(N, T) to (T, N). Refuses a load of which nothing is known."""
    if not np.isfinite(values).any():
        raise archive.refuse("not one value of its CPU load can be used")
    return _by_time(values)


def _counted(dropped: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(dropped.items()))


def _part(archive: Archive) -> str:
    """What the file's name says after the prefix of its set."""
    return archive.path.stem.partition("_")[2]


def _midnight(day: str) -> float:
    try:
        return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
