"""The shadow beside the loop: it writes down what is advised and, once the time is over, how that would have turned out.

Nothing here moves a VM or stops a cycle. Advice is a step that only lacks the operator's word, of a plan that balances,
once its reason has held as long as it must before a step is started by itself. While advice on a host is in its window, what
else is proposed for that host is the same advice or another way out of the same trouble, and no new piece, unless it is
started: many words about one hotspot are no record. What is not judged yet is judged after a restart.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from rebalancerd.cluster.advice import Advice, AdviceRecord, AdviceScore, HostTerms, Verdict
from rebalancerd.cluster.decision import CycleRecord, Outcome
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.stays import Stays
from rebalancerd.cycle import LoopView
from rebalancerd.guard.hold import advance, held
from rebalancerd.loop import LoopSettings
from rebalancerd.plan.advise import advice_of
from rebalancerd.ports import AdviceLedger, Clock, LedgerUnavailableError
from rebalancerd.record.advice_verdict import judge, unjudged
from rebalancerd.record.hindsight import HOST_RESOURCES, RESOURCES, Past
from rebalancerd.record.hot_hours import HOUR_SECONDS, watched_hour
from rebalancerd.record.readiness import RECORD_SECONDS, Readiness, readiness

log = structlog.get_logger(__name__)

MODES = frozenset({Mode.RECOMMEND, Mode.GUARDED})
BALANCE = "balance"
LATE_STEPS = 3  # of the history; what has not been recorded by then never will be
OLDEST_HOURS = 46  # the finest tier of the history goes back two days

Key = tuple[str, str, str]


class Remembering(Protocol):
    """What is needed of the observing room."""

    def series(self, resource: str, tier: int = 0) -> Series:
        """Recorded history of one resource."""
        ...

    def stays(self) -> Stays:
        """Which VM was where since when."""
        ...


class Looped(Protocol):
    """What is needed of the loop."""

    @property
    def view(self) -> LoopView | None:
        """What the last cycle saw and decided."""
        ...

    @property
    def settings(self) -> LoopSettings:
        """Mode and limits in force."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowState:
    """The record so far, what it is good enough for, and how many were scored since the start of this process."""

    record: AdviceRecord = AdviceRecord()
    readiness: tuple[Readiness, ...] = ()
    scored: Mapping[Verdict, int] = field(default_factory=dict)
    error: str | None = None


class Shadow:
    """Notes advice after each cycle (``note``) and judges what is due (``score``); from different threads, if need be."""

    def __init__(self, *, loop: Looped, observer: Remembering, ledger: AdviceLedger, clock: Clock) -> None:
        self._loop, self._observer, self._ledger, self._clock = loop, observer, ledger, clock
        self._lock = threading.Lock()
        self._holds: Mapping[str, int] = {}
        self._open: dict[Key, tuple[float, float]] | None = None  # when proposed, when due
        self._state: ShadowState | None = None
        self._scored: dict[Verdict, int] = {}
        self._began: int | None = None  # the hour of the first look, where none is on record

    def state(self) -> ShadowState | None:
        """What status and metrics show; None before the first look, and in modes that give no such advice."""
        return self._state if self._loop.settings.mode in MODES else None

    # advice

    def note(self, record: CycleRecord) -> None:
        """Write down what that cycle advised anew."""
        view = self._loop.view
        if record.mode not in MODES or view is None or view.record is not record:
            return
        if view.plan is None or view.inputs is None:
            return
        holds = advance(self._holds, set(record.hot_hosts))
        started = {(d.vm_uuid, d.source, d.destination) for d in record.decisions if d.outcome is Outcome.STARTED}
        relieved = {source for _, source, _ in started}
        self._holds = {host: rounds for host, rounds in holds.items() if host not in relieved}  # as the loop has it
        if view.plan.policy != BALANCE:
            return
        wanted = self._proposed(view.plan, record, holds)
        if not wanted | started:
            return
        try:
            with self._lock:
                standing = self._standing(self._clock.wall())
                spoken = {source for _, source, _ in standing}
                fresh = {key for key in wanted if key[1] not in spoken} | (started - standing)
                steps = {s.number for s in view.plan.steps if _key_of(s.move) in fresh}
                for advice in advice_of(view.inputs, view.plan, steps) if steps else ():
                    self._add(advice)
        except LedgerUnavailableError as error:
            log.warning("advice_not_recorded", reason=str(error))

    def _proposed(self, plan: Plan, record: CycleRecord, holds: Mapping[str, int]) -> set[Key]:
        """Moves that only lack the operator's word and whose reason has held long enough; later waves of theirs too."""
        rounds = self._loop.settings.guard.hold_rounds
        made = [d for d in record.decisions if d.plan_id == plan.id]
        if not any(d.outcome is Outcome.PROPOSED for d in made):
            return set()
        return {
            (d.vm_uuid, d.source, d.destination)
            for d in made
            if (d.outcome is Outcome.PROPOSED or (d.refusal is not None and d.refusal.code is Code.EARLIER_WAVE))
            and held(holds, d.source, plan.hot_hosts) >= rounds
        }

    def _standing(self, now: float) -> set[Key]:
        """Moves whose advice is still in its window; after a restart those on record."""
        if self._open is None:
            known = (a for _, a in self._ledger.unscored_advice() if a is not None)
            self._open = {_key_of(a.move): (a.proposed_at, a.due_at) for a in known}
        self._open = {key: (since, due) for key, (since, due) in self._open.items() if since <= now <= due}
        return set(self._open)

    def _add(self, advice: Advice) -> None:
        number = self._ledger.add_advice(advice)
        assert self._open is not None
        self._open[_key_of(advice.move)] = (advice.proposed_at, advice.due_at)
        log.info(
            "advice",
            number=number,
            vm=advice.vm_name,
            source=advice.move.source,
            destination=advice.move.destination,
            due_at=advice.due_at,
        )

    # hindsight

    def score(self) -> None:
        """Judge what is due, add the hours that are over, and add up the record. Raises LedgerUnavailableError."""
        view, settings = self._loop.view, self._loop.settings
        if settings.mode not in MODES:
            return
        try:
            if view is not None:
                hosts = Past({name: self._observer.series(name) for name in HOST_RESOURCES}, Stays({}))
                self._judge_due(view, hosts)
                self._watch_hours(view, hosts, settings)
            record = self._ledger.advice_record(self._clock.wall() - RECORD_SECONDS)
        except LedgerUnavailableError as error:
            self._state = replace(self._state or ShadowState(readiness=readiness(AdviceRecord())), error=str(error))
            raise
        self._state = ShadowState(record=record, readiness=readiness(record), scored=dict(self._scored))

    def _judge_due(self, view: LoopView, hosts: Past) -> None:
        now = self._clock.wall()
        waiting = self._ledger.unscored_advice()
        due = [(number, advice) for number, advice in waiting if advice is None or _is_due(advice, hosts, now)]
        if not due:
            return
        past = Past({name: self._observer.series(name) for name in RESOURCES}, self._observer.stays())
        for number, advice in due:
            if advice is None:
                self._settle(unjudged(number, now, "what is on record of it cannot be read"), "?")
            else:
                self._settle(_judged(advice, past, view, now), advice.vm_name)

    def _settle(self, score: AdviceScore, vm_name: str) -> None:
        self._ledger.score_advice(score)
        self._scored[score.verdict] = self._scored.get(score.verdict, 0) + 1
        log.info("advice_scored", number=score.advice_id, vm=vm_name, verdict=score.verdict.value, reason=score.reason)

    def _watch_hours(self, view: LoopView, past: Past, settings: LoopSettings) -> None:
        """Add the hours that are over since the last one on record; the first is the one in which this began."""
        now = self._clock.wall()
        current = int(now // HOUR_SECONDS)
        last = self._ledger.last_watched_hour(current)
        if last is None:
            if self._began is None:
                self._began = current
            last = self._began - 1
        hosts = _terms(view)
        for hour in range(max(last + 1, current - OLDEST_HOURS), current):
            end = (hour + 1) * HOUR_SECONDS
            if past.end < end and now < end + LATE_STEPS * past.step_seconds:
                break
            self._ledger.add_watched_hour(
                watched_hour(
                    hour,
                    past,
                    hosts,
                    cpu_headroom=settings.plan.cpu_headroom,
                    memory_headroom=settings.plan.memory_headroom,
                    advised=self._ledger.advised_sources(end - HOUR_SECONDS - past.step_seconds, end),
                )
            )


def _is_due(advice: Advice, past: Past, now: float) -> bool:
    """Its window is on record, or never will be; or a clock that went back has put it into the future."""
    if advice.proposed_at > now:
        return advice.proposed_at - now > LATE_STEPS * past.step_seconds
    end = advice.due_at + past.step_seconds / 2  # a step belongs to the window in which its middle lies
    return now >= end and (past.end >= end or now >= end + LATE_STEPS * past.step_seconds)


def _judged(advice: Advice, past: Past, view: LoopView, now: float) -> AdviceScore:
    try:
        return judge(advice, past, view.snapshot, at=now)
    except Exception as error:  # one odd piece of advice never blocks the rest
        log.exception("advice_not_judged", number=advice.id, bug=True)
        return unjudged(advice.id, now, f"it could not be judged: {type(error).__name__}: {error}")


def _terms(view: LoopView) -> list[HostTerms]:
    return [terms for host in view.snapshot.hosts if (terms := HostTerms.of(host)) is not None]


class _Moved(Protocol):
    @property
    def vm_uuid(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def destination(self) -> str: ...


def _key_of(move: _Moved) -> Key:
    return move.vm_uuid, move.source, move.destination


__all__ = ["Shadow", "ShadowState"]
