"""Control: all that the API may ask of a running daemon. It holds no port that could move a VM.

Questions are answered from the last cycle's view and the ledger. Every command becomes a row of the ledger, with the
name of who gave it, and takes effect with the next cycle.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from rebalancerd import __version__
from rebalancerd.cluster.advice import Advice, AdviceScore
from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.migration import MigrationRecord, Progress
from rebalancerd.cluster.night import Night, NightsTotal
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerRecord
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cycle import LoopView
from rebalancerd.guard import policy_windows
from rebalancerd.guard.memory import GuardMemory, needed_since, recall
from rebalancerd.loop import LoopSettings
from rebalancerd.night.book import NightsTold
from rebalancerd.offline import keep
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.ports import Clock, HostError, Lease, Ledger, LedgerUnavailableError
from rebalancerd.power_round import PowerRound
from rebalancerd.predict.demand.keeper import DemandModelState
from rebalancerd.predict.keeper import PHYSICS, ModelState
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.record.lease import Tenure
from rebalancerd.record.snapshotfile import KeptInputs
from rebalancerd.serve import health, rows
from rebalancerd.serve.advice_rows import advice_row, advised_row
from rebalancerd.serve.problem import ProblemError, did_you_mean
from rebalancerd.serve.schemas import Check, History, LeaderRow, MigrationRow, Ping, PlanBrief, Status, Watch
from rebalancerd.shadow import ShadowState

T = TypeVar("T")
RECENT_SECONDS = 900.0
HISTORY_LIMIT = 1000


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

    def propose(self) -> Plan:
        """A plan for the cluster as it is now; waits for a cycle under way."""
        ...

    def look(self, seconds: float = 0.0) -> PlanInputs:
        """What such a plan would rest on, read whole; with a forecast that reaches as far at least."""
        ...

    def policy_at(self, instant: float) -> policy_windows.InForce:
        """The policy that holds at an instant (epoch seconds)."""
        ...


class Remembering(Ledger, Protocol):
    """A ledger that can also be asked about the past as a whole (``record.archive``)."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection in a read transaction."""
        ...

    def advice(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int = 20
    ) -> tuple[tuple[Advice, AdviceScore | None], ...]:
        """Advice given since then, with how it turned out, newest first."""
        ...

    def nights(self, limit: int = 30) -> tuple[Night, ...]:
        """The last nights without their evenings, newest first."""
        ...

    def nights_total(self) -> NightsTotal:
        """What the nights that are over add up to."""
        ...


class Acting(Protocol):
    """What is needed of the acting room: to look, and to ask for the abort of a migration of ours."""

    def active(self) -> Sequence[MigrationRecord]:
        """Migrations without a verdict."""
        ...

    def progress(self, vm_uuid: str) -> Progress | None:
        """The last reading of a running job."""
        ...

    def abort(self, vm_uuid: str, reason: str) -> object:
        """Ask for the abort of that VM's migration."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the daemon knows of itself. ``pause_file``: why its file pauses it, None if it does not.

    ``model``: who predicts what migrations cost; ``demand``: who forecasts what VMs will ask for; ``advice``: how advice
    turned out; ``predict``: with which settings it is predicted; ``power``: host power, None where none is configured;
    ``nights``: what windows of consolidation saved.
    ``power_model``: which model of a host's power is used, in words.
    ``ledger_fault``: why the ledger's file was refused, so that it only observes. ``events_missed``: changes per host
    that polling found and no event told. ``leader``: who leads the controllers of a shared ledger.
    """

    hosts: tuple[str, ...]
    controller: str
    started_at: float
    cycle_seconds: float = 60.0
    reload_error: Callable[[], str | None] = lambda: None
    pause_file: Callable[[], str | None] = lambda: None
    model: Callable[[], ModelState | None] = lambda: None
    demand: Callable[[], DemandModelState | None] = lambda: None
    advice: Callable[[], ShadowState | None] = lambda: None
    predict: PredictSettings = PredictSettings()
    power: PowerRound | None = None
    nights: Callable[[], NightsTold | None] = lambda: None
    power_model: Callable[[Host], str] | None = None
    ledger_fault: str | None = None
    events_missed: Callable[[], Mapping[str, int]] = dict
    leader: Callable[[], Tenure | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Remembered:
    """The ledger's answer to one question, or why there is none."""

    operator: OperatorState
    memory: GuardMemory
    recent: tuple[MigrationRecord, ...]
    error: str | None = None


class Control:
    """Reads of a running daemon. Thread-safe as far as its pieces are."""

    def __init__(
        self,
        *,
        loop: Looped,
        ledger: Remembering,
        clock: Clock,
        about: Surroundings,
        executor: Acting | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.loop, self.ledger, self.clock, self.about = loop, ledger, clock, about
        self.executor, self.lease = executor, lease

    @property
    def mode(self) -> Mode:
        """The mode in force."""
        return self.loop.settings.mode

    @property
    def snapshot(self) -> Snapshot | None:
        """The cluster as the last cycle saw it."""
        view = self.loop.view
        return view.snapshot if view is not None else None

    def host_names(self) -> frozenset[str]:
        """Every host that can be named in a command."""
        seen = self.snapshot
        return frozenset(self.about.hosts) | frozenset(seen.host_by_name if seen is not None else ())

    # questions

    def ping(self) -> Ping:
        """Who is there."""
        return Ping(version=__version__, controller=self.about.controller, mode=self.mode.value, pid=os.getpid())

    def status(self) -> Status:
        """The cluster and the daemon in one view; answered even while the ledger is away."""
        now, view, told = self.clock.wall(), self.loop.view, self.remembered()
        found = self._checks(now, told)
        record = view.record if view is not None else None
        paused, model, demand = told.operator.paused, self.about.model(), self.about.demand()
        advice, holds = self.about.advice(), self.loop.policy_at(now)
        return Status(
            version=__version__,
            health=health.verdict(found),
            checks=found,
            mode=self.mode.value,
            policy=record.policy if record is not None else "none",
            policy_now=holds.policy,
            policy_window=None if holds.window is None else policy_windows.describe(holds.window),
            policy_until=holds.until,
            controller=self.about.controller,
            leader=self._leader(),
            now=now,
            started_at=self.about.started_at,
            hosts=rows.host_rows(
                self.about.hosts,
                view.snapshot if view is not None else None,
                view.pressures if view is not None else (),
                record.hot_hosts if record is not None else (),
            ),
            vms=len(view.snapshot.vms) if view is not None else 0,
            moving=self._moving(now),
            moving_limit=self.loop.settings.guard.per_cluster,
            cycle=rows.cycle_row(record) if record is not None else None,
            plan=self._plan_brief(view, told.operator),
            model=rows.model_row(model) if model is not None else None,
            demand=rows.demand_row(demand) if demand is not None else None,
            advice=advice_row(advice) if advice is not None else None,
            paused=rows.pause_of(paused) if paused is not None else None,
            drained=tuple(sorted(told.operator.drained)),
            guard_notes=told.memory.describe(),
            unknowns=len(view.snapshot.unknowns) if view is not None else 0,
        )

    def watch(self) -> Watch:
        """What runs now with its progress, and what ended within the last quarter of an hour."""
        now, view = self.clock.wall(), self.loop.view
        record = view.record if view is not None else None
        finished = [r for r in self.migrations(since=now - RECENT_SECONDS) if not r.state.is_open]
        return Watch(
            now=now,
            mode=self.mode.value,
            migrations=self._moving(now),
            recent=tuple(rows.migration_row(r, now=now) for r in finished[:20]),
            hosts=rows.host_rows(
                self.about.hosts,
                view.snapshot if view is not None else None,
                view.pressures if view is not None else (),
                record.hot_hosts if record is not None else (),
            ),
            cycle=rows.cycle_row(record) if record is not None else None,
        )

    def history(self, *, limit: int, since: float = 0.0, vm: str | None = None) -> History:
        """Past migrations, cycles and advice, newest first, at most ``limit`` of each. ``vm``: its UUID or name."""
        now, most = self.clock.wall(), max(1, min(limit, HISTORY_LIMIT))
        uuid = self.vm_uuid(vm) if vm is not None else None
        found = self._ask(lambda: self.ledger.migrations(since=since, vm_uuid=uuid, limit=most))
        cycles = self._ask(lambda: self.ledger.cycles(limit=most)) if vm is None else ()
        advice = self._ask(lambda: self.ledger.advice(since=since, vm_uuid=uuid, limit=most))
        return History(
            now=now,
            advice=tuple(advised_row(given, score) for given, score in advice),
            migrations=tuple(rows.migration_row(r, now=now) for r in found),
            cycles=tuple(rows.cycle_row(c) for c in cycles if c.started_at >= since),
        )

    def plan(self, *, current: bool = False) -> Plan:
        """A plan for the cluster as it is now, or (``current``) the one the last cycle made."""
        if current:
            view = self.loop.view
            if view is None or view.plan is None:
                raise ProblemError("NO_PLAN", "no cycle has made a plan yet", "see `rebalancerd status`", status=404)
            return view.plan
        return self._planning(self.loop.propose)

    def inputs(self, seconds: float = 0.0) -> KeptInputs:
        """What such a plan would rest on, to be kept: planning from it elsewhere gives the same plan.

        ``seconds``: with a forecast that reaches as far at least.
        """
        looked, model = self._planning(lambda: self.loop.look(seconds)), self.about.model()
        return keep(looked, self.about.predict, model.basis if model is not None else PHYSICS)

    # shared with commands and explanations

    def migrations(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int | None = None
    ) -> tuple[MigrationRecord, ...]:
        """Migrations of the ledger, newest first; ProblemError while it is away."""
        return tuple(self._ask(lambda: self.ledger.migrations(since=since, vm_uuid=vm_uuid, limit=limit)))

    def vm_uuid(self, given: str) -> str:
        """UUID of the VM of that UUID or name, moved ones that are gone by now included. ProblemError if unclear."""
        snapshot = self.snapshot
        names: dict[str, set[str]] = {}
        for vm in snapshot.vms if snapshot is not None else ():
            if vm.uuid == given.lower():
                return vm.uuid
            names.setdefault(vm.name, set()).add(vm.uuid)
        for record in self.migrations(limit=HISTORY_LIMIT):
            if record.vm_uuid == given.lower():
                return record.vm_uuid
            if record.vm_name not in names:
                names[record.vm_name] = {record.vm_uuid}
        found = sorted(names.get(given, ()))
        if len(found) > 1:
            hint = f"give the UUID: {', '.join(found)}"
            raise ProblemError("AMBIGUOUS_VM", f"{len(found)} VMs are called “{given}”", hint, status=409)
        if not found:
            raise ProblemError("UNKNOWN_VM", f"no VM “{given}” is known", did_you_mean(given, names), status=404)
        return found[0]

    def remembered(self) -> Remembered:
        """What commands and past migrations add up to now. Never raises: an unreadable ledger is told as ``error``."""
        now, guard = self.clock.wall(), self.loop.settings.guard
        try:
            operator = self.ledger.operator_state(now)
            recent = tuple(self.ledger.migrations(since=needed_since(guard, operator, now)))
        except LedgerUnavailableError as error:
            view = self.loop.view
            known = view.operator if view is not None else OperatorState()
            return Remembered(known, GuardMemory(), (), str(error))
        memory = recall(recent, operator=operator, now=now, settings=guard)
        return Remembered(operator, memory, recent)

    def checks(self) -> tuple[Check, ...]:
        """The health conditions that hold now."""
        return self._checks(self.clock.wall(), self.remembered())

    def open_migrations(self) -> tuple[MigrationRecord, ...]:
        """Migrations of ours without a verdict; from the ledger where nothing acts."""
        if self.executor is not None and not self._standby():
            return tuple(self.executor.active())
        try:
            return tuple(self.ledger.open_migrations())
        except LedgerUnavailableError:
            return ()

    def _checks(self, now: float, told: Remembered) -> tuple[Check, ...]:
        view, paused = self.loop.view, told.operator.paused
        why = self.about.pause_file()
        if why is None and paused is not None:
            why = f"paused by {paused.by}" + (f": {paused.reason}" if paused.reason else "")
        return health.checks(
            health.Facts(
                now=now,
                started_at=self.about.started_at,
                cycle=view.record if view is not None else None,
                snapshot=view.snapshot if view is not None else None,
                open_migrations=self.open_migrations(),
                recent=told.recent,
                paused=why,
                breaker_open=told.memory.breaker.reason,
                quarantined=dict(told.memory.quarantined),
                links=dict(told.memory.links),
                read_only=dict(told.memory.read_only),
                ledger_error=self.about.ledger_fault or told.error,
                reload_error=self.about.reload_error(),
                lease_held=self.lease is None or self.lease.held(),
                standby=self._standby(),
                leader=told_leader.controller if (told_leader := self._leader()) is not None else None,
                cycle_seconds=self.about.cycle_seconds,
                model=self.about.model(),
                demand=self.about.demand(),
                power=self.power_records(),
            )
        )

    def power_records(self) -> tuple[PowerRecord, ...]:
        """Where every host's power is; empty where none is configured or the ledger is away."""
        try:
            return self.about.power.keeper.records() if self.about.power is not None else ()
        except LedgerUnavailableError:
            return ()

    def _standby(self) -> bool:
        return self.lease is not None and self.lease.standby

    def _leader(self) -> LeaderRow | None:
        """Who leads as far as this controller knows; None where there is only one, or nobody does."""
        tenure = self.about.leader()
        if tenure is None or (tenure.ours and self._standby()) or tenure.expires_in_seconds <= 0:
            return None
        return LeaderRow(controller=tenure.controller, epoch=tenure.epoch, here=tenure.ours)

    def leader_elsewhere(self) -> str | None:
        """Which other controller acts, so that only it can abort a migration; None if this one does or none is known."""
        leader = self._leader()
        return leader.controller if leader is not None and not leader.here else None

    def _moving(self, now: float) -> tuple[MigrationRow, ...]:
        """Open migrations of ours with their progress, then the foreign ones that were observed."""
        ours = [rows.migration_row(r, now=now, progress=self._progress(r)) for r in self.open_migrations()]
        known = {row.vm_uuid for row in ours}
        snapshot = self.snapshot
        for flight in snapshot.in_flight if snapshot is not None else ():
            if flight.ours or flight.vm_uuid in known or snapshot is None:
                continue
            vm = snapshot.vm_by_uuid.get(flight.vm_uuid)
            ours.append(
                MigrationRow(
                    id="foreign",
                    vm_uuid=flight.vm_uuid,
                    vm_name=vm.name if vm is not None else flight.vm_uuid,
                    source=flight.source,
                    destination=flight.destination or "unknown",
                    state="running",
                    intent_at=snapshot.taken_at,
                    ours=False,
                )
            )
        return tuple(ours)

    def _progress(self, record: MigrationRecord) -> Progress | None:
        if self.executor is None:
            return None
        try:
            return self.executor.progress(record.vm_uuid)
        except HostError:
            return None  # the row says what state it is in

    def _plan_brief(self, view: LoopView | None, operator: OperatorState) -> PlanBrief | None:
        if view is None or view.plan is None or view.plan.is_empty:
            return None
        given = {c.digest for c in (*operator.approved, *operator.applied)}
        waits = self.mode is Mode.GUARDED and view.plan.digest not in given
        return rows.plan_brief(view.plan, awaits_approval=waits)

    def _planning(self, question: Callable[[], T]) -> T:
        try:
            return self._ask(question)
        except ValueError as error:
            hint = "nothing can be planned from such figures; see `rebalancerd status`"
            raise ProblemError("CANNOT_PLAN", str(error), hint, status=409) from error

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except LedgerUnavailableError as error:
            raise ledger_away(error) from error


def ledger_away(error: LedgerUnavailableError) -> ProblemError:
    """The problem of a ledger that cannot be read or written."""
    hint = "see that the disk of the state directory is writable and not full"
    return ProblemError("LEDGER_UNAVAILABLE", str(error), hint, status=503)
