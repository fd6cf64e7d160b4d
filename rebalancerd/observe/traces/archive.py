"""The arrays of one .npz file: opened without pickle, bounded in size, every complaint a TraceError."""

import math
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rebalancerd.observe.traces.error import TraceError

MOST_BYTES = 4 * 2**30  # of one array, unpacked: a year of 2,000 VMs every 5 min, ten times over
STEP_NAMES = ("step_seconds", "step")
# what unpacking a hostile or damaged member raises: RuntimeError is a password, NotImplementedError an unknown packing
FAULTS = (
    ValueError,
    KeyError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)

Array = NDArray[Any]


class Archive:
    """One .npz file. Raises TraceError for whatever is not a readable archive of plain arrays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise TraceError(path, f"not a readable .npz file: {error}") from error
        self._sizes = {m.filename.removesuffix(".npy"): m.file_size for m in self._zip.infolist()}
        self.names = tuple(sorted(self._sizes))

    def __enter__(self) -> Self:
        """For ``with``."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Closes the file."""
        self._zip.close()

    def refuse(self, reason: str) -> TraceError:
        """The error to raise for this file."""
        return TraceError(self.path, reason)

    def array(self, name: str) -> Array:
        """That array. Raises TraceError where it is missing, pickled, damaged or too large."""
        if name not in self._sizes:
            raise self.refuse(f"no array {name!r}; it has {', '.join(self.names) or 'none'}")
        if self._sizes[name] > MOST_BYTES:
            raise self.refuse(f"array {name!r} has {self._sizes[name]} bytes, at most {MOST_BYTES} are read")
        try:
            with self._zip.open(f"{name}.npy") as file:
                return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
        except FAULTS as error:
            raise self.refuse(f"array {name!r} cannot be read: {error}") from error

    def numbers(self, name: str, dimensions: int) -> Array:
        """That array, checked to be of integers or floats and to have so many dimensions, none of them empty."""
        found = self.array(name)
        if found.dtype.kind not in "iuf":
            raise self.refuse(f"array {name!r} is of {found.dtype}, not of numbers")
        if found.ndim != dimensions or not found.size:
            raise self.refuse(f"array {name!r} has shape {found.shape}, {dimensions} dimensions with values expected")
        return found

    def ids(self, name: str, count: int) -> tuple[str, ...]:
        """That array as ``count`` different texts."""
        found = self.array(name)
        if found.ndim != 1 or found.dtype.kind not in "US":
            raise self.refuse(f"array {name!r} is of {found.dtype} and shape {found.shape}, not a list of names")
        texts = tuple(v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else str(v) for v in found)
        return self.unique(texts, count, name)

    def unique(self, ids: tuple[str, ...], count: int, name: str) -> tuple[str, ...]:
        """These ids, checked to be ``count`` different ones."""
        if len(ids) != count:
            raise self.refuse(f"array {name!r} names {len(ids)} VMs, the load has {count}")
        if len(set(ids)) != count:
            twice = sorted({i for i in ids if ids.count(i) > 1})
            raise self.refuse(f"array {name!r} names twice: {', '.join(repr(i[:60]) for i in twice[:5])}")
        return ids

    def scalar(self, name: str) -> float:
        """That array as one finite number."""
        found = self.array(name)
        if found.size != 1 or found.dtype.kind not in "iuf" or not math.isfinite(float(found.reshape(-1)[0])):
            raise self.refuse(f"array {name!r} is not one finite number")
        return float(found.reshape(-1)[0])

    def check_step(self, expected: float) -> None:
        """Refuse a file that says its rows are another step apart than its set's. Most do not say."""
        for name in STEP_NAMES:
            if name in self._sizes and self.scalar(name) != expected:
                raise self.refuse(f"rows are {self.scalar(name):g} s apart, this set has one every {expected:g} s")
