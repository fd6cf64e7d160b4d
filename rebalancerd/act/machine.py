"""The state machine of a migration, as pure functions: from what was seen to the next state or the next act.

``under_way`` decides while a job runs, ``settle`` once none does. Neither does anything.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from rebalancerd.act.cause import GUEST_ENDED_CODES, OPERATION_ABORTED, cause, error_code, way_failed
from rebalancerd.act.ladder import allowed_downtime_seconds
from rebalancerd.act.settings import ActSettings
from rebalancerd.act.stall import StallAction, StallTrack, observe_stall
from rebalancerd.act.verdict import Patience, Side, finding, side
from rebalancerd.cluster.migration import CRASHED_NOTE, AbortCause, MigrationState, Progress
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.vm import DomainState
from rebalancerd.ports import HostError

LATE_PATIENCE = 0.5  # of the stall test's, for a migration that has outlived its prediction


class Act(StrEnum):
    """What is to be done to a running migration."""

    NOTHING = "nothing"
    ABORT = "abort"
    SET_DOWNTIME = "set_downtime"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A migration that has a job. Instants in monotonic seconds; ``abort_at``: when an abort was ordered.

    ``ran_seconds``: since the hand-over. ``bound_seconds``: upper bound of the predicted duration, None if not finite.
    """

    state: MigrationState
    now: float
    progress: Progress
    deadline_at: float
    limit_downtime_seconds: float
    allowed_downtime_seconds: float | None = None
    abort_at: float | None = None
    stall: StallTrack = field(default_factory=StallTrack)
    ran_seconds: float = 0.0
    bound_seconds: float | None = None

    @property
    def late(self) -> str:
        """That it has outlived its prediction, in words that stay the same; empty if it has not, or has none."""
        bound = self.bound_seconds
        if bound is None or self.ran_seconds <= bound:
            return ""
        return f"longer than the {bound:.{0 if bound >= 10 else 1}f} s predicted at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Next state with its reason (None: as before), and what to do.

    ``seconds`` is the downtime to allow, ``cause`` that of the abort. ``late``: that it has outlived its prediction.
    """

    state: MigrationState
    stall: StallTrack
    reason: str | None = None
    act: Act = Act.NOTHING
    seconds: float = 0.0
    cause: AbortCause = AbortCause.DEADLINE
    late: str = ""


def under_way(it: Running, settings: ActSettings) -> Course:
    """What follows from a reading of the running job. A post-copy migration is never aborted nor tuned."""
    if it.progress.postcopy:
        return Course(state=MigrationState.RUNNING, stall=it.stall, reason="post-copy: left to end by itself")
    if it.abort_at is not None:
        patient = it.now - it.abort_at < settings.abort_patience_seconds
        if patient and it.state is not MigrationState.STUCK:
            return Course(state=MigrationState.ABORTING, stall=it.stall)
        reason = f"the job still runs {it.now - it.abort_at:.0f} s after the abort was ordered"
        return Course(state=MigrationState.STUCK, stall=it.stall, reason=reason)
    if it.now >= it.deadline_at:
        reason = f"deadline passed after {it.progress.elapsed_seconds:.0f} s"
        cause = AbortCause.STANDSTILL if _stands_still(it, settings) else AbortCause.DEADLINE
        return Course(
            state=MigrationState.RUNNING, stall=it.stall, act=Act.ABORT, reason=reason, cause=cause, late=it.late
        )
    return _tune(it, settings)


def _stands_still(it: Running, settings: ActSettings) -> bool:
    """Whether nothing has been sent for a while, or ever."""
    return it.stall.moved_at is None or it.now - it.stall.moved_at >= settings.settle_seconds


def _tune(it: Running, settings: ActSettings) -> Course:
    """Downtime ladder and stall test. One that is late goes to the limit at once, and is then given less patience."""
    late, limit = it.late, allowed_downtime_seconds(settings, it.limit_downtime_seconds, settings.downtime_steps + 1)
    at_limit = it.allowed_downtime_seconds is not None and it.allowed_downtime_seconds >= limit
    patience = settings.stall_seconds * (LATE_PATIENCE if late and at_limit else 1.0)
    stall, decision = observe_stall(it.stall, it.progress, it.now, stall_seconds=patience, at_limit=at_limit)
    course = Course(state=MigrationState.RUNNING, stall=stall, reason=late or None, late=late)
    if decision.action is StallAction.ABORT:
        cause = AbortCause.STANDSTILL if decision.standstill else AbortCause.STALL
        return replace(course, act=Act.ABORT, reason=f"does not converge: {decision.reason}", cause=cause)
    wanted = allowed_downtime_seconds(settings, it.limit_downtime_seconds, it.progress.iteration)
    if late or decision.action is StallAction.RAISE_DOWNTIME:
        wanted = limit
    if it.allowed_downtime_seconds is None or wanted > it.allowed_downtime_seconds:
        return replace(course, act=Act.SET_DOWNTIME, seconds=wanted)
    return course


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Both hosts, looked at while no job was seen. States are None where a host does not answer.

    ``held_seconds``: how long the pair has been the same. ``call_open``: our libvirt call has not returned.
    ``begun``: a job was seen, or our call has returned. ``flowed``: guest memory was transferred.
    ``never_after_all``: an intent whose libvirt call can no longer begin. ``source_silent_seconds``: longest silence of
    the source so far. ``source_removed``: it is no configured host any more. ``overdue``: the deadline has passed.
    ``still_seconds``: how long nothing had been sent when the job was last seen.
    """

    state: MigrationState
    source: DomainState | None
    destination: DomainState | None
    held_seconds: float
    call_open: bool = False
    begun: bool = True
    flowed: bool = False
    never_after_all: bool = False
    ordered_abort: bool = False
    overdue: bool = False
    source_removed: bool = False
    source_silent_seconds: float = 0.0
    persistent: bool = True
    still_seconds: float = 0.0
    error: HostError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Next state and its reason."""

    state: MigrationState
    reason: str = ""


def settle(look: Look, settings: ActSettings) -> Standing:
    """The verdict if the pair of states allows one, else the open state in which to wait."""
    found = finding(look.source, look.destination)
    if found.state is None:
        return _waiting(look)
    at_home = side(look.source) is Side.RUNS and found.state is MigrationState.FAILED
    if look.state is MigrationState.INTENT and at_home and not look.begun:
        return _not_begun(look, settings)
    patience = found.patience
    if patience is Patience.NONE and (look.call_open or (at_home and not look.begun)):
        patience = Patience.SETTLE  # the call is about to return, or a job may still begin
    if look.call_open and (at_home or found.state is MigrationState.VM_STOPPED):
        return _call_hangs(look, settings)
    if look.held_seconds < _seconds(patience, settings) or not _condition(patience, look):
        return _waiting(look)
    return _explained(found.state, found.note, look, settings)


def _not_begun(look: Look, settings: ActSettings) -> Standing:
    """An intent of which no job was seen. It is given up once none can begin and the destination has been asked too."""
    silent = side(look.destination) is Side.SILENT
    if not look.never_after_all or (silent and look.held_seconds < settings.lost_source_seconds):
        return Standing(state=MigrationState.INTENT, reason="destination does not answer" if silent else "")
    text = "no job began; the destination does not answer" if silent else "no job began"
    return Standing(state=MigrationState.ABANDONED, reason=_told(text, look.error))


def _seconds(patience: Patience, settings: ActSettings) -> float:
    if patience is Patience.NONE:
        return 0.0
    return settings.settle_seconds if patience is Patience.SETTLE else settings.lost_source_seconds


def _condition(patience: Patience, look: Look) -> bool:
    """What must be so beside the time that passed."""
    if patience is Patience.LOST_SOURCE_AFTER_DEADLINE:
        return look.overdue
    return look.source_removed if patience is Patience.LOST_SOURCE_REMOVED else True


def _waiting(look: Look) -> Standing:
    """No verdict yet: unobserved if a host is silent, else as before."""
    silent = [
        f"{name} {'does not answer' if state is None else 'tells no definite state yet'}"
        for name, state in (("source", look.source), ("destination", look.destination))
        if side(state) is Side.SILENT
    ]
    if silent and (look.begun or look.state is not MigrationState.INTENT):
        return Standing(state=MigrationState.UNOBSERVED, reason=", ".join(silent))
    if look.state is MigrationState.UNOBSERVED:
        return Standing(state=MigrationState.ABORTING if look.ordered_abort else MigrationState.RUNNING)
    return Standing(state=look.state)


def _call_hangs(look: Look, settings: ActSettings) -> Standing:
    if look.overdue and look.held_seconds >= settings.settle_seconds:
        return Standing(state=MigrationState.STUCK, reason="libvirt's call does not return, and no job is seen")
    return _waiting(look)


def _told(text: str, error: HostError | None) -> str:
    return text if error is None else f"{text}: {error}" if text else str(error)


def _explained(state: MigrationState, note: str, look: Look, settings: ActSettings) -> Standing:
    """The verdict by location, refined by what else is known of its cause."""
    if state is MigrationState.FAILED:
        return _stayed(note, look)
    if state is MigrationState.VM_STOPPED and DomainState.CRASHED in (look.source, look.destination):
        note = CRASHED_NOTE
    # while a guest ends libvirt may not tell of it for long; but a source that lets our call end so was there all the time
    told_its_end = error_code(look.error) in GUEST_ENDED_CODES
    source_lost = look.source_silent_seconds >= settings.settle_seconds and not told_its_end
    if state in (MigrationState.VM_STOPPED, MigrationState.MISSING) and source_lost:
        note = f"{note}; the source had been silent for {look.source_silent_seconds:.0f} s"
        return Standing(state=MigrationState.LOST_SOURCE, reason=_told(note, look.error))
    if state is MigrationState.MISSING and not look.persistent and told_its_end:
        note = "on neither host: a transient guest that ended"
        return Standing(state=MigrationState.VM_STOPPED, reason=_told(note, look.error))
    return Standing(state=state, reason=note if state is MigrationState.SUCCEEDED else _told(note, look.error))


def _stayed(note: str, look: Look) -> Standing:
    """The VM is on its source: by our abort, by somebody's, because libvirt would not have it, or the transfer broke."""
    code = error_code(look.error)
    if look.ordered_abort:
        return Standing(state=MigrationState.ABORTED, reason=note)
    if code == OPERATION_ABORTED:
        return Standing(state=MigrationState.ABORTED, reason=_told("aborted by another client", look.error))
    why = cause(look.error, flowed=look.flowed)
    if why is Code.VM_BUSY:
        return Standing(state=MigrationState.ABANDONED, reason=_told(why.value, look.error))
    answers = side(look.destination) is not Side.SILENT
    if answers and way_failed(look.error, flowed=look.flowed, still_seconds=look.still_seconds):
        why = Code.TRANSPORT
    text = note if why is None else f"{why.value}; {note}" if note else why.value
    return Standing(
        state=MigrationState.FAILED, reason=_told(text, look.error) or "no job, and the VM runs on its source"
    )
