"""Random walks over the simulated cluster: faults, operators' commands, time; every promise is checked after every step.

A walk that breaks one shrinks, and its script is left as a scenario in ``.walks/`` (cluster.toml, cmdlist, README.md), to be
kept under tests/scenarios once it is understood.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from rebalancerd.cluster.cost import Candidate
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.cost_columns import Column, CostColumns
from rebalancerd.sim.faults import perform
from rebalancerd.sim.power import Bmc
from rebalancerd.sim.scenario import ScenarioError, ScriptLine
from rebalancerd.sim.world import World
from tests.faults.play import BASE, SCENARIOS, spec_of
from tests.faults.promises import Promises

STEPS_PER_WALK = 50
FOUND = Path(__file__).parents[2] / ".walks"
# kept scenarios whose clusters are walked in, the plainest first: that is what a walk shrinks to
CLUSTERS = (
    BASE,
    "guarded-with-approval",
    "anti-affinity-goes-elsewhere",
    "parking-needed",
    "n-plus-one-kept",
    "hostile-name",
    "folds-at-night",
    "power-sleeps-and-wakes",
)

hosts = st.integers(0, 3)
vms = st.integers(0, 6)
paces = st.sampled_from((0.0, 5.0, 20.0, 61.0))
distortions = st.sampled_from(("zero-cpus", "reset", "negative", "jump", "frozen", "stale", "empty", "silent", "true"))


class Optimist(PhysicsCost):
    """A model gone wrong: nothing costs anything, and everything converges. No limit may rest on it."""

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> CostColumns:
        told = super().costs(snapshot, candidates)
        zeros = np.zeros(len(told))
        return replace(told, **dict.fromkeys(told.columns(), Column(value=zeros, upper=zeros)))


class Walk(RuleBasedStateMachine):
    """One world, and what happens to it. Counts of all walks of the process: see ``figures``."""

    steps = 0
    faults = 0
    states: ClassVar[set[MigrationState]] = set()
    distinct: ClassVar[set[int]] = set()  # hashes of what the whole looked like after a step
    checked: ClassVar[Counter[str]] = Counter()

    @initialize(cluster=st.sampled_from(CLUSTERS), optimist=st.sampled_from((False, False, False, True)), pace=paces)
    def begin(self, cluster: str, optimist: bool, pace: float) -> None:
        """``pace``: seconds that pass after everything that happens."""
        self.cluster, self.pace, self.script = cluster, pace, list[str]()
        spec = spec_of(cluster, script="", run="30m")
        self.world = World(spec, costs=Optimist(spec.predict) if optimist else None)
        self.promises = Promises(self.world)
        self.hosts, self.vms = tuple(self.world.cluster.hosts), tuple(self.world.cluster.vms)

    def host_of(self, number: int) -> str:
        return self.hosts[number % len(self.hosts)]

    def vm_of(self, number: int) -> str:
        return self.vms[number % len(self.vms)]

    def happens(self, *words: str) -> None:
        """One line of a script; what the cluster cannot do now does not happen."""
        line = ScriptLine(at=0.0, verb=words[0], arguments=tuple(words[1:]))
        self.script.append(f"{self.world.clock.monotonic():.0f}s {' '.join(words)}")
        try:
            perform(self.world, line)
            Walk.steps += 1
            Walk.faults += 1
        except ScenarioError:
            self.script.pop()
        self.checked_run(self.pace)

    def checked_run(self, seconds: float) -> None:
        """Let time pass, promises checked."""
        try:
            self.promises.step()
            self.world.run(self.world.clock.monotonic() + seconds)
        except BaseException:
            self.keep()
            raise
        Walk.distinct.add(hash(self.looks()))

    def looks(self) -> tuple[object, ...]:
        """Everything that matters of the moment, without its clock."""
        world, cluster = self.world, self.world.cluster
        view = world.loop.view if world.loop is not None else None
        return (
            self.cluster,
            tuple(tuple(sorted((d.uuid, d.state) for d in h.domains.values())) for h in cluster.hosts.values()),
            tuple(sorted((u, m.destination, m.phase) for u, m in cluster.migrations.running.items())),
            tuple(sorted((h, str(r)) for h, r in world.wires.reach.items())),
            tuple(sorted((h, str(d.kind)) for h, d in world.wires.distorted.items())),
            tuple(sorted((r.vm_uuid, r.state) for r in world.ledger.records.values())),
            tuple(sorted((r.host, r.phase) for r in world.ledger.power.values())),
            (world.ledger.full, world.lease.held(), world.pause_reason, world.loop is None),
            None if view is None else view.record.outcome,
        )

    def keep(self) -> None:
        FOUND.mkdir(exist_ok=True)
        shutil.copy(SCENARIOS / self.cluster / "cluster.toml", FOUND / "cluster.toml")
        (FOUND / "cmdlist").write_text("\n".join(self.script) + "\n", encoding="utf-8")
        (FOUND / "README.md").write_text("# Found by a walk\n\nSay what it shows.\n", encoding="utf-8")

    @rule(seconds=st.sampled_from((1.0, 7.0, 30.0)))
    def a_moment_passes(self, seconds: float) -> None:
        Walk.steps += 1
        self.checked_run(seconds)

    @rule(seconds=st.sampled_from((61.0, 61.0, 120.0, 180.0, 600.0)))
    def minutes_pass(self, seconds: float) -> None:
        Walk.steps += 1
        self.checked_run(seconds)

    @rule(host=hosts, what=st.sampled_from(("host-unreachable", "host-hangs", "host-answers", "libvirtd-restarts")))
    def host(self, host: int, what: str) -> None:
        self.happens(what, self.host_of(host))

    @rule(host=hosts, kind=distortions)
    def telemetry(self, host: int, kind: str) -> None:
        """No host hides its VMs from a daemon that never saw them: such a one cannot know better (`restart`)."""
        if kind != "empty" or (self.world.loop is not None and self.world.loop.view is not None):
            self.happens("telemetry", self.host_of(host), kind)

    @rule(one=hosts, two=hosts, what=st.sampled_from(("link-cut", "link-mended")))
    def link(self, one: int, two: int, what: str) -> None:
        if self.host_of(one) != self.host_of(two):
            self.happens(what, self.host_of(one), self.host_of(two))

    @rule(vm=vms, what=st.sampled_from(("vm-stops", "vm-pauses", "vm-resumes", "postcopy", "postcopy-unattended")))
    def vm(self, vm: int, what: str) -> None:
        move = self.world.cluster.migrations.running.get(self.vm_of(vm))
        if what.startswith("postcopy") and move is None:
            return
        self.happens(what, self.vm_of(vm))

    @rule(vm=vms, host=hosts, what=st.sampled_from(("vm-moved", "vm-migrated")))
    def by_hand(self, vm: int, host: int, what: str) -> None:
        machine = self.world.power.machines.get(self.host_of(host))
        if machine is not None and machine.change_to is False:
            return  # what remains: who comes after the order to shut down goes down with the host (see the guide)
        self.happens(what, self.vm_of(vm), self.host_of(host))

    @rule(vm=vms, what=st.sampled_from(("migration-lies", "abort-refused", "abort-ignored", "arrives-paused")))
    def quirk(self, vm: int, what: str) -> None:
        self.happens(what, self.vm_of(vm))

    @rule(vm=vms, code=st.sampled_from(("9", "38", "45", "67", "88")), share=st.sampled_from(("0.0", "0.5")))
    def fails(self, vm: int, code: str, share: str) -> None:
        self.happens("migration-fails", self.vm_of(vm), code, share)

    @rule(vm=vms, cores=st.sampled_from(("0.1", "1.0", "1.9")), dirty=st.sampled_from(("1", "600")))
    def load(self, vm: int, cores: str, dirty: str) -> None:
        self.happens("demand", self.vm_of(vm), "cpu", cores)
        self.happens("demand", self.vm_of(vm), "dirty", dirty)

    @rule(step=st.sampled_from(("-2h", "+3h", "-10s")))
    def clock(self, step: str) -> None:
        self.happens("clock-step", step)

    @rule(
        words=st.sampled_from(
            ("ledger full", "ledger ok", "lease lost", "lease held", "pause-file there", "pause-file gone")
        )
    )
    def surroundings(self, words: str) -> None:
        self.happens(*words.split())

    @rule(words=st.sampled_from(("drain a", "undrain a", "pause", "resume", "close-breaker", "clear-quarantine b")))
    def operator(self, words: str) -> None:
        if not self.world.ledger.full:
            self.happens(*words.split())

    @precondition(lambda self: self.world.spec.mode is Mode.GUARDED)
    @rule(what=st.sampled_from(("approve", "approve", "reject", "apply")))
    def answers(self, what: str) -> None:
        if not self.world.ledger.full:
            self.happens(what)

    @precondition(lambda self: bool(self.world.power.hosts()))
    @rule(host=hosts, what=st.sampled_from(("power-sleep", "power-wake", "power-test")))
    def power(self, host: int, what: str) -> None:
        if not self.world.ledger.full:
            self.happens(what, self.host_of(host))

    @precondition(lambda self: bool(self.world.power.hosts()))
    @rule(host=hosts, what=st.sampled_from(tuple(Bmc)))
    def controller(self, host: int, what: Bmc) -> None:
        if self.host_of(host) in self.world.power.hosts():
            self.happens("bmc", self.host_of(host), what.value)

    @rule(caps=st.sampled_from((0, 1, 2, 4)))
    def reload(self, caps: int) -> None:
        """The daemon reads its configuration again: another cap holds for new starts."""
        world = self.world
        if world.loop is None:
            return
        Walk.steps += 1
        world.spec = replace(world.spec, guard=replace(world.spec.guard, per_cluster=caps))
        world.invariants.spec = world.spec
        world.loop.settings = replace(world.loop.settings, guard=world.spec.guard)
        self.checked_run(0.0)

    @rule(effects=st.integers(1, 12))
    def dies_in_the_act(self, effects: int) -> None:
        """Killed right after one of the next effects, and started again later by ``restart``."""
        if self.world.loop is not None:
            self.happens("daemon-kill", "after", str(effects))

    @rule(seconds=st.sampled_from((0.0, 20.0)))
    def restart(self, seconds: float) -> None:
        if self.world.loop is not None:
            self.happens("daemon-kill")
            self.checked_run(seconds)
        for host, distortion in list(self.world.wires.distorted.items()):
            if distortion.kind == "empty":
                self.happens("telemetry", host, "true")
        self.happens("daemon-start")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            Walk.states |= {r.state for r in self.world.ledger.records.values()}
            Walk.checked += self.promises.checked
            self.world.close()


def walk(steps: int, number: int) -> None:
    """So many steps at least, always the same ones for a number. Raises what a walk finds, with its shortest script.

    One run of Hypothesis per walk: within a run it likes to try variations of what it had, which here are wasted.
    """
    begun, run = Walk.steps, number * 1_000_000
    while Walk.steps - begun < steps:
        run += 1
        run_state_machine_as_test(
            seed(run)(type("Walk", (Walk,), {})),
            settings=settings(
                max_examples=2,  # the first is always the shortest there is
                stateful_step_count=STEPS_PER_WALK,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )


def figures() -> dict[str, int]:
    """What the walks of this process came to."""
    return {
        "steps": Walk.steps,
        "faults": Walk.faults,
        "distinct_states": len(Walk.distinct),
        "verdicts": len(Walk.states),
        "checks": sum(Walk.checked.values()),
    }
