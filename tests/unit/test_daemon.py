"""The daemon: one per state directory, ticks that cannot stop each other, systemd's protocol, reload, and its end."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rebalancerd import config as configuration
from rebalancerd import daemon as daemon_module
from rebalancerd import ending
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.cluster.migration import Completion, MigrationRecord, MigrationState, Progress
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.sample import HostSample
from rebalancerd.cluster.vm import DomainState
from rebalancerd.daemon import Daemon
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.file_lease import LeaseTakenError
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.sim.spec import HostSpec

PATIENCE_SECONDS = 20.0
VM = "6f1e5f0e-0000-4000-8000-000000000001"


@dataclass
class World:
    """What the fake ports answer, and what was asked of them."""

    asked: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    hang: threading.Event | None = None  # samples wait for it

    def count(self, call: str) -> int:
        return self.asked.count(call)


def fake_ports(world: World) -> tuple[type, type, type]:
    class FakePort:
        name = ""

        def __init__(self, hosts: Sequence[Any], _settings: object, *_clock: object) -> None:
            self._hosts = {h.name: HostSpec(name=h.name).facts() for h in hosts}

        def __getattr__(self, call: str) -> Callable[..., None]:
            if call.startswith("__"):
                raise AttributeError(call)
            return lambda *_, **__: world.asked.append(f"{self.name}.{call}")

        def close(self) -> None:
            world.closed.append(self.name)

    class FakeRead(FakePort):
        name = "read"

        def hosts(self) -> tuple[str, ...]:
            return tuple(self._hosts)

        def sample(self, host: str) -> HostSample:
            world.asked.append("read.sample")
            if world.hang is not None:
                world.hang.wait(60)
            now = time.monotonic()
            total = self._hosts[host].memory_bytes
            return HostSample(
                host=host,
                taken_at=now,
                facts=self._hosts[host],
                cpu_busy_ns=int(now * 1e9),
                memory_total_bytes=total,
                memory_available_bytes=total // 2,
                domains=(),
            )

        def locate(self, host: str, _vm_uuid: str) -> DomainState:
            return DomainState.RUNNING if host == "h1" else DomainState.PAUSED_MIGRATION

        def progress(self, host: str, _vm_uuid: str) -> Progress | None:
            world.asked.append("read.progress")
            moved = int(time.monotonic() * 1e6) % 2**40
            if host != "h1":
                return None
            return Progress(
                elapsed_seconds=1.0, total_bytes=2**40, processed_bytes=moved, remaining_bytes=2**40 - moved
            )

        def completion(self, _host: str, _vm_uuid: str) -> Completion | None:
            return None

    class FakeProbe(FakePort):
        name = "probe"

    class FakeWrite(FakePort):
        name = "write"

    return FakeRead, FakeProbe, FakeWrite


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    read, probe, write = fake_ports(found)
    monkeypatch.setattr("rebalancerd.daemon.LibvirtRead", read)
    monkeypatch.setattr("rebalancerd.daemon.LibvirtProbe", probe)
    monkeypatch.setattr("rebalancerd.daemon.LibvirtWrite", write)
    monkeypatch.setattr("rebalancerd.daemon.STOP_PATIENCE_SECONDS", 1.5)
    return found


def text(directory: Path, mode: str, extra: str = "") -> str:
    hosts = "".join(
        f'[[hosts]]\nname = "h{n}"\nuri = "qemu+tcp://10.9.9.{n}/system"\nmigration_uri = "tcp://10.9.9.{n}"\n'
        for n in (1, 2)
    )
    head = f'mode = "{mode}"\nstate_dir = "{directory}/state"\n'
    pause = "" if "pause_file" in extra else f'pause_file = "{directory}/pause"\n'
    return f"{head}{pause}{extra}\n{hosts}"


@pytest.fixture
def make_daemon(world: World, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Daemons on fake ports whose ticks are shorter than a configuration allows; signals are put back afterwards."""
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    made: list[Daemon] = []

    def make(mode: str = "recommend", extra: str = "") -> Daemon:
        path = tmp_path / "rebalancerd.toml"
        path.write_text(text(tmp_path, mode, extra))
        cfg = configuration.load(path)
        short = {"sample": 0.05, "probe": 0.05, "decide": 0.05, "housekeep": 0.05}
        made.append(Daemon(path, cfg.model_copy(update={"ticks": cfg.ticks.model_copy(update=short)})))
        return made[-1]

    yield make
    if world.hang is not None:
        world.hang.set()
    for daemon in made:
        daemon.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def drive(daemon: Daemon, script: Callable[[], None]) -> int:
    """Run the daemon here while ``script`` runs beside it; then stop it. Returns its exit code."""
    failures: list[BaseException] = []

    def beside() -> None:
        try:
            script()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)
        finally:
            daemon.stop()

    thread = threading.Thread(target=beside)
    thread.start()
    code = daemon.run()
    thread.join()
    for failure in failures:
        raise failure
    return code


def until(good: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not good():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


class Manager:
    """systemd's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.messages: list[str] = []

    def read(self) -> list[str]:
        while True:
            try:
                self.messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self.messages

    def fed(self) -> int:
        return self.read().count("WATCHDOG=1")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield found
    found.close()


# one per state directory


def test_a_second_daemon_on_the_same_state_directory_is_refused(make_daemon: Callable[..., Daemon]) -> None:
    """The first has the lock and keeps it; once it is closed another can have it."""
    first = make_daemon()
    with pytest.raises(LeaseTakenError, match=str(os.getpid())):
        make_daemon()
    assert first.lease.held()
    first.close()
    assert make_daemon().lease.held()


# ticks


def test_it_tells_systemd_ready_status_watchdog_and_stopping(
    make_daemon: Callable[..., Daemon], manager: Manager
) -> None:
    """READY comes first, every finished cycle gives its status and feeds the watchdog, STOPPING comes at the end."""
    code = drive(make_daemon(), lambda: until(lambda: manager.fed() >= 2, "two cycles"))

    told = manager.read()
    assert code == 0
    assert told[0] == "READY=1"
    assert told.count("STOPPING=1") == 1
    (status, *_) = (m for m in told if m.startswith("STATUS="))
    assert status.startswith("STATUS=recommend · ")
    assert told[told.index(status) + 1] == "WATCHDOG=1"


def test_a_decide_job_that_hangs_feeds_no_watchdog_and_does_not_stop_sampling(
    make_daemon: Callable[..., Daemon], manager: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd will restart a daemon that decides nothing; until then it goes on observing."""
    daemon, hangs, done = make_daemon(), threading.Event(), threading.Event()

    def iterate() -> CycleRecord:
        hangs.set()
        done.wait(60)
        raise LedgerUnavailableError("ended")

    monkeypatch.setattr(daemon.loop, "iterate", iterate)

    def script() -> None:
        until(hangs.is_set, "a cycle begins")
        seen = world.count("read.sample")
        until(lambda: world.count("read.sample") >= seen + 10, "five more ticks of two hosts")
        assert manager.fed() == 0
        done.set()

    assert drive(daemon, script) == 0


def test_a_sample_job_that_hangs_does_not_stop_deciding(
    make_daemon: Callable[..., Daemon], manager: Manager, world: World
) -> None:
    """Cycles go on, say that nothing is known, and feed the watchdog; at most one sample hangs."""
    world.hang = threading.Event()
    daemon = make_daemon()
    began = time.monotonic()
    code = drive(daemon, lambda: until(lambda: manager.fed() >= 4, "cycles"))

    assert code == 0
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert world.count("read.sample") <= 2
    assert not daemon.lease.held()


def test_a_tick_that_fails_comes_again(make_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug or a ledger that is gone costs one tick of one job, told with the job's name."""
    daemon, calls = make_daemon(), []

    def fails() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("a bug")
        raise LedgerUnavailableError("disk full")

    monkeypatch.setattr(daemon.observer, "sample", fails)
    with capture_logs() as logs:
        assert drive(daemon, lambda: until(lambda: len(calls) >= 3, "more ticks")) == 0
    failed = [entry for entry in logs if entry["event"] == "tick_failed"]
    assert {entry["tick"] for entry in failed} == {"sample"}
    assert [entry.get("bug", False) for entry in failed][:2] == [True, False]


def test_a_listener_with_a_bug_does_not_starve_the_watchdog(
    make_daemon: Callable[..., Daemon], manager: Manager
) -> None:
    """Metrics are an extra: their failure must not make systemd kill a daemon that works."""
    daemon = make_daemon()
    heard: list[CycleRecord] = []

    def broken(_record: CycleRecord) -> None:
        raise ZeroDivisionError("a bug")

    daemon.on_cycle += [broken, heard.append]
    with capture_logs() as logs:
        drive(daemon, lambda: until(lambda: manager.fed() >= 2, "two cycles"))
    assert len(heard) >= 2
    assert "listener_failed" in {entry["event"] for entry in logs}


def test_load_is_recorded_in_the_steps_that_are_forecast(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("observe", '[predict]\nstep = "1 min"')
    assert [daemon.observer.series("vm_cpu_cores", tier).step_seconds for tier in (0, 1)] == [60.0, 3600.0]


def test_every_cycle_is_in_the_ledger(make_daemon: Callable[..., Daemon]) -> None:
    """What listeners heard is what the ledger holds, in the same order."""
    daemon = make_daemon()
    heard: list[CycleRecord] = []
    kept: list[int] = []
    daemon.on_cycle.append(heard.append)

    def script() -> None:
        until(lambda: len(heard) >= 3, "three cycles")
        kept.extend(r.id for r in daemon.ledger.cycles(limit=100))

    drive(daemon, script)
    assert [r.id for r in heard][: len(kept)] == sorted(kept)[: len(heard)]
    assert kept


# the end


def open_migration(directory: Path) -> MigrationRecord:
    """A migration that an earlier daemon left running."""
    record = MigrationRecord(
        id="m-1",
        vm_uuid=VM,
        vm_name="traveller",
        source="h1",
        destination="h2",
        state=MigrationState.INTENT,
        intent_at=time.time(),
        controller="rebalancerd",
        options=MigrationOptions(),
    )
    (directory / "state").mkdir(mode=0o700)
    ledger = SqlLedger(f"sqlite:///{directory / 'state' / 'ledger.sqlite'}", SystemClock())
    ledger.open_intent(record)
    ledger.close()
    return record


def test_the_end_leaves_running_migrations_alone(
    make_daemon: Callable[..., Daemon], world: World, tmp_path: Path
) -> None:
    """Adopted and watched while the daemon runs; when it ends the migration is neither aborted nor given a verdict."""
    record = open_migration(tmp_path)
    daemon = make_daemon("auto")

    def script() -> None:
        seen = world.count("read.progress")
        until(lambda: world.count("read.progress") >= seen + 5, "the watch looks at it")

    with capture_logs() as logs:
        assert drive(daemon, script) == 0
    (stopping,) = (entry for entry in logs if entry["event"] == "stopping")
    assert stopping["migrations_left_running"] == [record.id]
    assert not {"write.abort", "write.migrate"} & set(world.asked)
    looked = world.count("read.progress")
    time.sleep(0.3)
    assert world.count("read.progress") == looked, "the watch has ended"
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}", SystemClock())
    (left,) = ledger.open_migrations()
    ledger.close()
    assert (left.id, left.state) == (record.id, MigrationState.RUNNING)


@pytest.mark.parametrize(("mode", "built"), [("observe", ["read"]), ("auto", ["probe", "read", "write"])])
def test_the_end_closes_what_was_built(
    make_daemon: Callable[..., Daemon], world: World, monkeypatch: pytest.MonkeyPatch, mode: str, built: list[str]
) -> None:
    """Servers, then connections, history, ledger and lock; no thread of the ticks or the watch is left."""
    before = set(threading.enumerate())
    daemon = make_daemon(mode)
    order: list[str] = []
    for name, owner in (("history", daemon.observer), ("ledger", daemon.ledger)):
        close = owner.close

        def noted(name: str = name, close: Callable[[], None] = close) -> None:
            order.append(name)
            close()

        monkeypatch.setattr(owner, "close", noted)
    daemon.servers.append(lambda: order.append("server"))

    assert drive(daemon, lambda: until(lambda: world.count("read.sample") > 2, "ticks")) == 0
    assert sorted(world.closed) == built
    assert order == ["server", "history", "ledger"]
    assert not daemon.lease.held()
    until(lambda: set(threading.enumerate()) <= before, "its threads end")


def test_a_part_of_the_end_that_fails_or_hangs_does_not_hold_up_the_rest(
    make_daemon: Callable[..., Daemon], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs, a read port whose close fails: told, and the lock is given up all the same."""
    daemon, never = make_daemon(), threading.Event()

    def fails() -> None:
        raise OSError("broken")

    daemon.servers.append(lambda: never.wait(60) and None)
    monkeypatch.setattr(daemon.ports.read, "close", fails)
    with capture_logs() as logs:
        assert drive(daemon, lambda: None) == 0
    told = {entry["event"]: entry for entry in logs}
    assert told["end_hangs"]["of"] == ["server"]
    assert (told["end_failed"]["of"], told["end_failed"]["reason"]) == ("read", "broken")
    assert world.closed == ["probe"]
    assert not daemon.lease.held()
    never.set()


def test_a_daemon_that_ends_starts_nothing_more(make_daemon: Callable[..., Daemon]) -> None:
    """A cycle that is under way finds itself paused, and no further cycle begins."""
    daemon = make_daemon()
    assert daemon.pause_reason() is None
    daemon.stop()
    assert daemon.pause_reason() == "the daemon is stopping"
    daemon.decide()
    assert daemon.ledger.cycles() == ()


def test_a_ledger_that_cannot_be_read_at_the_start_puts_adopting_off(
    make_daemon: Callable[..., Daemon], manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon comes up, says so, and runs its cycles; the executor adopts before it starts anything."""
    daemon = make_daemon("auto")

    def gone() -> tuple[MigrationRecord, ...]:
        raise LedgerUnavailableError("disk full")

    monkeypatch.setattr(daemon.executor, "adopt", gone)
    with capture_logs() as logs:
        assert drive(daemon, lambda: until(lambda: manager.fed() >= 1, "a cycle")) == 0
    assert "adopting_put_off" in {entry["event"] for entry in logs}


HANGING = """
    import os, sys, threading
    import rebalancerd.daemon as daemon
    from rebalancerd.cli.app import main

    class Hanging:
        def __init__(self, *_): pass
        def hosts(self): return ("h1", "h2")
        def events_missed(self): return {}
        def sample(self, host):
            os.write(1, b"sampling\\n")  # whole: both hosts are sampled at once
            threading.Event().wait()
        def close(self): threading.Event().wait()

    daemon.LibvirtRead = Hanging
    daemon.STOP_PATIENCE_SECONDS = 1.0
    sys.argv = ["rebalancerd", "run", "--config", sys.argv[1]]
    main()
"""


def test_sigterm_ends_the_process_although_calls_hang_for_ever(tmp_path: Path) -> None:
    """Samples and the closing of connections never return: exit code 0 within 15 s all the same."""
    path = tmp_path / "rebalancerd.toml"
    extra = f'[serve]\nsocket = "{tmp_path}/s"\nmetrics_listen = ""\n[ticks]\nsample = 1\ndecide = 1'
    path.write_text(text(tmp_path, "recommend", extra))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HANGING), str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "sampling\n"
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        assert time.monotonic() - asked < 15
        assert "hung_calls_left_behind" in told
        assert "Traceback" not in told
    finally:
        process.kill()
        process.wait()


def test_the_end_fits_into_what_systemd_grants() -> None:
    """Ticks, a server, the watch, connections, history and ledger may all hang: SIGKILL still comes later."""
    unit = (Path(__file__).parents[2] / "systemd" / "rebalancerd.service").read_text()
    (granted,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(granted) / 2 > 6 * daemon_module.STOP_PATIENCE_SECONDS + ending.THREADS_PATIENCE_SECONDS


# reload


def reload(daemon: Daemon, manager: Manager, content: str) -> None:
    """Put a new file in place, send SIGHUP, wait until it has been read."""
    before = manager.read().count("RELOADING=1")
    daemon.config_path.write_text(content)
    os.kill(os.getpid(), signal.SIGHUP)
    until(lambda: manager.read().count("RELOADING=1") > before, "it reads again")
    at = len(manager.messages) - 1 - manager.messages[::-1].index("RELOADING=1")
    until(lambda: "READY=1" in manager.read()[at:], "it is ready again")


def test_sighup_with_a_good_file_takes_limits_over(
    make_daemon: Callable[..., Daemon], manager: Manager, tmp_path: Path
) -> None:
    daemon = make_daemon()

    def script() -> None:
        until(lambda: "READY=1" in manager.read(), "ready")
        reload(daemon, manager, text(tmp_path, "recommend", "[guard]\nper_hour = 3\n[plan]\ncpu_headroom = 0.6"))
        assert daemon.reload_error is None
        assert daemon.loop.settings.guard.per_hour == 3
        assert daemon.loop.settings.plan.cpu_headroom == 0.6

    assert drive(daemon, script) == 0


def test_sighup_with_a_bad_file_keeps_the_old_configuration_and_says_why(
    make_daemon: Callable[..., Daemon], manager: Manager, tmp_path: Path
) -> None:
    """A key that does not exist, then no file at all; a good file afterwards clears the error."""
    daemon = make_daemon(extra="[guard]\nper_hour = 7")
    kept = daemon.loop.settings

    def script() -> None:
        until(lambda: "READY=1" in manager.read(), "ready")
        reload(daemon, manager, text(tmp_path, "recommend", "[guard]\nper_hours = 3"))
        assert "per_hours" in (daemon.reload_error or "")
        assert daemon.loop.settings == kept
        reload(daemon, manager, "\0")
        assert daemon.reload_error is not None
        assert daemon.loop.settings == kept
        reload(daemon, manager, text(tmp_path, "recommend", "[guard]\nper_hour = 3"))
        assert daemon.reload_error is None
        assert daemon.loop.settings.guard.per_hour == 3

    assert drive(daemon, script) == 0


def test_a_bug_in_reading_the_file_again_does_not_end_the_daemon(
    make_daemon: Callable[..., Daemon], manager: Manager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    daemon = make_daemon()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("rebalancerd.daemon.loop_settings", broken)

    def script() -> None:
        until(lambda: "READY=1" in manager.read(), "ready")
        fed = manager.fed()
        with capture_logs():
            reload(daemon, manager, text(tmp_path, "recommend"))
        assert "ZeroDivisionError" in (daemon.reload_error or "")
        until(lambda: manager.fed() > fed + 1, "cycles go on")

    assert drive(daemon, script) == 0


def test_raising_the_mode_needs_a_restart(make_daemon: Callable[..., Daemon], manager: Manager, tmp_path: Path) -> None:
    """The write port was not built, so no file can make this process move anything."""
    daemon = make_daemon("recommend")

    def script() -> None:
        until(lambda: "READY=1" in manager.read(), "ready")
        with capture_logs() as logs:
            reload(daemon, manager, text(tmp_path, "auto"))
        assert daemon.loop.settings.mode is Mode.RECOMMEND
        assert daemon.executor is None
        assert [e["wanted"] for e in logs if e.get("keys") == ["mode"]] == ["auto"]

    assert drive(daemon, script) == 0


def test_lowering_the_mode_is_honoured_at_once(
    make_daemon: Callable[..., Daemon], manager: Manager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next cycle is one of observe mode, and nothing is probed any more; the old mode can be had back."""
    daemon = make_daemon("auto")
    heard: list[CycleRecord] = []
    probed: list[Mode] = []
    daemon.on_cycle.append(heard.append)
    monkeypatch.setattr(daemon.observer, "probe_tick", lambda: probed.append(daemon.loop.settings.mode))

    def script() -> None:
        until(lambda: bool(heard and probed), "a cycle and a probe")
        assert {r.mode for r in heard} == {Mode.AUTO}
        reload(daemon, manager, text(tmp_path, "observe"))
        until(lambda: heard[-1].mode is Mode.OBSERVE, "a cycle in observe mode")
        probed.clear()
        seen = len(heard)
        until(lambda: len(heard) > seen + 3, "more cycles")
        assert probed == []
        reload(daemon, manager, text(tmp_path, "auto"))
        until(lambda: heard[-1].mode is Mode.AUTO and bool(probed), "a cycle in auto mode")

    assert drive(daemon, script) == 0


@pytest.mark.parametrize(
    ("key", "extra"),
    [
        ("rules", '[[rules]]\nname = "db-*"\nmode = "observe"'),
        ("predict", "[predict]\nseed = 9"),
        ("pause_file", 'pause_file = "/run/elsewhere"'),
        ("observe", "[observe]\nunknown_share_max = 0.9"),
        ("act", "[act]\npoll_seconds = 9"),
    ],
)
def test_what_only_a_restart_takes_over_is_said(
    make_daemon: Callable[..., Daemon], manager: Manager, tmp_path: Path, key: str, extra: str
) -> None:
    """An operator who pins VMs by a rule must not believe that the reload did it."""
    daemon = make_daemon()
    before = daemon.loop.settings

    def script() -> None:
        until(lambda: "READY=1" in manager.read(), "ready")
        with capture_logs() as logs:
            reload(daemon, manager, text(tmp_path, "recommend", extra))
        assert daemon.reload_error is None
        (told,) = (e["keys"] for e in logs if e["event"] == "config_needs_restart")
        assert set(told) - {"ticks"} == {key}
        assert daemon.loop.settings == before

    assert drive(daemon, script) == 0
