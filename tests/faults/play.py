"""Runs of the simulated cluster with faults in them, and what an operator would have been told on the way."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.vm import DomainState
from rebalancerd.serve.control import Control, Surroundings
from rebalancerd.serve.schemas import Check
from rebalancerd.sim.adapters import WriteCall
from rebalancerd.sim.faults import perform
from rebalancerd.sim.scenario import ScriptLine, WorldSpec, load, parse_script, seconds
from rebalancerd.sim.world import World, build_world

SCENARIOS = Path(__file__).parents[1] / "scenarios"
BASE = "source-dies"  # one hot host of four guests that take a minute each to move: hot-1 a → b begins at 00:03:00


@dataclass
class Played:
    """One run: the truth of the cluster at its end, every cycle, and every health condition that was told, when first."""

    world: World
    cycles: list[CycleRecord] = field(default_factory=list)
    alerts: dict[tuple[str, str | None], Check] = field(default_factory=dict)
    states: dict[str, list[MigrationState]] = field(default_factory=dict)  # by migration id, as written down
    events: list[MutableMapping[str, Any]] = field(default_factory=list)

    @property
    def records(self) -> list[MigrationRecord]:
        return list(self.world.ledger.records.values())

    def record(self, vm: str, index: int = 0) -> MigrationRecord:
        """That VM's migration of that number."""
        return [r for r in self.records if r.vm_name == vm][index]

    @property
    def calls(self) -> list[WriteCall]:
        return self.world.write.calls

    def begun(self, *, after: float = 0.0) -> list[WriteCall]:
        """Migrate calls from that virtual second on."""
        return [c for c in self.calls if c.kind == "migrate" and c.at >= after]

    def told(self, code: str) -> list[Check]:
        """Health conditions of that code."""
        return [check for (name, _), check in self.alerts.items() if name == code]

    def refused(self, code: Code) -> list[Refusal]:
        """Refusals of that code, of cycles and of single decisions."""
        found = [r for c in self.cycles for r in c.refusals if r.code is code]
        return found + [d.refusal for c in self.cycles for d in c.decisions if d.refusal and d.refusal.code is code]

    def uuid(self, vm: str) -> str:
        return self.world.cluster.named(vm)

    def runs_on(self, vm: str) -> str | None:
        return self.world.cluster.running_on(self.uuid(vm))

    def present_on(self, vm: str) -> tuple[str, ...]:
        return self.world.cluster.present_on(self.uuid(vm))

    def state_on(self, vm: str, host: str) -> DomainState:
        domain = self.world.cluster.hosts[host].domains.get(self.uuid(vm))
        return DomainState.ABSENT if domain is None else domain.state

    def untouched(self) -> bool:
        """That no VM was ended, paused or resumed by us: the port has no such call, and none was made."""
        return {c.kind for c in self.calls} <= {"migrate", "abort", "set_max_downtime", "set_autostart"}


def spec_of(scenario: str = BASE, script: str | None = None, run: str | None = None, **changes: Any) -> WorldSpec:
    """A kept scenario's world, with another script, length or settings."""
    spec = replace(load(SCENARIOS / scenario), **changes)
    if script is not None:
        spec = replace(spec, script=parse_script(script))
    return spec if run is None else replace(spec, run_seconds=seconds(run))


def follow(world: World, played: Played | None = None) -> Played:
    """Note what the world's daemon decides and tells from now on."""
    played = played or Played(world)
    told = world.ledger.on_migration

    def on_migration(record: MigrationRecord) -> None:
        played.states.setdefault(record.id, []).append(record.state)
        told(record)

    def on_cycle(record: CycleRecord) -> None:
        played.cycles.append(record)
        for check in control_of(world).checks():
            played.alerts.setdefault((check.code, check.subject), check)

    world.ledger.on_migration, world.on_cycle = on_migration, on_cycle
    return played


def control_of(world: World) -> Control:
    """What the daemon's API would answer from."""
    assert world.loop is not None
    about = Surroundings(
        hosts=tuple(world.cluster.hosts),
        controller="sim",
        started_at=world.clock.wall() - world.clock.monotonic(),
        cycle_seconds=world.spec.decide_seconds,
        pause_file=lambda: world.pause_reason,
    )
    ledger: Any = world.ledger
    return Control(
        loop=world.loop, ledger=ledger, clock=world.clock, about=about, executor=world.executor, lease=world.lease
    )


def play(spec: WorldSpec, *, meddle: Callable[[World], None] = lambda _world: None) -> Played:
    """Run a world to its end; every promise is checked after every step. ``meddle`` sees it before it starts."""
    with build_world(spec) as world, capture_logs() as events:
        meddle(world)
        played = follow(world)
        world.run()
        played.events = list(events)
        return played


@cache
def kept(scenario: str) -> Played:
    """A kept scenario, played once per session."""
    return play(spec_of(scenario))


@cache
def scripted(script: str, run: str = "20m") -> Played:
    """The base cluster with that script, played once per session."""
    return play(spec_of(script=script, run=run))


def start_after(*lines: str) -> MigrationRecord | Refusal:
    """Plan on the base cluster, let something happen, start the plan's first step all the same: what comes of it."""
    with build_world(spec_of(script="")) as world:
        world.run(150.0)
        assert world.loop is not None and world.executor is not None
        plan: Plan = world.loop.propose()
        step = plan.steps[0]
        assert (step.move.vm_name, step.move.source, step.move.destination) == ("hot-1", "a", "b")
        facts = world.cluster.facts("a", step.move.vm_uuid)
        assert facts is not None
        for line in lines:
            verb, *words = line.split()
            perform(world, ScriptLine(at=0.0, verb=verb, arguments=tuple(words)))
        result = world.executor.start(step, plan, facts=facts)
        if isinstance(result, Refusal):
            assert [c for c in world.write.calls if c.kind == "migrate"] == [], "nothing was handed over"
        return result
