"""Where models are: a cluster's own in its state directory, the shipped ones in the package; which of them is champion.

Small files beside the own models, each with one writer and replaced in one step: ``<kind>-champion.json`` is written by
training when it promotes, ``<kind>-training.json`` whenever it ends; ``<kind>-trust.json`` by the daemon, when a model
loses or regains its trust, ``<kind>-watch.json`` while it is judged. ``train.request`` is the daemon's wish that trainings
begin: systemd starts them where the file exists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import rebalancerd
from rebalancerd.predict.artefact import Artefact, examine, load, save
from rebalancerd.predict.drift import Trust
from rebalancerd.predict.durable import write_durably
from rebalancerd.predict.kind import Kind, M
from rebalancerd.predict.manifest import ID_PATTERN, ArtefactError, Fault, Manifest, read_file, read_manifest
from rebalancerd.predict.settings import PredictSettings

FORMAT = 1
MAX_BYTES = 256 * 1024
MOST_VERDICTS = 50
OWN, SHIPPED = "own", "shipped"
REQUEST = "train.request"
_NO_MODELS = ("champion", "training", "trust", "watch")  # after the kind's name
F = TypeVar("F", bound=BaseModel)


class StoredFile(BaseModel):
    """A small file beside the models."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    format: int = FORMAT


class Champion(StoredFile):
    """The model that training promoted last. ``scores``: per predictor what the promotion rested on."""

    id: str = Field(pattern=rf"^{ID_PATTERN}$")
    since: float
    why: str = ""
    scores: dict[str, dict[str, float | None]] = {}


class LastTraining(StoredFile):
    """How the last training ended. ``outcome``: promoted, kept or not_trained."""

    at: float
    outcome: str
    why: str
    model: str | None = None


class _Verdict(BaseModel):
    trusted: bool
    since: float
    reason: str = ""
    after: float = 0.0


class _Verdicts(StoredFile):
    models: dict[str, _Verdict] = {}


@dataclass(frozen=True, slots=True)
class Found:
    """An artefact's manifest file and whose it is: ``own`` or ``shipped``."""

    path: Path
    source: str

    @property
    def id(self) -> str:
        """The id that its name claims."""
        return self.path.stem


def shipped_directory() -> Path:
    """``models`` of the wheel or of the checkout."""
    package = Path(rebalancerd.__file__).parent
    packed = package / "_models"
    return packed if packed.is_dir() else package.parent / "models"


class ModelStore(Generic[M]):
    """The models of one kind in one state directory. ``own`` need not exist; nothing is made before something is written."""

    def __init__(self, own: Path, shipped: Path | None = None, *, kind: Kind[M, Any]) -> None:
        self.own, self.shipped = own, shipped if shipped is not None else shipped_directory()
        self.kind = kind

    def data_files(self) -> tuple[Path, ...]:
        """The shipped migrations to learn from, CSV files; those that models are measured on are not among them."""
        return tuple(sorted((self.shipped / "data").glob("cost-train*.csv")))

    def champion(self) -> Champion | None:
        """What training promoted last; None if it never did. Raises ArtefactError if the file cannot be read."""
        return _read(self._file("champion"), Champion)

    def found(self) -> tuple[Found, ...]:
        """All artefacts in the order in which they are tried: champion, other own ones, shipped ones, newest first.

        Nothing is loaded. An unreadable champion file only costs the order.
        """
        try:
            champion = self.champion()
        except ArtefactError:
            champion = None
        own = {f.id: f for f in self._manifests(self.own, OWN)}
        first = [own.pop(champion.id, Found(self.own / f"{champion.id}.json", OWN))] if champion is not None else []
        return (
            *first,
            *sorted(own.values(), key=self._age),
            *sorted(self._manifests(self.shipped, SHIPPED), key=self._age),
        )

    def pick(self, name: str) -> Path:
        """The manifest meant by an id or a file's name. Raises ArtefactError where there is none."""
        for item in self.found():
            if item.id == name:
                return item.path
        path = Path(name)
        if path.suffix in (".json", ".skops") and path.exists():
            return path.with_suffix(".json")
        raise ArtefactError(
            Fault.ABSENT, path, f"neither a model's id nor one of its files; in {self.own}, {self.shipped}"
        )

    def load(self, path: Path, settings: PredictSettings) -> Artefact[M]:
        """Load one of them. Raises ArtefactError."""
        return load(path, settings=settings, kind=self.kind)

    def in_use(self, settings: PredictSettings) -> tuple[Artefact[M] | None, tuple[str, ...]]:
        """The model that a daemon would use, None if none loads; and what was refused before it, in words."""
        problems: list[str] = []
        for found in self.found():
            try:
                return self.load(found.path, settings), tuple(problems)
            except ArtefactError as error:
                problems.append(str(error))
        return None, tuple(problems)

    def examine(self, path: Path) -> Manifest[Any]:
        """The manifest of one of them whose files are whole; nothing is built. Raises ArtefactError."""
        return examine(path, self.kind)

    def promote(
        self,
        model: M,
        *,
        at: float,
        why: str,
        scores: Mapping[str, Mapping[str, float | None]],
        keep: int,
        golden: Sequence[Any],
        settings: PredictSettings,
        rows: int,
        own_rows: int,
        data_sha256: str,
        seed: int,
    ) -> Manifest[Any]:
        """Save a model and make it champion; of the other own ones that can be read all but ``keep`` go.

        What is not told here is as ``artefact.save`` takes it. Raises OSError, ValueError.
        """
        self._make()
        manifest = save(
            self.own,
            model,
            kind=self.kind,
            golden=golden,
            settings=settings,
            trained_at=at,
            rows=rows,
            own_rows=own_rows,
            data_sha256=data_sha256,
            errors=scores,
            seed=seed,
        )
        champion = Champion(id=manifest.id, since=at, why=why, scores=manifest.errors)
        write_durably(self._file("champion"), champion.model_dump_json(indent=1).encode() + b"\n")
        sound = [f for f in self.found() if f.source == OWN and f.id != manifest.id and self._is_sound(f)]
        for old in sound[max(0, keep) :]:
            old.path.unlink(missing_ok=True)
            old.path.with_suffix(".skops").unlink(missing_ok=True)
        return manifest

    def last_training(self) -> LastTraining | None:
        """How the last training ended; None if there was none. Raises ArtefactError if the file cannot be read."""
        return _read(self._file("training"), LastTraining)

    def note_training(self, ended: LastTraining) -> None:
        """Write down how a training ended. Raises OSError."""
        self._make()
        write_durably(self._file("training"), ended.model_dump_json(indent=1).encode() + b"\n")

    def request_training(self) -> float | None:
        """Wish for a training; returns since when an earlier wish has not been heard, None if there is none. Raises OSError."""
        self._make()
        path = self.own / REQUEST
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            path.touch(mode=0o600)
            return None

    def take_request(self) -> None:
        """A training has begun: the wish is fulfilled. Raises OSError."""
        (self.own / REQUEST).unlink(missing_ok=True)

    def watched(self, kind: type[F]) -> F | None:
        """What judging has come to so far; None if nothing is there. Raises ArtefactError if the file cannot be read."""
        return _read(self._file("watch"), kind)

    def note_watched(self, found: BaseModel) -> None:
        """Write down what judging has come to. Raises OSError."""
        self._make()
        write_durably(self._file("watch"), found.model_dump_json().encode() + b"\n")

    def _file(self, name: str) -> Path:
        return self.own / f"{self.kind.name}-{name}.json"

    def _manifests(self, directory: Path, source: str) -> list[Found]:
        """Artefacts by either of their files, so that one whose manifest is gone is told, not overlooked."""
        kind = self.kind.name
        try:
            names = {p.stem for p in directory.glob(f"{kind}-*") if p.suffix in (".json", ".skops")}
        except OSError:
            names = set()
        return [Found(directory / f"{n}.json", source) for n in sorted(names - {f"{kind}-{w}" for w in _NO_MODELS})]

    def _age(self, found: Found) -> tuple[float, str]:
        """Newest first; what cannot be read last."""
        try:
            return -read_manifest(found.path, self.kind.name, self.kind.manifest).trained_at, found.id
        except ArtefactError:
            return float("inf"), found.id

    def _is_sound(self, found: Found) -> bool:
        return self._age(found)[0] < float("inf")

    def _make(self) -> None:
        self.own.mkdir(mode=0o700, parents=True, exist_ok=True)

    def trust(self, model_id: str) -> Trust | None:
        """The last verdict on a model; None if there is none. Raises ArtefactError if the file cannot be read."""
        known = _read(self._file("trust"), _Verdicts)
        verdict = known.models.get(model_id) if known is not None else None
        return Trust(**verdict.model_dump()) if verdict is not None else None

    def note_trust(self, model_id: str, trust: Trust) -> None:
        """Write a verdict down, so that it survives a restart. Raises OSError."""
        self._make()
        path = self._file("trust")
        try:
            known = _read(path, _Verdicts) or _Verdicts()
        except ArtefactError:
            known = _Verdicts()  # damaged: the new verdict is worth more than the old ones
        models = {k: v for k, v in known.models.items() if k != model_id}
        models[model_id] = _Verdict(**asdict(trust))
        newest = dict(sorted(models.items(), key=lambda item: item[1].since)[-MOST_VERDICTS:])
        write_durably(path, _Verdicts(models=newest).model_dump_json(indent=1).encode() + b"\n")


def _read(path: Path, kind: type[F]) -> F | None:
    try:
        text = read_file(path, MAX_BYTES)
    except ArtefactError as error:
        if error.fault is Fault.ABSENT:
            return None
        raise
    try:
        read = kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ArtefactError(Fault.CORRUPT, path, f"not what was written there: {first['msg']}") from None
    if getattr(read, "format", FORMAT) != FORMAT:
        raise ArtefactError(
            Fault.OUTDATED, path, f"format {getattr(read, 'format', None)}; this version reads {FORMAT}"
        )
    return read
