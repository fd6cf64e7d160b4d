"""Executor: starts migrations, watches them to their verdict, and adopts those that an earlier run left."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, runtime_checkable

import structlog

from rebalancerd.act.cause import cause
from rebalancerd.act.course import Courses
from rebalancerd.act.deadline import deadline_seconds
from rebalancerd.act.preflight import Preflight
from rebalancerd.act.settings import ActSettings
from rebalancerd.act.watch import Watch
from rebalancerd.cluster.migration import AbortCause, MigrationRecord, MigrationState, Progress
from rebalancerd.cluster.names import printable
from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.refusal import Code, Refusal, about_cluster, about_host, about_plan, about_vm
from rebalancerd.cluster.vm import VmFacts
from rebalancerd.ports import (
    Clock,
    HostError,
    HostUnreachableError,
    HypervisorProbe,
    HypervisorRead,
    HypervisorWrite,
    Lease,
    Ledger,
    LedgerUnavailableError,
)

log = structlog.get_logger(__name__)

EARLY_SECONDS = 5.0  # after hand-over, while the job begins, the looks are closer together
EARLY_POLL_SECONDS = 0.1
IDLE_POLL_SECONDS = 1.0
WATCHERS = 8


@runtime_checkable
class Announcing(Protocol):
    """A handle that can say when its call has returned."""

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the call has returned (at once if it has), from any thread."""
        ...


class Executor:
    """Migrations from intent to verdict. ``start``, ``tick`` and the rest may be called from different threads."""

    def __init__(
        self,
        *,
        read: HypervisorRead,
        write: HypervisorWrite,
        ledger: Ledger,
        clock: Clock,
        settings: ActSettings,
        probe: HypervisorProbe | None = None,
        lease: Lease | None = None,
        controller: str = "",
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """``stopping``: that the daemon ends; an adoption that is under way then leaves the ledger as it is."""
        self._write, self._ledger, self._clock = write, ledger, clock
        self._settings, self._lease, self._controller = settings, lease, controller
        self._preflight = Preflight(read=read, write=write, probe=probe, clock=clock)
        self._courses = Courses(read=read, write=write, ledger=ledger, clock=clock, settings=settings)
        self._courses.held_back = lambda: not self._adopted and stopping()
        self._stopping = stopping
        self._read = read
        self._watches: dict[str, Watch] = {}  # by migration id
        self._starting: set[str] = set()  # VMs between preflight and hand-over
        self._lock = threading.Lock()  # guards the two above, never held during I/O
        self._adopting = threading.Lock()
        self._adopted = False
        self._tenure = -1  # epoch in which it adopted
        self._wake = threading.Event()
        self._numbers = itertools.count(1)

    # starting

    def start(
        self, step: Step, plan: Plan, *, facts: VmFacts, cycle_id: int | None = None
    ) -> MigrationRecord | Refusal:
        """Preflight, durable intent, hand-over to libvirt; or why not. ``facts``: what the plan was made from.

        A refusal after the intent leaves that as ABANDONED. Raises nothing that hosts or ledger can cause.
        """
        move = step.move
        try:
            self._adopt_once()
            if not self._reserve(move.vm_uuid):
                return about_vm(Code.VM_BUSY, move.vm_uuid, "a migration of it is under way", move.destination)
            try:
                return self._start(step, plan, facts, cycle_id)
            finally:
                self._release(move.vm_uuid)
        except LedgerUnavailableError as error:
            self._adopted = False  # an intent may be durable although the ledger failed: look before the next start
            return about_cluster(Code.LEDGER_UNAVAILABLE, str(error))

    def _start(self, step: Step, plan: Plan, facts: VmFacts, cycle_id: int | None) -> MigrationRecord | Refusal:
        refusal = self._plan_fits(step, plan)
        if refusal is not None:
            return refusal
        cleared = self._preflight.check(step.move, facts, self._inbound(step.move.destination))
        if isinstance(cleared, Refusal):
            return cleared
        deadline = deadline_seconds(self._settings, step.move.cost, cleared.facts.memory_bytes)
        record = self._intent(step, plan, cleared.facts, cycle_id, deadline)
        older = self._courses.completions(record)
        intent_at = self._clock.monotonic()
        self._ledger.open_intent(record)
        start_before = intent_at + self._settings.start_before_seconds
        watch = Watch(
            record=record,
            begun_at=intent_at,
            deadline_at=intent_at + deadline,
            abandon_at=start_before + self._settings.lease_seconds,
            memory_bytes=cleared.facts.memory_bytes,
            older_completions=older,
        )
        with watch.lock:
            with self._lock:
                self._watches[record.id] = watch
            return self._hand_over(watch, plan, start_before)

    def _hand_over(self, watch: Watch, plan: Plan, start_before: float) -> MigrationRecord | Refusal:
        record = watch.record
        started_at, begun_at = self._clock.wall(), self._clock.monotonic()
        late = self._too_late(plan, start_before, record.epoch)
        if late is None:
            try:
                watch.handle = self._write.migrate(record)
            except HostError as error:
                late = _not_handed_over(record, error)
        if late is not None:
            watch.abandon_at = self._clock.monotonic()
            abandoned = replace(
                record, state=MigrationState.ABANDONED, reason=printable(str(late), 1000), ended_at=self._clock.wall()
            )
            self._courses.become(watch, abandoned)
            return late
        watch.begun_at = begun_at
        watch.deadline_at += begun_at - (start_before - self._settings.start_before_seconds)
        self._courses.become(watch, replace(record, state=MigrationState.RUNNING, started_at=started_at))
        handle: object = watch.handle
        if isinstance(handle, Announcing):
            handle.when_done(self._wake.set)
        self._wake.set()
        return watch.record

    def _too_late(self, plan: Plan, start_before: float, epoch: int) -> Refusal | None:
        """The last look before the call: still the one controller, in the intent's tenure, and the intent still young."""
        if self._lease is not None and not self._lease.held():
            return about_cluster(Code.LEASE_LOST, "this controller does not hold the lease any more")
        if self._epoch() != epoch:  # lost and won again meanwhile: somebody else may have led in between
            return about_cluster(Code.LEASE_LOST, f"the intent is of epoch {epoch}, the lease of epoch {self._epoch()}")
        over = self._clock.monotonic() - start_before
        if over >= 0:
            return about_plan(Code.PLAN_EXPIRED, plan.id, f"the intent is too old to start by {over:.1f} s")
        return None

    def _plan_fits(self, step: Step, plan: Plan) -> Refusal | None:
        if step not in plan.steps:
            return about_plan(Code.PLAN_STALE, plan.id, f"step {step.number} is not of this plan")
        if self._clock.wall() >= plan.expires_at:
            return about_plan(Code.PLAN_EXPIRED, plan.id, "the plan has expired")
        if self._lease is not None and not self._lease.held():
            return about_cluster(Code.LEASE_LOST, "this controller does not hold the lease")
        if step.move.source == step.move.destination:
            return about_vm(Code.SAME_HOST, step.move.vm_uuid, "source and destination are the same host")
        return None

    def _intent(self, step: Step, plan: Plan, facts: VmFacts, cycle_id: int | None, deadline: float) -> MigrationRecord:
        move, now = step.move, self._clock.wall()
        return MigrationRecord(
            id=f"m-{int(now * 1000):x}-{next(self._numbers)}-{move.vm_uuid[:8]}",
            vm_uuid=move.vm_uuid,
            vm_name=facts.name,
            source=move.source,
            destination=move.destination,
            state=MigrationState.INTENT,
            intent_at=now,
            plan_id=plan.id,
            step=step.number,
            cycle_id=cycle_id,
            controller=self._controller,
            epoch=self._epoch(),
            start_before_seconds=self._settings.start_before_seconds,
            options=move.options,
            predicted=move.cost,
            known=move.known,
            deadline_seconds=deadline,
            persistent=facts.persistent,
            autostart=facts.autostart if facts.persistent else False,
        )

    def _inbound(self, destination: str) -> dict[str, int | None]:
        return {
            w.record.vm_uuid: w.memory_bytes
            for w in self._snapshot()
            if w.record.state.is_open and w.record.destination == destination
        }

    def _reserve(self, vm_uuid: str) -> bool:
        """Reserve a VM for one start; False if it is being started or moved already."""
        with self._lock:
            moving = {w.record.vm_uuid for w in self._watches.values() if w.record.state.is_open}
            if vm_uuid in moving | self._starting:
                return False
            self._starting.add(vm_uuid)
            return True

    def _release(self, vm_uuid: str) -> None:
        with self._lock:
            self._starting.discard(vm_uuid)

    # watching

    def active(self) -> tuple[MigrationRecord, ...]:
        """Migrations without a verdict, the oldest first."""
        return tuple(w.record for w in self._snapshot() if w.record.state.is_open)

    def progress(self, vm_uuid: str) -> Progress | None:
        """The last reading of that VM's running job."""
        for watch in self._snapshot():
            if watch.record.vm_uuid == vm_uuid and watch.record.state.is_open:
                return watch.progress
        return None

    def tick(self) -> None:
        """Look once at every open migration. What goes wrong with one never stops the others."""
        for watch in self._snapshot():
            self._advance(watch)

    def wait(self, timeout_seconds: float) -> bool:
        """Block until a libvirt call has returned or a migration was started; False if the time passed first."""
        came = self._wake.wait(timeout_seconds)
        self._wake.clear()
        return came

    def run_watch(self, stop: threading.Event) -> None:
        """Watch until ``stop`` is set. Each migration is looked at in a thread of its own: a host that hangs delays no other."""
        looking: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(max_workers=WATCHERS, thread_name_prefix="watch") as pool:
            while not stop.is_set():
                for watch in self._snapshot():
                    before = looking.get(watch.record.id)
                    if before is None or before.done():
                        looking[watch.record.id] = pool.submit(self._advance, watch)
                looking = {key: future for key, future in looking.items() if key in self._watches}
                self.wait(self._pause_seconds())

    def abort(self, vm_uuid: str, reason: str) -> MigrationRecord | Refusal:
        """Order the abort of that VM's migration; its effect is awaited by the watch. Or why there is none."""
        found = next((w for w in self._snapshot() if w.record.vm_uuid == vm_uuid and w.record.state.is_open), None)
        if found is None:
            return about_vm(Code.VM_GONE, vm_uuid, "no migration of it is under way")
        with found.lock:
            try:
                progress = self._read.progress(found.record.source, vm_uuid)
            except HostError as error:
                return about_host(Code.HOST_UNREACHABLE, error.host, str(error))
            if progress is None:
                return about_vm(Code.VM_GONE, vm_uuid, "its job has ended or not begun")
            if progress.postcopy:
                return about_vm(Code.REJECTED, vm_uuid, "a post-copy migration is never aborted")
            self._courses.abort(found, progress, reason, AbortCause.OPERATOR)
            if found.abort_at is None:
                return about_cluster(Code.LEDGER_UNAVAILABLE, "the order could not be written down")
            return found.record

    def _advance(self, watch: Watch) -> None:
        try:
            with watch.lock:
                self._courses.advance(watch)
                finished = not watch.record.state.is_open and not watch.unsaved
        except Exception:  # a bug in one migration must not stop the watch of the others
            log.exception("watch_failed", id=watch.record.id, bug=True)
            return
        if finished:
            with self._lock:
                self._watches.pop(watch.record.id, None)

    def _snapshot(self) -> tuple[Watch, ...]:
        with self._lock:
            return tuple(self._watches.values())

    def _pause_seconds(self) -> float:
        watches = self._snapshot()
        if not watches:
            return IDLE_POLL_SECONDS
        now = self._clock.monotonic()
        early = any(w.allowed_downtime_seconds is None and now - w.begun_at < EARLY_SECONDS for w in watches)
        return min(EARLY_POLL_SECONDS, self._settings.poll_seconds) if early else self._settings.poll_seconds

    # adopting

    def adopt(self) -> tuple[MigrationRecord, ...]:
        """Take over every migration that the ledger holds open, and look once at each; returns them as they stand now.

        Nothing is ever started anew: a job that runs is watched, one that has ended gets its verdict, an intent whose
        job never began is ABANDONED once it can no longer begin. Raises LedgerUnavailableError.
        """
        with self._adopting:
            now, epoch = self._clock.monotonic(), self._epoch()
            if epoch != self._tenure:  # what is known from an earlier tenure may be outdated: the ledger is not
                self.stand_down()
            taken = []
            for record in self._ledger.open_migrations():
                with self._lock:
                    if not record.ours or record.id in self._watches:
                        continue
                    watch = self._watches[record.id] = self._orphan(record, now)
                taken.append(watch)
            self._tenure = epoch
        for watch in taken:
            if not self._stopping():
                self._advance(watch)
        self._adopted = not self._stopping()
        return tuple(watch.record for watch in taken)

    def _adopt_once(self) -> None:
        if not self._adopted or self._tenure != self._epoch():
            self.adopt()

    def stand_down(self) -> None:
        """Leave every migration to the controller that leads now: nothing of them is watched or written any more."""
        with self._lock:
            self._watches.clear()
        self._adopted = False

    def _epoch(self) -> int:
        return self._lease.epoch if self._lease is not None else 0

    def _orphan(self, record: MigrationRecord, now: float) -> Watch:
        # counted from now, not from the intent's wall-clock time: the clock may have stepped, and waiting harms nobody
        never = now + record.start_before_seconds + self._settings.lease_seconds
        ordered = record.state in (MigrationState.ABORTING, MigrationState.STUCK)
        return Watch(
            record=replace(record, adopted=True),
            begun_at=now,
            deadline_at=now + deadline_seconds(self._settings, record.predicted, None),
            abandon_at=never,
            abort_at=now if ordered else None,
            abort_reason=record.reason if ordered else "",
            abort_retry_at=now if ordered else None,
            unsaved=True,
        )


def _not_handed_over(record: MigrationRecord, error: HostError) -> Refusal:
    if isinstance(error, HostUnreachableError):
        return about_host(Code.HOST_UNREACHABLE, error.host, str(error))
    code = cause(error, flowed=False) or Code.LIBVIRT_REFUSED
    return about_vm(code, record.vm_uuid, str(error), record.destination)
