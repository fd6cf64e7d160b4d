"""The daemon itself: ended, frozen, doubled, given bad settings, a full disk, a damaged ledger, a clock that steps."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rebalancerd.cli.exits import CliError
from rebalancerd.cluster.migration import MigrationState
from tests.lab.after import until
from tests.lab.strike import Strike

pytestmark = pytest.mark.lab_full
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def test_fault_10_sigterm_in_mid_migration(strike: Strike) -> None:
    """It ends at once and well, the migration goes on, and the next daemon adopts it."""
    struck = strike.under_way()
    assert strike.daemon.stop() == 0
    assert strike.record(struck).state is MigrationState.RUNNING
    strike.daemon.start()

    record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    assert record.adopted
    assert strike.whole(struck)["traveller"] == struck.destination


def test_fault_30_a_second_daemon_on_the_same_state(strike: Strike) -> None:
    """The second says why and ends; the first does not notice."""
    struck = strike.under_way()
    command = [sys.executable, "-m", "rebalancerd", "run", "--config", str(strike.daemon.config)]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert second.returncode == 75
    assert "one daemon per state directory" in second.stderr

    record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    strike.whole(struck)


def test_fault_35_the_controller_is_suspended(strike: Strike) -> None:
    """Frozen for longer than its samples are good for: awake again it judges what went on without it."""
    struck = strike.under_way()
    strike.freeze_daemon()
    time.sleep(18)
    strike.wake_daemon()

    record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    assert strike.whole(struck)["traveller"] == struck.destination


def test_fault_53_reload_of_a_bad_file_in_mid_migration(strike: Strike) -> None:
    good = strike.daemon.config.read_text()
    struck = strike.under_way()
    try:
        strike.reload(lambda text: text.replace("[guard]", "[guard]\nno_such_setting = 1"))
        strike.told("CONFIG_RELOAD_FAILED")
    finally:
        strike.reload(lambda _: good)

    record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    strike.whole(struck)
    assert "CONFIG_RELOAD_FAILED" not in strike.codes()


def test_fault_54_caps_lowered_in_mid_migration(strike: Strike) -> None:
    """What runs is left alone; the new cap holds for the next start."""
    good = strike.daemon.config.read_text()
    struck = strike.under_way()
    try:
        strike.reload(lambda text: text.replace("per_hour = 1000", "per_hour = 1"))
        record = strike.verdict(struck)
        assert record.state is MigrationState.SUCCEEDED, record
        strike.whole(struck)
        strike.order()
        until("the cap is told", lambda: None if "hourly_cap" in cycle(strike) else cycle(strike))
        assert strike.since(set())[-1].id == struck.record.id
    finally:
        strike.reload(lambda _: good)
        strike.forgive()


def cycle(strike: Strike) -> str:
    return str(strike.daemon.get("explain/cycle")) + str(strike.daemon.get("explain/vm", subject="traveller"))


def test_fault_29_failures_open_the_breaker(strike: Strike) -> None:
    """Two failures are one too many here: nothing more is begun until a person closes it."""
    good = strike.daemon.config.read_text()
    try:
        strike.reload(lambda text: text.replace("breaker_failures = 100", 'breaker_failures = 2\nquarantine = "1 s"'))
        strike.guest()
        time.sleep(3)  # until the new limits hold
        strike.forgive()
        for _ in range(2):
            struck = strike.under_way()
            strike.kill_qemu(struck.destination)
            assert strike.verdict(struck).state is MigrationState.FAILED
            strike.lab.shape(struck.source)
            if "BREAKER_OPEN" in strike.codes():
                break
        strike.told("BREAKER_OPEN")
        newest = strike.since(set())[-1].id
        time.sleep(8)
        assert strike.since(set())[-1].id == newest, "nothing is begun"
        strike.whole(struck, alerts=["BREAKER_OPEN"])
        strike.daemon.post("close-breaker")
    finally:
        strike.reload(lambda _: good)
        time.sleep(3)  # until quarantines are as long as before, so that they can be lifted


def test_fault_52_damaged_ledger_at_the_start(strike: Strike) -> None:
    """It observes and says so; commands that would have to be remembered are refused; the file is left as it is."""
    strike.guest()
    strike.ready()
    before = {"traveller": strike.lab.counter("traveller")}
    assert strike.daemon.stop() == 0
    path = strike.daemon.directory / "state" / "ledger.sqlite"
    good = path.read_bytes()
    damaged = good[:4096] + b"\xff" * (len(good) - 4096)
    path.write_bytes(damaged)
    try:
        strike.daemon.start()
        strike.told("LEDGER_UNAVAILABLE")
        assert strike.daemon.get("status")["mode"] == "observe"
        with pytest.raises(CliError, match=r"(?i)ledger"):
            strike.daemon.post("drain", host="h1")
        assert strike.daemon.stop() == 0
        assert path.read_bytes() == damaged
    finally:
        strike.daemon.close()
        path.write_bytes(good)
        for more in ("-wal", "-shm"):
            path.with_name(path.name + more).unlink(missing_ok=True)
        strike.daemon.start()

    strike.whole(before)


def test_fault_62_sigterm_while_it_adopts(strike: Strike) -> None:
    """The source hangs while a new daemon takes over: told to end it ends, and leaves the ledger as it was."""
    struck = strike.under_way()
    strike.daemon.kill()
    strike.lab.kill_libvirtd(struck.source, signal.SIGSTOP)
    before = strike.record(struck)
    try:
        starts = strike.daemon.log.read_bytes().count(b'"starting"')
        strike.daemon.launch()
        strike.daemon.wait(lambda: strike.daemon.log.read_bytes().count(b'"starting"') > starts, 120, "it begins")
        assert strike.daemon.stop() == 0
        assert strike.record(struck) == before
    finally:
        strike.lab.kill_libvirtd(struck.source, signal.SIGCONT)
        strike.daemon.start()

    record = strike.verdict(struck)

    # its libvirtd may have been stopped for longer than the two libvirtds wait for each other
    assert record.state in (MigrationState.SUCCEEDED, MigrationState.FAILED), record
    assert record.adopted
    strike.whole(struck)


@pytest.mark.skipif(not FAKETIME, reason="needs Debian's package libfaketime")
@pytest.mark.parametrize("step", ["+5h", "-5h"])
def test_fault_34_the_clock_steps_in_mid_migration(strike: Strike, tmp_path: Path, step: str) -> None:
    """Hours forward and back, under the daemon only: the migration is neither given up nor begun again."""
    strike.guest()
    if strike.daemon.process is not None and strike.daemon.process.poll() is None:
        assert strike.daemon.stop() == 0
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    strike.daemon.start(
        LD_PRELOAD=str(FAKETIME[0]),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    try:
        struck = strike.under_way()
        clock.write_text(f"{step}\n")
        until("its clock has stepped", lambda: None if stepped(strike) else strike.daemon.get("status")["now"])
        strike.lab.shape(struck.source)
        record = strike.verdict(struck)
        assert record.state is MigrationState.SUCCEEDED, record
    finally:
        strike.daemon.close()
        strike.daemon.start()

    assert strike.whole(struck)["traveller"] == struck.destination


def stepped(strike: Strike) -> bool:
    return bool(abs(strike.daemon.get("status")["now"] - time.time()) > 4 * 3600)


def test_fault_51_disk_full_under_the_ledger(strike: Strike) -> None:
    """What runs goes on and gets its verdict later; nothing is begun; with room again it goes on by itself."""
    state = strike.daemon.directory / "state"
    strike.guest()
    if strike.daemon.process is not None and strike.daemon.process.poll() is None:
        assert strike.daemon.stop() == 0
    kept = strike.daemon.directory / "kept"
    state.rename(kept)
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", str(state)], check=True)
    try:
        strike.daemon.start()
        struck = strike.under_way()
        fill(state)
        strike.lab.shape(struck.source)
        until("it has arrived", lambda: None if strike.lab.find("traveller") == struck.destination else "not yet")
        until("it says so", lambda: None if "LEDGER_UNAVAILABLE" in strike.codes() else strike.codes())
        time.sleep(8)
        assert strike.record(struck).id == strike.since(set())[-1].id, "nothing is begun"
        (state / "filler").unlink()
        record = strike.verdict(struck)
        assert record.state is MigrationState.SUCCEEDED, record
        assert strike.whole(struck)["traveller"] == struck.destination
        assert strike.daemon.stop() == 0
    finally:
        strike.daemon.close()
        subprocess.run(["umount", "--lazy", str(state)], check=True)
        state.rmdir()
        kept.rename(state)


def fill(directory: Path) -> None:
    """Take every byte of the file system; what the ledger frees again a moment later is taken as well."""
    with (directory / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 512, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    os.sync()
