"""The reader on a scripted libvirt: what it asks, how often, and what one odd domain costs."""

import ast
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pytest
from observe_world import UUIDS, HandClock

from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import HostError

ROOT = Path(__file__).parents[3] / "rebalancerd"
NO_SUPPORT, NO_DOMAIN = libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_DOMAIN


def failure(code: int) -> libvirt.libvirtError:
    made = libvirt.libvirtError("x")
    made.err = (code, 10, "said libvirt", 2, "", "", "", 0, 0)
    return made


@dataclass
class FakeDomain:
    connection: "FakeLibvirt"
    uuid: str
    name_: str = "vm"
    xml: str = ""
    auto: int = 0
    job: dict[str, object] = field(default_factory=lambda: {"type": 0})
    completed: dict[str, object] = field(default_factory=lambda: {"type": 0})
    stats: dict[str, object] = field(default_factory=lambda: {"state.state": 1, "state.reason": 1, "cpu.time": 7})

    def __post_init__(self) -> None:
        self.xml = self.xml or (
            f"<domain type='kvm'><name>{self.name_}</name><uuid>{self.uuid}</uuid><memory>1024</memory></domain>"
        )

    def UUIDString(self) -> str:
        return self.uuid

    def name(self) -> str:
        return self.name_

    def connect(self) -> "FakeLibvirt":
        return self.connection

    def XMLDesc(self, flags: int) -> str:
        self.connection.calls.append(f"xml {self.uuid[-1]}")
        assert flags == 0, "a read-only client may ask for nothing else"
        return self.xml

    def isPersistent(self) -> int:
        return 1

    def autostart(self) -> int:
        return self.auto

    def hasManagedSaveImage(self, flags: int) -> int:
        return 0

    def snapshotNum(self, flags: int) -> int:
        raise failure(NO_SUPPORT)

    def state(self) -> list[int]:
        return [1, 1]

    def jobStats(self, flags: int = 0) -> dict[str, object]:
        self.connection.calls.append(f"job {self.uuid[-1]} {flags}")
        return self.completed if flags else self.job


class FakeLibvirt:
    """Just enough of a virConnect."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.flags: list[tuple[int, int]] = []
        self.events: dict[int, object] = {}
        self.domains: list[FakeDomain] = []

    def setKeepAlive(self, *_: int) -> None: ...

    def registerCloseCallback(self, *_: object) -> None: ...

    def isAlive(self) -> bool:
        return True

    def domainEventRegisterAny(self, domain: object, event: int, callback: object, opaque: object) -> int:
        self.events[event] = callback
        return event

    def emit(self, event: str, domain: FakeDomain, *details: object) -> None:
        self.events[getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{event}")](self, domain, *details, None)  # type: ignore[operator]

    def getAllDomainStats(self, stats: int, flags: int) -> list[tuple[FakeDomain, dict[str, object]]]:
        self.calls.append("bulk")
        self.flags.append((stats, flags))
        return [(domain, domain.stats) for domain in self.domains]

    def getCPUStats(self, cpu: int, flags: int) -> dict[str, int]:
        return {"kernel": 3, "user": 4, "idle": 5, "iowait": 6}

    def getMemoryStats(self, cell: int, flags: int) -> dict[str, int]:
        return {"total": 4 * MIB, "free": MIB, "buffers": 0, "cached": MIB}

    def getInfo(self) -> list[object]:
        return ["x86_64", 4096, 8, 0, 1, 1, 8, 1]

    def getCapabilities(self) -> str:
        self.calls.append("capabilities")
        return (
            "<capabilities><host><uuid>ABC</uuid><cpu><arch>x86_64</arch><model>Skylake</model></cpu></host>"
            "<guest><arch name='x86_64'><machine>q35</machine><machine>pc</machine></arch></guest>"
            "<guest><arch name='aarch64'><machine>virt</machine></arch></guest></capabilities>"
        )

    def listAllNetworks(self, flags: int) -> list[object]:
        raise failure(libvirt.VIR_ERR_OPERATION_DENIED)

    def getLibVersion(self) -> int:
        return 9_000_000

    def getVersion(self) -> int:
        return 7_002_000

    def lookupByUUIDString(self, uuid: str) -> FakeDomain:
        for domain in self.domains:
            if domain.uuid == uuid:
                return domain
        raise failure(NO_DOMAIN)


@pytest.fixture
def host() -> FakeLibvirt:
    made = FakeLibvirt()
    made.domains = [FakeDomain(made, UUIDS[0]), FakeDomain(made, UUIDS[1])]
    return made


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def read(host: FakeLibvirt, clock: HandClock) -> LibvirtRead:
    return LibvirtRead([HostSettings(name="h1", uri="qemu:///system")], ObserveSettings(), clock, opener=lambda _: host)


def test_one_bulk_call_a_tick_without_waiting_and_facts_from_the_cache(host: FakeLibvirt, read: LibvirtRead) -> None:
    read.sample("h1")
    assert host.calls.count("xml 0") == 1
    host.calls.clear()
    for _ in range(3):
        read.sample("h1")
    assert host.calls == ["bulk"] * 3, "nothing else is asked of a quiet host"
    stats, flags = host.flags[-1]
    wanted = ("STATE", "CPU_TOTAL", "BALLOON", "VCPU", "INTERFACE", "BLOCK", "DIRTYRATE")
    assert stats == sum(getattr(libvirt, f"VIR_DOMAIN_STATS_{g}") for g in wanted)
    active, nowait = "VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE", "VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT"
    assert flags == getattr(libvirt, active) | getattr(libvirt, nowait), "paused ones too: an incoming copy is one"


def test_host_figures(read: LibvirtRead) -> None:
    sample = read.sample("h1")
    assert (sample.cpu_busy_ns, sample.memory_total_bytes, sample.memory_available_bytes) == (7, 4 * GIB, 2 * GIB)
    assert sample.facts.machine_types == {"q35", "pc"}
    assert (sample.facts.uuid, sample.facts.cpu_model, sample.facts.cpus) == ("abc", "Skylake", 8)
    assert sample.facts.networks is None, "no right to list them is unknown, not none"


def test_facts_are_read_anew_on_change_and_every_few_minutes(
    host: FakeLibvirt, read: LibvirtRead, clock: HandClock
) -> None:
    read.sample("h1")
    host.calls.clear()
    host.domains[1].xml = host.domains[1].xml.replace("1024", "2048")
    host.emit("METADATA_CHANGE", host.domains[1], 0, "uri")
    sample = read.sample("h1")
    assert [c for c in host.calls if c.startswith("xml")] == ["xml 1"]
    assert sample.domains[1].facts is not None
    assert sample.domains[1].facts.memory_bytes == 2 * MIB
    host.domains[0].stats["vcpu.current"] = 4  # plugged in: raises no event
    host.calls.clear()
    read.sample("h1")
    assert "xml 0" in host.calls
    host.calls.clear()
    clock.sleep(301.0)
    read.sample("h1")
    assert {"xml 0", "xml 1", "capabilities"} <= set(host.calls)


def test_autostart_is_read_at_once(host: FakeLibvirt, read: LibvirtRead) -> None:
    read.sample("h1")
    host.domains[0].auto = 1
    facts = read.domain_facts("h1", UUIDS[0])
    assert facts is not None
    assert facts.autostart is True
    assert read.domain_facts("h1", UUIDS[9]) is None


def test_an_odd_domain_costs_only_itself(host: FakeLibvirt, read: LibvirtRead) -> None:
    host.domains[0].xml = "<!DOCTYPE x><domain/>"
    host.domains.append(FakeDomain(host, UUIDS[2], stats={}))
    host.domains.append(FakeDomain(host, UUIDS[3], stats={"state.state": "running", "cpu.time": "many"}))
    sample = read.sample("h1")
    assert [d.facts is not None for d in sample.domains] == [False, True, True, True]
    assert "DOCTYPE" in (sample.domains[0].fault or "")
    assert sample.domains[0].cpu_time_ns == 7
    assert (sample.domains[1].fault, sample.domains[1].state) == (None, DomainState.RUNNING)
    assert sample.domains[2].fault == "libvirt gave no statistics"
    assert sample.domains[3].cpu_time_ns is None


def test_xml_of_another_domain_is_not_believed(host: FakeLibvirt, read: LibvirtRead) -> None:
    host.domains[0].xml = host.domains[1].xml
    assert "another UUID" in (read.sample("h1").domains[0].fault or "")


def test_jobs_are_asked_of_new_connections_and_after_events_only(host: FakeLibvirt, read: LibvirtRead) -> None:
    read.sample("h1")
    assert sorted(c for c in host.calls if c.startswith("job")) == ["job 0 0", "job 1 0"], "what runs since before us"
    host.calls.clear()
    host.domains[0].job = {"type": 2, "operation": 5}
    assert read.sample("h1").domains[0].job is None
    host.emit("MIGRATION_ITERATION", host.domains[0], 2)
    assert [d.job for d in read.sample("h1").domains] == ["migration out", None]
    host.domains[0].job = {"type": 0}
    assert read.sample("h1").domains[0].job is None
    host.calls.clear()
    read.sample("h1")
    assert host.calls == ["bulk"]


def test_completions_come_from_the_event_or_the_destination(host: FakeLibvirt, read: LibvirtRead) -> None:
    read.sample("h1")
    assert read.completion("h1", UUIDS[0]) is None
    host.emit("JOB_COMPLETED", host.domains[0], {"operation": 5, "time_elapsed": 4000, "downtime": 90})
    done = read.completion("h1", UUIDS[0])
    assert done is not None
    assert (done.total_seconds, done.downtime_seconds) == (4.0, 0.09)
    host.domains[1].completed = {"type": libvirt.VIR_DOMAIN_JOB_COMPLETED, "operation": 4, "time_elapsed": 2000}
    asked = read.completion("h1", UUIDS[1])
    assert asked is not None
    assert asked.total_seconds == 2.0
    kept = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    assert f"job 1 {kept}" in host.calls, "reading must not destroy it for others"


def test_figures_of_an_earlier_migration_are_not_given_for_a_later_one(host: FakeLibvirt, read: LibvirtRead) -> None:
    read.sample("h1")
    host.emit("JOB_COMPLETED", host.domains[0], {"operation": 5, "time_elapsed": 4000})
    host.emit("MIGRATION_ITERATION", host.domains[0], 1)
    assert read.completion("h1", UUIDS[0]) is None


def test_a_domain_that_came_back_tells_of_its_return(host: FakeLibvirt, read: LibvirtRead) -> None:
    """The event is of the migration by which it left this host earlier."""
    read.sample("h1")
    host.emit("JOB_COMPLETED", host.domains[0], {"operation": 5, "time_elapsed": 4000})
    host.domains[0].completed = {"type": libvirt.VIR_DOMAIN_JOB_COMPLETED, "operation": 4, "time_elapsed": 2000}
    done = read.completion("h1", UUIDS[0])
    assert done is not None
    assert done.total_seconds == 2.0


def test_a_domain_that_is_off_has_no_job(host: FakeLibvirt, read: LibvirtRead, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt refuses the question for one that does not run: that is an answer, and the host is there."""

    def off(_domain: FakeDomain, _flags: int = 0) -> dict[str, object]:
        raise failure(libvirt.VIR_ERR_OPERATION_INVALID)

    monkeypatch.setattr(FakeDomain, "jobStats", off)
    assert read.progress("h1", UUIDS[0]) is None

    def broken(_domain: FakeDomain, _flags: int = 0) -> dict[str, object]:
        raise failure(libvirt.VIR_ERR_OPERATION_FAILED)

    monkeypatch.setattr(FakeDomain, "jobStats", broken)
    with pytest.raises(HostError):
        read.progress("h1", UUIDS[0])


def test_other_jobs_that_end_are_no_completion(host: FakeLibvirt, read: LibvirtRead) -> None:
    read.sample("h1")
    host.emit("JOB_COMPLETED", host.domains[0], {"operation": 6, "time_elapsed": 4000})
    host.emit("JOB_COMPLETED", host.domains[0], "nonsense")
    assert read.completion("h1", UUIDS[0]) is None


def test_on_a_slow_link_reading_xml_leaves_time_for_the_rest(
    host: FakeLibvirt, read: LibvirtRead, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds of a deadline of five go to XML; what is left waits for the next tick."""
    original = FakeDomain.XMLDesc

    def slowly(self: FakeDomain, flags: int) -> str:
        clock.sleep(1.5)
        return original(self, flags)

    monkeypatch.setattr(FakeDomain, "XMLDesc", slowly)
    host.domains += [FakeDomain(host, UUIDS[n]) for n in (2, 3, 4)]
    assert sum(d.facts is not None for d in read.sample("h1").domains) == 2
    assert sum(d.facts is not None for d in read.sample("h1").domains) == 4
    assert all(d.facts is not None for d in read.sample("h1").domains)


def names_used(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}


def test_only_the_probe_and_the_writer_can_open_a_connection_that_changes_things() -> None:
    """By source: who names open_read_write, and who calls libvirt.open at all."""
    openers, raw = set(), set()
    for path in ROOT.rglob("*.py"):
        relative = path.relative_to(ROOT).as_posix()
        if "open_read_write" in names_used(path):
            openers.add(relative)
        tree = ast.parse(path.read_text())
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in ("open", "openAuth")]
        if any(isinstance(n.value, ast.Name) and n.value.id == "libvirt" for n in calls):
            raw.add(relative)
    assert {o for o in openers if not o.startswith("act/libvirt_")} == {"observe/libvirt_probe.py"}
    assert {r for r in raw if not r.startswith("lab/")} <= {"observe/libvirt_connection.py"}
