"""The harvest's CSV file: one row a migration, appended durably; what a crash left half-written is cut off."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from rebalancerd.lab.commands import LabError

INPUTS = (
    "memory_bytes",
    "resident_bytes",
    "vcpus",
    "vm_cpu_cores",
    "vm_steal_cores",
    "dirty_periods_seconds",
    "dirty_unique_bytes",
    "dirty_error_bytes",
    "dirty_readings",
    "dirty_age_seconds",
    "exact_periods_seconds",
    "exact_unique_bytes",
    "exact_error_bytes",
    "exact_readings",
    "exact_age_seconds",
    "link_bytes_per_second",
    "link_share",
    "bandwidth_bytes_per_second",
    "max_downtime_seconds",
    "auto_converge",
    "parallel",
    "deadline_seconds",
    "source_cores",
    "source_cpu_cores",
    "destination_cores",
    "destination_cpu_cores",
)
LABELS = (
    "outcome",
    "seconds",
    "total_seconds",
    "downtime_seconds",
    "bytes",
    "iterations",
    "throttle",
    "slowdown",
)
CONDITIONS = (
    "link_reached_bytes_per_second",
    "other_cpu_cores",
    "stolen_cores",
    "pressure",
    "load1",
    "panicked",
    "disturbed",
    "note",
)
TRUTH = (  # of the lab's own making; no cluster knows them before a move
    "order",
    "working_set_mib",
    "dirty_mib_per_second",
    "cpu_percent",
    "phases",
    "source_bystander_cores",
    "destination_bystander_cores",
)
COLUMNS = ("id", "setting", "repeat", "family", "started_at", "concurrent", *INPUTS, *LABELS, *CONDITIONS, *TRUTH)


class RowFile:
    """Appends rows; each is on the disk before ``append`` returns. ``outcomes``: of the rows it has, by their id.

    Raises:
        LabError: the file exists and has other columns, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, str] = {}
        try:
            if path.exists() and path.stat().st_size:
                self._resume()
            else:
                path.write_text(_line(COLUMNS), encoding="utf-8")
        except (OSError, UnicodeError, csv.Error) as error:
            raise LabError(f"harvest file {path}: {error}") from error

    def _resume(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        if not text.endswith("\n"):  # a crash cut the last row
            text = text[: text.rfind("\n") + 1]
            with self.path.open("r+b") as file:
                file.truncate(len(text.encode("utf-8")))
        rows = csv.DictReader(io.StringIO(text))
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise LabError(f"harvest file {self.path}: its columns are not those of this version")
        self.outcomes = {row["id"]: row["outcome"] for row in rows}

    def append(self, *rows: Mapping[str, object]) -> None:
        """Write rows in one go.

        Raises:
            OSError: the disk is full, or the like.
        """
        text = "".join(_line([_text(row.get(column)) for column in COLUMNS]) for row in rows)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, text.encode("utf-8"))
            os.fsync(handle)
        finally:
            os.close(handle)
        self.outcomes.update((str(row["id"]), str(row["outcome"])) for row in rows)


def _line(values: object) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)  # type: ignore[arg-type]
    return buffer.getvalue()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.9g}" if isinstance(value, float) else str(value)
