"""Observe mode on real hosts: it works where no read-write connection can be made, and libvirtd itself refuses it changes."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from rebalancerd import config as configuration
from rebalancerd.act.executor import Executor
from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.cluster.decision import CycleRecord, OperatorState
from rebalancerd.cluster.policy import Mode
from rebalancerd.daemon import Daemon
from rebalancerd.lab import GuestSpec, Lab, Phase
from rebalancerd.observe.libvirt_connection import HostLink
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from tests.lab.daemon_on_lab import DaemonOnLab
from tests.reachable import of_kind

OPERATION_DENIED = 29
BUSY = (Phase(seconds=600, cpu_percent=60, working_set_mib=16, dirty_mib_per_second=1),)


@pytest.fixture
def signals() -> Iterator[None]:
    """The daemon takes the process's signals over; here they are given back."""
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run_until(daemon: Daemon, good: Callable[[], bool], seconds: float) -> int:
    """Run the daemon in this thread until ``good``, which is looked at beside it; its exit code."""
    came: list[bool] = []

    def beside() -> None:
        deadline = time.monotonic() + seconds
        try:
            while not (good() or time.monotonic() > deadline):
                time.sleep(0.1)
            came.append(good())
        finally:
            daemon.stop()

    thread = threading.Thread(target=beside)
    thread.start()
    code = daemon.run()
    thread.join()
    assert came == [True], f"not within {seconds} s"
    return code


@pytest.mark.usefixtures("signals")
def test_observe_mode_works_where_read_write_connections_are_forbidden(
    lab: Lab, make_guest: Callable[..., GuestSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampling, cycles and a busy guest's load; the write calls of its own connections are refused with code 29."""
    make_guest(name="watched", host="h1", boot=False, phases=BUSY)
    uuid = lab.spec.guest_uuid("watched")
    asked: list[object] = []

    def forbidden(*words: object) -> None:
        asked.append(words)
        raise AssertionError("a read-write connection was asked for")

    path = DaemonOnLab(lab, tmp_path, mode="observe").config
    path.write_text(path.read_text().replace("sample = 2\nprobe = 3\ndecide = 3", "sample = 1\nprobe = 1\ndecide = 1"))
    with monkeypatch.context() as patch:
        patch.setattr(libvirt, "open", forbidden)
        patch.setattr(libvirt, "openAuth", forbidden)
        daemon = Daemon(path, configuration.load(path))
        heard: list[CycleRecord] = []
        refused: list[int] = []
        daemon.on_cycle.append(heard.append)

        def seen() -> bool:
            if not heard or not heard[-1].hosts:
                return False
            vm = daemon.observer.snapshot(operator=OperatorState(), ours=()).vm_by_uuid.get(uuid)
            if vm is None or (vm.load.cpu_cores or 0) < 0.05:
                return False
            refused.extend(refusals(daemon, uuid))
            return True

        assert run_until(daemon, seen, 30) == 0

    assert asked == []
    assert heard[-1].mode is Mode.OBSERVE
    assert {p.host: p.vms for p in heard[-1].hosts}["h1"] == 1
    assert not [p.unusable for p in heard[-1].hosts if p.unusable]
    assert refused
    assert set(refused) == {OPERATION_DENIED}
    assert daemon.ledger.migrations() == ()
    daemon.ledger.close()
    assert lab.find("watched") == "h1"
    assert of_kind(daemon, LibvirtWrite, LibvirtProbe, Executor) == []


def refusals(daemon: Daemon, uuid: str) -> list[int]:
    """Codes with which a harmless change is refused on every connection that reading has open and that has the VM."""
    codes = []
    for link in of_kind(daemon, HostLink):
        if link.host != "h1" or link._connection is None:
            continue
        try:
            link.call("a change", lambda connection: connection.lookupByUUIDString(uuid).migrateSetMaxDowntime(500, 0))
        except Exception as error:  # noqa: BLE001 - the code is what is asserted
            codes.append(getattr(error, "code", -1))
        else:
            codes.append(0)
    return codes
