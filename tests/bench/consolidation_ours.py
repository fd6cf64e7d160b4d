"""rebalancerd in CloudSim's world: the production loop on ports of that world, one cycle at every decision.

It sees what libvirt would tell at that instant (what VMs use and wait for), its own record of the past, and nothing
else. Forecast, planner and guard are those of the daemon; only the ports differ. One reference core is 1,000 MIPS.
Hosts that are off are left out of the snapshot but for a few, which stand for those that could be woken at once.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.decision import CycleRecord, OperatorState
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.units import MIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.loop import Loop, LoopSettings
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.ports import Ledger
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.demand.keeper import DemandKeeper
from rebalancerd.predict.demand.kind import DEMAND
from rebalancerd.predict.demand.scenario_model import ScenarioDemand
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore
from rebalancerd.sim.clock import SimClock
from tests.bench.consolidation_world import HOST_WATTS, MIGRATION_MB_PER_SECOND, STEP_SECONDS, World

EPOCH = 1_300_000_000.0
MIPS_PER_CORE = 1000.0
UNBOUND_MEMORY = 1 << 42
QUIET = DirtyCurve(
    points=tuple(
        DirtyPoint(period_seconds=p, unique_bytes=p * MIB, standard_error_bytes=0.0, readings=3) for p in (1.0, 4.0)
    ),
    age_seconds=0.0,
)

LEVELS = {1: (0.65, 0.75), 2: (0.75, 0.85), 3: (0.85, 1.0), 4: (0.90, 1.02), 5: (0.95, 1.05)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The one configuration of all days and both variants. ``reserves``: empty hosts of each kind that may be filled."""

    reserves: int = 6
    predict: PredictSettings = PredictSettings(
        horizon_seconds=600.0,
        step_seconds=STEP_SECONDS,
        paths=32,
        link_efficiency=1.0,
        overhead_seconds=0.0,
        switchover_seconds=0.0,
    )
    plan: PlanSettings = PlanSettings(
        policy="consolidate",
        cpu_headroom=1.0,
        memory_headroom=1.0,
        quantile=0.90,
        consolidate_cpu_headroom=0.85,
        consolidate_memory_headroom=1.0,
        weight_unmet=5.0,
        weight_cost=30.0,
        weight_hosts=0.36,
        watts_per_core=7.8,
        power_cycle_seconds=0.0,
        payback_max_seconds=3600.0,
        max_moves=1500,
        work_budget=2_000_000,
        out_per_host=1500,
        in_per_host=1500,
        per_cluster=1500,
    )
    guard: GuardSettings = GuardSettings(
        out_per_host=1500,
        in_per_host=1500,
        per_cluster=1500,
        per_hour=100_000,
        hold_rounds=1,
    )

    def at_level(self, level: int) -> "Configuration":
        """More careful (1) to bolder (5) than the committed one, which is 3: how far hosts are filled, how late relieved."""
        filled, hot = LEVELS[level]
        plan = replace(self.plan, consolidate_cpu_headroom=filled, cpu_headroom=hot)
        return replace(self, plan=plan)

    def lines(self) -> tuple[str, ...]:
        """What is printed of it: the caps and the limits."""
        plan, guard = self.plan, self.guard
        return (
            (
                f"caps: {guard.out_per_host} out of and {guard.in_per_host} into a host, {guard.per_cluster} in the cluster "
                f"at once, {guard.per_hour} an hour; cooldown {guard.cooldown_seconds:g} s × {guard.cooldown_growth:g}; "
                f"a host is relieved when it was hot {guard.hold_rounds} times in a row"
            ),
            (
                f"limits: hot above {plan.cpu_headroom:g}, filled to {plan.consolidate_cpu_headroom:g} at the "
                f"{plan.quantile:g} quantile of {self.predict.horizon_seconds:g} s ahead; memory to "
                f"{plan.consolidate_memory_headroom:g}; a migration weighs {plan.weight_cost:g}, unmet demand "
                f"{plan.weight_unmet:g}, the energy of a host {plan.weight_hosts:g}; {self.reserves} empty hosts of each kind in sight"
            ),
        )


CONFIGURATION = Configuration()


@dataclass(slots=True)
class Memory:
    """The part of ports.Ledger a loop in auto mode without an operator calls, kept in memory."""

    records: dict[str, MigrationRecord] = field(default_factory=dict)
    cycles_run: int = 0

    def record_cycle(self, record: CycleRecord) -> int:
        """Count a cycle. Raises RuntimeError for one that a bug ended."""
        if record.outcome.value == "failed":
            raise RuntimeError(record.reason)
        self.cycles_run += 1
        return self.cycles_run

    def record_plan(self, plan: Plan) -> None:
        """Plans are not looked at again."""

    def plan(self, plan_id: str) -> Plan | None:
        """No plan is kept."""
        return None

    def operator_state(self, now: float) -> OperatorState:
        """There is no operator."""
        return OperatorState()

    def migrations(
        self,
        *,
        since: float = 0.0,
        vm_uuid: str | None = None,
        limit: int | None = None,
    ) -> tuple[MigrationRecord, ...]:
        """Migrations, newest first."""
        found = [r for r in reversed(self.records.values()) if r.intent_at >= since]
        return tuple(found[:limit])


class Port:
    """What the loop watches and acts through: Watched and Starter over a world."""

    def __init__(self, world: World, reserves: int, at_once: int) -> None:
        count = len(world.home)
        self.world, self.reserves, self.ledger = world, reserves, Memory()
        self.uuids = [f"00000000-0000-0000-0000-{vm:012d}" for vm in range(count)]
        self.row = {uuid: vm for vm, uuid in enumerate(self.uuids)}
        self.facts = [
            VmFacts(uuid=self.uuids[vm], name=f"vm{vm}", vcpus=1, memory_bytes=int(world.ram[vm]) * MIB)
            for vm in range(count)
        ]
        self.host_row = {_host_name(host): host for host in range(world.hosts)}
        ram = int(world.variant.host_ram) * MIB if world.variant.ram_always else UNBOUND_MEMORY
        # every migration has its own rate in this world: a host's link is as wide as what it may have at once
        self.hosts = [_host(world, host, ram, at_once) for host in range(world.hosts)]
        self.used: list[NDArray[np.float32]] = []
        self.moves: list[tuple[int, int]] = []
        self.started: list[str] = []

    @property
    def wall(self) -> float:
        """Epoch seconds of the world's now."""
        return EPOCH + self.world.now

    def observe(self) -> None:
        """Record what every VM uses now, in cores of its host; those that are gone are unknown."""
        world = self.world
        alive = world.home >= 0
        row = np.full(len(world.home), np.nan, dtype=np.float32)
        row[alive] = (world.served[alive] / world.pe_mips[world.home[alive]]).astype(np.float32)
        self.used.append(row)

    def snapshot(self, *, operator: OperatorState, ours: Sequence[MigrationRecord]) -> Snapshot:
        """The hosts that are on, the first empty ones of each kind, and the VMs that exist."""
        world = self.world
        members = world.residents()
        holds = np.bincount(world.home[members], minlength=world.hosts) > 0
        shown = np.flatnonzero(holds).tolist()
        for kind in range(len(HOST_WATTS)):
            shown += np.flatnonzero(~holds & (world.kinds == kind))[: self.reserves].tolist()
        memory = world.ram_used()
        hosts = tuple(
            replace(
                self.hosts[h],
                load=HostLoad(
                    cpu_cores=float(world.used_mips[h] / world.pe_mips[h]), memory_used_bytes=int(memory[h]) * MIB
                ),
            )
            for h in shown
        )
        return Snapshot(taken_at=self.wall, hosts=hosts, vms=tuple(self._vm(vm) for vm in members.tolist()))

    def _vm(self, vm: int) -> Vm:
        world, facts = self.world, self.facts[vm]
        host = int(world.home[vm])
        pe = float(world.pe_mips[host])
        used = float(world.served[vm]) / pe
        return Vm(
            facts=facts,
            host=_host_name(host),
            state=DomainState.RUNNING,
            load=VmLoad(
                cpu_cores=used,
                steal_cores=max(0.0, float(world.request[vm]) / pe - used),
                memory_bytes=facts.memory_bytes,
            ),
            dirty=QUIET,
        )

    def series(self, resource: str, tier: int = 0) -> Series:
        """The record so far. Memory does not change in this world."""
        if tier or not self.used:
            return Series.empty(resource, STEP_SECONDS, self.wall)
        values = np.array(self.used, dtype=np.float32)
        if resource == "vm_memory_bytes":
            values = np.broadcast_to((self.world.ram * MIB).astype(np.float32), values.shape).copy()
        elif resource != "vm_cpu_cores":
            return Series.empty(resource, STEP_SECONDS, self.wall)
        return Series(resource=resource, ids=tuple(self.uuids), values=values, step_seconds=STEP_SECONDS, end=self.wall)

    def stays(self) -> Stays:
        """None: every host of this world is as fast as the next."""
        return Stays({})

    def start(
        self, step: Step, plan: Plan, *, facts: VmFacts, cycle_id: int | None = None
    ) -> MigrationRecord | Refusal:
        """Note a migration that begins now."""
        move = step.move
        record = MigrationRecord(
            id=f"m{len(self.ledger.records)}",
            vm_uuid=facts.uuid,
            vm_name=facts.name,
            source=move.source,
            destination=move.destination,
            state=MigrationState.RUNNING,
            intent_at=self.wall,
            started_at=self.wall,
            plan_id=plan.id,
            step=step.number,
            cycle_id=cycle_id,
        )
        self.ledger.records[record.id] = record
        self.started.append(record.id)
        self.moves.append((self.row[facts.uuid], self.host_row[move.destination]))
        return record

    def active(self) -> tuple[MigrationRecord, ...]:
        """Migrations that run."""
        return tuple(self.ledger.records[i] for i in self.started)

    def settle(self) -> None:
        """Migrations of the last decision have ended: none takes as long as a step."""
        for i in self.started:
            record = self.ledger.records[i]
            seconds = float(self.world.ram[self.row[record.vm_uuid]]) / MIGRATION_MB_PER_SECOND
            self.ledger.records[i] = replace(
                record, state=MigrationState.SUCCEEDED, ended_at=record.intent_at + seconds
            )
        self.started, self.moves = [], []


class Ours:
    """The production loop over a world; ``decide`` is one cycle."""

    def __init__(self, world: World, configuration: Configuration = CONFIGURATION) -> None:
        guard = configuration.guard
        self.port = Port(world, configuration.reserves, max(guard.out_per_host, guard.in_per_host))
        self.clock = SimClock(EPOCH)
        self._scratch = tempfile.TemporaryDirectory(prefix="rebalancerd-bench-")
        store = ModelStore(Path(self._scratch.name), kind=DEMAND)
        self.keeper = DemandKeeper(store, configuration.predict, ModelSettings(), self.clock.wall)
        self.keeper.refresh()
        self.loop = Loop(
            observer=self.port,
            demand=ScenarioDemand(self.keeper.forecaster, configuration.predict),
            costs=PhysicsCost(configuration.predict),
            ledger=cast("Ledger", self.port.ledger),
            clock=self.clock,
            settings=LoopSettings(mode=Mode.AUTO, plan=configuration.plan, guard=configuration.guard),
            executor=self.port,
        )

    def decide(self) -> list[tuple[int, int]]:
        """One cycle at the world's now; the migrations that it starts."""
        port = self.port
        self.clock.advance_to(port.world.now)
        port.settle()
        port.observe()
        self.loop.iterate()
        view = self.loop.view
        if view is not None:
            self.keeper.watch(view.snapshot, port.series("vm_cpu_cores"), port.series("vm_memory_bytes"))
        return port.moves

    def close(self) -> None:
        """Remove what the keeper wrote."""
        self._scratch.cleanup()


def _host_name(host: int) -> str:
    return f"host{host:03d}"


def _host(world: World, host: int, ram: int, at_once: int) -> Host:
    speed = float(world.pe_mips[host]) / MIPS_PER_CORE
    watts = HOST_WATTS[world.kinds[host]]
    return Host(
        name=_host_name(host),
        facts=HostFacts(uuid=None, cpus=2, memory_bytes=ram),
        cores=2.0,
        speed_factor=speed,
        memory_bytes=ram,
        cpu_group="one",
        link_bytes_per_second=MIGRATION_MB_PER_SECOND * MIB * at_once,
        peer_uri=f"qemu+tls://{_host_name(host)}/system",
        migration_uri=f"tcp://{_host_name(host)}",
        idle_watts=float(watts[0]),
    )
