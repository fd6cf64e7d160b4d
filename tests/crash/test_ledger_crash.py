"""The SQLite ledger under power cuts, killed writers and a full disk: nothing that was acknowledged is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.sql_ledger import SqlLedger
from tests.crash.power_cut import VARIANTS, build, cuts, environment
from tests.unit.record.record_values import FixedClock, finished, make_cycle, make_migration

ROOT = Path(__file__).parents[2]
OPERATIONS = 14

# writes intents and verdicts and notes each once it was acknowledged; a small checkpoint interval, so that it comes often
WRITER = """
import os, sys
sys.path.insert(0, {root!r})
from sqlalchemy import event
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import FixedClock, finished, make_cycle, make_migration
notes = os.open({notes!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def note(text):
    os.write(notes, ("N " + text + "\\n").encode())
ledger = SqlLedger({url!r}, FixedClock())
@event.listens_for(ledger._engine, "connect")
def often(connection, _record):
    connection.execute("PRAGMA wal_autocheckpoint = 25")
    {also}
ledger._engine.dispose()
n = 0
while n < {count}:
    record = make_migration(f"m-{{n}}", vm_uuid=str(n))
    ledger.open_intent(record)
    note(f"intent m-{{n}}")
    if n % 2:
        ledger.update_migration(finished(record))
        note(f"verdict m-{{n}}")
    ledger.record_cycle(make_cycle(reason=f"cycle {{n}}"))
    note(f"cycle {{n}}")
    n += 1
"""


def writer(path: Path, notes: Path, count: int, also: str = "") -> list[str]:
    words = {"root": str(ROOT), "url": f"sqlite:///{path}", "notes": str(notes), "count": count, "also": also}
    return [sys.executable, "-c", WRITER.format(**words)]


def hold_to(path: Path, told: list[str]) -> None:
    """All that was told as written is there, sound, and more can be written."""
    ledger = SqlLedger(f"sqlite:///{path}", FixedClock())
    try:
        migrations = {r.id: r.state.is_open for r in ledger.migrations()}
        cycles = {c.reason for c in ledger.cycles(limit=10_000)}
        for kind, name in (line.split(" ", 1) for line in told):
            if kind == "cycle":
                assert f"cycle {name}" in cycles
            else:
                assert name in migrations
            if kind == "verdict":
                assert not migrations[name]
        intents = sum(line.startswith("intent") for line in told)
        assert len(migrations) <= intents + 1, "at most the one that was under way"
        assert ledger.integrity_check() == ()
        ledger.open_intent(make_migration("m-after", vm_uuid="after"))
    finally:
        ledger.close()


def test_power_cut_at_any_write(tmp_path: Path) -> None:
    """After writes, syncs, renames and acknowledgements, with nothing, all or parts of what was not synced.

    A part of the points here; CRASH_EVERY=1 sweeps all of them, in some minutes.
    """
    library = build(tmp_path)
    if library is None:
        pytest.skip("no C compiler")
    state, log = tmp_path / "state", tmp_path / "log"
    state.mkdir()
    done = subprocess.run(
        writer(state / "ledger.sqlite", log, OPERATIONS),
        env=environment(library, log, state), capture_output=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rng, found, points, checkpoints = random.Random(1), tmp_path / "found", 0, 0
    every = int(os.environ.get("CRASH_EVERY", "17"))
    for number, disk in enumerate(cuts(log)):
        if number % every:
            continue
        for variant in VARIANTS if any(disk.pending.values()) else VARIANTS[:1]:
            disk.write_to(found, state, variant, rng)
            hold_to(found / "ledger.sqlite", disk.notes)
            points += 1
        checkpoints += bool(disk.pending.get(str(state / "ledger.sqlite")) and disk.notes)
    assert points > 2000 // every
    assert checkpoints, "the file itself was written to while the ledger was in use"
    assert len(disk.notes) == OPERATIONS * 2 + OPERATIONS // 2


def test_a_ledger_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    """The same sweep without ``synchronous=FULL``: what makes the test above pass is the ledger's care."""
    library = build(tmp_path)
    if library is None:
        pytest.skip("no C compiler")
    state, log = tmp_path / "state", tmp_path / "log"
    state.mkdir()
    careless = writer(state / "ledger.sqlite", log, 3, 'connection.execute("PRAGMA synchronous = OFF")')
    subprocess.run(careless, env=environment(library, log, state), capture_output=True, cwd=ROOT, check=True)
    *_, disk = cuts(log)
    disk.write_to(tmp_path / "found", state, "nothing", random.Random(1))

    with pytest.raises(AssertionError):
        hold_to(tmp_path / "found" / "ledger.sqlite", disk.notes)


@pytest.mark.parametrize("seed", range(12))
def test_a_writer_killed_at_any_instant(tmp_path: Path, seed: int) -> None:
    """SIGKILL somewhere after a random number of acknowledgements."""
    rng = random.Random(seed)
    path, notes = tmp_path / "ledger.sqlite", tmp_path / "notes"
    wanted = rng.randrange(1, 40)
    with subprocess.Popen(writer(path, notes, 10_000), cwd=ROOT) as process:
        deadline = time.monotonic() + 60
        while not notes.exists() or notes.read_text().count("\n") < wanted:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
    hold_to(path, [line.removeprefix("N ") for line in notes.read_text().splitlines()])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_takes_no_intent_loses_none_and_recovers_alone(small_disk: Path) -> None:
    path = small_disk / "ledger.sqlite"
    ledger = SqlLedger(f"sqlite:///{path}", FixedClock())
    ledger.open_intent(make_migration("m-0", vm_uuid="0"))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):  # noqa: PT012
        while True:
            stream.write(bytes(1024))
    told, n = ["intent m-0"], 1
    with pytest.raises(LedgerUnavailableError, match="the disk is full"):  # noqa: PT012
        while n < 1000:  # what is left of the last pages may still do
            ledger.open_intent(make_migration(f"m-{n}", vm_uuid=str(n)))
            told.append(f"intent m-{n}")
            n += 1
    with pytest.raises(LedgerUnavailableError):
        ledger.record_cycle(make_cycle())

    assert {r.id for r in ledger.open_migrations()} == {line.split()[1] for line in told}  # it can be read meanwhile

    ballast.unlink()
    ledger.update_migration(finished(make_migration("m-0", vm_uuid="0")))  # the same daemon goes on by itself
    told.append("verdict m-0")
    ledger.close()
    hold_to(path, told)
