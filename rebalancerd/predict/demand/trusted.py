"""TrustedForecaster: the learned demand model while it is trusted, the best naive way otherwise, behind one interface."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import structlog

from rebalancerd.predict.demand.forecast import Forecast, Forecaster
from rebalancerd.predict.demand.kind import DemandParts
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.trial import Factors
from rebalancerd.predict.drift import Trust
from rebalancerd.predict.seating import Seat

log = structlog.get_logger(__name__)

PERSISTENCE = "persistence"


class TrustedForecaster:
    """Implements ``forecast.Forecaster``; ``Forecast.basis`` tells who answered. Thread-safe.

    A model that fails, or gives what is no forecast, loses its trust and the question to the best naive way. ``now``:
    epoch seconds.
    """

    def __init__(self, now: Callable[[], float], reason: str = "no model was loaded") -> None:
        self._now = now
        self._lock = threading.Lock()
        self._seat: Seat[DemandParts] = Seat(None, Trust(trusted=False, since=now(), reason=reason))
        self._best, self._factors = PERSISTENCE, Factors()
        self._model: Forecaster | None = None

    @property
    def seat(self) -> Seat[DemandParts]:
        """Who answers the next question."""
        return self._seat

    @property
    def model(self) -> Forecaster | None:
        """The seated model with its widths as calibrated here, trusted or not."""
        return self._model

    @property
    def basis(self) -> str:
        """Who answers: a model's id or the name of a naive way."""
        with self._lock:
            return self._model.basis if self._model is not None and self._seat.answers else self._best

    def swap(self, seat: Seat[DemandParts], factors: Factors, best: str) -> None:
        """Seat another model, or change the trust in this one, its widths or who answers in its stead."""
        with self._lock:
            self._seat, self._factors, self._best = seat, factors, best
            self._model = None
            if seat.artefact is not None:
                self._model = seat.artefact.model.forecaster.recalibrated(factors.low, factors.high)

    def forecast(self, panel: Panel, steps: Sequence[int]) -> Forecast:
        """Forecast every VM of the panel. Never fails: a model that does is not asked again."""
        with self._lock:
            model, answers, best = self._model, self._seat.answers, self._best
        if model is None or not answers:
            return NAIVE[best].forecast(panel, steps)
        try:
            told = model.forecast(panel, steps)
            check(told, panel, steps)
        except Exception as error:
            log.exception("model_failed", bug=True, reason=str(error))
            self._mistrust(f"it failed when asked: {error or type(error).__name__}")
            return NAIVE[best].forecast(panel, steps)
        return told

    def _mistrust(self, reason: str) -> None:
        now = self._now()
        with self._lock:
            self._seat = replace(self._seat, trust=Trust(trusted=False, since=now, reason=reason, after=now))


def check(told: Forecast, panel: Panel, steps: Sequence[int]) -> None:
    """Raises ValueError for an answer that is not about these VMs and steps, or holds what no demand can be."""
    shape = (panel.values.shape[0], len(steps))
    if told.steps != tuple(steps) or told.mean.shape != shape or told.quantiles.shape[:2] != shape:
        raise ValueError(f"a forecast of shape {told.mean.shape} for {shape[0]} VMs and {shape[1]} steps")
    for part in (told.mean, told.quantiles):
        if part.size and not (np.isfinite(part).all() and part.min() >= 0):
            raise ValueError("a forecast that is NaN, infinite or negative")
