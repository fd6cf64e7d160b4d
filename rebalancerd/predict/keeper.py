"""ModelKeeper: seats the best model that loads, judges it by the migrations that end, and changes it without a restart."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.predict.artefact import Artefact
from rebalancerd.predict.dataset import sound
from rebalancerd.predict.drift import Drift, Trust, Watched, judge, measure
from rebalancerd.predict.manifest import ArtefactError
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import OWN, Found, ModelStore
from rebalancerd.predict.trusted import Seat, TrustedCost

log = structlog.get_logger(__name__)

PHYSICS = "physics"
Past = Iterable[tuple[LabelledMigration, MigrationCost | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """What is told of the cost model. ``basis``: who answers, a model's id or "physics"; ``id``: the seated model's, if any.

    ``since``: when ``trusted`` became what it is (epoch seconds). ``problems``: what was refused at the last look, in
    words; ``refused``: how many artefacts so far, by fault. ``wanted``: the configuration asks for a learned model.
    """

    basis: str = PHYSICS
    id: str | None = None
    source: str = ""
    trusted: bool = False
    reason: str = ""
    since: float = 0.0
    trained_at: float | None = None
    drift: Drift = Drift()
    problems: tuple[str, ...] = ()
    refused: tuple[tuple[str, int], ...] = ()
    wanted: bool = True


class ModelKeeper:
    """Keeps ``costs`` seated. Thread-safe: ``refresh`` and ``watch`` take turns. ``now``: epoch seconds."""

    def __init__(
        self, store: ModelStore, predict: PredictSettings, models: ModelSettings, now: Callable[[], float]
    ) -> None:
        self.store = store
        self.wanted = models.cost != PHYSICS
        self.costs = TrustedCost(predict, now, "no model was loaded" if self.wanted else "models.cost is physics")
        self._predict, self._models, self._now = predict, models, now
        self._turn = threading.Lock()
        self._drift = Drift()
        self._noted: Trust | None = None
        self._problems: tuple[str, ...] = ()
        self._told: set[str] = set()
        self._refused: Counter[str] = Counter()
        self._skipped: dict[Found, tuple[object, ArtefactError]] = {}  # as their files looked when they were refused

    def state(self) -> ModelState:
        """What is told of the model in use."""
        seat = self.costs.seat
        return ModelState(
            basis=seat.artefact.id if seat.artefact is not None and seat.answers else PHYSICS,
            id=seat.artefact.id if seat.artefact is not None else None,
            source=seat.source,
            trusted=seat.answers,
            reason=seat.trust.reason,
            since=seat.trust.since,
            trained_at=seat.artefact.manifest.trained_at if seat.artefact is not None else None,
            drift=self._drift,
            problems=self._problems,
            refused=tuple(sorted(self._refused.items())),
            wanted=self.wanted,
        )

    # seating

    def refresh(self) -> None:
        """Seat the first model of the store that loads, unless it is seated already. One that was loaded stays until then."""
        if not self.wanted:
            return
        with self._turn:
            problems: list[str] = []
            chosen = self._choose(problems)
            self._problems = tuple(problems)
            if chosen is not None:
                self._take(chosen)

    def _choose(self, problems: list[str]) -> Seat | None:
        """A model to seat, None if the one that is seated is the best, or there is none."""
        try:
            self.store.champion()
        except ArtefactError as error:
            problems.append(self._refuse(error))
        seated, candidates = self.costs.seat.artefact, self.store.found()
        for found in candidates:
            if seated is not None and found.id == seated.id:
                return None
            artefact = self._load(found, problems)
            if artefact is not None:
                return Seat(artefact, self._trust_of(artefact), found.source)
        if not candidates:
            problems.append(f"there is no model in {self.store.own} or {self.store.shipped}")
        return None

    def _load(self, found: Found, problems: list[str]) -> Artefact | None:
        """The model, or None if it is refused; what was refused and has not changed since is not read again."""
        looks = _looks(found)
        known = self._skipped.get(found)
        if known is not None and known[0] == looks:
            problems.append(str(known[1]))
            return None
        try:
            return self.store.load(found.path, self._predict)
        except ArtefactError as error:
            self._skipped[found] = (looks, error)
            problems.append(self._refuse(error))
            return None

    def _refuse(self, error: ArtefactError) -> str:
        """Count a refusal and log it, once; returns its words."""
        text = str(error)
        if text not in self._told:
            self._told.add(text)
            self._refused[error.fault.value] += 1
            log.error("model_refused", file=str(error.path), fault=error.fault.value, reason=error.detail)
        return text

    def _trust_of(self, artefact: Artefact) -> Trust:
        try:
            known = self.store.trust(artefact.id)
        except ArtefactError as error:
            self._refuse(error)
            reason = "whether it had lost its trust is not known: the file of verdicts cannot be read"
            return Trust(trusted=False, since=self._now(), reason=reason, after=self._now())
        return known if known is not None else Trust(since=self._now(), reason="not judged yet")

    def _take(self, seat: Seat) -> None:
        before = self.costs.seat.artefact
        assert seat.artefact is not None
        self._drift, self._noted = Drift(), seat.trust
        self.costs.swap(seat)
        told = {
            "model": seat.artefact.id,
            "source": seat.source,
            "trusted": seat.trust.trusted,
            "reason": seat.trust.reason,
        }
        if before is None:
            log.info("model_loaded", **told)
        else:
            log.info("model_promoted", **told, before=before.id)

    # judging

    def watch(self, past: Past) -> None:
        """Judge the seated model by migrations that have ended, with what was predicted of them, in any order."""
        with self._turn:
            seat = self.costs.seat
            if seat.artefact is None:
                return
            now = self._now()
            try:
                self._drift = measure(self._watched(seat, seat.artefact, past))
                trust = judge(seat.trust, self._drift, now=now, least_rows=self._models.drift_rows_min)
            except Exception as error:
                log.exception("model_failed", bug=True, reason=str(error))
                reason = f"it failed when asked: {error or type(error).__name__}"
                failed = Trust(trusted=False, since=now, reason=reason, after=now)
                trust = failed if seat.trust.trusted else seat.trust
            if trust != seat.trust:
                self.costs.swap(Seat(seat.artefact, trust, seat.source))
            self._tell(seat.artefact.id, trust)

    def _tell(self, model_id: str, trust: Trust) -> None:
        """Log and write down a verdict that is new."""
        if trust == self._noted:
            return
        if trust.trusted:
            log.warning("model_trusted_again", model=model_id, reason=trust.reason)
        else:
            log.warning("model_demoted", model=model_id, reason=trust.reason)
        try:
            self.store.note_trust(model_id, trust)
        except OSError as error:
            log.error("model_verdict_not_written", model=model_id, reason=str(error))
        self._noted = trust

    def _watched(self, seat: Seat, artefact: Artefact, past: Past) -> list[Watched]:
        """The newest migrations that may judge this model: none that it was trained on, none from before a verdict."""
        after = max(seat.trust.after, artefact.manifest.trained_at if seat.source == OWN else 0.0)
        rows = [(r, p) for r, p in past if r.at > after and not r.disturbed and sound(r) is None]
        rows = sorted(rows, key=lambda item: (item[0].at, item[0].id))[-self._models.drift_rows :]
        facts, deadlines = [r.facts for r, _ in rows], [r.deadline_seconds for r, _ in rows]
        if not rows:
            return []
        physics = self.costs.physics.predict_facts(facts, deadlines)
        asked = artefact.model.predict_facts(facts, deadlines)
        return [
            Watched(row, told if told is not None and told.basis == artefact.id else asked[i], physics[i])
            for i, (row, told) in enumerate(rows)
        ]


def _looks(found: Found) -> tuple[object, ...]:
    """Identity, size and time of an artefact's files."""
    seen: list[object] = []
    for path in (found.path, found.path.with_suffix(".skops")):
        try:
            status = path.stat()
        except OSError:
            seen.append(None)
        else:
            seen.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(seen)
