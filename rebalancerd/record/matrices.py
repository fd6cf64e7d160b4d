"""Scenarios in a file: what they are as JSON's own types, their matrices as compressed float32 in base64, shapes checked."""

import base64
import binascii
import zlib
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rebalancerd.cluster.scenarios import Scenarios

S = TypeVar("S", bound=np.generic)
LEVEL = 6
MOST_BYTES = 1024**3  # of one matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """An array: its shape, and its little-endian bytes in C order, zlib-compressed, in base64."""

    shape: tuple[int, ...]
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedScenarios:
    """``Scenarios``, fit for a codec."""

    vm_uuids: tuple[str, ...]
    paths: int
    steps: int
    step_seconds: float
    cpu_cores: Matrix
    memory_bytes: Matrix
    known: Matrix
    basis: str


def pack(scenarios: Scenarios) -> PackedScenarios:
    """Scenarios to what ``unpack`` gives back, bit for bit."""
    return PackedScenarios(
        vm_uuids=scenarios.vm_uuids,
        paths=scenarios.paths,
        steps=scenarios.steps,
        step_seconds=scenarios.step_seconds,
        cpu_cores=_packed(scenarios.cpu_cores, "<f4"),
        memory_bytes=_packed(scenarios.memory_bytes, "<f4"),
        known=_packed(scenarios.known, "?"),
        basis=scenarios.basis,
    )


def unpack(packed: PackedScenarios) -> Scenarios:
    """The scenarios. Raises ValueError for shapes that disagree, bytes that are not as many, or impossible values."""
    rows = len(packed.vm_uuids)
    if packed.paths < 1 or packed.steps < 1:
        raise ValueError(f"scenarios need a path and a step, not {packed.paths} × {packed.steps}")
    wanted = (rows, packed.paths * packed.steps)
    return Scenarios(
        vm_uuids=packed.vm_uuids,
        paths=packed.paths,
        steps=packed.steps,
        step_seconds=packed.step_seconds,
        cpu_cores=_unpacked("cpu_cores", packed.cpu_cores, wanted, np.float32, "<f4"),
        memory_bytes=_unpacked("memory_bytes", packed.memory_bytes, wanted, np.float32, "<f4"),
        known=_unpacked("known", packed.known, (rows,), np.bool_, "?"),
        basis=packed.basis,
    )


def _packed(values: NDArray[S], kind: DTypeLike) -> Matrix:
    raw = zlib.compress(np.ascontiguousarray(values, dtype=kind).tobytes(), LEVEL)
    return Matrix(shape=tuple(values.shape), data=base64.b64encode(raw).decode("ascii"))


def _unpacked(label: str, matrix: Matrix, shape: tuple[int, ...], kind: type[S], stored: DTypeLike) -> NDArray[S]:
    if matrix.shape != shape:
        raise ValueError(f"scenarios {label}: shape {matrix.shape}, expected {shape}")
    size = prod(shape) * np.dtype(stored).itemsize
    if size > MOST_BYTES:
        raise ValueError(f"scenarios {label}: larger than {MOST_BYTES} bytes")
    try:
        reader = zlib.decompressobj()
        raw = reader.decompress(base64.b64decode(matrix.data, validate=True), size + 1)  # never more than is wanted
    except (binascii.Error, ValueError, zlib.error) as error:
        raise ValueError(f"scenarios {label}: {error}") from error
    if len(raw) != size:
        told = f"at least {len(raw)}" if len(raw) > size else str(len(raw))
        raise ValueError(f"scenarios {label}: {told} bytes, expected {size}")
    return np.frombuffer(raw, dtype=stored).reshape(shape).astype(kind)
