"""Scripted ports for the tests of the acting room: two hosts, one or more VMs, and a migration driven by hand.

Every effect (a ledger write, a call that changes something) is counted; ``crash_after`` makes the process die right
after that many. The world goes on as it is: a new executor on the same ledger must cope.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rebalancerd.act.executor import Executor
from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.cost import Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.host import HostFacts, HugePages
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.migration import Completion, MigrationRecord, Progress
from rebalancerd.cluster.plan import Move, Plan, Score, Step
from rebalancerd.cluster.sample import CpuFit, DomainSample, HostInventory, HostSample
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.ports import HostError, HostRefusedError, HostUnreachableError, LedgerUnavailableError

VM = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
SETTINGS = ActSettings()
OPTIONS = MigrationOptions()
FACTS = VmFacts(uuid=VM, name="web", vcpus=1, memory_bytes=GIB, machine="pc-i440fx-7.2", autostart=True)


class CrashError(BaseException):
    """The process dies here."""


class ActClock:
    """Virtual time; the wall clock can be stepped."""

    def __init__(self) -> None:
        self.now, self.offset = 1000.0, 1.7e9

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.offset

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Domain:
    state: DomainState
    persistent: bool = True
    autostart: bool = False


@dataclass
class Job:
    """A migration as libvirt runs it, peer to peer: it outlives whoever asked for it."""

    vm_uuid: str
    source: str
    destination: str
    progress: Progress = Progress(elapsed_seconds=0.0)
    returned: bool = False
    error: HostError | None = None
    aborts: int = 0


class ActHandle:
    def __init__(self, job: Job) -> None:
        self.job = job

    def done(self) -> bool:
        return self.job.returned

    def error(self) -> HostError | None:
        return self.job.error


@dataclass
class ActWorld:
    """Hosts a, b and c; the VM runs on a."""

    clock: ActClock = field(default_factory=ActClock)
    domains: dict[tuple[str, str], Domain] = field(default_factory=dict)
    facts: dict[str, VmFacts] = field(default_factory=lambda: {VM: FACTS})
    jobs: list[Job] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    available_bytes: int | None = 64 * GIB
    pools: tuple[HugePages, ...] | None = None
    rows: list[DomainSample] = field(default_factory=list)
    machine_types: frozenset[str] | None = frozenset({"pc-i440fx-7.2"})
    host_uuids: dict[str, str | None] = field(default_factory=lambda: {"a": "uuid-a", "b": "uuid-b", "c": "uuid-c"})
    inventory_changes: dict[str, object] = field(default_factory=dict)
    may_autostart: bool = True
    autostart_fails: HostError | None = None
    migrate_fails: HostError | None = None
    before_migrate: Callable[[], None] = lambda: None
    abort_fails: HostError | None = None
    completion_of: Completion | None = None
    calls: list[tuple[str, ...]] = field(default_factory=list)
    effects: int = 0
    crash_after: int | None = None

    def __post_init__(self) -> None:
        self.domains[("a", VM)] = Domain(DomainState.RUNNING, autostart=True)

    def effect(self, *call: str) -> None:
        """Count something that cannot be undone, and die after it if that was ordered."""
        self.calls.append(call)
        self.effects += 1
        if self.crash_after is not None and self.effects >= self.crash_after:
            raise CrashError(f"after {call}")

    def enter(self, host: str) -> None:
        if host in self.removed:
            raise KeyError(host)
        if host in self.silent:
            raise HostUnreachableError(host, "no answer")

    # what happens to the migration

    def job(self) -> Job:
        return next(j for j in self.jobs if not j.returned)

    def run(self, **progress: object) -> None:
        """The job tells this from now on."""
        defaults: dict[str, object] = {"elapsed_seconds": 1.0, "total_bytes": GIB, "processed_bytes": 1 << 20}
        self.job().progress = Progress(**{**defaults, **progress})  # type: ignore[arg-type]
        self.domains.setdefault((self.job().destination, VM), Domain(DomainState.PAUSED_MIGRATION, persistent=False))

    def arrive(self, error: HostError | None = None, state: DomainState = DomainState.RUNNING) -> None:
        job = self.job()
        was = self.domains.pop((job.source, job.vm_uuid))
        # libvirt loses the autostart flag
        self.domains[(job.destination, job.vm_uuid)] = Domain(state, persistent=was.persistent, autostart=False)
        job.returned, job.error = True, error
        self.completion_of = Completion(total_seconds=3.0, downtime_seconds=0.1)

    def roll_back(self, error: HostError | None = None) -> None:
        job = self.job()
        self.domains.pop((job.destination, job.vm_uuid), None)
        job.returned = True
        job.error = error or HostRefusedError(job.source, "connection reset by peer", 38)


class ActRead:
    def __init__(self, world: ActWorld) -> None:
        self.world = world

    def hosts(self) -> tuple[str, ...]:
        return tuple(h for h in ("a", "b", "c") if h not in self.world.removed)

    def sample(self, host: str) -> HostSample:
        self.world.enter(host)
        return HostSample(
            host=host,
            taken_at=self.world.clock.now,
            facts=HostFacts(
                uuid=self.world.host_uuids[host], cpus=8, memory_bytes=64 * GIB, hugepages=self.world.pools
            ),
            cpu_busy_ns=0,
            memory_total_bytes=64 * GIB,
            memory_available_bytes=self.world.available_bytes,
            domains=tuple(self.world.rows),
        )

    def locate(self, host: str, vm_uuid: str) -> DomainState:
        self.world.enter(host)
        domain = self.world.domains.get((host, vm_uuid))
        return DomainState.ABSENT if domain is None else domain.state

    def progress(self, host: str, vm_uuid: str) -> Progress | None:
        self.world.enter(host)
        running = [j for j in self.world.jobs if not j.returned and (j.source, j.vm_uuid) == (host, vm_uuid)]
        return running[0].progress if running else None

    def completion(self, host: str, vm_uuid: str) -> Completion | None:
        self.world.enter(host)
        return self.world.completion_of

    def inventory(self, host: str) -> HostInventory:
        self.world.enter(host)
        inventory = HostInventory(
            host=host,
            host_uuid=self.world.host_uuids[host],
            networks=frozenset({"default"}),
            bridges=None,
            pools=frozenset(),
            secrets=frozenset(),
            nwfilters=frozenset(),
            domains=tuple(
                (uuid, self.world.facts[uuid].name, d.state) for (h, uuid), d in self.world.domains.items() if h == host
            ),
            machine_types=self.world.machine_types,
        )
        return replace(inventory, **self.world.inventory_changes)  # type: ignore[arg-type]

    def domain_facts(self, host: str, vm_uuid: str) -> VmFacts | None:
        self.world.enter(host)
        domain = self.world.domains.get((host, vm_uuid))
        return None if domain is None else self.world.facts[vm_uuid]


class ActWrite:
    def __init__(self, world: ActWorld) -> None:
        self.world = world

    def migrate(self, record: MigrationRecord) -> ActHandle:
        if self.world.migrate_fails is not None:
            raise self.world.migrate_fails
        self.world.before_migrate()
        job = Job(record.vm_uuid, record.source, record.destination)
        running = [j for j in self.world.jobs if not j.returned and j.vm_uuid == record.vm_uuid]
        assert not running, "two migrations of one VM"
        self.world.jobs.append(job)
        self.world.effect("migrate", record.vm_uuid, record.id)
        return ActHandle(job)

    def abort(self, host: str, vm_uuid: str) -> None:
        self.world.enter(host)
        if self.world.abort_fails is not None:
            raise self.world.abort_fails
        job = self.world.job()
        assert not job.progress.postcopy, "abort of a post-copy migration"
        job.aborts += 1
        self.world.effect("abort", vm_uuid)

    def set_max_downtime(self, host: str, vm_uuid: str, seconds: float) -> None:
        self.world.enter(host)
        self.world.effect("downtime", vm_uuid, f"{seconds:g}")

    def set_bandwidth(self, host: str, vm_uuid: str, bytes_per_second: float) -> None:
        self.world.effect("bandwidth", vm_uuid, f"{bytes_per_second:g}")

    def set_autostart(self, host: str, vm_uuid: str, autostart: bool) -> None:
        self.world.enter(host)
        if self.world.autostart_fails is not None:
            raise self.world.autostart_fails
        self.world.domains[(host, vm_uuid)].autostart = autostart
        self.world.effect("autostart", host, vm_uuid, str(autostart))

    def may_set_autostart(self, host: str) -> bool:
        self.world.enter(host)
        return self.world.may_autostart


class ActLedger:
    """Keeps only what was written; the rest of the Ledger protocol is not needed here."""

    def __init__(self, world: ActWorld) -> None:
        self.world = world
        self.rows: dict[str, list[MigrationRecord]] = {}
        self.broken = False

    def open_intent(self, record: MigrationRecord) -> None:
        self._check()
        assert record.id not in self.rows
        self.rows[record.id] = [record]
        self.world.effect("intent", record.id)

    def update_migration(self, record: MigrationRecord) -> None:
        self._check()
        self.rows[record.id].append(record)
        self.world.effect("update", record.id, record.state.value)

    def open_migrations(self) -> tuple[MigrationRecord, ...]:
        self._check()
        return tuple(r[-1] for r in self.rows.values() if r[-1].state.is_open)

    def last(self) -> MigrationRecord:
        return list(self.rows.values())[-1][-1]

    def states(self) -> list[str]:
        return [r.state.value for r in list(self.rows.values())[-1]]

    def _check(self) -> None:
        if self.broken:
            raise LedgerUnavailableError("disk full")


class ActLease:
    def __init__(self) -> None:
        self.holds, self.epoch = True, 7

    def held(self) -> bool:
        return self.holds

    @property
    def standby(self) -> bool:
        return not self.holds


class ActProbe:
    def __init__(self, fit: CpuFit) -> None:
        self.fit = fit

    def start_dirty_rate(self, host: str, vm_uuid: str, period_seconds: int) -> None:
        raise AssertionError

    def cpu_fit(self, vm_uuid: str, source: str, destination: str) -> tuple[CpuFit, str]:
        return self.fit, "as scripted"


def cost(seconds: float = 10.0, upper: float = 20.0) -> MigrationCost:
    one = Estimate(value=seconds, upper=upper)
    small = Estimate(value=0.1, upper=0.2)
    return MigrationCost(
        seconds=one, downtime_seconds=small, bytes=one, slowdown=small, non_convergence=small, basis="physics"
    )


def one_step_plan(
    world: ActWorld,
    *,
    vm_uuid: str = VM,
    source: str = "a",
    destination: str = "b",
    options: MigrationOptions = OPTIONS,
    expires_in_seconds: float = 600.0,
    predicted: MigrationCost | None = None,
    known: MigrationFacts | None = None,
) -> Plan:
    move = Move(
        vm_uuid=vm_uuid,
        vm_name="web",
        source=source,
        destination=destination,
        why="hot",
        cost=predicted if predicted is not None else cost(),
        options=options,
        gain=1.0,
        payback_seconds=None,
        known=known,
    )
    return Plan(
        id="p-1",
        policy="balance",
        created_at=world.clock.wall(),
        expires_at=world.clock.wall() + expires_in_seconds,
        snapshot_digest="0",
        steps=(Step(number=1, wave=1, move=move),),
        before=Score(total=1, unmet=1, imbalance=0),
        after=Score(total=0, unmet=0, imbalance=0),
        why="hot",
    )


class Scene:
    """A world with an executor on it; ``restart`` puts a new executor in its place, with the same ledger."""

    def __init__(self, settings: ActSettings = SETTINGS, *, probe: ActProbe | None = None) -> None:
        self.world = ActWorld()
        self.settings, self.probe = settings, probe
        self.ledger, self.lease = ActLedger(self.world), ActLease()
        self.executor = self.build()

    def build(self) -> Executor:
        return Executor(
            read=ActRead(self.world),
            write=ActWrite(self.world),
            probe=self.probe,
            ledger=self.ledger,  # type: ignore[arg-type]
            clock=self.world.clock,
            settings=self.settings,
            lease=self.lease,
            controller="test",
        )

    def restart(self) -> tuple[MigrationRecord, ...]:
        self.world.crash_after = None
        for job in self.world.jobs:
            job.error = None  # nobody hears of it any more
        self.executor = self.build()
        return self.executor.adopt()

    def start(self, plan: Plan | None = None, facts: VmFacts = FACTS) -> object:
        plan = plan if plan is not None else one_step_plan(self.world)
        return self.executor.start(plan.steps[0], plan, facts=facts)

    def started(self, plan: Plan | None = None) -> MigrationRecord:
        record = self.start(plan)
        assert isinstance(record, MigrationRecord), record
        return record

    def pass_time(self, seconds: float, every: float = 1.0) -> None:
        """Let time pass, with looks in between."""
        until = self.world.clock.now + seconds
        while self.world.clock.now < until:
            self.world.clock.sleep(min(every, until - self.world.clock.now))
            self.executor.tick()
