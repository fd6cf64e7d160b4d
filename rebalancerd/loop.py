"""One iteration of observe → predict → plan → guard → act, with the record beside it, readable from top to bottom."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import structlog

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.decision import CycleRecord, Decision, OperatorState, Outcome
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode, Mode
from rebalancerd.cluster.power import PowerLimits
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind, about_cluster
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.vm import VmFacts
from rebalancerd.cycle import CycleNotes, LoopView
from rebalancerd.guard.checks import DRAIN, may_plan, may_start
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.doubled import doubled
from rebalancerd.guard.hold import advance
from rebalancerd.guard.memory import GuardMemory, needed_since, recall
from rebalancerd.guard.policy_windows import MORNING_SECONDS, InForce, in_force
from rebalancerd.guard.returns import Returns, arrived, follow
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.plan.day_ahead import homeless
from rebalancerd.plan.decide import decide
from rebalancerd.plan.facts import differing
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.standing import CONSOLIDATE
from rebalancerd.ports import Clock, Lease, Ledger, LedgerUnavailableError
from rebalancerd.predict.demand.host_chance import HostChance
from rebalancerd.predict.demand.reference_cores import ReferenceCores
from rebalancerd.predict.demand.window import over_window
from rebalancerd.predict.host_outlook import cpu_chances
from rebalancerd.predict.hotspot import hotspots
from rebalancerd.predict.interface import CostModel, DemandModel
from rebalancerd.predict.quiet_outlook import QuietOutlooks

log = structlog.get_logger(__name__)

# figures that cannot be trusted: nothing is predicted or planned from them
DATA_CODES = frozenset({Code.WARMING_UP, Code.TELEMETRY_INSANE, Code.CLUSTER_PARTLY_UNKNOWN, Code.HOST_UNREACHABLE})
# a step that only lacks the operator's word is a proposal, not a refusal
PROPOSAL_CODES = frozenset({Code.CLUSTER_MODE, Code.VM_MODE, Code.NOT_APPROVED})
BUGS_IN_A_ROW = 3
HOURLY = 1  # tier of the history
DAY_SECONDS = 86_400.0  # that is planned for where a host of the evening does not come back
MOST_RECORDS = 4096  # newest first; no cap per hour lets more matter, and an open breaker stops new ones


class Watched(Protocol):
    """What the loop needs of the observing room."""

    def snapshot(self, *, operator: OperatorState, ours: Sequence[MigrationRecord]) -> Snapshot:
        """The cluster as last sampled."""
        ...

    def series(self, resource: str, tier: int = 0) -> Series:
        """Recorded history of one resource; tier 0 is the finest."""
        ...

    def stays(self) -> Stays:
        """Which VM was where since when."""
        ...


class Starter(Protocol):
    """What the loop needs of the acting room; None in observe and recommend mode."""

    def start(
        self, step: Step, plan: Plan, *, facts: VmFacts, cycle_id: int | None = None
    ) -> MigrationRecord | Refusal:
        """Preflight, durable intent, hand-over to libvirt; or why not."""
        ...

    def active(self) -> tuple[MigrationRecord, ...]:
        """Migrations without a verdict."""
        ...


class PowerView(Protocol):
    """What the loop needs to know of host power."""

    def blocked(self) -> Mapping[str, Refusal]:
        """Hosts that take no VM because of power, and why."""
        ...

    def away(self) -> frozenset[str]:
        """Hosts whose silence is our own doing."""
        ...

    def no_sleep(self, hosts: Iterable[str]) -> Mapping[str, Refusal]:
        """Of those hosts the ones that could not be put to sleep were they empty, and why."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """Mode and limits in force."""

    mode: Mode
    plan: PlanSettings
    guard: GuardSettings
    unknown_share_max: float = 0.34
    power: PowerLimits | None = None  # where hosts are put to sleep


@dataclass(frozen=True, slots=True)
class _Seen:
    """One cycle's reading of the world and of the ledger."""

    snapshot: Snapshot
    operator: OperatorState
    memory: GuardMemory
    recent: tuple[MigrationRecord, ...]
    context: GuardContext


class Loop:
    """The loop. ``iterate`` and ``propose`` may be called from different threads; they take turns."""

    def __init__(
        self,
        *,
        observer: Watched,
        demand: DemandModel,
        costs: CostModel,
        ledger: Ledger,
        clock: Clock,
        settings: LoopSettings,
        executor: Starter | None = None,
        lease: Lease | None = None,
        pause_file: Callable[[], str | None] = lambda: None,
        host_chance: Callable[[], HostChance | None] = lambda: None,
        power: PowerView | None = None,
        homes: Callable[[Snapshot], Mapping[str, str]] = lambda _snapshot: {},
        morning: Callable[[float], float | None] = lambda _now: None,
    ) -> None:
        if executor is None and settings.mode.may_act:
            raise ValueError(f"mode {settings.mode} needs an executor")
        self.settings = settings
        self.view: LoopView | None = None
        self._observer, self._demand, self._costs = observer, demand, costs
        self._ledger, self._clock, self._executor, self._lease = ledger, clock, executor, lease
        self._pause_file, self._host_chance, self._power, self._homes = pause_file, host_chance, power, homes
        self._morning = morning
        self._reference_cores = ReferenceCores()
        self._holds: dict[str, int] = {}
        self._returns: Returns | None = None
        self._open_plan: Plan | None = None
        self._turn = threading.Lock()
        self._bugs = 0
        self._disarmed_at: float | None = None
        self._notes = CycleNotes(clock)

    def iterate(self) -> CycleRecord:
        """One cycle. Always returns its one record; raises nothing but what ends the process."""
        with self._turn:
            return self._iterate()

    def _iterate(self) -> CycleRecord:
        self._notes = CycleNotes(self._clock)
        try:
            record = self._cycle(self._notes)
            self._bugs = 0
        except LedgerUnavailableError as error:
            refusal = about_cluster(Code.LEDGER_UNAVAILABLE, str(error))
            return self._notes.cut_short(Outcome.NO_ACTION, refusal, mode=self.settings.mode)
        except Exception as error:
            log.exception("cycle_failed", bug=True)
            return self._failed(error)
        return record

    def propose(self) -> Plan:
        """A plan for the cluster as it is now: nothing is started and no cycle recorded.

        Raises ValueError with the refusal where the data forbid planning, LedgerUnavailableError.
        """
        with self._turn:
            plan = decide(self._look())
            self._ledger.record_plan(plan)
            return plan

    def look(self, seconds: float = 0.0) -> PlanInputs:
        """All that planning would look at now, read whole so that it can be kept. Nothing is started or recorded.

        ``seconds``: with a forecast that reaches as far at least. Raises as ``propose`` does.
        """
        with self._turn:
            inputs = self._look()
            inputs = replace(inputs, scenarios=self._over(inputs.scenarios, inputs.snapshot, seconds))
        return replace(inputs, quiet=dict(inputs.quiet))  # slow in a large cluster: no cycle waits for it

    def _look(self) -> PlanInputs:
        seen = self._observe(self._clock.wall())
        stop = may_plan(seen.context)
        if stop is not None and stop.code in DATA_CODES:
            raise ValueError(str(stop))
        return self._predict(seen)

    # observe → predict → plan → guard → act, and the record

    def _cycle(self, notes: CycleNotes) -> CycleRecord:
        seen = notes.timed("observe", lambda: self._observe(notes.started))
        if self._standby():
            return self._stood_by(seen, notes)
        stop = may_plan(seen.context, policy=DRAIN)  # what stops even an operator's command
        if stop is not None and stop.code in DATA_CODES:
            moving, snapshot = len(seen.snapshot.in_flight), seen.snapshot
            record = notes.cut_short(Outcome.NO_ACTION, stop, mode=self.settings.mode, snapshot=snapshot, moving=moving)
            return self._finish(seen, record)

        ramp = self.settings.plan.ramp_seconds
        self._returns = follow(self._returns, seen.snapshot, seen.snapshot.taken_at, ramp)
        inputs = notes.timed("predict", lambda: self._predict(seen))
        self._holds = dict(advance(self._holds, {spot.host for spot in inputs.hotspots}))
        context = replace(seen.context, holds=self._holds)

        plan = notes.timed("plan", lambda: self._choose_plan(seen, inputs))
        self._ledger.record_plan(plan)
        decisions = notes.timed("act", lambda: self._act(plan, seen, context))
        # a relieved host must be hot anew, round by round: its last sample still holds what has just left it
        relieved = {d.source for d in decisions if d.outcome is Outcome.STARTED}
        self._holds = {host: rounds for host, rounds in self._holds.items() if host not in relieved}

        stop = may_plan(context, plan.policy)
        moving = len(self._active(seen))
        record = notes.completed(inputs, plan, mode=self.settings.mode, stop=stop, moving=moving)
        return self._finish(seen, record, inputs, plan)

    def _observe(self, now: float) -> _Seen:
        guard = self.settings.guard
        operator = self._ledger.operator_state(now)
        recent = self._ledger.migrations(since=needed_since(guard, operator, now), limit=MOST_RECORDS)
        active = self._executor.active() if self._executor is not None else ()
        if self._standby():  # so that what the leader does is not taken for somebody else's
            active = tuple(record for record in self._ledger.open_migrations() if record.ours)
        snapshot = self._observer.snapshot(operator=operator, ours=active)
        if not self._standby():
            recent = (*recent, *self._record_doubled(snapshot, recent, operator, now))
        memory = recall(recent, operator=operator, now=now, settings=guard)
        away: frozenset[str] = frozenset()
        if self._power is not None:
            memory = replace(memory, quarantined={**memory.quarantined, **self._power.blocked()})
            away = self._power.away()
        context = GuardContext(
            snapshot=snapshot,
            now=now,
            settings=guard,
            memory=memory,
            operator=operator,
            mode=self.settings.mode,
            holds=dict(self._holds),
            lease_held=self._lease is None or self._lease.held(),
            pause_reason=self._pause_reason(operator),
            used_steps=frozenset((r.plan_id, r.step) for r in recent if r.plan_id is not None and r.step is not None),
            active=active,
            unknown_share_max=self.settings.unknown_share_max,
            away=away,
        )
        return _Seen(snapshot, operator, memory, tuple(recent), context)

    def _record_doubled(
        self, snapshot: Snapshot, recent: Sequence[MigrationRecord], operator: OperatorState, now: float
    ) -> tuple[MigrationRecord, ...]:
        """Put VMs that run twice without a move of ours on record, which opens the breaker."""
        found = doubled(snapshot, recent, closed_at=operator.breaker_closed_at, now=now)
        for record in found:
            log.error("vm_doubled", vm=record.vm_name, uuid=record.vm_uuid, reason=record.reason)
            self._ledger.update_migration(record)
        return found

    def _predict(self, seen: _Seen) -> PlanInputs:
        plan, snapshot = self.settings.plan, seen.snapshot
        cpu = self._observer.series("vm_cpu_cores")
        near = self._demand.scenarios(snapshot, cpu, self._observer.series("vm_memory_bytes"))
        holds = self.policy_at(snapshot.taken_at)
        ahead = self._ahead(holds, snapshot.taken_at)
        scenarios = near if ahead is None else self._over(near, snapshot, ahead)
        folding = holds.policy == CONSOLIDATE
        seen_ahead = (
            near if folding else scenarios
        )  # folding asks who is hot soon, unfolding who will be when it is over
        model = self._host_chance() if seen_ahead is near else None
        spots = hotspots(
            snapshot,
            seen_ahead,
            cpu_headroom=plan.cpu_headroom,
            memory_headroom=plan.memory_headroom,
            probability=plan.hot_probability,
            cpu_chances=None if model is None else partial(cpu_chances, model, snapshot, cpu),
        )
        homes = {} if folding else self._homes(snapshot)
        morning = self._morning(snapshot.taken_at) if homes else None
        inputs = PlanInputs(
            snapshot=snapshot,
            scenarios=scenarios,
            hotspots=spots,
            costs=self._costs,
            settings=plan,
            plan_id=f"p-{snapshot.digest[:8]}-{int(snapshot.taken_at)}",
            drained=frozenset(host.name for host in snapshot.hosts if host.mode is HostMode.DRAIN),
            blocked_hosts=seen.memory.quarantined,
            blocked_pairs={**seen.memory.tabu_pairs, **_blocked_by_links(seen), **seen.memory.blocked_pairs},
            resting_vms={**seen.memory.resting, **_on_read_only_hosts(seen)},
            returned={} if self._returns is None else self._returns.ages(snapshot.taken_at),
            arrived=arrived(seen.recent, snapshot.taken_at),
            quiet=QuietOutlooks(snapshot, self._observer.series, self._demand.forecaster),
            policy=holds.policy,
            window_seconds=ahead if folding else None,
            underway=self._underway(seen),
            no_sleep={} if self._power is None else self._power.no_sleep(h.name for h in snapshot.hosts),
            power=self.settings.power,
            homes=homes,
            homes_may_return=morning is not None and morning < MORNING_SECONDS,
        )
        return inputs if morning is None or not homeless(inputs) else replace(inputs, day=self._day(near, snapshot))

    def policy_at(self, instant: float) -> InForce:
        """The policy that holds at an instant (epoch seconds). A zone that is gone meanwhile: that of no window."""
        guard = self.settings.guard
        try:
            return in_force(guard.policy_windows, guard.timezone, instant, self.settings.plan.policy)
        except ValueError as error:
            log.error("policy_windows_unreadable", reason=str(error))
            return InForce(self.settings.plan.policy)

    def _ahead(self, holds: InForce, now: float) -> float | None:
        """Seconds the forecast looks ahead: to the end of the window, in its last part to what comes after; None: as usual."""
        if holds.ends_at is None or (holds.window is not None and holds.window.policy != CONSOLIDATE):
            return None
        after = 0.0 if holds.policy == CONSOLIDATE else MORNING_SECONDS
        return max(0.0, holds.ends_at - now) + after

    def _day(self, near: Scenarios, snapshot: Snapshot) -> Scenarios | None:
        """Demand over the day ahead; None where past days say nothing of it."""
        day = self._over(near, snapshot, DAY_SECONDS)
        return None if day is near else day

    def _over(self, near: Scenarios, snapshot: Snapshot, seconds: float) -> Scenarios:
        """Demand over the rest of the window; the near forecast stays where that fails."""
        if seconds <= near.horizon_seconds:
            return near
        series = partial(self._observer.series, tier=HOURLY)
        try:
            cpu = self._reference_cores(series("vm_cpu_cores"), self._observer.stays(), snapshot)
            return over_window(near, snapshot, cpu, series("vm_memory_bytes"), seconds)
        except Exception as error:
            log.exception("window_forecast_failed", bug=True, reason=str(error), instead=near.basis)
            return near

    def _underway(self, seen: _Seen) -> tuple[tuple[str, str], ...]:
        """The moves not started yet of a plan of which one was, while it has not expired."""
        plan, used = self._open_plan, seen.context.used_steps
        if plan is None or plan.policy == DRAIN or plan.expires_at <= self._clock.wall():
            return ()
        rest = [s for s in plan.steps if (plan.id, s.number) not in used]
        return tuple((s.move.vm_uuid, s.move.destination) for s in rest) if len(rest) < len(plan.steps) else ()

    def _choose_plan(self, seen: _Seen, inputs: PlanInputs) -> Plan:
        """The approved or applied plan that is under way, else a new one; a new one with the same moves is the old one.

        So that a plan keeps the digest an approval is bound to until it expires, is finished or its facts change.
        """
        for command in (*seen.operator.applied, *seen.operator.approved):
            plan = self._ledger.plan(command.subject) if command.subject else None
            if plan is not None and plan.digest == command.digest and self._is_open(plan, seen):
                self._open_plan = plan
                return plan
        old = self._open_plan
        if old is not None and not self._is_open(old, seen):
            old = None
        drain_waits = old is not None and old.policy != DRAIN and any(inputs.snapshot.vms_on[h] for h in inputs.drained)
        if old is not None and self.settings.mode is Mode.GUARDED and not drain_waits:
            return old
        new = decide(inputs)
        if old is not None and self.settings.mode is Mode.GUARDED and new.policy != DRAIN:
            return old  # nothing can be drained now
        if old is not None and _moves(old) == _moves(new):
            return old
        self._open_plan = new if new.steps else None
        return new

    def _is_open(self, plan: Plan, seen: _Seen) -> bool:
        """Whether it has not expired and has a step that was never started and whose facts still hold."""
        if plan.expires_at <= self._clock.wall():
            return False
        used = seen.context.used_steps
        return any((plan.id, s.number) not in used and not differing(s, seen.snapshot) for s in plan.steps)

    def _act(self, plan: Plan, seen: _Seen, context: GuardContext) -> list[Decision]:
        decisions = self._notes.decisions
        for step in plan.steps:
            if (plan.id, step.number) in context.used_steps:
                continue
            active = self._executor.active() if self._executor is not None else ()
            pause, stale = self._pause_reason(seen.operator), differing(step, seen.snapshot)
            context = replace(context, active=active, stale=stale, pause_reason=pause)
            refusal = may_start(context, plan, step)
            decisions.append(self._decide(plan, step, seen, refusal))
        return decisions

    def _decide(self, plan: Plan, step: Step, seen: _Seen, refusal: Refusal | None) -> Decision:
        move = step.move
        decision = Decision(
            plan_id=plan.id,
            step=step.number,
            vm_uuid=move.vm_uuid,
            vm_name=move.vm_name,
            source=move.source,
            destination=move.destination,
            outcome=Outcome.REFUSED,
            refusal=refusal,
        )
        if refusal is not None:
            proposed = refusal.code in PROPOSAL_CODES
            return replace(decision, outcome=Outcome.PROPOSED if proposed else Outcome.REFUSED)
        if self._executor is None:
            missing = about_cluster(Code.CLUSTER_MODE, f"mode {self.settings.mode} builds no way to move a VM")
            return replace(decision, outcome=Outcome.PROPOSED, refusal=missing)
        result = self._executor.start(step, plan, facts=seen.snapshot.vm(move.vm_uuid).facts)
        if isinstance(result, Refusal):
            return replace(decision, outcome=Outcome.SKIPPED, refusal=result)
        return replace(decision, outcome=Outcome.STARTED, migration_id=result.id)

    # the record

    def _standby(self) -> bool:
        return self._lease is not None and self._lease.standby

    def _stood_by(self, seen: _Seen, notes: CycleNotes) -> CycleRecord:
        """The record of a cycle while another controller leads. The ledger is not told: it holds the leader's cycles."""
        self._holds, self._open_plan = {}, None
        waits = about_cluster(Code.LEASE_LOST, "another controller leads; this one watches and stands by")
        moving = len(seen.snapshot.in_flight)
        record = notes.cut_short(
            Outcome.NO_ACTION, waits, mode=self.settings.mode, snapshot=seen.snapshot, moving=moving
        )
        self._look_at(seen, record)
        return record

    def _finish(
        self, seen: _Seen, record: CycleRecord, inputs: PlanInputs | None = None, plan: Plan | None = None
    ) -> CycleRecord:
        record = replace(record, id=self._ledger.record_cycle(record))
        self._look_at(seen, record, inputs, plan)
        return record

    def _look_at(
        self, seen: _Seen, record: CycleRecord, inputs: PlanInputs | None = None, plan: Plan | None = None
    ) -> None:
        self.view = LoopView(
            snapshot=seen.snapshot,
            record=record,
            operator=seen.operator,
            guard_notes=seen.memory.describe(),
            pressures=record.hosts,
            hotspots=inputs.hotspots if inputs else (),
            scenarios=inputs.scenarios if inputs else None,
            inputs=inputs,
            plan=plan,
            context=seen.context,
        )

    def _failed(self, error: Exception) -> CycleRecord:
        """The record of a cycle that a bug ended; the third in a row disarms the loop until an operator resumes."""
        self._bugs += 1
        if self._bugs >= BUGS_IN_A_ROW and self._disarmed_at is None:
            self._disarmed_at = self._notes.started
        detail = f"unexpected {type(error).__name__}: {error}; please report it as a bug"
        refusal = about_cluster(Code.PAUSED, detail)
        record = self._notes.cut_short(Outcome.FAILED, refusal, mode=self.settings.mode)
        try:
            return replace(record, id=self._ledger.record_cycle(record))
        except LedgerUnavailableError as unavailable:
            log.error("cycle_not_recorded", reason=str(unavailable))
            return record

    def _pause_reason(self, operator: OperatorState) -> str | None:
        if self._disarmed_at is not None:
            if operator.resumed_at is None or operator.resumed_at < self._disarmed_at:
                return f"{BUGS_IN_A_ROW} cycles in a row failed; `rebalancerd resume` arms the daemon again"
            self._disarmed_at = None
        return self._pause_file()

    def _active(self, seen: _Seen) -> tuple[object, ...]:
        """Migrations under way: ours as the executor counts them, and foreign ones as observed."""
        ours = self._executor.active() if self._executor is not None else ()
        known = {record.vm_uuid for record in ours}
        return (*ours, *(f for f in seen.snapshot.in_flight if f.vm_uuid not in known))


def _blocked_by_links(seen: _Seen) -> dict[tuple[str, str], Refusal]:
    """Every (VM UUID, destination) that a link in quarantine lies between."""
    found = {}
    for link, refusal in seen.memory.links.items():
        for source, destination in (link, link[::-1]):
            for vm in seen.snapshot.vms_on.get(source, ()):
                found[vm.uuid, destination] = replace(
                    refusal, kind=SubjectKind.VM, subject=vm.uuid, destination=destination
                )
    return found


def _on_read_only_hosts(seen: _Seen) -> dict[str, Refusal]:
    """VMs on hosts off which nothing may be migrated."""
    return {
        vm.uuid: replace(refusal, kind=SubjectKind.VM, subject=vm.uuid)
        for host, refusal in seen.memory.read_only.items()
        for vm in seen.snapshot.vms_on.get(host, ())
    }


def _moves(plan: Plan) -> tuple[tuple[str, str, str, MigrationOptions], ...]:
    return tuple((s.move.vm_uuid, s.move.source, s.move.destination, s.move.options) for s in plan.steps)
