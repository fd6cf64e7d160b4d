"""The libvirt writer on a scripted connection: flags, parameters, threads, rights, and what is never handed over."""

import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rebalancerd.act.cause import way_failed
from rebalancerd.act.libvirt_write import HAND_OVER_SECONDS, LibvirtWrite, migrate_flags, migrate_parameters, whole_mib
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.units import MIB
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import HostRefusedError, HostUnreachableError
from tests.unit.act.act_world import VM, ActClock

libvirt = pytest.importorskip("libvirt")

HOSTS = (
    HostSettings(name="a", uri="qemu+ssh://a/system", migration_uri="tcp://10.0.0.1"),
    HostSettings(name="b", uri="qemu+ssh://b/system", migration_uri="tcp://10.0.0.2", peer_uri="qemu+tls://b/system"),
    HostSettings(name="c", uri="qemu+unix:///system?socket=/run/c", migration_uri="tcp://10.0.0.3"),
    HostSettings(name="d", uri="qemu+ssh://d/system"),
)
RECORD = MigrationRecord(
    id="m-1", vm_uuid=VM, vm_name="web", source="a", destination="b", state=MigrationState.INTENT, intent_at=0.0
)


def libvirt_error(code: int, message: str = "scripted") -> Exception:
    error = libvirt.libvirtError(message)
    error.err = (code, 10, message, 2, None, None, None, -1, -1)
    return error  # type: ignore[no-any-return]


class FakeDomain:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.release = threading.Event()
        self.fails: Exception | None = None
        self.autostart_fails: Exception | None = None
        self.active = False
        self.alive = True  # the connection that it was looked up on
        self.during: Callable[[], None] = lambda: None

    def migrateToURI3(self, *arguments: Any) -> None:
        self.calls.append(("migrate", *arguments))
        self.release.wait(5)
        if self.fails is not None:
            raise self.fails

    def connect(self) -> Any:
        return SimpleNamespace(isAlive=lambda: int(self.alive))

    def isActive(self) -> bool:
        return self.active

    def abortJob(self) -> None:
        self.calls.append(("abort",))

    def migrateSetMaxDowntime(self, *arguments: int) -> None:
        self.calls.append(("downtime", *arguments))

    def migrateSetMaxSpeed(self, *arguments: int) -> None:
        self.calls.append(("speed", *arguments))

    def setAutostart(self, flag: int) -> None:
        if self.autostart_fails is not None:
            raise self.autostart_fails
        self.calls.append(("autostart", flag))


class Hypervisor:
    """Counts connections; every one leads to the same domain."""

    def __init__(self) -> None:
        self.domain = FakeDomain()
        self.opened: list[str] = []
        self.refuses: Exception | None = None

    def open(self, host: HostSettings) -> Any:
        if self.refuses is not None:
            raise self.refuses
        self.opened.append(host.name)

        def look_up(_uuid: str) -> FakeDomain:
            self.domain.during()
            return self.domain

        return SimpleNamespace(
            lookupByUUIDString=look_up,
            isAlive=lambda: 1,
            setKeepAlive=lambda *_: 0,
            registerCloseCallback=lambda *_: 0,
            unregisterCloseCallback=lambda: 0,
            close=lambda: 0,
        )


def writer() -> tuple[LibvirtWrite, Hypervisor, ActClock]:
    hypervisor, clock = Hypervisor(), ActClock()
    return LibvirtWrite(HOSTS, ObserveSettings(), clock, opener=hypervisor.open), hypervisor, clock


def names(flags: int) -> set[str]:
    known = {n.removeprefix("VIR_MIGRATE_"): v for n, v in vars(libvirt).items() if n.startswith("VIR_MIGRATE_")}
    return {n for n, v in known.items() if isinstance(v, int) and flags & v}


def test_flags_of_a_persistent_domain_and_of_a_transient_one() -> None:
    plain = {"LIVE", "PEER2PEER", "ABORT_ON_ERROR"}
    assert names(migrate_flags(libvirt, MigrationOptions(), persistent=False)) == plain
    assert names(migrate_flags(libvirt, MigrationOptions(), persistent=True)) == plain | {
        "PERSIST_DEST",
        "UNDEFINE_SOURCE",
    }


def test_flags_by_option_and_no_others() -> None:
    options = MigrationOptions(auto_converge=True, postcopy=True, parallel=4, tls=True)
    flags = names(migrate_flags(libvirt, options, persistent=False))
    assert flags - {"LIVE", "PEER2PEER", "ABORT_ON_ERROR"} == {"AUTO_CONVERGE", "POSTCOPY", "PARALLEL", "TLS"}


def test_parameters_are_the_address_and_a_cap_in_mib() -> None:
    assert migrate_parameters(libvirt, MigrationOptions(), "tcp://x") == {"migrate_uri": "tcp://x"}
    capped = migrate_parameters(libvirt, MigrationOptions(bandwidth_bytes_per_second=52.5 * MIB, parallel=2), "tcp://x")
    assert capped == {"migrate_uri": "tcp://x", "bandwidth": 52, "parallel.connections": 2}
    assert whole_mib(100.0) == 1  # 0 would mean no limit


def test_a_migration_runs_on_its_own_thread_and_wakes_who_waits() -> None:
    write, hypervisor, _ = writer()
    came = threading.Event()
    handle = write.migrate(RECORD)
    handle.when_done(came.set)
    assert not handle.done()
    assert handle.error() is None
    hypervisor.domain.release.set()
    assert came.wait(5)
    assert handle.done()
    assert handle.error() is None
    late = threading.Event()
    handle.when_done(late.set)
    assert late.is_set()
    (call,) = hypervisor.domain.calls
    assert call[1] == "qemu+tls://b/system"
    assert call[2] == {"migrate_uri": "tcp://10.0.0.2"}
    write.close()


def test_the_error_it_returned_with_is_kept() -> None:
    write, hypervisor, _ = writer()
    hypervisor.domain.fails = libvirt_error(81)
    hypervisor.domain.release.set()
    came = threading.Event()
    handle = write.migrate(RECORD)
    handle.when_done(came.set)
    assert came.wait(5)
    error = handle.error()
    assert isinstance(error, HostRefusedError)
    assert error.code == 81
    write.close()


def test_without_a_path_nothing_is_handed_over() -> None:
    """No address for the memory, or a local URI that means another machine on every host."""
    write, hypervisor, _ = writer()
    for destination in ("c", "d"):
        with pytest.raises(HostRefusedError, match="URI is configured"):
            write.migrate(replace(RECORD, destination=destination))
    assert hypervisor.domain.calls == []
    write.close()


def test_a_remote_uri_of_ours_serves_the_peer_too() -> None:
    write, hypervisor, _ = writer()
    hypervisor.domain.release.set()
    handle = write.migrate(replace(RECORD, source="b", destination="a"))
    came = threading.Event()
    handle.when_done(came.set)
    assert came.wait(5)
    assert hypervisor.domain.calls[0][1] == "qemu+ssh://a/system"
    write.close()


def test_a_call_that_would_begin_too_late_is_not_begun() -> None:
    write, hypervisor, clock = writer()
    hypervisor.domain.during = lambda: clock.sleep(HAND_OVER_SECONDS + 1)
    came = threading.Event()
    handle = write.migrate(RECORD)
    handle.when_done(came.set)
    assert came.wait(5)
    assert "not begun" in str(handle.error())
    assert hypervisor.domain.calls == []
    write.close()


def test_the_right_to_set_autostart_is_tried_before_the_move() -> None:
    """By setting what is set: where that is refused, the migration is not handed over."""
    write, hypervisor, _ = writer()
    hypervisor.domain.autostart_fails = libvirt_error(88)
    with pytest.raises(HostRefusedError) as refused:
        write.migrate(replace(RECORD, autostart=True))
    assert refused.value.code == 88
    assert hypervisor.domain.calls == []
    hypervisor.domain.release.set()
    write.migrate(replace(RECORD, autostart=False))
    write.close()


def test_rights_on_a_host() -> None:
    write, hypervisor, _ = writer()
    assert write.may_set_autostart("b")
    hypervisor.refuses = libvirt_error(45)
    assert not write.may_set_autostart("a")
    hypervisor.refuses = libvirt_error(9)
    with pytest.raises(HostUnreachableError):
        write.may_set_autostart("d")
    write.close()


def test_short_calls_use_a_connection_of_their_own() -> None:
    """A migrate call blocks for minutes, and one client may have few requests open."""
    write, hypervisor, _ = writer()
    handle = write.migrate(RECORD)
    write.abort("a", VM)
    write.set_max_downtime("a", VM, 0.25)
    write.set_bandwidth("a", VM, 10 * MIB)
    write.set_autostart("a", VM, True)
    assert hypervisor.domain.calls[1:] == [("abort",), ("downtime", 250, 0), ("speed", 10, 0), ("autostart", 1)]
    assert hypervisor.opened == ["a", "a"]
    assert not handle.done()
    hypervisor.domain.release.set()
    write.close()


def test_a_definition_is_moved_offline_and_only_one_that_is_shut_off() -> None:
    write, hypervisor, _ = writer()
    hypervisor.domain.release.set()
    write.move_definition("a", "b", VM)
    ((_, uri, parameters, flags),) = hypervisor.domain.calls
    assert (uri, parameters) == ("qemu+tls://b/system", {})
    assert names(flags) == {"OFFLINE", "PEER2PEER", "PERSIST_DEST", "UNDEFINE_SOURCE"}
    hypervisor.domain.active = True
    with pytest.raises(HostRefusedError, match="started meanwhile"):
        write.move_definition("a", "b", VM)
    assert len(hypervisor.domain.calls) == 1
    hypervisor.domain.active, hypervisor.domain.fails = (
        False,
        libvirt_error(9, "cannot migrate domain with 2 snapshots"),
    )
    with pytest.raises(HostRefusedError, match="2 snapshots"):
        write.move_definition("a", "b", VM)


@pytest.mark.parametrize("alive", [True, False])
def test_the_sources_own_socket_is_told_from_the_one_it_could_not_open(alive: bool) -> None:
    """An error of the RPC layer is the source's word about the destination as long as the source is there."""
    write, hypervisor, _ = writer()
    hypervisor.domain.fails = libvirt_error(38, "unable to connect to server at 'b:16514'")
    hypervisor.domain.fails.err = (38, 7, *hypervisor.domain.fails.err[2:])  # type: ignore[attr-defined]
    hypervisor.domain.alive = alive
    hypervisor.domain.release.set()
    came = threading.Event()
    handle = write.migrate(RECORD)
    handle.when_done(came.set)
    assert came.wait(10)
    error = handle.error()

    assert type(error) is (HostRefusedError if alive else HostUnreachableError)
    assert way_failed(error, flowed=False, still_seconds=0.0) is alive
