"""Artefacts: a fitted model as a skops file, and beside it a manifest that says what it is and how to tell that it is intact.

``<kind>-<id>.skops`` holds the state, ``<kind>-<id>.json`` the manifest, which is written last. Loading trusts neither: size,
hash, content (``artefact_audit``), format, features and library versions are looked at, and then the model must give
the predictions that were noted when it was saved (within ``TOLERANCE``, relative). A file that fails is left as it is.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Generic
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from rebalancerd.predict import artefact_audit
from rebalancerd.predict.durable import write_durably
from rebalancerd.predict.kind import G, Kind, M
from rebalancerd.predict.manifest import (
    LIBRARIES,
    ArtefactError,
    Fault,
    Manifest,
    absurdity,
    difference,
    digest_of,
    read_file,
    read_manifest,
)
from rebalancerd.predict.settings import PredictSettings


@dataclass(frozen=True, slots=True)
class Artefact(Generic[M]):
    """A model that loaded and passed every check."""

    model: M
    manifest: Manifest[Any]
    path: Path

    @property
    def id(self) -> str:
        """The model's id, which is the basis of its predictions."""
        return self.manifest.id


def save(
    directory: Path,
    model: M,
    *,
    kind: Kind[M, G],
    golden: Sequence[G],
    settings: PredictSettings,
    trained_at: float,
    rows: int,
    own_rows: int = 0,
    data_sha256: str,
    errors: Mapping[str, Mapping[str, float | None]],
    seed: int = 0,
) -> Manifest[G]:
    """Write a model into ``directory``; returns its manifest, whose id comes from the content.

    ``golden``: questions whose answers are noted. Raises ValueError where they are not finite or
    the state holds what ``load`` would refuse, OSError.
    """
    import skops.io

    raw = _canonical(skops.io.dumps(model.state))
    if len(raw) > artefact_audit.MAX_FILE_BYTES:
        raise ValueError(
            f"the model takes {len(raw)} bytes, more than the {artefact_audit.MAX_FILE_BYTES} that are loaded"
        )
    artefact_audit.audit(raw)
    digest = hashlib.sha256(raw).hexdigest()
    noted = kind.ask(model, golden)
    for figures in noted:
        if (wrong := absurdity(figures)) is not None:
            raise ValueError(f"its own prediction cannot be noted: {wrong}")
    manifest = kind.manifest(
        kind=kind.name,
        id=f"{kind.name}-{digest[:12]}",
        sha256=digest,
        bytes=len(raw),
        data_sha256=data_sha256,
        rows=rows,
        own_rows=own_rows,
        seed=seed,
        trained_at=trained_at,
        features=model.features,
        features_sha256=digest_of(model.features),
        libraries={name: version(name) for name in LIBRARIES},
        settings=asdict(settings),
        errors={name: dict(figures) for name, figures in errors.items()},
        golden=tuple(g.model_copy(update={"predicted": p}) for g, p in zip(golden, noted, strict=True)),
    )
    text = manifest.model_dump_json(indent=1) + "\n"
    if kind.manifest.model_validate_json(text) != manifest:
        raise ValueError("the manifest would not be read back as it is: a figure in it is not finite")
    write_durably(directory / f"{manifest.id}.skops", raw)
    write_durably(directory / f"{manifest.id}.json", text.encode())
    return manifest


def _canonical(raw: bytes) -> bytes:
    """The same file, compressed, with its objects numbered as they come and no times in it: equal models, equal bytes."""
    numbers: dict[int, int] = {}
    with ZipFile(BytesIO(raw)) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist() if name != artefact_audit.SCHEMA}
        schema = json.loads(archive.read(artefact_audit.SCHEMA))
    left = [schema]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if isinstance(item.get("__id__"), int):
                item["__id__"] = numbers.setdefault(item["__id__"], len(numbers) + 1)
            if isinstance(item.get("file"), str) and item["file"] in arrays:
                item["file"] = f"{numbers.setdefault(int(Path(item['file']).stem), len(numbers) + 1)}.npy"
        left.extend(reversed(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()))
    members = {f"{numbers[int(Path(name).stem)]}.npy": content for name, content in arrays.items()}
    members[artefact_audit.SCHEMA] = json.dumps(schema, separators=(",", ":")).encode()
    made = BytesIO()
    with ZipFile(made, "w", ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(members):
            archive.writestr(ZipInfo(name, (1980, 1, 1, 0, 0, 0)), members[name], ZIP_DEFLATED, 6)
    return made.getvalue()


def load(path: Path, *, settings: PredictSettings, kind: Kind[M, G]) -> Artefact[M]:
    """The model of an artefact, named by either of its two files. Raises ArtefactError only.

    ``settings``: those the model will predict with; it is checked with the ones it was saved with.
    """
    manifest = read_manifest(path, kind.name, kind.manifest)
    raw = _content(path.with_suffix(".skops"), manifest)
    _check_versions(path, manifest, kind.features)
    mismatch = _library_mismatch(manifest)
    state = _unpacked(path, raw, mismatch)
    saved_with = _settings(manifest.settings, settings)
    try:
        model = kind.rebuild(state, manifest.id, settings)
        proof = model if saved_with == settings else kind.rebuild(state, manifest.id, saved_with)
    except Exception as error:
        raise ArtefactError(Fault.OUTDATED, path, f"its state is not what this version reads: {error}") from error
    if tuple(model.features) != manifest.features:
        raise ArtefactError(Fault.OUTDATED, path, "its state is of other features than its manifest says")
    _check_golden(path, manifest, kind, proof, mismatch)
    return Artefact(model, manifest, path.with_suffix(".skops"))


def examine(path: Path, kind: Kind[M, G]) -> Manifest[G]:
    """The manifest of an artefact whose two files are whole and belong together; nothing is built. Raises ArtefactError."""
    manifest = read_manifest(path, kind.name, kind.manifest)
    _content(path.with_suffix(".skops"), manifest)
    return manifest


def _content(path: Path, manifest: Manifest[G]) -> bytes:
    raw = read_file(path, artefact_audit.MAX_FILE_BYTES)
    if len(raw) != manifest.bytes:
        raise ArtefactError(
            Fault.CORRUPT, path, f"has {len(raw)} bytes, not {manifest.bytes}: it was cut short or changed"
        )
    if hashlib.sha256(raw).hexdigest() != manifest.sha256:
        raise ArtefactError(Fault.CORRUPT, path, "its content is not what the manifest was written for")
    return raw


def _check_versions(path: Path, manifest: Manifest[G], features: Sequence[str]) -> None:
    if manifest.features != tuple(features):
        odd = sorted(set(manifest.features) ^ set(features))
        detail = (
            f"other features than this version computes: {', '.join(odd[:6])}" if odd else "features in another order"
        )
        raise ArtefactError(Fault.OUTDATED, path, detail)
    for name in ("scikit-learn", "numpy", "skops"):
        made, here = manifest.libraries.get(name, "none"), version(name)
        if made.split(".")[0] != here.split(".")[0]:
            raise ArtefactError(Fault.OUTDATED, path, f"made with {name} {made}, and {here} is installed")


def _library_mismatch(manifest: Manifest[G]) -> str | None:
    """Which library has another minor version than the model was made with; what it gives then must prove itself."""
    for name in ("scikit-learn", "numpy", "skops"):
        made, here = manifest.libraries.get(name, "none"), version(name)
        if made.split(".")[:2] != here.split(".")[:2]:
            return f"made with {name} {made}, and {here} is installed"
    return None


def _unpacked(path: Path, raw: bytes, mismatch: str | None) -> dict[str, Any]:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        artefact_audit.audit(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions scikit-learn only warns; the golden check decides
            state = skops.io.loads(raw, trusted=artefact_audit.TRUSTED)
        artefact_audit.check_bounds(state)
    except (artefact_audit.ForeignContentError, UntrustedTypesFoundException) as error:
        raise ArtefactError(Fault.FOREIGN, path, str(error)) from error
    except Exception as error:
        fault = Fault.CORRUPT if mismatch is None else Fault.OUTDATED
        detail = f"{mismatch + '; ' if mismatch else ''}{error or type(error).__name__}"
        raise ArtefactError(fault, path, detail) from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ArtefactError(Fault.FOREIGN, path, f"it holds a {type(state).__name__}, not a model's state")
    return state


def _settings(noted: Mapping[str, float | int], default: PredictSettings) -> PredictSettings:
    """The settings a model was saved with; those that only one of the two versions has are as here, or left out."""
    known = {f.name for f in fields(PredictSettings)}
    return PredictSettings(**{**asdict(default), **{k: v for k, v in noted.items() if k in known}})


def _check_golden(path: Path, manifest: Manifest[G], kind: Kind[M, G], model: M, mismatch: str | None) -> None:
    try:
        found = kind.ask(model, manifest.golden)
    except Exception as error:
        raise ArtefactError(Fault.ABSURD, path, f"it cannot predict: {error or type(error).__name__}") from error
    if len(found) != len(manifest.golden):
        raise ArtefactError(
            Fault.ABSURD, path, f"it gives {len(found)} predictions for {len(manifest.golden)} questions"
        )
    for number, (golden, figures) in enumerate(zip(manifest.golden, found, strict=True), 1):
        if (wrong := absurdity(figures)) is not None:
            raise ArtefactError(Fault.ABSURD, path, f"prediction {number}: {wrong}")
        if (wrong := difference(golden.predicted, figures)) is not None:
            fault = Fault.ABSURD if mismatch is None else Fault.OUTDATED
            detail = f"prediction {number} is not the one it was saved with: {wrong}"
            raise ArtefactError(fault, path, f"{mismatch + '; ' if mismatch else ''}{detail}")
