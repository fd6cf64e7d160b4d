"""Running scenarios and simulations: the same world, told as text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.sim.scenario import ScenarioError, WorldSpec, load
from rebalancerd.sim.world import build_world

EXPECTED = "expect.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run came to: its log, the migrations with their verdicts, and how busy each host was on average."""

    log: str
    migrations: tuple[MigrationRecord, ...]
    cycles: int
    seconds: float
    host_busy_share: tuple[tuple[str, float], ...]


def simulate(spec: WorldSpec, *, listener: Callable[[str], None] | None = None) -> Report:
    """Run a world to its end, each line of the log given to ``listener`` as it is told.

    Raises InvariantError when a promise is broken, ScenarioError for a script it cannot follow.
    """
    with build_world(spec) as world:
        if listener is not None:
            world.story.listener = listener
        world.run()
        busy = world.cluster.guests.busy_seconds / max(world.cluster.now, 1e-9)
        return Report(
            log=world.story.text(),
            migrations=tuple(world.ledger.records.values()),
            cycles=world.invariants.cycles_run,
            seconds=world.cluster.now,
            host_busy_share=tuple((h.name, float(b) / h.cpus) for h, b in zip(spec.cluster.hosts, busy, strict=True)),
        )


def run_scenario(directory: Path) -> str:
    """The log of a scenario's directory: README.md (the intent), cluster.toml, cmdlist.

    Raises ScenarioError, InvariantError, OSError.
    """
    if not (directory / "README.md").exists():
        raise ScenarioError(f"{directory}: no README.md says what it is for")
    return simulate(load(directory)).log


def record(directory: Path) -> bool:
    """Write the expected log if there is none; whether it was written."""
    path = directory / EXPECTED
    if path.exists():
        return False
    path.write_text(run_scenario(directory), encoding="utf-8")
    return True
