"""A running daemon's pieces as the API sees them: a loop with a view, a ledger in memory, an executor that only notes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, insert

from rebalancerd.cluster.advice import Advice, AdviceScore
from rebalancerd.cluster.cost import Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.decision import (
    Command,
    CommandKind,
    CycleRecord,
    Decision,
    HostPressure,
    OperatorState,
    Outcome,
)
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.migration import Completion, MigrationRecord, MigrationState, Progress
from rebalancerd.cluster.night import Night, NightsTotal
from rebalancerd.cluster.plan import Alternative, Move, Plan, Score, Step
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.guard.policy_windows import InForce
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.night.book import NightsTold
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.predict.demand.keeper import DemandModelState
from rebalancerd.predict.keeper import ModelState
from rebalancerd.record import rows, schema
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.serve.control import Control, Surroundings
from rebalancerd.shadow import ShadowState

NOW = 1_700_000_000.0
WEB, DB, EVIL = (f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2, 3))
EVIL_NAME = "evil\x1b[2J\n\u202e[red]\udc80"


class FakeClock:
    def __init__(self) -> None:
        self.now = NOW

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - NOW

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeLedger:
    """ports.Ledger in memory, as far as the API needs it; ``away`` makes every call fail."""

    away: bool = False
    plans: dict[str, Plan] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    records: list[MigrationRecord] = field(default_factory=list)
    past: list[CycleRecord] = field(default_factory=list)
    advised: list[tuple[Advice, AdviceScore | None]] = field(default_factory=list)
    told_nights: list[Night] = field(default_factory=list)  # oldest first

    def _check(self) -> None:
        if self.away:
            raise LedgerUnavailableError("disk full")

    def record_plan(self, plan: Plan) -> None:
        self._check()
        self.plans[plan.id] = plan

    def plan(self, plan_id: str) -> Plan | None:
        self._check()
        return self.plans.get(plan_id)

    def add_command(self, kind: CommandKind, **fields: object) -> Command:
        self._check()
        command = Command(id=len(self.commands) + 1, kind=kind, **fields)  # type: ignore[arg-type]
        self.commands.append(command)
        return command

    def operator_state(self, now: float) -> OperatorState:
        self._check()
        state = OperatorState()
        for c in self.commands:
            match c.kind:
                case CommandKind.PAUSE:
                    state = replace(state, paused=c)
                case CommandKind.RESUME:
                    state = replace(state, paused=None, resumed_at=c.at)
                case CommandKind.DRAIN:
                    state = replace(state, drained=state.drained | {c.subject or ""})
                case CommandKind.CLEAR_QUARANTINE:
                    cleared = (*state.quarantine_cleared, (c.subject or "", c.at))
                    state = replace(state, quarantine_cleared=cleared)
                case CommandKind.UNDRAIN:
                    state = replace(state, drained=state.drained - {c.subject or ""})
                case CommandKind.APPROVE:
                    state = replace(state, approved=(*state.approved, c))
                case CommandKind.CLOSE_BREAKER:
                    state = replace(state, breaker_closed_at=c.at)
                case _:
                    pass
        return state

    def migrations(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int | None = None
    ) -> tuple[MigrationRecord, ...]:
        self._check()
        found = [r for r in self.records if r.intent_at >= since and vm_uuid in (None, r.vm_uuid)]
        return tuple(sorted(found, key=lambda r: -r.intent_at)[:limit])

    def advice(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int = 20
    ) -> tuple[tuple[Advice, AdviceScore | None], ...]:
        self._check()
        found = [(a, s) for a, s in self.advised if a.proposed_at >= since and vm_uuid in (None, a.move.vm_uuid)]
        return tuple(found[:limit])

    def nights(self, limit: int = 30) -> tuple[Night, ...]:
        self._check()
        return tuple(self.told_nights[::-1][:limit])

    def nights_total(self) -> NightsTotal:
        over = [n for n in self.told_nights if n.ended_at is not None]
        return NightsTotal(nights=len(over), saved_kwh=sum(n.saved_kwh for n in over))

    def open_migrations(self) -> tuple[MigrationRecord, ...]:
        self._check()
        return tuple(r for r in self.records if r.state.is_open)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """The same content in the tables of a real ledger."""
        self._check()
        real = SqlLedger("sqlite://", FakeClock())
        with real.reading() as connection:
            for cycle in self.past:
                connection.execute(insert(schema.cycles).values(id=cycle.id, **rows.cycle_row(cycle)))
                for i, decision in enumerate(cycle.decisions):
                    connection.execute(insert(schema.decisions).values(rows.decision_row(decision, cycle.id, i)))
                for i, refusal in enumerate(cycle.refusals):
                    told = {"cycle_id": cycle.id, "position": i, **rows.refusal_row(refusal)}
                    connection.execute(insert(schema.refusals).values(told))
            for record in self.records:
                connection.execute(insert(schema.migrations).values(rows.migration_row(record)))
        with real.reading() as connection:
            yield connection
        real.close()

    def cycles(self, *, limit: int = 20, before: int | None = None) -> Sequence[CycleRecord]:
        self._check()
        return [c for c in sorted(self.past, key=lambda c: -c.id) if before is None or c.id < before][:limit]


@dataclass
class FakeLoop:
    view: object
    settings: object
    proposal: Plan | Exception
    inputs: PlanInputs | Exception | None = None
    holds: InForce = InForce("balance")

    def policy_at(self, instant: float) -> InForce:
        return self.holds

    def propose(self) -> Plan:
        if isinstance(self.proposal, Exception):
            raise self.proposal
        return self.proposal

    def look(self, _seconds: float = 0.0) -> PlanInputs:
        if isinstance(self.inputs, Exception):
            raise self.inputs
        assert self.inputs is not None
        return self.inputs


@dataclass
class FakeExecutor:
    running: list[MigrationRecord] = field(default_factory=list)
    readings: dict[str, Progress] = field(default_factory=dict)
    aborted: list[tuple[str, str]] = field(default_factory=list)

    def active(self) -> Sequence[MigrationRecord]:
        return tuple(self.running)

    def progress(self, vm_uuid: str) -> Progress | None:
        return self.readings.get(vm_uuid)

    def abort(self, vm_uuid: str, reason: str) -> None:
        self.aborted.append((vm_uuid, reason))


def cost(seconds: float = 10.0, upper: float = 25.0) -> MigrationCost:
    return MigrationCost(
        seconds=Estimate(value=seconds, upper=upper),
        downtime_seconds=Estimate(value=0.1, upper=0.3),
        bytes=Estimate(value=2e8, upper=float("inf")),
        slowdown=Estimate(value=0.0, upper=0.1),
        non_convergence=Estimate(value=0.0, upper=0.1),
        basis="physics",
    )


def make_plan(*, empty: bool = False, expires_at: float = NOW + 300.0) -> Plan:
    move = Move(
        vm_uuid=WEB,
        vm_name="web1",
        source="h1",
        destination="h2",
        why="h1 is hot and web1 adds most to it",
        cost=cost(),
        options=MigrationOptions(),
        gain=12.0,
        payback_seconds=60.0,
        alternatives=(Alternative(vm_uuid=DB, vm_name="db1", destination="h2", score=3.0, reason="costs more"),),
    )
    return Plan(
        id="p-1",
        policy="balance",
        created_at=NOW,
        expires_at=expires_at,
        snapshot_digest="0" * 16,
        steps=() if empty else (Step(number=1, wave=1, move=move),),
        before=Score(total=10.0, unmet=10.0, imbalance=0.4),
        after=Score(total=1.0, unmet=1.0, imbalance=0.1),
        why="no host is hot" if empty else "h1 is hot",
        hot_hosts=("h1",),
        refusals=(about_vm(Code.PINNED, DB, "db1: pinned to h1", "h2"),),
    )


def make_vm(uuid: str, name: str, host: str) -> Vm:
    facts = VmFacts(uuid=uuid, name=name, vcpus=2, memory_bytes=2**30)
    return Vm(facts=facts, host=host, state=DomainState.RUNNING, load=VmLoad(cpu_cores=0.5, memory_bytes=2**29))


def make_host(name: str, unusable: str | None = None) -> Host:
    facts = HostFacts(uuid=f"uuid-{name}", cpus=4, memory_bytes=2**33)
    return Host(name=name, facts=facts, cores=4.0, memory_bytes=2**33, age_seconds=3.0, unusable=unusable)


def make_snapshot(**changes: object) -> Snapshot:
    base = Snapshot(
        taken_at=NOW,
        hosts=(make_host("h1"), make_host("h2"), make_host("h3", "stale: figures are 90 s old")),
        vms=(make_vm(WEB, "web1", "h1"), make_vm(DB, "db1", "h1"), make_vm(EVIL, EVIL_NAME, "h2")),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def make_cycle(**changes: object) -> CycleRecord:
    decision = Decision(
        plan_id="p-1",
        step=1,
        vm_uuid=WEB,
        vm_name="web1",
        source="h1",
        destination="h2",
        outcome=Outcome.REFUSED,
        refusal=about_vm(Code.HOLD, WEB, "hot for 1 of 3 rounds"),
    )
    base = CycleRecord(
        id=7,
        started_at=NOW - 12,
        seconds=0.2,
        mode=Mode.GUARDED,
        policy="balance",
        outcome=Outcome.REFUSED,
        reason="no action: hold: hot for 1 of 3 rounds",
        plan_id="p-1",
        hosts=(
            HostPressure(host="h1", cpu_now=0.95, cpu_p95=1.1, memory_now=0.5, memory_p95=0.5, vms=2),
            HostPressure(host="h2", cpu_now=0.2, cpu_p95=0.3, memory_now=0.1, memory_p95=0.1, vms=1),
            HostPressure(
                host="h3", cpu_now=None, cpu_p95=None, memory_now=None, memory_p95=None, vms=0, unusable="stale"
            ),
        ),
        hot_hosts=("h1",),
        decisions=(decision,),
        refusals=make_plan().refusals,
        step_seconds=(("observe", 0.1), ("plan", 0.1)),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def make_migration(**changes: object) -> MigrationRecord:
    base = MigrationRecord(
        id="m-1",
        vm_uuid=WEB,
        vm_name="web1",
        source="h1",
        destination="h2",
        state=MigrationState.SUCCEEDED,
        intent_at=NOW - 100,
        plan_id="p-1",
        step=1,
        predicted=cost(),
        started_at=NOW - 99,
        ended_at=NOW - 90,
        completion=Completion(total_seconds=9.0, downtime_seconds=0.2, transferred_bytes=180_000_000, iterations=3),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


class World:
    """The pieces, and the Control on them."""

    def __init__(self, mode: Mode = Mode.GUARDED) -> None:
        self.clock, self.ledger, self.executor = FakeClock(), FakeLedger(), FakeExecutor()
        plan, record = make_plan(), make_cycle()
        self.ledger.plans[plan.id] = plan
        self.ledger.past.append(record)
        view = SimpleNamespace(
            snapshot=make_snapshot(),
            record=record,
            operator=OperatorState(),
            guard_notes=(),
            pressures=record.hosts,
            hotspots=(),
            scenarios=None,
            inputs=None,
            plan=plan,
        )
        self.loop = FakeLoop(view, SimpleNamespace(mode=mode, guard=GuardSettings()), plan)
        self.pause_file: str | None = None
        self.reload_error: str | None = None
        self.model: ModelState | None = None
        self.demand: DemandModelState | None = None
        self.advice: ShadowState | None = None
        self.nights: NightsTold | None = None
        self.control = Control(
            loop=self.loop,  # type: ignore[arg-type]
            ledger=self.ledger,  # type: ignore[arg-type]
            clock=self.clock,
            about=Surroundings(
                hosts=("h1", "h2", "h3"),
                controller="c1",
                started_at=NOW - 3600,
                pause_file=lambda: self.pause_file,
                reload_error=lambda: self.reload_error,
                model=lambda: self.model,
                demand=lambda: self.demand,
                advice=lambda: self.advice,
                nights=lambda: self.nights,
            ),
            executor=self.executor,
        )


class Current:
    """Stands for whichever world is set, so that one server can serve a module's tests."""

    def __init__(self) -> None:
        self.control: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.control, name)
