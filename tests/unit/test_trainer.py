"""The daemon begins trainings without doing them: by a request that systemd hears, or in a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rebalancerd import trainer as module
from rebalancerd.predict.cost_kind import COST
from rebalancerd.predict.store import LastTraining, ModelStore
from rebalancerd.trainer import Trainer, run_by_systemd

SYSTEMD = {"INVOCATION_ID": "1" * 32, "SYSTEMD_EXEC_PID": str(os.getpid()), "PATH": "/usr/bin:/bin"}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore[Any]:
    return ModelStore(tmp_path / "models", tmp_path / "shipped", kind=COST)


def made(store: ModelStore[Any], environment: dict[str, str], ahead: float = 0.0) -> Trainer:
    return Trainer((store,), Path("conf.toml"), lambda: time.time() + ahead, environment)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (SYSTEMD, True),
        ({"INVOCATION_ID": "1" * 32}, True),  # before version 248
        ({}, False),
        ({**SYSTEMD, "SYSTEMD_EXEC_PID": "1"}, False),  # a shell of a service: systemd started that, not us
    ],
)
def test_who_runs_this_process(environment: dict[str, str], expected: bool) -> None:
    assert run_by_systemd(environment) is expected


def test_under_systemd_a_request_is_left(store: ModelStore[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with capture_logs() as logs:
        made(store, SYSTEMD).begin()
        made(store, SYSTEMD).begin()

    assert (store.own / "train.request").exists()
    assert [(e["event"], e.get("by")) for e in logs] == [("training_requested", "systemd")], "a fresh request waits"


def test_a_request_that_nobody_hears_is_told(store: ModelStore[Any]) -> None:
    store.request_training()
    with capture_logs() as logs:
        made(store, SYSTEMD, ahead=7200.0).begin()

    (told,) = logs
    assert (told["event"], told["log_level"]) == ("training_not_started", "warning")
    assert "rebalancerd-train.path" in told["hint"]


class Process:
    """A process that ends when it is told to, or never."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command, self.options, self.pid = command, options, 4711
        self.code: int | None = None
        self.deaf, self.killed = False, False

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = None if self.deaf else -15

    def wait(self, seconds: float) -> int:
        if self.code is None:
            raise subprocess.TimeoutExpired(self.command, seconds)
        return self.code

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    processes: list[Process] = []

    def popen(command: list[str], **options: Any) -> Process:
        processes.append(Process(command, **options))
        return processes[-1]

    monkeypatch.setattr(module.subprocess, "Popen", popen)
    return processes


def test_elsewhere_a_niced_process_does_it(store: ModelStore[Any], started: list[Process]) -> None:
    """Its own session, one thread, none of systemd's sockets; and one at a time."""
    trainer = made(store, {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "KEPT": "yes"})
    trainer.begin()
    trainer.begin()

    (process,) = started
    assert process.command[-8:] == [
        "-m",
        "rebalancerd",
        "train",
        "all",
        "--config",
        str(Path("conf.toml").absolute()),
        "--output",
        "json",
    ]
    assert process.command[:-8] in ([sys.executable], ["nice", "-n", "19", sys.executable])
    assert process.options["start_new_session"] is True
    assert process.options["env"]["KEPT"] == "yes" and process.options["env"]["OMP_NUM_THREADS"] == "1"
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(process.options["env"])
    assert not store.own.exists(), "no request is left that nobody takes"
    process.code = 0
    trainer.begin()
    assert len(started) == 2


def test_the_end_of_the_daemon_ends_its_training(store: ModelStore[Any], started: list[Process]) -> None:
    trainer = made(store, {})
    trainer.stop()
    trainer.begin()
    trainer.stop()
    assert started[0].code == -15 and not started[0].killed
    trainer.begin()
    started[1].deaf = True
    trainer.stop()
    assert started[1].killed


def test_what_cannot_be_started_is_logged(store: ModelStore[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    store.own.parent.mkdir(exist_ok=True)
    store.own.write_text("a file where the directory should be")
    monkeypatch.setattr(module.subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(OSError("no memory")))
    with capture_logs() as logs:
        made(store, SYSTEMD).begin()
        made(store, {}).begin()

    assert {(e["event"], e["log_level"]) for e in logs if e["event"] != "training_unknown"} == {
        ("training_not_started", "error")
    }


def test_how_a_training_ended_is_told_once(store: ModelStore[Any]) -> None:
    store.note_training(LastTraining(at=1.0, outcome="kept", why="of an earlier run"))
    trainer = made(store, {})
    with capture_logs() as logs:
        trainer.look()
        store.note_training(LastTraining(at=2.0, outcome="promoted", why="better", model="cost-1"))
        trainer.look()
        trainer.look()
        (store.own / "cost-training.json").write_text("{")
        trainer.look()

    assert [e["event"] for e in logs] == ["training_ended", "training_unknown"]
    assert (logs[0]["outcome"], logs[0]["reason"], logs[0]["model"]) == ("promoted", "better", "cost-1")
