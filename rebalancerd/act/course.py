"""One look at one open migration, and what follows from it: the I/O around the pure state machine."""

from collections.abc import Callable
from dataclasses import replace

import structlog

from rebalancerd.act.machine import Act, Course, Look, Running, Standing, settle, under_way
from rebalancerd.act.settings import ActSettings
from rebalancerd.act.watch import Watch
from rebalancerd.cluster.migration import (
    MOVED_NOTE,
    AbortCause,
    AbortOrder,
    Completion,
    MigrationRecord,
    MigrationState,
    Progress,
)
from rebalancerd.cluster.names import printable
from rebalancerd.cluster.vm import DomainState
from rebalancerd.ports import (
    Clock,
    HostError,
    HostUnreachableError,
    HypervisorRead,
    HypervisorWrite,
    Ledger,
    LedgerUnavailableError,
)

log = structlog.get_logger(__name__)

ABORT_RETRY_SECONDS = 5.0
ARRIVED = frozenset({MigrationState.SUCCEEDED, MigrationState.DEGRADED})


class Courses:
    """Advances migrations. Every method is to be called with the watch's lock held."""

    def __init__(
        self, *, read: HypervisorRead, write: HypervisorWrite, ledger: Ledger, clock: Clock, settings: ActSettings
    ) -> None:
        self._read, self._write, self._ledger = read, write, ledger
        self._clock, self._settings = clock, settings
        self.held_back: Callable[[], bool] = lambda: False  # while true nothing is written down, so nothing is done

    def advance(self, watch: Watch) -> None:
        """Look once, take the next state, and do what it asks for. What a host does wrong raises nothing."""
        if not watch.record.state.is_open:
            self.save(watch)
            return
        source_answered, progress = self._progress(watch)
        if progress is not None and not self._broken(watch, progress):
            self._run(watch, progress)
        else:
            self._settle(watch, source_answered=source_answered)

    def _broken(self, watch: Watch, progress: Progress) -> bool:
        """Whether its post-copy has failed, whose job libvirt keeps so that it can be resumed.

        libvirt calls it failed also where only the two libvirtds lost each other. Then QEMU goes on, and memory is copied.
        """
        stopped = watch.stopped_seconds(progress, self._clock.monotonic())
        if not progress.postcopy or stopped < self._settings.settle_seconds:
            return False
        return self._locate(watch.record.source, watch.record.vm_uuid) is DomainState.PAUSED_POSTCOPY_FAILED

    def abort(self, watch: Watch, progress: Progress, reason: str, cause: AbortCause) -> None:
        """Order the abort of a job just seen in ``progress``. The order is durable first; post-copy is left alone."""
        if progress.postcopy:
            return
        if watch.abort_at is None:
            order = AbortOrder(cause=cause, elapsed_seconds=progress.elapsed_seconds)
            aborting = replace(watch.record, state=MigrationState.ABORTING, reason=reason, abort=order)
            if not self._write_down(watch, aborting):
                return  # the next look tries again
            watch.record, watch.abort_reason = aborting, reason
            watch.abort_at = self._clock.monotonic()
        self._send_abort(watch)

    def _send_abort(self, watch: Watch) -> None:
        try:
            self._write.abort(watch.record.source, watch.record.vm_uuid)
            watch.abort_retry_at = None
        except HostError as error:
            watch.abort_retry_at = self._clock.monotonic() + ABORT_RETRY_SECONDS
            log.warning("abort_refused", migration=watch.record.id, reason=printable(str(error), 300))

    def save(self, watch: Watch) -> None:
        """Bring the ledger up to date if an earlier write failed."""
        if watch.unsaved:
            watch.unsaved = not self._write_down(watch, watch.record)

    # while a job runs

    def _progress(self, watch: Watch) -> tuple[bool, Progress | None]:
        """Whether the source answered, and its job. An error is no answer: it says nothing of the migration."""
        if watch.record.source not in self._read.hosts():
            return False, None
        try:
            return True, self._read.progress(watch.record.source, watch.record.vm_uuid)
        except HostError:
            return False, None

    def _run(self, watch: Watch, progress: Progress) -> None:
        now = self._clock.monotonic()
        watch.saw_job(progress, now, self._settings)
        course = under_way(
            Running(
                state=watch.record.state,
                now=now,
                progress=progress,
                deadline_at=watch.deadline_at,
                limit_downtime_seconds=watch.record.options.max_downtime_seconds,
                allowed_downtime_seconds=watch.allowed_downtime_seconds,
                abort_at=watch.abort_at,
                stall=watch.stall,
                ran_seconds=now - watch.begun_at,
                bound_seconds=watch.bound_seconds,
            ),
            self._settings,
        )
        watch.stall = course.stall
        self._tell_late(watch, course)
        started = watch.record.started_at
        if started is None:
            started = self._clock.wall() - progress.elapsed_seconds
        reason = watch.record.reason if course.reason is None or course.act is Act.ABORT else course.reason
        postcopy = watch.record.postcopy or progress.postcopy
        self.become(
            watch, replace(watch.record, state=course.state, reason=reason, started_at=started, postcopy=postcopy)
        )
        self._do(watch, progress, course)

    def _tell_late(self, watch: Watch, course: Course) -> None:
        if course.late and not watch.late:
            watch.late = course.late
            name = printable(watch.record.vm_name, 100)
            log.warning("migration_late", id=watch.record.id, vm=name, reason=course.late)

    def _do(self, watch: Watch, progress: Progress, course: Course) -> None:
        if course.act is Act.ABORT:
            self.abort(watch, progress, course.reason or "", course.cause)
        elif course.act is Act.SET_DOWNTIME:
            self._allow_downtime(watch, course.seconds)
        elif (
            course.state is MigrationState.ABORTING
            and watch.abort_retry_at is not None
            and self._clock.monotonic() >= watch.abort_retry_at
        ):
            self._send_abort(watch)

    def _allow_downtime(self, watch: Watch, seconds: float) -> None:
        try:
            self._write.set_max_downtime(watch.record.source, watch.record.vm_uuid, seconds)
            watch.allowed_downtime_seconds = seconds
        except HostError as error:  # the job may not have begun, or just have ended
            log.debug("downtime_not_set", migration=watch.record.id, reason=printable(str(error), 300))

    # once none does

    def _settle(self, watch: Watch, *, source_answered: bool) -> None:
        record = watch.record
        call_open, error, begun = watch.call_open, watch.error, watch.begun  # before the hosts are asked
        source = self._locate(record.source, record.vm_uuid) if source_answered else None
        destination = self._locate(record.destination, record.vm_uuid)
        now = self._clock.monotonic()
        held = watch.saw_pair((source, destination), now)
        standing = settle(
            Look(
                state=record.state,
                source=source,
                destination=destination,
                held_seconds=held,
                call_open=call_open,
                begun=begun,
                flowed=watch.flowed,
                never_after_all=now >= watch.abandon_at,
                ordered_abort=watch.abort_at is not None,
                overdue=now >= watch.deadline_at,
                source_removed=record.source not in self._read.hosts(),
                source_silent_seconds=watch.silent_seconds,
                persistent=record.persistent,
                still_seconds=watch.still_seconds,
                error=error,
            ),
            self._settings,
        )
        if standing.state is MigrationState.MISSING:
            standing = self._search(watch)
        if standing.state.is_open:
            reason = standing.reason
            if not reason:
                reason = watch.abort_reason if standing.state is MigrationState.ABORTING else record.reason
            self.become(watch, replace(record, state=standing.state, reason=reason))
        else:
            self._conclude(watch, standing)

    def _locate(self, host: str, vm_uuid: str) -> DomainState | None:
        if host not in self._read.hosts():  # an adopted migration may name a host that was taken out since
            return None
        try:
            return self._read.locate(host, vm_uuid)
        except HostError as error:
            log.debug("not_located", host=host, vm=vm_uuid, reason=str(error))
            return None

    def _search(self, watch: Watch) -> Standing:
        """On neither host of the migration: only if no other host has it either is it missing."""
        record, silent = watch.record, []
        for host in self._read.hosts():
            if host in (record.source, record.destination):
                continue
            state = self._locate(host, record.vm_uuid)
            if state is None:
                silent.append(host)
            elif state.is_active:
                reason = f"runs on {host}: {MOVED_NOTE}"
                return Standing(state=MigrationState.FAILED, reason=reason)
        if silent:
            reason = f"on neither host, and {', '.join(sorted(silent))} does not answer"
            return Standing(state=MigrationState.UNOBSERVED, reason=reason)
        return Standing(state=MigrationState.MISSING, reason="on no host")

    def _conclude(self, watch: Watch, standing: Standing) -> None:
        """The verdict: restore what a migration loses, keep libvirt's figures, write it down."""
        record, restored = watch.record, watch.record.autostart_restored
        parts = [standing.reason] if watch.abort_at is None else [watch.abort_reason, standing.reason]
        parts.append(watch.late)
        if record.persistent and record.autostart and not restored and _moved(watch, standing.state):
            restored, failure = self._restore_autostart(watch)
            if restored is None:
                waiting = f"arrived; autostart not restored yet: {failure}"
                self.become(watch, replace(record, state=MigrationState.RUNNING, reason=printable(waiting, 1000)))
                return
            parts.append(failure)
        completion = self._completion(watch) if standing.state in ARRIVED else None
        self.become(
            watch,
            replace(
                record,
                state=standing.state,
                reason=printable("; ".join(part for part in parts if part), 1000),
                ended_at=self._ended_at(watch, completion),
                autostart_restored=restored,
                completion=completion,
            ),
        )

    def _ended_at(self, watch: Watch, completion: Completion | None) -> float:
        """The instant of the verdict; of one that ended while nobody watched, what libvirt tells of it."""
        wall, started = self._clock.wall(), watch.record.started_at
        if started is None:
            return wall
        if watch.job_seen or watch.handle is not None:  # the wall clock may have stepped meanwhile
            return started + max(0.0, self._clock.monotonic() - watch.begun_at)
        told = completion.total_seconds if completion is not None else None
        return max(started, wall if told is None else min(started + told, wall))

    def _restore_autostart(self, watch: Watch) -> tuple[bool | None, str]:
        """True: set. None: not yet, the next look tries again. False: given up. With the failure in words."""
        now = self._clock.monotonic()
        watch.restoring_since = now if watch.restoring_since is None else watch.restoring_since
        try:
            self._write.set_autostart(watch.record.destination, watch.record.vm_uuid, True)
        except HostError as error:
            silent = isinstance(error, HostUnreachableError)
            patience = self._settings.lost_source_seconds if silent else self._settings.settle_seconds
            if now - watch.restoring_since < patience:
                return None, str(error)
            log.error("autostart_not_restored", migration=watch.record.id, reason=printable(str(error), 300))
            return False, f"autostart not restored: {error}"
        return True, ""

    def completions(self, record: MigrationRecord) -> tuple[Completion, ...]:
        """What destination and source, in this order, tell of a finished migration of that VM; it may be an earlier one."""
        found = []
        for host in (record.destination, record.source):
            if host not in self._read.hosts():
                continue
            try:
                completion = self._read.completion(host, record.vm_uuid)
            except HostError:
                continue
            if completion is not None:
                found.append(completion)
        return tuple(found)

    def _completion(self, watch: Watch) -> Completion | None:
        return next((c for c in self.completions(watch.record) if c not in watch.older_completions), None)

    # the ledger

    def become(self, watch: Watch, record: MigrationRecord) -> None:
        """Take the new record. The migration goes its way whether the ledger can be written or not."""
        if record == watch.record:
            self.save(watch)
            return
        if record.state is not watch.record.state:
            log.info(
                "migration",
                id=record.id,
                vm=printable(record.vm_name, 100),
                source=record.source,
                destination=record.destination,
                state=record.state.value,
                was=watch.record.state.value,
                reason=record.reason,
            )
        watch.record = record
        watch.unsaved = not self._write_down(watch, record)

    def _write_down(self, watch: Watch, record: MigrationRecord) -> bool:
        if self.held_back():
            return False
        try:
            self._ledger.update_migration(record)
        except LedgerUnavailableError as error:
            if not watch.unsaved:
                log.error("migration_not_recorded", id=record.id, reason=str(error))
            return False
        return True


def _moved(watch: Watch, verdict: MigrationState) -> bool:
    """Whether the VM's definition is on the destination now: it runs there, or it arrived and stopped."""
    stopped_there = verdict is MigrationState.VM_STOPPED and watch.pair == (DomainState.ABSENT, DomainState.SHUTOFF)
    return verdict in ARRIVED or stopped_there
