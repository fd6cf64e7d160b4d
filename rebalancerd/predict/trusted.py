"""TrustedCost: the learned cost model while it is trusted, physics otherwise, behind one interface; swapped while in use.

A learned model gives figures, never permissions: every limit is held against them outside this room, as against those
of physics, and what it cannot answer is answered by physics.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from rebalancerd.cluster.cost import Candidate, MigrationCost
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.cost_kind import Learned
from rebalancerd.predict.drift import Trust
from rebalancerd.predict.interface import CostModel
from rebalancerd.predict.seating import Seat
from rebalancerd.predict.settings import PredictSettings

log = structlog.get_logger(__name__)


class TrustedCost:
    """Implements ``interface.CostModel``; ``MigrationCost.basis`` tells who answered. Thread-safe.

    All questions about one snapshot are answered by one model, so that no plan mixes two of them; one that fails loses
    its trust. ``now``: epoch seconds.
    """

    def __init__(
        self, settings: PredictSettings, now: Callable[[], float], reason: str = "no model was loaded"
    ) -> None:
        self.physics = PhysicsCost(settings)
        self._now = now
        self._lock = threading.Lock()
        self._seat: Seat[Learned] = Seat(None, Trust(trusted=False, since=now(), reason=reason))
        self._asked: tuple[Snapshot, CostModel] | None = None

    @property
    def seat(self) -> Seat[Learned]:
        """Who answers questions about the next snapshot."""
        return self._seat

    def swap(self, seat: Seat[Learned]) -> None:
        """Seat another model, or change the trust in this one, from the next snapshot on."""
        with self._lock:
            self._seat = seat

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> Sequence[MigrationCost]:
        """One cost per candidate, in their order. Never fails: a model that does loses this snapshot to physics."""
        model = self._model_for(snapshot)
        if model is self.physics:
            return self.physics.costs(snapshot, candidates)
        try:
            found = model.costs(snapshot, candidates)
            if len(found) != len(candidates):
                raise ValueError(f"{len(found)} costs for {len(candidates)} candidates")
        except Exception as error:
            log.exception("model_failed", bug=True, reason=str(error))
            self._mistrust(snapshot, f"it failed when asked: {error or type(error).__name__}")
            return self.physics.costs(snapshot, candidates)
        return found

    def _mistrust(self, snapshot: Snapshot, reason: str) -> None:
        now = self._now()
        with self._lock:
            self._asked = (snapshot, self.physics)
            self._seat = replace(self._seat, trust=Trust(trusted=False, since=now, reason=reason, after=now))

    def _model_for(self, snapshot: Snapshot) -> CostModel:
        with self._lock:
            if self._asked is None or self._asked[0] is not snapshot:
                artefact = self._seat.artefact
                chosen: CostModel = artefact.model if artefact is not None and self._seat.answers else self.physics
                self._asked = (snapshot, chosen)
            return self._asked[1]
