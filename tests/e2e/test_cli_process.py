"""The program as a process: streams, codes, colours, and a daemon that runs, answers and ends."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REBALANCERD = [sys.executable, "-m", "rebalancerd"]
PATIENCE = 40.0


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    dropped = {"REBALANCERD_SOCKET", "REBALANCERD_CONFIG", "REBALANCERD_OUTPUT", "NO_COLOR", "FORCE_COLOR"}
    env = {k: v for k, v in os.environ.items() if k not in dropped} | environment
    return subprocess.run(
        [*REBALANCERD, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def config(directory: Path, mode: str = "recommend") -> Path:
    file = directory / "rebalancerd.toml"
    hosts = "".join(
        f'[[hosts]]\nname = "h{n}"\nuri = "qemu+unix:///system?socket={directory}/none{n}"\npeer_uri = "qemu+tcp://10.9.9.{n}/system"\n'
        for n in (1, 2)
    )
    file.write_text(
        f'mode = "{mode}"\nstate_dir = "{directory}/state"\npause_file = "{directory}/pause"\n{hosts}'
        f'[ticks]\nsample = "1 s"\ndecide = "1 s"\n[serve]\nsocket = "{directory}/s"\nmetrics_listen = "127.0.0.1:0"\n'
    )
    return file


def test_help_names_the_exit_codes_and_is_quick() -> None:
    slow = {"sqlalchemy", "fastapi", "numpy", "sklearn", "pydantic", "libvirt", "apscheduler", "uvicorn", "httpx"}
    code = f"import sys, rebalancerd.cli.app; print(sorted({slow!r} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    done = run("--help")

    assert loaded.stdout.strip() == "[]"
    assert done.returncode == 0
    assert "75" in done.stdout
    assert "10 plan not empty" in done.stdout


def test_every_command_has_help() -> None:
    commands = [
        "run",
        "plan",
        "apply",
        "approve",
        "reject",
        "status",
        "watch",
        "explain",
        "history",
        "drain",
        "undrain",
        "pause",
        "resume",
        "close-breaker",
        "doctor",
        "agent",
        "demo",
        "version",
    ]
    for words in [[c] for c in commands] + [
        ["config", "generate"],
        ["config", "check"],
        ["config", "show"],
        *(["models", c] for c in ("list", "show", "verify")),
        ["train", "cost"],
        *(["lab", c] for c in ("up", "down", "status", "load")),
    ]:
        assert run(*words, "--help").returncode == 0, words


def test_wrong_usage_is_2_with_a_hint() -> None:
    done = run("stauts")

    assert done.returncode == 2
    assert "Did you mean 'status'" in done.stderr
    assert done.stdout == ""


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the program writes on a pseudo-terminal."""
    env = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}} | {
        "TERM": "xterm-256color",
        **environment,
    }
    mine, its = pty.openpty()
    with subprocess.Popen([*REBALANCERD, *arguments], env=env, stdout=its, stderr=its, stdin=its) as process:
        os.close(its)
        out = b""
        try:
            while data := os.read(mine, 65536):
                out += data
        except OSError:
            pass  # the other end is closed
        process.wait(60)
    os.close(mine)
    return out.decode()


def test_colour_on_a_terminal_only_and_not_with_no_color() -> None:
    coloured = re.compile(r"\x1b\[(?:\d+;)*3\d")

    assert coloured.search(on_a_terminal("--help"))
    assert not coloured.search(on_a_terminal("--help", NO_COLOR="1"))
    assert "\x1b" not in run("--help").stdout


def test_a_terminal_without_utf8_costs_no_command(tmp_path: Path) -> None:
    done = run("config", "check", "--config", str(tmp_path / "ä\u2192.toml"), PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    command = f"{' '.join(REBALANCERD)} config generate | head -1"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)

    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_the_generated_configuration_is_in_order(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"

    assert run("config", "generate", "-o", str(file)).returncode == 0
    again = run("config", "generate", "-o", str(file))
    checked = run("config", "check", "--config", str(file))
    shown = run("config", "show", "--config", str(file), "--output", "json")

    assert again.returncode == 1
    assert "left as it is" in again.stderr
    assert checked.returncode == 0, checked.stderr
    assert json.loads(shown.stdout)["config"]["mode"] == "recommend"


def test_a_wrong_configuration_is_told_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('mdoe = "auto"\n[[hosts]]\nname = "h1"\nuri = "qemu:///system"\ncors = 4\n')

    done = run("config", "check", "--config", str(file))

    assert done.returncode == 1
    assert "did you mean mode" in done.stderr
    assert "did you mean cores?" in done.stderr
    assert len(done.stderr.splitlines()) >= 3


def test_plan_without_a_daemon_says_so_and_that_no_host_answers(tmp_path: Path) -> None:
    done = run("plan", "--config", str(config(tmp_path)), "--seconds", "2")

    assert done.returncode == 1
    assert "no daemon answers" in done.stderr
    assert "looking at 2 hosts read-only" in done.stderr
    assert done.stdout == ""


def test_doctor_fails_where_hosts_do_not_answer(tmp_path: Path) -> None:
    done = run("doctor", "--config", str(config(tmp_path)), "--output", "json")

    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    assert {(f["check"], f["result"]) for f in findings} == {("reachable", "fail")}


@pytest.fixture
def broken_model(tmp_path: Path) -> Path:
    """A champion of which somebody has left nothing but noise, there before the daemon is."""
    models = tmp_path / "state" / "models"
    models.mkdir(parents=True)
    (models / "cost-0123456789ab.skops").write_bytes(b"PK" + os.urandom(2000))
    (models / "cost-0123456789ab.json").write_text('{"format": 1, "kind": "cost", "id": "cost-0123456789ab"')
    (models / "cost-champion.json").write_text('{"format": 1, "id": "cost-0123456789ab", "since": 1.0}')
    return models


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A daemon whose hosts do not exist, once it answers."""
    file = config(tmp_path)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*REBALANCERD, "run", "--config", str(file)], stdout=log, stderr=log, text=True)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "s").exists():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield file, process
    if process.poll() is None:
        process.kill()
    process.wait()


def ask(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, REBALANCERD_CONFIG=str(file))


def test_a_daemon_answers_commands_are_kept_over_a_restart_and_sigterm_ends_it(
    daemon: tuple[Path, subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Started, asked, commanded, refused a second time, ended, started again: the pause is still there."""
    file, process = daemon
    status = ask(file, "status", "--output", "json")
    second = ask(file, "run", "--config", str(file))
    paused = ask(file, "pause", "--for", "1h", "--reason", "test")
    unknown = ask(file, "drain", "h3")
    refused = ask(file, "approve", "p-1")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait(PATIENCE)

    assert json.loads(status.stdout)["mode"] == "recommend", status.stderr
    assert second.returncode == 75
    assert "another rebalancerd" in second.stderr
    assert paused.returncode == 0, paused.stderr
    assert unknown.returncode == 1
    assert "did you mean" in unknown.stderr
    assert refused.returncode == 1
    assert "mode recommend" in refused.stderr
    assert code == 0
    assert time.monotonic() - begun < 30
    assert not (tmp_path / "s").exists()
    assert ask(file, "status").returncode == 75

    with (tmp_path / "log2").open("w") as log:
        again = subprocess.Popen([*REBALANCERD, "run", "--config", str(file)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "s").exists():
            assert again.poll() is None, (tmp_path / "log2").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        after = json.loads(ask(file, "status", "--output", "json").stdout)
    finally:
        again.kill()
        again.wait()
    assert after["paused"]["reason"] == "test"
    assert "PAUSED" in {c["code"] for c in after["checks"]}


def test_the_daemon_serves_its_metrics(daemon: tuple[Path, subprocess.Popen[str]], tmp_path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (lines := [line for line in (tmp_path / "log").read_text().splitlines() if '"event": "metrics"' in line]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    port = json.loads(lines[0])["port"]

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()

    assert 'rebalancerd_build_info{version="' in text
    assert "rebalancerd_cycle_seconds_bucket" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_may_not_command_the_daemon(daemon: tuple[Path, subprocess.Popen[str]], tmp_path: Path) -> None:
    for part in (tmp_path, *tmp_path.parents[:-1]):
        part.chmod(part.stat().st_mode | 0o055)
    (tmp_path / "s").chmod(0o666)
    # the modules are read as root: the other user may not be able to read this checkout
    become = "os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)"
    ask = f"Client(Path({str(tmp_path / 's')!r})).post('pause')"
    code = f"import os; from pathlib import Path; from rebalancerd.cli.client import Client; {become}; {ask}"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1, done.stderr
    assert "65534 may not command this daemon" in done.stderr


def test_a_daemon_starts_with_a_broken_model_says_so_and_goes_on(
    broken_model: Path, daemon: tuple[Path, subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Cycles go on without it; status, health and log name file and fault; training needs migrations before it replaces it."""
    file, process = daemon
    deadline = time.monotonic() + PATIENCE
    while (told := json.loads(ask(file, "status", "--output", "json").stdout))["cycle"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    trained = run("train", "cost", "--config", str(file))
    verified = run("models", "verify", "--config", str(file))

    assert told["model"]["id"] != "cost-0123456789ab"
    assert "cost-0123456789ab.json: corrupt" in told["model"]["problems"][0]
    assert "MODEL_UNTRUSTED" in {c["code"] for c in told["checks"]}
    assert "cost model   " in ask(file, "status").stdout
    refused = [line for line in (tmp_path / "log").read_text().splitlines() if '"model_refused"' in line]
    assert len(refused) == 1 and json.loads(refused[0])["fault"] == "corrupt"
    assert trained.returncode == 0, trained.stderr
    assert "not trained: 0 migrations of this cluster" in trained.stdout
    assert verified.returncode == 1
    assert process.poll() is None
    assert sorted(p.name for p in broken_model.glob("cost-0*")) == ["cost-0123456789ab.json", "cost-0123456789ab.skops"]
