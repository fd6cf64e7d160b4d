"""A simulated world with the daemon in it: production code of every room, only the ports are the simulator's."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rebalancerd.act.executor import Executor
from rebalancerd.act.power.keeper import PowerKeeper
from rebalancerd.cluster.decision import CommandKind, CycleRecord, Outcome
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.definition_homes import DefinitionHomes
from rebalancerd.loop import MOST_RECORDS, Loop, LoopSettings
from rebalancerd.night.book import NightBook
from rebalancerd.observe.history import History
from rebalancerd.observe.observer import Observer
from rebalancerd.plan.standing import CONSOLIDATE
from rebalancerd.ports import Clock, LedgerUnavailableError
from rebalancerd.power_round import PowerRound
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.interface import CostModel, DemandModel
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.sim.adapters import SimAgents, SimProbe, SimRead, SimWrite, Wires
from rebalancerd.sim.clock import EPOCH, SimClock
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.faults import perform
from rebalancerd.sim.invariants import InvariantError, Invariants
from rebalancerd.sim.journal import JournalLedger, KilledError, Lifeline, SimLease
from rebalancerd.sim.past import record_past
from rebalancerd.sim.power import SimPower
from rebalancerd.sim.scenario import ScriptLine, WorldSpec
from rebalancerd.sim.story import Story

if TYPE_CHECKING:
    from rebalancerd.sim.bench import BenchWorld

OPERATOR = "operator"
PROBE_OFFSET_SECONDS = 7.0  # probing does not fall on the sampling instants


class World:
    """Clock, cluster, ports, ledger and daemon of one simulated run. Close it: it holds a temporary directory."""

    def __init__(
        self,
        spec: WorldSpec,
        *,
        state_dir: Path | None = None,
        history_dir: Path | None = None,
        stopwatch: Callable[[SimClock], Clock] | None = None,
        begin: Callable[["World", History], None] | None = None,
        demand: DemandModel | None = None,
        costs: CostModel | None = None,
    ) -> None:
        """``state_dir``: ledger and history there, as files, instead of in memory and in a temporary directory.
        ``history_dir``: the history alone there.

        ``stopwatch`` makes the loop's own clock; ``begin`` sees the world and its history before the daemon starts.
        ``demand`` and ``costs`` predict instead of persistence and physics.
        """
        self.spec = spec
        self.clock = SimClock(EPOCH if spec.start_wall is None else spec.start_wall)
        self.cluster = SimCluster(spec.cluster, self.clock)
        self.wires = Wires(self.cluster)
        self.read, self.probe, self.write = SimRead(self.wires), SimProbe(self.wires), SimWrite(self.wires)
        self.power = SimPower(self.cluster)
        self.lifeline = Lifeline()
        self.write.after_call = self.power.after_call = self.lifeline.effect
        url = "sqlite://" if state_dir is None else f"sqlite:///{state_dir / 'ledger.sqlite'}"
        self._sql = SqlLedger(url, self.clock)
        self.ledger = JournalLedger(self._sql, self.lifeline)
        self.lease = SimLease()
        self.pause_reason: str | None = None
        self.story = Story(lambda: self.cluster.now, self._name)
        self.ledger.on_migration, self.ledger.on_plan = self.story.migration, self.story.plan
        self.ledger.on_power = self.story.power
        self.invariants = Invariants(spec, self.cluster, self.wires, self.write, self.ledger)
        self.power.before_off = self.invariants.before_off
        self.on_cycle: Callable[[CycleRecord], None] = lambda _record: None
        self.observer: Observer | None = None
        self.executor: Executor | None = None
        self.loop: Loop | None = None
        self.keeper: PowerKeeper | None = None
        self.power_round: PowerRound | None = None
        self.nights: NightBook | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if history_dir is not None:
            self._directory = history_dir
        elif state_dir is not None:
            self._directory = state_dir / "history"
        else:
            self._temporary = tempfile.TemporaryDirectory(prefix="rebalancerd-sim-")
            self._directory = Path(self._temporary.name)
        self._loop_clock = self.clock if stopwatch is None else stopwatch(self.clock)
        self._demand: DemandModel = PersistenceDemand(spec.predict) if demand is None else demand
        self._costs: CostModel = PhysicsCost(spec.predict) if costs is None else costs
        self._script: list[ScriptLine] = list(spec.script)
        self._due = {"sample": 0.0, "probe": PROBE_OFFSET_SECONDS, "decide": spec.decide_seconds, "watch": 0.0}
        if spec.power is not None:
            self._due["power"] = 0.0
        self._last_record: CycleRecord | None = None
        if begin is not None or spec.past_days:
            history = History(self._directory)
            record_past(spec, history, self.clock.wall())
            if begin is not None:
                begin(self, history)
            history.close()
        self.start_daemon()

    def close(self) -> None:
        """Release the ledger and the directory of the history."""
        self.kill_daemon()
        self._sql.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        """For ``with``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()

    # the daemon

    def start_daemon(self) -> None:
        """Build the daemon's rooms on the simulated ports, as its mode allows, and adopt what runs."""
        spec = self.spec
        hosts = tuple(h.settings() for h in spec.cluster.hosts)
        self.observer = Observer(
            hosts=hosts,
            settings=spec.observe,
            read=self.read,
            probe=self.probe if spec.mode is not Mode.OBSERVE else None,
            agents=SimAgents(self.wires),
            history=History(self._directory),
            clock=self.clock,
            concurrent=False,
        )
        if spec.mode.may_act:
            self.executor = Executor(
                read=self.read,
                write=self.write,
                probe=self.probe,
                ledger=self.ledger,
                clock=self.clock,
                settings=spec.act,
                lease=self.lease,
                controller="sim",
            )
        self.keeper = self._build_keeper()
        self.loop = Loop(
            observer=self.observer,
            demand=self._demand,
            costs=self._costs,
            ledger=self.ledger,
            clock=self._loop_clock,
            settings=LoopSettings(
                mode=spec.mode, plan=spec.plan, guard=spec.guard, power=spec.limits if spec.power is not None else None
            ),
            executor=self.executor,
            lease=self.lease,
            pause_file=lambda: self.pause_reason,
            power=self.keeper,
            homes=lambda snapshot: self.nights.homes(snapshot) if self.nights is not None else {},
            morning=lambda now: self.nights.morning_seconds(now) if self.nights is not None else None,
        )
        if self.keeper is not None:
            self.power_round = PowerRound(
                keeper=self.keeper,
                limits=spec.limits,
                clock=self.clock,
                view=lambda: self.loop.view if self.loop is not None else None,
                folding=lambda: spec.folding or self._consolidating(),
            )
        self.nights = NightBook(
            ledger=self.ledger,
            view=lambda: self.loop.view if self.loop is not None else None,
            policy_at=self.loop.policy_at,
            plan=lambda: spec.plan,
            records=self.keeper.records if self.keeper is not None else tuple,
            moves=lambda since: self.ledger.migrations(since=since, limit=MOST_RECORDS),
            cycle_seconds=spec.decide_seconds,
        )
        if self.executor is not None:
            self._alive(self.executor.adopt)

    def _consolidating(self) -> bool:
        return self.loop is not None and self.loop.policy_at(self.clock.wall()).policy == CONSOLIDATE

    def _build_keeper(self) -> PowerKeeper | None:
        if self.spec.power is None:
            return None
        return PowerKeeper(
            power=self.power,
            read=self.read,
            ledger=self.ledger,
            clock=self.clock,
            settings=self.spec.power,
            migrations=self.ledger.open_migrations,
            lease=self.lease,
            held_back=self._held_back,
            answers=self._answers,
            boot_seconds=self.spec.limits.boot_seconds,
            write=self.write if self.spec.mode.may_act else None,
            homes=DefinitionHomes(self._seen, lambda: self.keeper.blocked() if self.keeper is not None else {}),
        )

    def _held_back(self) -> str | None:
        paused = self.ledger.operator_state(self.clock.wall()).paused
        return f"paused by {paused.by}" if paused is not None else self.pause_reason

    def _answers(self, host: str) -> bool:
        snapshot = self._seen()
        seen = None if snapshot is None else snapshot.host_by_name.get(host)
        return seen is not None and seen.usable

    def _seen(self) -> Snapshot | None:
        view = self.loop.view if self.loop is not None else None
        return view.snapshot if view is not None else None

    @property
    def demand_basis(self) -> str | None:
        """What made the demand scenarios of the last cycle."""
        view = self.loop.view if self.loop is not None else None
        return view.scenarios.basis if view is not None and view.scenarios is not None else None

    def kill_daemon(self) -> None:
        """It is gone between two instructions; the ledger, libvirt and the history's files stay."""
        if self.observer is not None:
            self.observer.close()  # what is mapped survives a kill as well; this only gives back the descriptors
        self.observer = self.executor = self.loop = self.keeper = self.power_round = self.nights = None
        self.lifeline.kill_after = None
        self.lease.next_tenure()

    def command(self, kind: CommandKind, words: tuple[str, ...]) -> None:
        """An operator's command; approvals and the like without a subject mean the last plan."""
        subject = words[0] if words else None
        step = int(words[1]) if len(words) > 1 else None
        digest = None
        if kind in (CommandKind.APPROVE, CommandKind.REJECT, CommandKind.APPLY):
            plan_id = self._last_record.plan_id if self._last_record is not None else None
            plan = self.ledger.plan(plan_id) if plan_id else None
            if plan is None:
                raise ValueError("there is no plan yet")
            step = int(words[0]) if words else None
            subject, digest = plan.id, plan.digest
        self.ledger.add_command(kind, at=self.clock.wall(), by=OPERATOR, subject=subject, step=step, digest=digest)

    # time

    def begin_ticks(self) -> None:
        """Sample, probe and decide now, and from now on at their periods."""
        self._due = dict.fromkeys(self._due, self.clock.monotonic())

    def run(self, until_seconds: float | None = None) -> None:
        """Drive the daemon's ticks and the script up to that virtual second. Raises InvariantError, ScenarioError."""
        until = self.spec.run_seconds if until_seconds is None else until_seconds
        while True:
            at = min(self._next_tick(), self._script[0].at if self._script else float("inf"))
            if at > until:
                break
            self.clock.advance_to(at)
            self.cluster.advance()
            self.power.settle()
            while self._script and self._script[0].at <= self.clock.monotonic():
                perform(self, self._script.pop(0))
            self._tick()
            self.cluster.advance()
            self.power.settle()
            self.invariants.check()
        self.clock.advance_to(until)
        self.cluster.advance()
        self.invariants.check()

    def _next_tick(self) -> float:
        return min(self._due.values()) if self.loop is not None else float("inf")

    def _tick(self) -> None:
        """Everything of the daemon that is due, in the order of the loop."""
        spec = self.spec
        periods: tuple[tuple[str, float, Callable[[], None]], ...] = (
            ("sample", spec.observe.sample_seconds, self._sample),
            ("watch", spec.act.poll_seconds, self._watch),
            ("probe", spec.observe.probe_interval_seconds, self._probe),
            ("decide", spec.decide_seconds, self._decide),
            *([("power", spec.power.poll_seconds, self._power)] if spec.power is not None else []),
        )
        for name, period, work in periods:
            now = self.clock.monotonic()
            if self.loop is None or self._due[name] > now:
                continue
            self._alive(work)
            # a tick that was late is made up for once, not as often as it was missed
            self._due[name] = max(self._due[name] + period, self.clock.monotonic())
            if name == "watch" and not self._watching():
                self._due[name] = min(self._due[other] for other in ("sample", "decide"))

    def _alive(self, work: Callable[[], object]) -> None:
        try:
            work()
        except KilledError:
            self.story.tell("event", "the daemon is killed")
            self.kill_daemon()
        except LedgerUnavailableError as error:
            self.story.tell("error", str(error))

    def _watching(self) -> bool:
        return self.executor is not None and bool(self.executor.active())

    def _sample(self) -> None:
        if self.observer is not None:
            at = self.cluster.now
            self.observer.sample()
            self.invariants.last_sample_at = at

    def _watch(self) -> None:
        if self.executor is not None:
            self.executor.tick()

    def _probe(self) -> None:
        if self.observer is not None and self.spec.mode is not Mode.OBSERVE:
            self.observer.probe_tick()

    def _decide(self) -> None:
        if self.loop is None:
            return
        written = self.ledger.cycles_written
        try:
            record = self.loop.iterate()
        except KilledError:
            self.invariants.cycles_run += self.ledger.cycles_written - written
            raise
        self.invariants.cycles_run += 1
        self.invariants.cycles_unrecorded += self.ledger.full
        self._last_record = record
        self.story.cycle(record)
        self.on_cycle(record)
        if record.outcome is Outcome.FAILED:
            self.invariants.check()  # a broken promise is told before the bug it caused
            raise InvariantError(f"a cycle failed at {self.cluster.now:.0f} s: {record.reason}")
        self._due["watch"] = self.clock.monotonic()
        if self.power_round is not None:
            self.power_round.after_cycle(record)
        if self.nights is not None:
            self.nights.after_cycle(record)

    def _power(self) -> None:
        if self.keeper is not None and self.spec.mode.may_act:
            self.keeper.tick()

    def _name(self, vm_uuid: str) -> str:
        return self.cluster.vms[vm_uuid].name if vm_uuid in self.cluster.vms else vm_uuid


def build_world(spec: WorldSpec) -> World:
    """The world of a specification, the daemon started in it, no time passed yet."""
    return World(spec)


def build_bench_world(*, hosts: int, vms: int, seed: int, state_dir: Path) -> "BenchWorld":
    """A large synthetic world for timing cycles; its files go under ``state_dir``."""
    from rebalancerd.sim.bench import BenchWorld

    return BenchWorld(hosts=hosts, vms=vms, seed=seed, state_dir=state_dir)
