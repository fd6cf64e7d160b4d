"""ModelKeeper: seats the best model that loads, judges it by the migrations that end, and changes it without a restart."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.predict.artefact import Artefact
from rebalancerd.predict.cost_kind import Learned
from rebalancerd.predict.dataset import sound
from rebalancerd.predict.drift import Drift, Trust, Watched, judge, measure
from rebalancerd.predict.seating import Seat, Seating
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import OWN, ModelStore
from rebalancerd.predict.trusted import TrustedCost

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
        self, store: ModelStore[Learned], predict: PredictSettings, models: ModelSettings, now: Callable[[], float]
    ) -> None:
        self.store = store
        self.wanted = models.cost != PHYSICS
        self.costs = TrustedCost(predict, now, "no model was loaded" if self.wanted else "models.cost is physics")
        self._models, self._now = models, now
        self._turn = threading.Lock()
        self._drift = Drift()
        self._seating = Seating(store, predict, now)

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
            problems=self._seating.problems,
            refused=self._seating.refused,
            wanted=self.wanted,
        )

    # seating

    def refresh(self) -> None:
        """Seat the first model of the store that loads, unless it is seated already. One that was loaded stays until then."""
        if not self.wanted:
            return
        with self._turn:
            chosen = self._seating.look(self.costs.seat.artefact)
            if chosen is not None:
                self._drift = Drift()
                self.costs.swap(chosen)

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
            self._seating.tell(seat.artefact.id, trust)

    def _watched(self, seat: Seat[Learned], artefact: Artefact[Learned], past: Past) -> list[Watched]:
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
