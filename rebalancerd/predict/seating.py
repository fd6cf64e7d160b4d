"""Seating: which model of a kind is to be used: the first that loads, with the trust it has; what is refused is told once."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import structlog

from rebalancerd.predict.artefact import Artefact
from rebalancerd.predict.drift import Trust
from rebalancerd.predict.kind import M
from rebalancerd.predict.manifest import ArtefactError
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.predict.store import Found, ModelStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seat(Generic[M]):
    """Who answers: a model and whether it is trusted. ``artefact`` None: the fallback alone, for the reason that ``trust`` gives."""

    artefact: Artefact[M] | None
    trust: Trust
    source: str = ""

    @property
    def answers(self) -> bool:
        """Whether the model is asked."""
        return self.artefact is not None and self.trust.trusted


class Seating(Generic[M]):
    """Looks for models of a store and keeps the verdicts on them. Not thread-safe. ``now``: epoch seconds.

    ``problems``: what was refused at the last look, in words; ``refused``: how many artefacts so far, by fault.
    """

    def __init__(self, store: ModelStore[M], predict: PredictSettings, now: Callable[[], float]) -> None:
        self.store = store
        self.problems: tuple[str, ...] = ()
        self._predict, self._now = predict, now
        self._noted: Trust | None = None
        self._told: set[str] = set()
        self._refused: Counter[str] = Counter()
        self._skipped: dict[Found, tuple[object, ArtefactError]] = {}  # as their files looked when they were refused

    @property
    def refused(self) -> tuple[tuple[str, int], ...]:
        """How many artefacts were refused so far, by fault."""
        return tuple(sorted(self._refused.items()))

    def look(self, seated: Artefact[M] | None) -> Seat[M] | None:
        """The first model that loads; None if it is the one that is seated, or there is none."""
        problems: list[str] = []
        chosen = self._choose(seated, problems)
        self.problems = tuple(problems)
        if chosen is not None and chosen.artefact is not None:
            self._noted = chosen.trust
            self._tell_taken(chosen, chosen.artefact, seated)
        return chosen

    def tell(self, model_id: str, trust: Trust) -> None:
        """Log and write down a verdict that is new."""
        if trust == self._noted:
            return
        kind = self.store.kind.name
        if trust.trusted:
            log.warning("model_trusted_again", kind=kind, model=model_id, reason=trust.reason)
        else:
            log.warning("model_demoted", kind=kind, model=model_id, reason=trust.reason)
        try:
            self.store.note_trust(model_id, trust)
        except OSError as error:
            log.error("model_verdict_not_written", model=model_id, reason=str(error))
        self._noted = trust

    def refuse(self, error: ArtefactError) -> str:
        """Count a refusal and log it, once; returns its words."""
        text = str(error)
        if text not in self._told:
            self._told.add(text)
            self._refused[error.fault.value] += 1
            log.error("model_refused", file=str(error.path), fault=error.fault.value, reason=error.detail)
        return text

    def _choose(self, seated: Artefact[M] | None, problems: list[str]) -> Seat[M] | None:
        try:
            self.store.champion()
        except ArtefactError as error:
            problems.append(self.refuse(error))
        candidates = self.store.found()
        for found in candidates:
            if seated is not None and found.id == seated.id:
                return None
            artefact = self._load(found, problems)
            if artefact is not None:
                return Seat(artefact, self._trust_of(artefact), found.source)
        if not candidates:
            problems.append(f"there is no model in {self.store.own} or {self.store.shipped}")
        return None

    def _load(self, found: Found, problems: list[str]) -> Artefact[M] | None:
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
            problems.append(self.refuse(error))
            return None

    def _trust_of(self, artefact: Artefact[M]) -> Trust:
        try:
            known = self.store.trust(artefact.id)
        except ArtefactError as error:
            self.refuse(error)
            reason = "whether it had lost its trust is not known: the file of verdicts cannot be read"
            return Trust(trusted=False, since=self._now(), reason=reason, after=self._now())
        return known if known is not None else Trust(since=self._now(), reason="not judged yet")

    def _tell_taken(self, seat: Seat[M], artefact: Artefact[M], before: Artefact[M] | None) -> None:
        told = {
            "model": artefact.id,
            "source": seat.source,
            "trusted": seat.trust.trusted,
            "reason": seat.trust.reason,
        }
        if before is None:
            log.info("model_loaded", **told)
        else:
            log.info("model_promoted", **told, before=before.id)


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
