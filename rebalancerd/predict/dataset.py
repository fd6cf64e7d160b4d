"""Rows of migrations as a CSV file (what ``rebalancerd lab harvest`` writes), read strictly; and what makes a row absurd."""

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.cluster.units import GIB, MIB

OUTCOMES = ("succeeded", "deadline", "failed")
REQUIRED = (
    "id",
    "started_at",
    "memory_bytes",
    "dirty_periods_seconds",
    "dirty_unique_bytes",
    "max_downtime_seconds",
    "deadline_seconds",
    "outcome",
    "seconds",
)
MOST_FIELD_CHARS = 10_000
LEAST_MEMORY_BYTES, MOST_MEMORY_BYTES = MIB, 64 * 1024 * GIB
MOST_SECONDS = 30 * 86_400.0
LINK_TOLERANCE = 3.0  # a rating may be wrong; by a factor of 1024 it is not
# pages of zeros cost 8 bytes on the wire, so a guest of nothing else sends a five-hundredth of its memory
LEAST_SENT_SHARE = 0.0015


def read_migrations(path: Path, source: str = "best") -> tuple[LabelledMigration, ...]:
    """The rows of a file, in order; runs that ended neither on the destination nor at their deadline are left out.

    ``source`` of the dirty curves: "exact" (read from the guest's memory by its host's agent), "sampled" (libvirt's
    calculation), or "best", the first where a row has it. A row without a curve of that source has none. Raises ValueError naming file, line and column for a file that cannot be read, lacks columns, is cut off, or holds
    a figure that is none or is impossible. OSError where there is no such file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except UnicodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    if text and not text.endswith("\n"):
        raise ValueError(f"{path}: line {text.count(chr(10)) + 1}: the file is cut off in this line")
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        names = tuple(reader.fieldnames or ())
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)}")
        rows = []
        for cells in reader:
            row = _row(path, reader.line_num, cells, source)
            if row is not None:
                rows.append(row)
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from error
    if not rows:
        raise ValueError(f"{path}: no row of a migration that ended")
    return tuple(rows)


def read_both_views(path: Path) -> tuple[LabelledMigration, ...]:
    """The rows as they are learned from: with libvirt's curve alone, and once more with the agent's where that was there.

    Raises as ``read_migrations``.
    """
    exact = [row for row in read_migrations(path, "exact") if row.facts.dirty is not None]
    return (*read_migrations(path, "sampled"), *exact)


class _Cells:
    """One line; every reading names line and column where it fails."""

    def __init__(self, path: Path, line: int, cells: Mapping[str, Any]) -> None:
        self.at, self.cells = f"{path}: line {line}", cells
        if None in cells or any(value is None for value in cells.values()):
            raise ValueError(f"{self.at}: not as many cells as the header has")

    def text(self, name: str) -> str:
        value = str(self.cells.get(name, ""))
        if len(value) > MOST_FIELD_CHARS:
            raise ValueError(f"{self.at}: column {name}: longer than {MOST_FIELD_CHARS} characters")
        return value

    def number(self, name: str, *, least: float = 0.0) -> float | None:
        """A finite number of at least ``least``, None for an empty cell."""
        text = self.text(name)
        return None if text == "" else self._number(name, text, least)

    def needed(self, name: str, *, least: float = 0.0) -> float:
        value = self.number(name, least=least)
        if value is None:
            raise ValueError(f"{self.at}: column {name}: empty")
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        """Numbers parted by semicolons."""
        return tuple(self._number(name, part, 0.0) for part in self.text(name).split(";") if part != "")

    def whole(self, name: str, default: int) -> int:
        value = self.number(name)
        return default if value is None else int(value)

    def _number(self, name: str, text: str, least: float) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{self.at}: column {name}: {text[:40]!r} is no number") from None
        if not math.isfinite(value) or value < least:
            raise ValueError(f"{self.at}: column {name}: {text[:40]} is not a finite number of at least {least:g}")
        return value


def _row(path: Path, line: int, raw: Mapping[str, Any], source: str) -> LabelledMigration | None:
    cells = _Cells(path, line, raw)
    outcome = cells.text("outcome")
    if outcome not in OUTCOMES:
        raise ValueError(f"{cells.at}: column outcome: {outcome[:40]!r} is none of {', '.join(OUTCOMES)}")
    if outcome == "failed":
        return None
    row = LabelledMigration(
        id=cells.text("id"),
        at=cells.needed("started_at"),
        facts=_facts(cells, source),
        succeeded=outcome == "succeeded",
        deadline_seconds=cells.needed("deadline_seconds", least=1e-3),
        seconds=cells.needed("seconds"),
        downtime_seconds=cells.number("downtime_seconds"),
        bytes=cells.number("bytes"),
        slowdown=cells.number("slowdown"),
        family=cells.text("family"),
        setting=cells.text("setting"),
        repeat=cells.whole("repeat", 0),
        concurrent=cells.whole("concurrent", 1),
        disturbed=bool(cells.whole("disturbed", 0)),
    )
    reason = sound(row)
    if reason is not None:
        raise ValueError(f"{cells.at}: {reason}")
    return row


def _facts(cells: _Cells, source: str) -> MigrationFacts:
    cap = cells.number("bandwidth_bytes_per_second")
    resident = cells.number("resident_bytes")
    return MigrationFacts(
        memory_bytes=int(cells.needed("memory_bytes", least=1)),
        resident_bytes=None if resident is None else int(resident),
        vcpus=cells.whole("vcpus", 1),
        vm_cpu_cores=cells.number("vm_cpu_cores"),
        vm_steal_cores=cells.number("vm_steal_cores"),
        dirty=_curve(cells, source),
        link_bytes_per_second=cells.number("link_bytes_per_second"),
        link_share=_or(cells.number("link_share"), 1.0),
        options=MigrationOptions(
            max_downtime_seconds=cells.needed("max_downtime_seconds"),
            bandwidth_bytes_per_second=cap,
            auto_converge=bool(cells.whole("auto_converge", 0)),
            parallel=cells.whole("parallel", 0),
        ),
        source_cores=cells.number("source_cores"),
        source_cpu_cores=cells.number("source_cpu_cores"),
        destination_cores=cells.number("destination_cores"),
        destination_cpu_cores=cells.number("destination_cpu_cores"),
    )


def _curve(cells: _Cells, source: str) -> DirtyCurve | None:
    prefixes = {"best": ("exact", "dirty"), "exact": ("exact",), "sampled": ("dirty",)}
    if source not in prefixes:
        raise ValueError(f"a source of dirty curves is one of {', '.join(prefixes)}, not {source!r}")
    found = (_curve_of(cells, prefix) for prefix in prefixes[source])
    return next((curve for curve in found if curve is not None), None)


def _curve_of(cells: _Cells, prefix: str) -> DirtyCurve | None:
    periods, unique = cells.numbers(f"{prefix}_periods_seconds"), cells.numbers(f"{prefix}_unique_bytes")
    errors = cells.numbers(f"{prefix}_error_bytes") or (0.0,) * len(periods)
    readings = cells.numbers(f"{prefix}_readings") or (1.0,) * len(periods)
    if not len(periods) == len(unique) == len(errors) == len(readings):
        raise ValueError(f"{cells.at}: columns {prefix}_*: not as many figures in each")
    if not periods:
        return None
    points = tuple(
        DirtyPoint(period_seconds=p, unique_bytes=u, standard_error_bytes=e, readings=int(n))
        for p, u, e, n in zip(periods, unique, errors, readings, strict=True)
    )
    try:
        return DirtyCurve(points=points, age_seconds=_or(cells.number(f"{prefix}_age_seconds"), 0.0))
    except ValueError as error:
        raise ValueError(f"{cells.at}: column {prefix}_periods_seconds: {error}") from error


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def sound(row: LabelledMigration) -> str | None:
    """Why no migration can have been like this: impossible values, units off by 1024, rates below zero. None if it can."""
    return next((reason for check in _CHECKS if (reason := check(row)) is not None), None)


def _figures(row: LabelledMigration) -> str | None:
    facts = row.facts
    told = {
        "memory_bytes": facts.memory_bytes,
        "resident_bytes": facts.resident_bytes,
        "vm_cpu_cores": facts.vm_cpu_cores,
        "vm_steal_cores": facts.vm_steal_cores,
        "link_bytes_per_second": facts.link_bytes_per_second,
        "source_cpu_cores": facts.source_cpu_cores,
        "destination_cpu_cores": facts.destination_cpu_cores,
        "seconds": row.seconds,
        "downtime_seconds": row.downtime_seconds,
        "bytes": row.bytes,
        "slowdown": row.slowdown,
        "deadline_seconds": row.deadline_seconds,
        "max_downtime_seconds": facts.options.max_downtime_seconds,
        "bandwidth_bytes_per_second": facts.options.bandwidth_bytes_per_second,
    }
    for name, value in told.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            return f"{name} is {value:g}"
    return None


def _memory(row: LabelledMigration) -> str | None:
    facts = row.facts
    if not LEAST_MEMORY_BYTES <= facts.memory_bytes <= MOST_MEMORY_BYTES:
        return f"memory_bytes is {facts.memory_bytes}: no VM has that"
    if facts.resident_bytes is not None and facts.resident_bytes > 4 * facts.memory_bytes + GIB:
        return f"resident_bytes is {facts.resident_bytes} of a VM with {facts.memory_bytes}"
    return None


def _dirty(row: LabelledMigration) -> str | None:
    for point in row.facts.dirty.points if row.facts.dirty is not None else ():
        if not 0 <= point.unique_bytes <= 1.05 * row.facts.memory_bytes:
            return f"{point.unique_bytes:g} bytes dirtied of a VM with {row.facts.memory_bytes}"
        if not point.standard_error_bytes >= 0:
            return f"a standard error of {point.standard_error_bytes:g} bytes"
    return None


def _times(row: LabelledMigration) -> str | None:
    if row.slowdown is not None and row.slowdown > 1:
        return f"slowdown is {row.slowdown:g}: it is a share"
    if row.seconds is None:
        return None
    if not 0 < row.seconds <= MOST_SECONDS:
        return f"seconds is {row.seconds:g}"
    if row.downtime_seconds is not None and row.downtime_seconds > row.seconds:
        return f"a downtime of {row.downtime_seconds:g} s in {row.seconds:g} s"
    return None


def _sent(row: LabelledMigration) -> str | None:
    if row.seconds is None or row.bytes is None or not row.succeeded:
        return None
    link, resident = row.facts.link_bytes_per_second, row.facts.resident_bytes
    if link is not None and row.bytes > LINK_TOLERANCE * link * row.seconds:
        return f"{row.bytes:g} bytes in {row.seconds:g} s over a link of {link:g} bytes/s"
    if resident is not None and row.bytes < LEAST_SENT_SHARE * min(resident, row.facts.memory_bytes):
        return f"{row.bytes:g} bytes sent of {resident} resident ones"
    return None


_CHECKS: tuple[Callable[[LabelledMigration], str | None], ...] = (_figures, _memory, _dirty, _times, _sent)
