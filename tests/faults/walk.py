"""Random walks over the simulated cluster: faults, operators' commands, time; every promise is checked after every step.

A walk that breaks one shrinks, and its script is left as a scenario in ``.walks/`` (cluster.toml, cmdlist, README.md), to be
kept under tests/scenarios once it is understood.
"""

import os
import shutil
from pathlib import Path
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.sim.faults import perform
from rebalancerd.sim.scenario import ScenarioError, ScriptLine
from rebalancerd.sim.world import World, build_world
from tests.faults.play import BASE, SCENARIOS, spec_of

STEPS = int(os.environ.get("FAULT_WALK_STEPS", "16000"))  # in all; `make faults-nightly` asks for a million
STEPS_PER_WALK = 25
FOUND = Path(__file__).parents[2] / ".walks"

hosts = st.sampled_from(("a", "b", "c"))
vms = st.sampled_from(("hot-1", "hot-2", "hot-3", "hot-4", "cool", "calm"))
distortions = st.sampled_from(("zero-cpus", "reset", "negative", "jump", "frozen", "stale", "empty", "silent", "true"))


class Walk(RuleBasedStateMachine):
    """One world, and what happens to it. Counts of all walks of the process: ``steps``, ``faults``, ``states``."""

    steps = 0
    faults = 0
    states: ClassVar[set[MigrationState]] = set()

    @initialize()
    def begin(self) -> None:
        self.script: list[str] = []
        self.world: World = build_world(spec_of(script="", run="30m"))

    def happens(self, *words: str) -> None:
        """One line of a script; what the cluster cannot do now does not happen."""
        Walk.steps += 1
        line = ScriptLine(at=0.0, verb=words[0], arguments=tuple(words[1:]))
        self.script.append(f"{self.world.clock.monotonic():.0f}s {' '.join(words)}")
        try:
            perform(self.world, line)
            Walk.faults += 1
        except ScenarioError:
            self.script.pop()
        self.checked(0.0)

    def checked(self, seconds: float) -> None:
        """Let time pass, promises checked."""
        try:
            self.world.run(self.world.clock.monotonic() + seconds)
        except BaseException:
            self.keep()
            raise

    def keep(self) -> None:
        FOUND.mkdir(exist_ok=True)
        shutil.copy(SCENARIOS / BASE / "cluster.toml", FOUND / "cluster.toml")
        (FOUND / "cmdlist").write_text("\n".join(self.script) + "\n", encoding="utf-8")
        (FOUND / "README.md").write_text("# Found by a walk\n\nSay what it shows.\n", encoding="utf-8")

    @rule(seconds=st.sampled_from((1.0, 7.0, 30.0, 61.0, 180.0, 600.0)))
    def time_passes(self, seconds: float) -> None:
        Walk.steps += 1
        self.checked(seconds)

    @rule(host=hosts, what=st.sampled_from(("host-unreachable", "host-hangs", "host-answers", "libvirtd-restarts")))
    def host(self, host: str, what: str) -> None:
        self.happens(what, host)

    @rule(host=hosts, kind=distortions)
    def telemetry(self, host: str, kind: str) -> None:
        self.happens("telemetry", host, kind)

    @rule(one=hosts, two=hosts, what=st.sampled_from(("link-cut", "link-mended")))
    def link(self, one: str, two: str, what: str) -> None:
        if one != two:
            self.happens(what, one, two)

    @rule(vm=vms, what=st.sampled_from(("vm-stops", "vm-pauses", "vm-resumes", "postcopy", "postcopy-unattended")))
    def vm(self, vm: str, what: str) -> None:
        move = self.world.cluster.migrations.running.get(self.world.cluster.named(vm))
        if what.startswith("postcopy") and move is None:
            return
        self.happens(what, vm)

    @rule(vm=vms, host=hosts, what=st.sampled_from(("vm-moved", "vm-migrated")))
    def by_hand(self, vm: str, host: str, what: str) -> None:
        self.happens(what, vm, host)

    @rule(vm=vms, what=st.sampled_from(("migration-lies", "abort-refused", "abort-ignored", "arrives-paused")))
    def quirk(self, vm: str, what: str) -> None:
        self.happens(what, vm)

    @rule(vm=vms, code=st.sampled_from(("9", "38", "45", "67", "88")), share=st.sampled_from(("0.0", "0.5")))
    def fails(self, vm: str, code: str, share: str) -> None:
        self.happens("migration-fails", vm, code, share)

    @rule(vm=vms, cores=st.sampled_from(("0.1", "1.0", "1.9")), dirty=st.sampled_from(("1", "600")))
    def load(self, vm: str, cores: str, dirty: str) -> None:
        self.happens("demand", vm, "cpu", cores)
        self.happens("demand", vm, "dirty", dirty)

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

    @rule(seconds=st.sampled_from((0.0, 20.0)))
    def restart(self, seconds: float) -> None:
        if self.world.loop is not None:
            self.happens("daemon-kill")
            self.checked(seconds)
            self.happens("daemon-start")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            Walk.states |= {r.state for r in self.world.ledger.records.values()}
            self.world.close()


Walk.TestCase.settings = settings(
    max_examples=max(1, STEPS // STEPS_PER_WALK),
    stateful_step_count=STEPS_PER_WALK,
    deadline=None,
    derandomize="FAULT_WALK_STEPS" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)
