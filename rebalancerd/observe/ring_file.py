"""One resource's history in one memory-mapped file: rows of float32, time-major, used as a ring.

Layout, little-endian: a header of 4096 bytes, then ``rows + 1`` rows of ``capacity`` float32. A row is one step of time;
row number r (epoch seconds ÷ step) lies at physical row r mod (rows + 1), so the row being written is never one of the
``rows`` that are read. Header: magic, version, capacity, rows, step, first row, last row, samples in the last row,
CRC-32 of all before it.
"""

import mmap
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAGIC = b"RBLRING\x00"
VERSION = 1
HEADER_BYTES = 4096
_HEADER = struct.Struct("<8sIIIdqqI")
_CRC = struct.Struct("<I")
NO_ROW = -1
COPY_TRIES = 5

Floats = NDArray[np.float32]


class RingFileError(Exception):
    """The file is not a ring of this version and shape; the message says why."""


class RingFile:
    """A ring of ``rows`` steps × ``capacity`` columns. Not thread-safe. NaN is unknown."""

    def __init__(self, path: Path, *, rows: int, step_seconds: float, capacity: int) -> None:
        """Open, or make if absent. Raises RingFileError for a file that is something else, OSError."""
        self.path, self.rows, self.step_seconds = path, rows, step_seconds
        if not path.exists():
            _create(path, rows, step_seconds, capacity)
        self._open()

    def _open(self) -> None:
        with self.path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < HEADER_BYTES:
                raise RingFileError(f"{self.path} is truncated: {size} bytes")
            header = file.read(_HEADER.size + _CRC.size)
            self.capacity = self._check(header, size)
            self._map = mmap.mmap(file.fileno(), size)
        self._values: Floats = np.frombuffer(self._map, dtype="<f4", offset=HEADER_BYTES).reshape(
            self.rows + 1, self.capacity
        )

    def _check(self, header: bytes, size: int) -> int:
        magic, version, capacity, rows, step, first, last, samples = _HEADER.unpack_from(header)
        if magic != MAGIC:
            raise RingFileError(f"{self.path} is not a history file")
        if version != VERSION:
            raise RingFileError(f"{self.path} has format version {version}, this program writes {VERSION}")
        if _CRC.unpack_from(header, _HEADER.size)[0] != zlib.crc32(header[: _HEADER.size]):
            raise RingFileError(f"{self.path} has a damaged header")
        if (rows, step) != (self.rows, self.step_seconds):
            raise RingFileError(
                f"{self.path} has {rows} rows of {step:g} s, not {self.rows} of {self.step_seconds:g} s"
            )
        if size != HEADER_BYTES + (rows + 1) * capacity * 4:
            raise RingFileError(f"{self.path} is truncated: {size} bytes for {rows} rows of {capacity}")
        self.first, self.last, self.samples = int(first), int(last), int(samples)
        return int(capacity)

    def write(self, row: int, values: Floats, samples: int) -> None:
        """Put the mean of ``samples`` samples, shape (≤ capacity,), into row ``row``; rows skipped become NaN.

        ``row`` is the last row or a later one. Raises ValueError for an earlier one.
        """
        if row < self.last:
            raise ValueError(f"row {row} is before the last one, {self.last}")
        if self.last == NO_ROW or row - self.last > self.rows:
            self._values[:] = np.nan
            self.first = row
        else:
            for skipped in range(self.last + 1, row):
                self._values[skipped % (self.rows + 1)] = np.nan
        target = self._values[row % (self.rows + 1)]
        target[: len(values)] = values
        target[len(values) :] = np.nan
        self.last, self.samples = row, samples
        self.first = max(self.first, row - self.rows)
        self._write_header()

    def last_values(self) -> Floats:
        """A copy of the last row, shape (capacity,); NaN if there is none."""
        if self.last == NO_ROW:
            return np.full(self.capacity, np.nan, dtype=np.float32)
        found: Floats = self._values[self.last % (self.rows + 1)].copy()
        return found

    def read(self, last: int, slots: NDArray[np.intp]) -> Floats:
        """A copy of the columns ``slots`` of all rows up to row ``last``, oldest first: shape (T, len(slots))."""
        if self.last == NO_ROW or last < self.first:
            return np.empty((0, len(slots)), dtype=np.float32)
        wanted = np.arange(max(self.first, last - self.rows + 1), min(last, self.last) + 1) % (self.rows + 1)
        found: Floats = self._values[np.ix_(wanted, slots)]
        return found

    def clear(self, slots: list[int]) -> None:
        """Forget these columns."""
        self._values[:, slots] = np.nan

    def grow(self, capacity: int) -> None:
        """Rewrite with more columns; the old file stays whole until the new one is."""
        part = self.path.with_suffix(".part")
        part.unlink(missing_ok=True)
        _create(part, self.rows, self.step_seconds, capacity)
        wider = RingFile(part, rows=self.rows, step_seconds=self.step_seconds, capacity=capacity)
        wider._values[:, : self.capacity] = self._values
        wider.first, wider.last, wider.samples = self.first, self.last, self.samples
        wider._write_header()
        wider.flush()
        wider.close()
        self.close()
        part.replace(self.path)
        self._open()

    def flush(self) -> None:
        """Bring it to the disk."""
        self._map.flush()

    def close(self) -> None:
        """Unmap the file."""
        self._values = np.empty((0, 0), dtype=np.float32)
        self._map.close()

    def _write_header(self) -> None:
        header = _pack(self.capacity, self.rows, self.step_seconds, (self.first, self.last, self.samples))
        self._map[: len(header)] = header


@dataclass(frozen=True, slots=True)
class RingCopy:
    """The complete rows of a ring as they were at one instant: float32 (T, capacity), the first of them row ``first``."""

    step_seconds: float
    first: int
    values: Floats


def copy_ring(path: Path) -> RingCopy:
    """Copy a ring's rows without mapping or changing the file, whoever writes it meanwhile.

    The row under way is left out, and so is the oldest, which the writer may take while it is copied. Raises
    RingFileError, OSError.
    """
    for _ in range(COPY_TRIES):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(_HEADER.size + _CRC.size)
            if len(header) < _HEADER.size + _CRC.size or size < HEADER_BYTES:
                raise RingFileError(f"{path} is truncated: {size} bytes")
            magic, version, capacity, rows, step, first, last, _ = _HEADER.unpack_from(header)
            if magic != MAGIC or version != VERSION:
                raise RingFileError(f"{path} is not a history file of version {VERSION}")
            if _CRC.unpack_from(header, _HEADER.size)[0] != zlib.crc32(header[: _HEADER.size]):
                continue  # it was being written just now
            if size != HEADER_BYTES + (rows + 1) * capacity * 4:
                raise RingFileError(f"{path} is truncated: {size} bytes for {rows} rows of {capacity}")
            file.seek(HEADER_BYTES)
            body = np.frombuffer(file.read((rows + 1) * capacity * 4), dtype="<f4").reshape(rows + 1, capacity)
        oldest = max(int(first), int(last) - rows + 1)
        wanted = np.arange(oldest, int(last)) if last != NO_ROW else np.arange(0)
        return RingCopy(float(step), oldest, body[wanted % (rows + 1)].astype(np.float32))
    raise RingFileError(f"{path} has a damaged header")


def _pack(capacity: int, rows: int, step_seconds: float, state: tuple[int, int, int]) -> bytes:
    header = _HEADER.pack(MAGIC, VERSION, capacity, rows, step_seconds, *state)
    return header + _CRC.pack(zlib.crc32(header))


def _create(path: Path, rows: int, step_seconds: float, capacity: int) -> None:
    """An empty ring, written beside and renamed so that no half-made file is ever found under the name."""
    fresh = path.with_suffix(".new")
    blank = np.full(capacity, np.nan, dtype="<f4").tobytes()
    with fresh.open("wb") as file:
        file.write(_pack(capacity, rows, step_seconds, (NO_ROW, NO_ROW, 0)).ljust(HEADER_BYTES, b"\0"))
        for _ in range(rows + 1):
            file.write(blank)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
