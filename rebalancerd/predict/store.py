"""Where models are: a cluster's own in its state directory, the shipped ones in the package; which of them is champion.

Small files beside the own models, each with one writer and replaced in one step: ``cost-champion.json`` is written by
training when it promotes, ``cost-training.json`` whenever it ends; ``cost-trust.json`` by the daemon, when a model loses or
regains its trust. ``train.request`` is the daemon's wish that a training begin: systemd starts one where the file exists.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import rebalancerd
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.predict.artefact import Artefact, Learned, Rebuild, load, save
from rebalancerd.predict.cost_features import FEATURES
from rebalancerd.predict.drift import Trust
from rebalancerd.predict.durable import write_durably
from rebalancerd.predict.learned import LearnedCost
from rebalancerd.predict.manifest import ID_PATTERN, ArtefactError, Fault, Manifest, read_file, read_manifest
from rebalancerd.predict.settings import PredictSettings

FORMAT = 1
MAX_BYTES = 256 * 1024
MOST_VERDICTS = 50
OWN, SHIPPED = "own", "shipped"
REQUEST = "train.request"
_NO_MODELS = frozenset({"cost-champion", "cost-training", "cost-trust"})
F = TypeVar("F", bound=BaseModel)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    format: int = FORMAT


class Champion(_File):
    """The model that training promoted last. ``scores``: per predictor what the promotion rested on."""

    id: str = Field(pattern=rf"^{ID_PATTERN}$")
    since: float
    why: str = ""
    scores: dict[str, dict[str, float | None]] = {}


class LastTraining(_File):
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


class _Verdicts(_File):
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


class ModelStore:
    """The models of one state directory. ``own`` need not exist; nothing is made before something is written.

    ``rebuild`` makes a model of a state, ``features`` are those that this version computes.
    """

    def __init__(
        self,
        own: Path,
        shipped: Path | None = None,
        *,
        rebuild: Rebuild = LearnedCost.of_state,
        features: Sequence[str] = FEATURES,
    ) -> None:
        self.own, self.shipped = own, shipped if shipped is not None else shipped_directory()
        self._rebuild, self._features = rebuild, features

    def data_files(self) -> tuple[Path, ...]:
        """The shipped migrations to learn from, CSV files; those that models are measured on are not among them."""
        return tuple(sorted((self.shipped / "data").glob("cost-train*.csv")))

    def champion(self) -> Champion | None:
        """What training promoted last; None if it never did. Raises ArtefactError if the file cannot be read."""
        return _read(self.own / "cost-champion.json", Champion)

    def found(self) -> tuple[Found, ...]:
        """All artefacts in the order in which they are tried: champion, other own ones, shipped ones, newest first.

        Nothing is loaded. An unreadable champion file only costs the order.
        """
        try:
            champion = self.champion()
        except ArtefactError:
            champion = None
        own = {f.id: f for f in _manifests(self.own, OWN)}
        first = [own.pop(champion.id, Found(self.own / f"{champion.id}.json", OWN))] if champion is not None else []
        return (*first, *sorted(own.values(), key=_age), *sorted(_manifests(self.shipped, SHIPPED), key=_age))

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

    def load(self, path: Path, settings: PredictSettings) -> Artefact:
        """Load one of them. Raises ArtefactError."""
        return load(path, settings=settings, rebuild=self._rebuild, features=self._features)

    def promote(
        self,
        model: Learned,
        *,
        at: float,
        why: str,
        scores: Mapping[str, Mapping[str, float | None]],
        keep: int,
        golden: Sequence[tuple[MigrationFacts, float]],
        settings: PredictSettings,
        rows: int,
        own_rows: int,
        data_sha256: str,
        seed: int,
    ) -> Manifest:
        """Save a model and make it champion; of the other own ones that can be read all but ``keep`` go.

        What is not told here is as ``artefact.save`` takes it. Raises OSError, ValueError.
        """
        self._make()
        manifest = save(
            self.own,
            model,
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
        write_durably(self.own / "cost-champion.json", champion.model_dump_json(indent=1).encode() + b"\n")
        sound = [f for f in self.found() if f.source == OWN and f.id != manifest.id and _is_sound(f)]
        for old in sound[max(0, keep) :]:
            old.path.unlink(missing_ok=True)
            old.path.with_suffix(".skops").unlink(missing_ok=True)
        return manifest

    def last_training(self) -> LastTraining | None:
        """How the last training ended; None if there was none. Raises ArtefactError if the file cannot be read."""
        return _read(self.own / "cost-training.json", LastTraining)

    def note_training(self, ended: LastTraining) -> None:
        """Write down how a training ended. Raises OSError."""
        self._make()
        write_durably(self.own / "cost-training.json", ended.model_dump_json(indent=1).encode() + b"\n")

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

    def _make(self) -> None:
        self.own.mkdir(mode=0o700, parents=True, exist_ok=True)

    def trust(self, model_id: str) -> Trust | None:
        """The last verdict on a model; None if there is none. Raises ArtefactError if the file cannot be read."""
        known = _read(self.own / "cost-trust.json", _Verdicts)
        verdict = known.models.get(model_id) if known is not None else None
        return Trust(**verdict.model_dump()) if verdict is not None else None

    def note_trust(self, model_id: str, trust: Trust) -> None:
        """Write a verdict down, so that it survives a restart. Raises OSError."""
        self._make()
        path = self.own / "cost-trust.json"
        try:
            known = _read(path, _Verdicts) or _Verdicts()
        except ArtefactError:
            known = _Verdicts()  # damaged: the new verdict is worth more than the old ones
        models = {k: v for k, v in known.models.items() if k != model_id}
        models[model_id] = _Verdict(**asdict(trust))
        newest = dict(sorted(models.items(), key=lambda item: item[1].since)[-MOST_VERDICTS:])
        write_durably(path, _Verdicts(models=newest).model_dump_json(indent=1).encode() + b"\n")


def _manifests(directory: Path, source: str) -> Iterator[Found]:
    """Artefacts by either of their files, so that one whose manifest is gone is told, not overlooked."""
    try:
        names = {p.stem for p in directory.glob("cost-*") if p.suffix in (".json", ".skops")}
    except OSError:
        names = set()
    for name in sorted(names - _NO_MODELS):
        yield Found(directory / f"{name}.json", source)


def _age(found: Found) -> tuple[float, str]:
    """Newest first; what cannot be read last."""
    try:
        return -read_manifest(found.path).trained_at, found.id
    except ArtefactError:
        return float("inf"), found.id


def _is_sound(found: Found) -> bool:
    return _age(found)[0] < float("inf")


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
