"""Observing real hosts over read-only connections: a busy guest's rates, its dirty rate, a migration by other hands."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from rebalancerd.clock import SystemClock
from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm
from rebalancerd.lab import GuestSpec, Lab, Phase
from rebalancerd.observe.history import VM_CPU, History, Tier
from rebalancerd.observe.libvirt_connection import open_read_only
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.observer import Observer
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import HostUnreachableError

SETTINGS = ObserveSettings(call_deadline_seconds=20.0, probe_periods_seconds=(1, 3))
BUSY = (Phase(seconds=3600, cpu_percent=60, working_set_mib=40, dirty_mib_per_second=8),)


def host_settings(lab: Lab) -> tuple[HostSettings, ...]:
    return tuple(HostSettings(name=h.name, uri=h.uri, cores=lab.spec.cpu_quota_cores) for h in lab.hosts)


@pytest.fixture
def read(lab: Lab) -> Iterator[LibvirtRead]:
    reader = LibvirtRead(host_settings(lab), SETTINGS, SystemClock())
    yield reader
    reader.close()


@pytest.fixture
def probe(lab: Lab) -> Iterator[LibvirtProbe]:
    prober = LibvirtProbe(host_settings(lab), SETTINGS, SystemClock())
    yield prober
    prober.close()


@pytest.fixture
def observer(lab: Lab, read: LibvirtRead, probe: LibvirtProbe, tmp_path: Path) -> Iterator[Observer]:
    watcher = Observer(
        hosts=host_settings(lab),
        settings=SETTINGS,
        read=read,
        probe=probe,
        history=History(tmp_path, tiers=(Tier(2.0, 100),)),
        clock=SystemClock(),
    )
    yield watcher
    watcher.close()


def look(observer: Observer) -> Snapshot:
    observer.sample()
    return observer.snapshot(operator=OperatorState(), ours=())


def until(observer: Observer, good: Callable[[Snapshot], bool], seconds: float = 60.0) -> Snapshot:
    deadline = time.monotonic() + seconds
    while True:
        seen = look(observer)
        if good(seen):
            return seen
        assert time.monotonic() < deadline, f"not seen within {seconds} s: {seen}"
        time.sleep(0.5)


def guest_in(lab: Lab, seen: Snapshot, guest: GuestSpec) -> Vm:
    return seen.vm_by_uuid[lab.spec.guest_uuid(guest.name)]


def test_a_busy_guest_is_measured_and_its_dirty_rate_probed(
    lab: Lab, make_guest: Callable[..., GuestSpec], observer: Observer
) -> None:
    """CPU, memory and host load of a busy guest; then two probe periods give a dirty curve that grows with time."""
    busy = make_guest(name="busy", host="h1", memory_mib=192, phases=BUSY)
    idle = make_guest(name="idle", host="h2")
    seen = until(
        observer,
        lambda s: not s.warming_up and (s.vm_by_uuid[lab.spec.guest_uuid("busy")].load.cpu_cores or 0) > 0.2,
    )
    assert all(host.usable for host in seen.hosts), [host.unusable for host in seen.hosts]
    assert len({host.facts.uuid for host in seen.hosts if host.facts}) == len(lab.hosts)
    vm = guest_in(lab, seen, busy)
    assert vm.host == "h1"
    assert vm.state is DomainState.RUNNING
    assert vm.facts.immovable == ()
    assert vm.facts.machine in (seen.host("h2").facts.machine_types or ())  # type: ignore[union-attr]
    assert vm.load.memory_bytes is not None
    assert 64 * 2**20 < vm.load.memory_bytes < 2**30
    quiet = guest_in(lab, seen, idle).load.cpu_cores
    assert quiet is None or quiet < (vm.load.cpu_cores or 0)
    assert (seen.host("h1").load.cpu_cores or 0) > (seen.host("h2").load.cpu_cores or 0)

    def probed(s: Snapshot) -> bool:
        observer.probe_tick()
        curve = s.vm_by_uuid[lab.spec.guest_uuid("busy")].dirty
        return curve is not None and len(curve.points) == 2

    curve = guest_in(lab, until(observer, probed), busy).dirty
    assert curve is not None
    short, longer = curve.points
    assert (short.period_seconds, longer.period_seconds) == (1.0, 3.0)
    assert 2**20 < short.unique_bytes < 120 * 2**20
    assert longer.unique_bytes > short.unique_bytes - short.standard_error_bytes
    assert vm.uuid in observer.series(VM_CPU).ids


def test_a_migration_by_other_hands_is_seen_in_flight_and_its_figures_are_kept(
    lab: Lab, make_guest: Callable[..., GuestSpec], observer: Observer, read: LibvirtRead
) -> None:
    """virsh migrates a guest over a slow link: one VM on the source, one foreign migration; then it stands on the other."""
    guest = make_guest(name="roamer", host="h1", memory_mib=160)
    uuid = lab.spec.guest_uuid("roamer")
    until(observer, lambda s: not s.warming_up and uuid in s.vm_by_uuid)
    source, destination = lab.host("h1"), lab.host("h2")
    failures: list[libvirt.libvirtError] = []

    def migrate() -> None:
        flags = (
            libvirt.VIR_MIGRATE_LIVE
            | libvirt.VIR_MIGRATE_PEER2PEER
            | libvirt.VIR_MIGRATE_PERSIST_DEST
            | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        )
        params = {
            libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{destination.migration_address}",
            libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 8,
        }
        with source.connected() as connection:
            try:
                connection.lookupByUUIDString(uuid).migrateToURI3(destination.peer_uri, params, flags)
            except libvirt.libvirtError as error:
                failures.append(error)

    thread = threading.Thread(target=migrate)
    thread.start()
    try:
        seen = until(observer, lambda s: any(f.destination == "h2" for f in s.in_flight), seconds=40)
        (flight,) = (f for f in seen.in_flight if f.vm_uuid == uuid)
        assert (flight.source, flight.destination, flight.ours) == ("h1", "h2", False)
        vm = guest_in(lab, seen, guest)
        assert vm.host == "h1"
        assert vm.busy is not None
        progress = read.progress("h1", uuid)
        assert progress is None or progress.elapsed_seconds >= 0
        assert read.locate("h2", uuid) in (DomainState.PAUSED_MIGRATION, DomainState.RUNNING)
    finally:
        thread.join(120)
    assert not failures, failures
    seen = until(observer, lambda s: s.vm_by_uuid[uuid].host == "h2" and not s.in_flight)
    assert guest_in(lab, seen, guest).state is DomainState.RUNNING
    assert read.locate("h1", uuid) is DomainState.ABSENT
    done = read.completion("h1", uuid) or read.completion("h2", uuid)
    assert done is not None
    assert (done.total_seconds or 0) > 0.5
    assert (done.transferred_bytes or 0) > 2**20
    assert done.downtime_seconds is not None


def test_facts_are_read_anew_and_cpus_compared(
    lab: Lab, make_guest: Callable[..., GuestSpec], read: LibvirtRead, probe: LibvirtProbe
) -> None:
    """Autostart, which raises no event, is read at once; a policy in the metadata arrives; a CPU comparison answers."""
    policy = '<policy xmlns="urn:rebalancerd:policy:1" mode="guarded" priority="3"><avoid host="h3"/></policy>'
    make_guest(name="facts", host="h1", metadata_xml=policy)
    uuid = lab.spec.guest_uuid("facts")
    facts = read.domain_facts("h1", uuid)
    assert facts is not None
    assert (facts.autostart, facts.persistent, facts.has_managed_save) == (False, True, False)
    assert (facts.policy.mode, facts.policy.priority, facts.policy.avoid) == ("guarded", 3, frozenset({"h3"}))
    with lab.host("h1").connected() as connection:
        connection.lookupByUUIDString(uuid).setAutostart(1)
    again = read.domain_facts("h1", uuid)
    assert again is not None
    assert again.autostart is True
    assert read.domain_facts("h2", uuid) is None
    fit, detail = probe.cpu_fit(uuid, "h1", "h2")
    assert fit in (CpuFit.COMPATIBLE, CpuFit.UNKNOWN), detail
    inventory = read.inventory("h1")
    assert uuid in {domain[0] for domain in inventory.domains}
    assert inventory.host_uuid == lab.spec.host_uuid("h1")


def test_read_only_connections_cannot_change_anything(lab: Lab, make_guest: Callable[..., GuestSpec]) -> None:
    """The connections that observing opens are refused every change by libvirtd itself (code 29)."""
    make_guest(name="safe", host="h1", boot=False)
    connection = open_read_only(host_settings(lab)[0])
    try:
        domain = connection.lookupByUUIDString(lab.spec.guest_uuid("safe"))
        for change in (lambda: domain.setAutostart(1), lambda: domain.startDirtyRateCalc(1, 0), domain.abortJob):
            with pytest.raises(libvirt.libvirtError) as refused:
                change()
            assert refused.value.get_error_code() == 29
    finally:
        connection.close()


def test_a_host_whose_libvirtd_dies_costs_only_itself_and_comes_back(
    lab: Lab, make_guest: Callable[..., GuestSpec], observer: Observer, read: LibvirtRead
) -> None:
    """Killed libvirtd: that host is unusable and its guest still counted; restarted: sampled again by itself."""
    make_guest(name="stays", host="h2", boot=False)
    uuid = lab.spec.guest_uuid("stays")
    until(observer, lambda s: uuid in s.vm_by_uuid)
    lab.kill_libvirtd("h2")
    try:
        seen = look(observer)
        assert "unreachable" in (seen.host("h2").unusable or "")
        assert seen.host("h1").unusable is None
        assert seen.vm_by_uuid[uuid].host == "h2"
        with pytest.raises(HostUnreachableError, match="h2"):
            read.locate("h2", uuid)
    finally:
        lab.start_libvirtd("h2")
    seen = until(
        observer, lambda s: s.host("h2").age_seconds is not None and "unreachable" not in (s.host("h2").unusable or "")
    )
    assert seen.vm_by_uuid[uuid].host == "h2"


def test_a_host_that_hangs_costs_its_own_deadline(lab: Lab, tmp_path: Path) -> None:
    """A stopped libvirtd answers nothing and closes nothing: the tick ends, the others are sampled, it comes back."""
    hosts = host_settings(lab)
    settings = ObserveSettings(call_deadline_seconds=2.0)
    reader = LibvirtRead(hosts, settings, SystemClock())
    watcher = Observer(
        hosts=hosts, settings=settings, read=reader, history=History(tmp_path, tiers=(Tier(2.0, 9),)), clock=SystemClock()
    )  # fmt: skip
    until(watcher, lambda s: all(h.unusable is None for h in s.hosts))
    lab.kill_libvirtd("h2", signal.SIGSTOP)
    try:
        for _ in range(3):
            begun = time.monotonic()
            seen = look(watcher)
            assert time.monotonic() - begun < 14, "one connection attempt and one call at most"
            assert "unreachable" in (seen.host("h2").unusable or "")
            assert [seen.host(name).unusable for name in ("h1", "h3")] == [None, None]
        assert threading.active_count() < 40
    finally:
        lab.kill_libvirtd("h2", signal.SIGCONT)
    until(watcher, lambda s: "unreachable" not in (s.host("h2").unusable or ""), seconds=90)
    watcher.close()
    reader.close()
