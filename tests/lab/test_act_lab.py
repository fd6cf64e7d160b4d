"""The executor on real hosts: moves that keep the guest, an abort that takes effect, hosts that fail, moves by hand."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rebalancerd.act.executor import Executor
from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.act.settings import ActSettings
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Move, Plan, Score, Step
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.guard.memory import recall
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.lab import GuestSpec, Lab, Phase
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.act.act_world import cost

SETTINGS = ActSettings(settle_seconds=5.0)
BUSY = (Phase(seconds=600, cpu_percent=20, working_set_mib=16, dirty_mib_per_second=2),)
# rewrites more than a slow link can carry, for ever
HEAVY = (Phase(seconds=600, cpu_percent=100, working_set_mib=64, dirty_mib_per_second=60, order="random"),)


class Trail(SqlLedger):
    """The real ledger, which also remembers each migration's states in order."""

    def __init__(self, url: str, clock: SystemClock) -> None:
        super().__init__(url, clock)
        self.records: dict[str, list[MigrationRecord]] = {}

    def open_intent(self, record: MigrationRecord) -> None:
        super().open_intent(record)
        self.records[record.id] = [record]

    def update_migration(self, record: MigrationRecord) -> None:
        super().update_migration(record)
        self.records[record.id].append(record)

    def states(self, record: MigrationRecord) -> list[str]:
        return [r.state.value for r in self.records[record.id]]


@dataclass
class Acting:
    """An executor at work on the lab, its watch on a thread of its own."""

    lab: Lab
    read: LibvirtRead
    executor: Executor
    ledger: Trail

    def facts(self, guest: GuestSpec) -> VmFacts:
        uuid = self.lab.spec.guest_uuid(guest.name)
        facts = self.read.domain_facts(self.lab.find(guest.name) or "", uuid)
        assert facts is not None
        return facts

    def plan(self, guest: GuestSpec, source: str, destination: str, options: MigrationOptions | None = None) -> Plan:
        move = Move(
            vm_uuid=self.lab.spec.guest_uuid(guest.name),
            vm_name=guest.name,
            source=source,
            destination=destination,
            why="test",
            cost=cost(),
            options=options or MigrationOptions(),
            gain=1.0,
            payback_seconds=None,
        )
        return Plan(
            id=f"p-{guest.name}",
            policy="balance",
            created_at=time.time(),
            expires_at=time.time() + 600,
            snapshot_digest="0",
            steps=(Step(number=1, wave=1, move=move),),
            before=Score(total=1, unmet=1, imbalance=0),
            after=Score(total=0, unmet=0, imbalance=0),
            why="test",
        )

    def move(self, guest: GuestSpec, destination: str) -> MigrationRecord:
        plan = self.plan(guest, self.lab.find(guest.name) or "", destination)
        record = self.executor.start(plan.steps[0], plan, facts=self.facts(guest))
        assert isinstance(record, MigrationRecord), record
        return record

    def verdict(self, record: MigrationRecord, timeout: float = 60.0) -> MigrationRecord:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            last = self.ledger.records[record.id][-1]
            if not last.state.is_open:
                return last
            time.sleep(0.05)
        raise AssertionError(f"no verdict: {self.ledger.records[record.id][-1]}")

    def wait_flowing(self, record: MigrationRecord, timeout: float = 30.0) -> None:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            progress = self.executor.progress(record.vm_uuid)
            if progress is not None and progress.processed_bytes:
                return
            time.sleep(0.05)
        raise AssertionError("no memory was transferred")

    def autostart(self, host: str, guest: GuestSpec) -> bool:
        with self.lab.host(host).connected() as connection:
            return bool(connection.lookupByName(guest.name).autostart())


def host_settings(lab: Lab) -> tuple[HostSettings, ...]:
    return tuple(
        HostSettings(
            name=host.name,
            uri=host.uri,
            peer_uri=host.peer_uri,
            migration_uri=f"tcp://{host.migration_address}",
        )
        for host in lab.hosts
    )


@pytest.fixture
def settings() -> ActSettings:
    return SETTINGS


@pytest.fixture
def acting(lab: Lab, settings: ActSettings, tmp_path: Path) -> Iterator[Acting]:
    lab.up()
    hosts, observe, clock = host_settings(lab), ObserveSettings(), SystemClock()
    read, write = LibvirtRead(hosts, observe, clock), LibvirtWrite(hosts, observe, clock)
    ledger = Trail(f"sqlite:///{tmp_path}/ledger.sqlite", clock)
    executor = Executor(read=read, write=write, ledger=ledger, clock=clock, settings=settings)
    stop = threading.Event()
    watcher = threading.Thread(target=executor.run_watch, args=(stop,))
    watcher.start()
    try:
        yield Acting(lab, read, executor, ledger)
    finally:
        stop.set()
        watcher.join(10)
        write.close()
        read.close()
        ledger.close()
        for host in lab.hosts:
            lab.shape(host.name)
        lab.up()


def wait_for(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "condition did not come true in time"
        time.sleep(0.1)


@pytest.mark.parametrize("disk_mib", [0, 16])
def test_a_move_keeps_the_guest_and_its_autostart(
    acting: Acting, make_guest: Callable[..., GuestSpec], disk_mib: int
) -> None:
    """It counts on without a restart, with and without a writable network disk; what belongs to it is as before."""
    guest = make_guest(host="h1", disk_mib=disk_mib, autostart=True, phases=BUSY)
    before = acting.lab.counter(guest.name)

    record = acting.verdict(acting.move(guest, "h2"))

    assert record.state is MigrationState.SUCCEEDED, record
    assert acting.lab.find(guest.name) == "h2"
    assert record.autostart_restored is True
    assert acting.autostart("h2", guest)
    assert acting.read.locate("h1", record.vm_uuid) is DomainState.ABSENT
    assert record.completion is not None
    assert record.completion.downtime_seconds is not None
    wait_for(lambda: acting.lab.counter(guest.name).count > before.count + 2)
    assert acting.lab.counter(guest.name).boot_id == before.boot_id
    if disk_mib:
        at = acting.lab.disk_counter(guest.name).count
        wait_for(lambda: acting.lab.disk_counter(guest.name).count > at)
    assert acting.ledger.states(record)[:2] == ["intent", "running"]


def test_a_transient_guest_stays_transient(acting: Acting, make_guest: Callable[..., GuestSpec]) -> None:
    guest = make_guest(host="h1", persistent=False)
    record = acting.verdict(acting.move(guest, "h3"))

    assert record.state is MigrationState.SUCCEEDED, record
    with acting.lab.host("h3").connected() as connection:
        assert not connection.lookupByName(guest.name).isPersistent()


@pytest.mark.lab_full
@pytest.mark.parametrize("settings", [replace(SETTINGS, stall_seconds=4.0)], ids=["stall-4s"])
def test_a_transfer_that_does_not_converge_is_aborted(acting: Acting, make_guest: Callable[..., GuestSpec]) -> None:
    """By the stall test; the VM runs on its source, the destination is clean."""
    guest = make_guest(host="h1", phases=HEAVY)
    before = acting.lab.counter(guest.name)
    acting.lab.shape("h1", rate_mbit=120)

    record = acting.verdict(acting.move(guest, "h2"), timeout=90)

    assert record.state is MigrationState.ABORTED, record
    assert "does not converge" in record.reason
    assert acting.ledger.states(record)[-2:] == ["aborting", "aborted"]
    assert acting.lab.find(guest.name) == "h1"
    assert acting.read.locate("h1", record.vm_uuid) is DomainState.RUNNING
    assert acting.read.locate("h2", record.vm_uuid) is DomainState.ABSENT
    wait_for(lambda: acting.lab.counter(guest.name).count > before.count + 2)
    assert acting.lab.counter(guest.name).boot_id == before.boot_id


def test_a_destination_libvirtd_that_dies_leaves_the_vm_on_its_source(
    acting: Acting, make_guest: Callable[..., GuestSpec]
) -> None:
    guest = make_guest(host="h1", phases=HEAVY)
    before = acting.lab.counter(guest.name)
    acting.lab.shape("h1", rate_mbit=40)
    record = acting.move(guest, "h2")
    acting.wait_flowing(record)
    acting.lab.kill_libvirtd("h2", signal.SIGKILL)

    record = acting.verdict(record)

    assert record.state is MigrationState.FAILED, record
    assert acting.read.locate("h1", record.vm_uuid) is DomainState.RUNNING
    memory = recall(
        acting.ledger.migrations(), operator=OperatorState(), now=SystemClock().wall(), settings=GuardSettings()
    )
    assert "h2" in memory.quarantined
    assert "h1" not in memory.quarantined
    wait_for(lambda: acting.lab.counter(guest.name).count > before.count + 2)
    assert acting.lab.counter(guest.name).boot_id == before.boot_id


def test_a_new_executor_adopts_what_the_old_one_left(acting: Acting, make_guest: Callable[..., GuestSpec]) -> None:
    """The watch ends, the migration does not; the one that adopts it finds it, starts nothing, and finishes the job."""
    guest = make_guest(host="h1", phases=BUSY, autostart=True)
    acting.lab.shape("h1", rate_mbit=100)
    plan = acting.plan(guest, "h1", "h2")
    hosts, observe, clock = host_settings(acting.lab), ObserveSettings(), SystemClock()
    write = LibvirtWrite(hosts, observe, clock)
    left = Executor(read=acting.read, write=write, ledger=acting.ledger, clock=clock, settings=SETTINGS)
    record = left.start(plan.steps[0], plan, facts=acting.facts(guest))
    assert isinstance(record, MigrationRecord), record
    wait_for(lambda: acting.read.progress("h1", record.vm_uuid) is not None)

    (adopted,) = acting.executor.adopt()

    assert adopted.adopted
    again = acting.executor.start(plan.steps[0], plan, facts=acting.facts(guest))
    assert isinstance(again, Refusal)
    final = acting.verdict(record)
    assert final.state is MigrationState.SUCCEEDED, final
    assert [r.id for r in acting.ledger.migrations(vm_uuid=record.vm_uuid)] == [record.id]
    assert final.autostart_restored is True
    assert acting.autostart("h2", guest)
    write.close()


def test_a_move_by_hand_between_plan_and_start(acting: Acting, make_guest: Callable[..., GuestSpec]) -> None:
    guest = make_guest(host="h1", boot=False)
    plan, facts = acting.plan(guest, "h1", "h2"), acting.facts(guest)
    acting.verdict(acting.move(guest, "h3"))

    refusal = acting.executor.start(plan.steps[0], plan, facts=facts)

    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.NOT_ON_SOURCE
    assert "runs on h3" in refusal.detail


def test_a_namesake_on_the_destination_refuses(acting: Acting, make_guest: Callable[..., GuestSpec]) -> None:
    """An inactive domain of that name is enough."""
    guest = make_guest(host="h1", boot=False)
    with acting.lab.host("h2").connected() as connection:
        namesake = connection.defineXML(
            f"<domain type='qemu'><name>{guest.name}</name><memory unit='MiB'>64</memory>"
            "<os><type arch='x86_64'>hvm</type></os></domain>"
        )
        try:
            plan = acting.plan(guest, "h1", "h2")
            refusal = acting.executor.start(plan.steps[0], plan, facts=acting.facts(guest))
        finally:
            namesake.undefine()

    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.NAME_CLASH


def test_facts_that_changed_refuse(acting: Acting, make_guest: Callable[..., GuestSpec]) -> None:
    guest = make_guest(host="h1", boot=False)
    plan = acting.plan(guest, "h1", "h2")
    refusal = acting.executor.start(plan.steps[0], plan, facts=replace(acting.facts(guest), vcpus=3))

    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.PLAN_STALE
    assert "vcpus" in refusal.detail
