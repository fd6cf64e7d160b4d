"""The manifest of a model file: what the model is, what it was made with, how good it was, and how to tell that it is intact."""

import hashlib
import math
import os
import stat
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT = 1
TOLERANCE = 1e-4  # other CPUs and builds of the libraries sum in another order; more than this is another model
MAX_MANIFEST_BYTES = 2 * 1024 * 1024
LIBRARIES = ("scikit-learn", "numpy", "skops", "rebalancerd")
ID_PATTERN = r"(cost|demand)-[0-9a-f]{12}"

Figures: TypeAlias = dict[str, tuple[float, float | None]]  # value and upper bound by name; None: no bound


class Fault(StrEnum):
    """Why an artefact is not used. Codes stay: metrics and scripts name them."""

    ABSENT = "absent"
    CORRUPT = "corrupt"  # truncated, tampered with, unreadable, oversized
    FOREIGN = "foreign"  # holds types that no model holds, or is a model of something else
    OUTDATED = "outdated"  # of another format, other features or other libraries
    ABSURD = "absurd"  # its predictions are not those it was saved with, or no predictions at all


class ArtefactError(Exception):
    """An artefact that is not used. ``fault`` says why in one word, the message names the file and the detail."""

    def __init__(self, fault: Fault, path: Path, detail: str) -> None:
        super().__init__(f"{path}: {fault}: {detail}")
        self.fault, self.path, self.detail = fault, path, detail


class Golden(BaseModel):
    """A question, told by the fields of each kind's own, and what the model answered when it was saved."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    predicted: Figures = {}


G = TypeVar("G", bound=Golden)


class Manifest(BaseModel, Generic[G]):
    """What an artefact is. ``errors``: per predictor the figures measured when it was made (null: cannot be had)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    format: int = FORMAT
    kind: str
    id: str = Field(pattern=rf"^{ID_PATTERN}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    data_sha256: str
    rows: int = Field(ge=0)
    own_rows: int = Field(default=0, ge=0)
    seed: int = 0
    trained_at: float
    features: tuple[str, ...]
    features_sha256: str
    libraries: dict[str, str]
    settings: dict[str, float | int]
    errors: dict[str, dict[str, float | None]]
    golden: tuple[G, ...] = Field(min_length=1)


def digest_of(lines: Sequence[str]) -> str:
    """SHA-256 of lines of text."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def read_manifest(path: Path, kind: str, of: type[Manifest[G]]) -> Manifest[G]:
    """The manifest of an artefact of that kind, named by either of its two files. Raises ArtefactError."""
    place = path.with_suffix(".json")
    text = read_file(place, MAX_MANIFEST_BYTES)
    try:
        manifest = of.model_validate_json(text)
    except ValidationError as error:
        _check_kind(place, text, kind)
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtefactError(
            Fault.CORRUPT, place, f"no manifest: {where + ': ' if where else ''}{first['msg']}"
        ) from None
    _check_kind(place, text, kind)
    if manifest.id != place.stem:
        raise ArtefactError(Fault.CORRUPT, place, f"its id is {manifest.id}: the file was renamed, or is another's")
    if digest_of(manifest.features) != manifest.features_sha256:
        raise ArtefactError(Fault.CORRUPT, place, "its list of features was changed")
    return manifest


class _Head(BaseModel):
    """What stays the same in manifests of every format."""

    format: int
    kind: str


def _check_kind(place: Path, text: bytes, kind: str) -> None:
    try:
        head = _Head.model_validate_json(text)
    except ValidationError:
        return
    if head.kind != kind:
        raise ArtefactError(Fault.FOREIGN, place, f"a model of {head.kind[:40]!r}, not of {kind}")
    if head.format != FORMAT:
        raise ArtefactError(Fault.OUTDATED, place, f"format {head.format}; this version reads {FORMAT}")


def read_file(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes. Raises ArtefactError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ArtefactError(Fault.ABSENT, path, "there is no such file") from error
    except (OSError, ValueError) as error:
        raise ArtefactError(Fault.CORRUPT, path, f"cannot be read: {error}") from error
    try:
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ArtefactError(Fault.CORRUPT, path, "is no regular file")
            if status.st_size > most:
                raise ArtefactError(Fault.CORRUPT, path, f"has {status.st_size} bytes; more than {most} are not read")
            return stream.read(most)
    except OSError as error:
        raise ArtefactError(Fault.CORRUPT, path, f"cannot be read: {error.strerror or error}") from error


def absurdity(figures: Figures) -> str | None:
    """Which figure is not finite, is negative, or lies above its own bound; None if none does."""
    for name, (value, upper) in figures.items():
        if not (math.isfinite(value) and value >= 0 and (upper is None or upper >= value)):
            return f"{name} is {value} up to {upper}"
    return None


def difference(noted: Figures, found: Figures) -> str | None:
    """Which figure is not the one that was noted, within ``TOLERANCE`` (relative); None if all are."""
    if set(noted) != set(found):
        return f"figures {', '.join(sorted(noted))}"
    for name, pair in noted.items():
        for was, now in zip(pair, found[name], strict=True):
            same = was == now if was is None or now is None else math.isclose(was, now, rel_tol=TOLERANCE, abs_tol=1e-9)
            if not same:
                return f"{name} is {now}, was {was}"
    return None
