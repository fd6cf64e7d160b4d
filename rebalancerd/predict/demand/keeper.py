"""DemandKeeper: seats the best demand model that loads, judges it by what came of its forecasts, and demotes or promotes it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.demand.host_chance import HostChance
from rebalancerd.predict.demand.kind import DemandParts
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.own_load import write_load
from rebalancerd.predict.demand.skill import Due, Skill, Tally, note, score
from rebalancerd.predict.demand.trial import PARTS, Factors, Record, adapted, judge
from rebalancerd.predict.demand.trusted import PERSISTENCE, TrustedForecaster
from rebalancerd.predict.demand.watch_file import WatchFile
from rebalancerd.predict.demand.watched import watched
from rebalancerd.predict.drift import Trust
from rebalancerd.predict.manifest import ArtefactError
from rebalancerd.predict.seating import Seat, Seating
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore

log = structlog.get_logger(__name__)

CLEARLY_BETTER = 0.98  # the best naive way changes only for one whose error is that much lower


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandModelState:
    """What is told of the demand model. ``basis``: who answers, a model's id or the name of a naive way.

    ``id``, ``source``: the seated model, if any. ``since``: when ``trusted`` became what it is (epoch seconds).
    ``skill``: over the last trial; ``low``, ``high``: by what its widths are multiplied. ``problems``: what was refused
    at the last look, in words; ``refused``: how many artefacts so far, by fault. ``wanted``: the configuration asks for
    a learned model. ``step_seconds``: of the history it is judged by, None before any was seen.
    """

    basis: str = PERSISTENCE
    id: str | None = None
    source: str = ""
    trusted: bool = False
    reason: str = ""
    since: float = 0.0
    trained_at: float | None = None
    skill: Skill = Skill()
    low: float = 1.0
    high: float = 1.0
    problems: tuple[str, ...] = ()
    refused: tuple[tuple[str, int], ...] = ()
    wanted: bool = True
    step_seconds: float | None = None


class DemandKeeper:
    """Keeps ``forecaster`` seated. Thread-safe: ``refresh`` and ``watch`` take turns. ``now``: epoch seconds."""

    def __init__(
        self, store: ModelStore[DemandParts], predict: PredictSettings, models: ModelSettings, now: Callable[[], float]
    ) -> None:
        self.store = store
        self.wanted = models.demand != PERSISTENCE
        reason = "no model was loaded" if self.wanted else "models.demand is persistence"
        self.forecaster = TrustedForecaster(now, reason)
        self._now = now
        self._turn = threading.Lock()
        self._seating = Seating(store, predict, now)
        self._part_seconds = models.demand_trial_hours * 3600.0 / PARTS
        self._due: list[Due] = []
        self._noted_at: float | None = None
        self._step_seconds: float | None = None
        self._begin()

    def _begin(self) -> None:
        """Nothing is known yet of the model that is seated."""
        self._record, self._skill = Record(self._part_seconds, {}), Skill()
        self._factors, self._best = Factors(), PERSISTENCE
        self._due.clear()
        self._noted_at = None

    def state(self) -> DemandModelState:
        """What is told of the model in use."""
        seat = self.forecaster.seat
        return DemandModelState(
            basis=self.forecaster.basis,
            id=seat.artefact.id if seat.artefact is not None else None,
            source=seat.source,
            trusted=seat.answers,
            reason=seat.trust.reason,
            since=seat.trust.since,
            trained_at=seat.artefact.manifest.trained_at if seat.artefact is not None else None,
            skill=self._skill,
            low=self._factors.low,
            high=self._factors.high,
            problems=self._seating.problems,
            refused=self._seating.refused,
            wanted=self.wanted,
            step_seconds=self._step_seconds,
        )

    def host_chance(self) -> HostChance | None:
        """The seated model's part that tells P(hot) of hosts, while it is trusted."""
        seat = self.forecaster.seat
        return seat.artefact.model.host_chance if seat.artefact is not None and seat.answers else None

    def refresh(self) -> None:
        """Seat the first model of the store that loads, unless it is seated already. One that was loaded stays until then."""
        if not self.wanted:
            return
        with self._turn:
            chosen = self._seating.look(self.forecaster.seat.artefact)
            if chosen is None or chosen.artefact is None:
                return
            self._begin()
            self._recall(chosen.artefact.id)
            self._skill = judge(chosen.trust, self._record, now=self._now())[1]
            self.forecaster.swap(chosen, self._factors, self._best)

    def _recall(self, model_id: str) -> None:
        """Take up what an earlier run of the daemon had come to with this model."""
        try:
            found = self.store.watched(WatchFile)
        except ArtefactError as error:
            self._seating.refuse(error)
            return
        if found is not None and found.model == model_id:
            self._record = found.record(self._part_seconds).kept(self._now())
            self._factors, self._best = Factors(found.low, found.high), found.best

    def watch(self, snapshot: Snapshot, cpu: Series, hourly: Series | None = None) -> None:
        """Score what has come due against ``cpu`` (cores of each VM's host), judge, and note the next forecasts.

        Once per step of the history; in between nothing is done. Raises nothing: a model that fails is demoted.
        """
        with self._turn:
            seat = self.forecaster.seat
            if seat.artefact is None or not len(cpu.values):
                return
            self._step_seconds = cpu.step_seconds
            if self._noted_at is not None and cpu.end < self._noted_at:  # the clock went back
                self._due = [due for due in self._due if due.made_at <= cpu.end]
                self._noted_at = None
            if cpu.end == self._noted_at:
                return
            scored = self._score(snapshot, cpu)
            trust, self._skill = judge(seat.trust, self._record, now=self._now())
            self._note(seat, trust, snapshot, cpu, hourly, scored=scored)

    def hand_over(self, snapshot: Snapshot, cpu: Series, hourly: Series | None = None) -> None:
        """Write the recorded load down for trainings, which have a process of their own. Raises OSError."""
        seen = watched(snapshot, cpu, hourly) if self.wanted else None
        if seen is not None:
            write_load(self.store.own, seen.panel)

    def _score(self, snapshot: Snapshot, cpu: Series) -> bool:
        """Hold what is due against what was recorded; whether anything was scored."""
        now_on = {vm.uuid: (vm.host, float(max(1, vm.facts.vcpus))) for vm in snapshot.vms}
        batch = Tally.none()
        for due in self._due:
            if due.due <= cpu.end:
                tally = score(due, cpu, now_on)
                batch = batch.plus(tally)
                self._record = self._record.plus(due.due, tally) if tally.count.any() else self._record
        self._due = [due for due in self._due if due.due > cpu.end]
        self._record = self._record.kept(self._now())
        self._factors = adapted(self._factors, batch)
        return bool(batch.count.any())

    def _note(
        self,
        seat: Seat[DemandParts],
        trust: Trust,
        snapshot: Snapshot,
        cpu: Series,
        hourly: Series | None,
        *,
        scored: bool,
    ) -> None:
        assert seat.artefact is not None
        self._choose_best()
        self.forecaster.swap(Seat(seat.artefact, trust, seat.source), self._factors, self._best)
        self._noted_at = cpu.end
        model, seen = self.forecaster.model, watched(snapshot, cpu, hourly)
        if model is not None and seen is not None:
            try:
                self._due += note(seen, model, NAIVE)
            except Exception as error:
                log.exception("model_failed", bug=True, reason=str(error))
                trust = self._failed(trust, f"it failed when asked: {error or type(error).__name__}")
                self.forecaster.swap(Seat(seat.artefact, trust, seat.source), self._factors, self._best)
        self._seating.tell(seat.artefact.id, trust)
        if scored:
            self._write(seat.artefact.id)

    def _failed(self, trust: Trust, reason: str) -> Trust:
        now = self._now()
        return Trust(trusted=False, since=now, reason=reason, after=now) if trust.trusted else replace(trust, after=now)

    def _choose_best(self) -> None:
        """Who answers while the model is not trusted: the way with the lowest error of the last trial, whatever the verdict."""
        found = judge(Trust(), self._record, now=self._now())[1]
        if found.best is None or found.best == self._best:
            return
        if found.errors[found.best] < CLEARLY_BETTER * found.errors[self._best]:
            log.info("best_naive_forecast", best=found.best, before=self._best)
            self._best = found.best

    def _write(self, model_id: str) -> None:
        try:
            self.store.note_watched(WatchFile.of(model_id, self._best, self._factors, self._record))
        except OSError as error:
            log.error("model_scores_not_written", model=model_id, reason=str(error))
