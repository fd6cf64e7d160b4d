"""The invariants can fail: each is broken on purpose here."""

from dataclasses import replace
from typing import Any

import pytest

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.policy import Mode, VmPolicy
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.sim.adapters import Reach, SimWrite, Wires
from rebalancerd.sim.clock import SimClock
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.invariants import InvariantError, Invariants
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec


class Written:
    """Stands in for the journal: what was written."""

    def __init__(self) -> None:
        self.full = False
        self.cycles_written = 0
        self.records: dict[str, MigrationRecord] = {}


class Case:
    def __init__(self, *vms: VmSpec, mode: Mode = Mode.AUTO) -> None:
        hosts = (HostSpec(name="a"), HostSpec(name="b", memory_bytes=8 * GIB), HostSpec(name="c"))
        spec = WorldSpec(cluster=ClusterSpec(hosts=hosts, vms=vms or (VmSpec(name="v", host="a"),)), mode=mode)
        self.clock = SimClock()
        self.cluster = SimCluster(spec.cluster, self.clock)
        self.wires = Wires(self.cluster)
        self.write, self.ledger = SimWrite(self.wires), Written()
        self.checks = Invariants(spec, self.cluster, self.wires, self.write, self.ledger)  # type: ignore[arg-type]

    def intent(self, name: str = "v", destination: str = "b", *, written: bool = True) -> MigrationRecord:
        record = MigrationRecord(
            id=f"m-{name}-{destination}",
            vm_uuid=self.cluster.named(name),
            vm_name=name,
            source=self.cluster.running_on(self.cluster.named(name)) or "a",
            destination=destination,
            state=MigrationState.INTENT,
            intent_at=0.0,
        )
        if written:
            self.ledger.records[record.id] = record
        return record


def test_a_proper_migration_breaks_nothing() -> None:
    """From intent to verdict."""
    case = Case()
    handle = case.write.migrate(case.intent())
    while not handle.done():
        case.clock.sleep(0.2)
        case.checks.check()

    assert case.cluster.running_on(case.cluster.named("v")) == "b"


def test_a_call_without_an_intent() -> None:
    """P3."""
    case = Case()
    with pytest.raises(InvariantError, match="P3"):
        case.write.migrate(case.intent(written=False))
    with pytest.raises(InvariantError, match="P3"):
        case.checks.check()  # it is not lost if the raising was swallowed


def test_a_second_migration_of_the_same_vm() -> None:
    """P2."""
    case = Case()
    case.write.migrate(case.intent())
    with pytest.raises(InvariantError, match="P2"):
        case.write.migrate(case.intent(destination="c"))


def test_more_than_the_cap() -> None:
    """Two out of one host."""
    case = Case(VmSpec(name="v", host="a"), VmSpec(name="w", host="a"))
    case.write.migrate(case.intent("v"))
    with pytest.raises(InvariantError, match="cap of moves out of a"):
        case.write.migrate(case.intent("w", "c"))


@pytest.mark.parametrize(
    ("vm", "promise"),
    [
        (VmSpec(name="v", host="a", owner="nova"), "foreign owner"),
        (VmSpec(name="v", host="a", immovable=("hostdev",)), "immovable"),
        (VmSpec(name="v", host="a", policy=VmPolicy(pin=frozenset("a"))), "pin"),
        (VmSpec(name="v", host="a", policy=VmPolicy(avoid=frozenset("b"))), "avoid"),
        (VmSpec(name="v", host="a", policy=VmPolicy(mode=Mode.RECOMMEND)), "mode"),
        (VmSpec(name="v", host="a", memory_bytes=16 * GIB), "memory"),
    ],
)
def test_hard_rules(vm: VmSpec, promise: str) -> None:
    """Each on the truth."""
    case = Case(vm)
    with pytest.raises(InvariantError, match=promise):
        case.write.migrate(case.intent())


@pytest.mark.parametrize(
    ("beyond", "promise"),
    [
        ({"postcopy": True}, "post-copy"),
        ({"auto_converge": True}, "auto-converge"),
        ({"max_downtime_seconds": 0.21}, "downtime"),
    ],
)
def test_options_beyond_the_policy(beyond: dict[str, Any], promise: str) -> None:
    """What a VM did not opt into, and more downtime than it accepts; what it does accept breaks nothing."""
    accepts = MigrationOptions(max_downtime_seconds=0.2)
    case, other = (Case(VmSpec(name="v", host="a", policy=VmPolicy(max_downtime_seconds=0.2))) for _ in range(2))
    case.write.migrate(replace(case.intent(), options=accepts))
    with pytest.raises(InvariantError, match=f"{promise} broken"):
        other.write.migrate(replace(other.intent(), options=replace(accepts, **beyond)))


def test_a_destination_that_has_not_answered_for_long() -> None:
    """P4."""
    case = Case()
    case.wires.set_reach("b", Reach.REFUSED)
    case.clock.sleep(120.0)
    with pytest.raises(InvariantError, match="P4"):
        case.write.migrate(case.intent())


def test_a_write_in_recommend_mode() -> None:
    """P9."""
    case = Case(mode=Mode.RECOMMEND)
    case.write.migrate(case.intent())
    with pytest.raises(InvariantError, match="P9"):
        case.checks.check()


def test_a_vm_that_runs_twice_or_nowhere() -> None:
    """P1, unless a fault of the script did it."""
    case = Case()
    uuid = case.cluster.named("v")
    case.cluster.put("b", uuid, "v", DomainState.RUNNING, persistent=True)
    with pytest.raises(InvariantError, match="runs on 2 hosts"):
        case.checks.check()
    lost = Case()
    lost.cluster.hosts["a"].domains.clear()
    lost.cluster.changed()
    with pytest.raises(InvariantError, match="runs nowhere"):
        lost.checks.check()


def test_lost_autostart() -> None:
    """P1: succeeded, and not what it was."""
    case = Case(VmSpec(name="v", host="a", autostart=True))
    record = case.intent()
    handle = case.write.migrate(record)
    while not handle.done():
        case.clock.sleep(0.5)
    case.ledger.records[record.id] = replace(record, state=MigrationState.SUCCEEDED, autostart=True)
    case.cluster.changed()
    with pytest.raises(InvariantError, match="autostart of v was True and is False"):
        case.checks.check()


def test_a_cycle_without_a_record() -> None:
    """P12."""
    case = Case()
    case.checks.cycles_run = 1
    with pytest.raises(InvariantError, match="P12"):
        case.checks.check()
