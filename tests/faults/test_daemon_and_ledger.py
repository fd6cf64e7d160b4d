"""Rows 10, 30, 52 to 55, 58, 59 and 62: the daemon's process, its ledger, its configuration."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rebalancerd import config as configuration
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Code
from rebalancerd.config_errors import ConfigError
from rebalancerd.daemon import Daemon
from rebalancerd.guard.checks import may_start
from rebalancerd.guard.memory import GuardMemory
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.serve.metrics import Metrics
from rebalancerd.sim.world import World as SimWorld
from tests.faults.play import play, spec_of
from tests.unit.guard.conftest import make_command, make_context, make_plan
from tests.unit.test_daemon import Manager, World, drive, open_migration, text, until

PLAIN = '[models]\ncost = "physics"\ndemand = "persistence"\n'  # no artefact is read


def written(state: Path) -> list[tuple[object, ...]]:
    """Every row of every migration in a ledger's file."""
    with sqlite3.connect(state / "ledger.sqlite") as db:
        tables = [
            t for (t,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%migr%'")
        ]
        return [row for t in sorted(tables) for row in db.execute(f"SELECT * FROM {t} ORDER BY 1")]


def test_fault_10_sigterm_leaves_migrations_running(
    make_daemon: Callable[..., Daemon], world: World, manager: Manager, tmp_path: Path
) -> None:
    record = open_migration(tmp_path)
    daemon = make_daemon("auto", PLAIN)

    def script() -> None:
        until(lambda: "READY=1" in manager.read() and world.count("read.progress") > 3, "it watches")
        os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    with capture_logs() as logs:
        assert drive(daemon, script) == 0
    assert time.monotonic() - began < 60
    assert "STOPPING=1" in manager.read()
    assert next(e for e in logs if e["event"] == "stopping")["migrations_left_running"] == [record.id]
    assert not {"write.abort", "write.migrate"} & set(world.asked)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()


def observing(
    make_daemon: Callable[..., Daemon], tmp_path: Path, spoil: Callable[[Path], None]
) -> tuple[Daemon, list[dict[str, object]]]:
    """A daemon in auto mode whose ledger was spoilt before; the file must be left as it is."""
    make_daemon("auto", PLAIN).close()
    path = tmp_path / "state" / "ledger.sqlite"
    spoil(path)
    before = path.read_bytes()
    with capture_logs() as logs:
        daemon = make_daemon("auto", PLAIN)
        heard: list[object] = []
        daemon.on_cycle.append(heard.append)
        assert drive(daemon, lambda: until(lambda: len(heard) >= 3, "cycles go on")) == 0
    assert path.read_bytes() == before
    return daemon, [dict(e) for e in logs]


def test_fault_52_damaged_ledger(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon, logs = observing(make_daemon, tmp_path, damaged)

    assert daemon.config.mode is Mode.OBSERVE
    assert daemon.ports.write is None and daemon.executor is None, "no way to move a VM is built"
    assert [e["event"] for e in logs].count("ledger_refused") == 1
    with pytest.raises(LedgerUnavailableError, match="kept as it is"):
        daemon.ledger.add_command(CommandKind.PAUSE, at=0.0, by="alice")


def test_fault_59_ledger_of_a_newer_version(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon, logs = observing(make_daemon, tmp_path, newer)

    assert daemon.config.mode is Mode.OBSERVE
    assert daemon.ports.write is None and daemon.executor is None
    (told,) = [str(e["reason"]) for e in logs if e["event"] == "ledger_refused"]
    assert "9999" in told
    assert daemon.ledger_fault == told


def test_fault_53_reload_of_a_bad_file(make_daemon: Callable[..., Daemon], manager: Manager, tmp_path: Path) -> None:
    daemon = make_daemon(extra=PLAIN + "[guard]\nper_hour = 7")
    kept, metrics = daemon.loop.settings, Metrics()

    def script() -> None:
        until(lambda: "READY=1" in manager.read(), "ready")
        daemon.config_path.write_text(text(tmp_path, "recommend", PLAIN + "[guard]\nper_hours = 3"))
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: daemon.reload_error is not None, "it has read the file")

    assert drive(daemon, script) == 0
    assert daemon.loop.settings == kept
    assert "line 8" in str(daemon.reload_error) and "per_hours" in str(daemon.reload_error)
    metrics.observe_state(lease_held=True, breaker_open=False, paused=False, reload_ok=daemon.reload_error is None)
    assert metrics.registry.get_sample_value("rebalancerd_config_reload_success") == 0


def test_fault_54_caps_lowered_while_a_job_runs() -> None:
    """What runs is left to end; nothing new begins."""

    def meddle(world: SimWorld) -> None:
        told = world.story.tell

        def lower(kind: str, what: str) -> None:
            told(kind, what)
            if what.startswith("pause-file gone") and world.loop is not None:
                guard = replace(world.loop.settings.guard, per_cluster=0)
                world.loop.settings = replace(world.loop.settings, guard=guard)

        world.story.tell = lower  # type: ignore[method-assign]

    played = play(spec_of(script="00:03:10 pause-file gone\n00:05:00 demand calm cpu 0.6", run="20m"), meddle=meddle)

    assert [r.state for r in played.records] == [MigrationState.SUCCEEDED]
    assert [c.kind for c in played.calls].count("abort") == 0


DANGEROUS = {
    "guard.cooldown": "[guard]\ncooldown = 0",
    "guard.hold_rounds": "[guard]\nhold_rounds = 0",
    "plan.cpu_headroom": "[plan]\ncpu_headroom = 0",
    "guard.in_per_host": "[guard]\nin_per_host = 3",
    "guard.per_cluster": "[guard]\nper_cluster = 50",
    "guard.windows": '[[guard.windows]]\nstart = "03:00"\nend = "03:00"',
}


@pytest.mark.parametrize("name", DANGEROUS)
def test_fault_55_dangerous_settings_need_a_signature(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text(tmp_path, "auto", DANGEROUS[name]))
    with pytest.raises(ConfigError, match=f'i_accept_the_risk = ."{name}".'):
        configuration.load(path)

    path.write_text(f'i_accept_the_risk = ["{name}"]\n' + text(tmp_path, "auto", DANGEROUS[name]))
    assert configuration.load(path).i_accept_the_risk == (name,)


def test_fault_58_an_approval_is_bound_to_one_plan_and_used_once() -> None:
    plan = make_plan()
    step = plan.steps[0]

    def verdict(**facts: object) -> Code | None:
        refusal = may_start(make_context(mode=Mode.GUARDED, memory=GuardMemory(), **facts), plan, step)
        return None if refusal is None else refusal.code

    def operator(**words: object) -> object:
        from rebalancerd.cluster.decision import OperatorState

        return OperatorState(approved=(make_command(**words),))

    assert verdict() is Code.NOT_APPROVED
    assert verdict(operator=operator(digest=plan.digest)) is None
    assert verdict(operator=operator(digest="0" * 16)) is Code.NOT_APPROVED, "of another plan"
    assert verdict(operator=operator(digest=plan.digest, until=1.0)) is Code.NOT_APPROVED, "too late"
    assert verdict(operator=operator(digest=plan.digest, by="")) is Code.NOT_APPROVED, "of nobody"
    assert verdict(operator=operator(digest=plan.digest), used_steps=frozenset({(plan.id, 1)})) is Code.PLAN_STALE


def test_fault_62_sigterm_while_it_adopts(
    make_daemon: Callable[..., Daemon], world: World, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first host hangs while migrations are taken over: SIGTERM ends it cleanly, and the ledger holds what it held."""
    record = open_migration(tmp_path)
    before = written(tmp_path / "state")
    daemon = make_daemon("auto", PLAIN)
    asked, released = threading.Event(), threading.Event()

    def hangs(*_: object) -> None:
        asked.set()
        released.wait(5.0)

    monkeypatch.setattr(daemon.ports.read, "progress", hangs, raising=False)

    def script() -> None:
        assert asked.wait(10.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        released.set()

    assert drive(daemon, script) == 0
    assert "STOPPING=1" in manager.read() and "READY=1" not in manager.read()
    assert written(tmp_path / "state") == before
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}", SystemClock())
    assert [r.id for r in ledger.open_migrations()] == [record.id]
    ledger.close()
    assert not {"write.abort", "write.migrate"} & set(world.asked)
