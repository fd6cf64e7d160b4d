"""A marker as the secret, everywhere one can be configured: it must be found in nothing that comes out."""

import base64
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rebalancerd import config
from rebalancerd.act.power.adapters import ConfiguredPower
from rebalancerd.act.power.credentials import without_secrets
from rebalancerd.act.power.settings import HostPower
from rebalancerd.cli.app import app
from rebalancerd.config import ConfigError
from rebalancerd.ports import PowerError

MARKER = "Xq7-mArKeR&zz"
USER = "bmcuser"
FORMS = (MARKER, quote(MARKER, safe=""), base64.b64encode(MARKER.encode()).decode(),
         base64.b64encode(f"{USER}:{MARKER}".encode()).decode(), json.dumps(MARKER)[1:-1])  # fmt: skip
PATIENCE = 60.0
HOST = "[[hosts]]\nname = 'h1'\nuri = 'qemu+ssh://h1/system'\n"

INLINE = [
    f"password = '{MARKER}'\n{HOST}",
    f"{HOST}token = '{MARKER}'\n",
    f"{HOST}[ledger]\npassword = '{MARKER}'\n",
    f"{HOST}[ledger]\nurl = 'postgresql://u:{MARKER}@db/x'\n",
    f"{HOST}[ledger]\nurl = 'mysql://u:{MARKER}@db/x'\n",
    f"{HOST}[ledger]\nurl = 'postgresql://db/x?password={MARKER}'\n",
    HOST.replace("h1/system", f"u:{MARKER}@h1/system"),
    HOST.replace("qemu+ssh://h1/system", f"http://u:{MARKER}@h1/system"),
    HOST.replace("qemu+ssh://h1", f"qemu+ssh://u:{MARKER}@h1") * 2,
    f"{HOST}agent_url = 'ftp://u:{MARKER}@h1/metrics'\n",
    f"{HOST}peer_uri = 'qemu+tls://u:{MARKER}@h1/other'\n",
    f"{HOST}act_uri = 'qemu+tls://u:{MARKER}@h1/other'\n",
    f"{HOST}migration_uri = 'rdma://u:{MARKER}@h1'\n",
    f"{HOST}[hosts.power]\nkind = 'redfish'\naddress = 'https://u:{MARKER}@bmc'\n",
    f"{HOST}[hosts.power]\nkind = 'redfish'\naddress = 'https://bmc'\npassword = '{MARKER}'\n",
    f"{HOST}[hosts.power]\nkind = 'command'\non_command = ['/on', '--password={MARKER}']\noff_command = ['/off']\n",
    f"{HOST}[hosts.power]\nkind = 'command'\non_command = ['/on', '--token', '{MARKER}']\noff_command = ['/off']\n",
    f"mode = 7\n{HOST}[power.x]\nsecret = ['{MARKER}', {{ a = '{MARKER}' }}]\n",
]


def assert_hidden(text: str | bytes, where: str) -> None:
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    for form in FORMS:
        assert form.encode() not in raw, f"{where} shows the secret as {form!r}"


@pytest.mark.parametrize("text", INLINE)
def test_a_secret_in_the_file_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as told:
        config.parse(text)

    assert "secret" in str(told.value) or "password" in str(told.value)
    shown = "".join(traceback.format_exception(told.value)) + repr(told.value) + repr(told.value.problems)
    assert_hidden(shown, "the error")


@pytest.mark.parametrize("argument", ["--password-file=/etc/x", "--tokenfile", "--secret-path", "--bypass", "host:1@x"])
def test_where_a_secret_is_may_be_told(argument: str) -> None:
    power = f"on_command = ['/on', '{argument}', '/etc/x']\noff_command = ['/off']\n"
    cfg = config.parse(f"{HOST}[hosts.power]\nkind = 'command'\n{power}")

    assert cfg.host_power()["h1"].on_command == ("/on", argument, "/etc/x")


@pytest.mark.parametrize("command", ["check", "show"])
def test_nor_by_the_commands(tmp_path: Path, command: str) -> None:
    file = tmp_path / "rebalancerd.toml"
    file.write_text(f"{INLINE[3]}[power.x]\nsecret = '{MARKER}'\n")

    told = ask("config", command, "--config", str(file))

    assert "holds no password" in told


@settings(deadline=None, max_examples=60)
@given(st.text(min_size=1, max_size=20).filter(str.isprintable), st.text(max_size=5).filter(str.isprintable))
def test_a_password_is_taken_out_of_an_answer_in_every_form(password: str, beside: str) -> None:
    forms = (password, json.dumps(password)[1:-1], quote(password), base64.b64encode(f"u:{password}".encode()).decode())
    for form in forms:
        assert form not in without_secrets(f"{beside} <{form}>", "u", password).replace("***", "") or form in (
            "*", "**", "***", beside
        ) or form in f"{beside} <>"  # fmt: skip


ROOT = {
    "@odata.id": "/redfish/v1/",
    "@odata.type": "#ServiceRoot.v1_0_2.ServiceRoot",
    "Id": "RootService",
    "Name": "Root",
    "RedfishVersion": "1.0.2",
    "UUID": "92384634-2938-2342-8820-489239905423",
    "Systems": {"@odata.id": "/redfish/v1/Systems"},
}


class Echo(http.server.BaseHTTPRequestHandler):
    """A management controller that repeats in its errors all it was told, 400 characters from the end too."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        plain = base64.b64decode(given.removeprefix("Basic ")).decode() if given.startswith("Basic ") else ""
        self.asked.append(given)
        if self.path.rstrip("/") == "/redfish/v1":
            self.answer(200, json.dumps(ROOT))
            return
        said = f"no entry for {plain} ({given}, {quote(plain)})"
        body = json.dumps({"error": {"code": "x", "message": said * 3, "@Message.ExtendedInfo": [{"Message": said}]}})
        self.answer(400, body)

    def answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    Echo.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def files(directory: Path) -> tuple[Path, Path]:
    """Files with a name and the password."""
    made = directory / "name", directory / "password"
    for path, text in zip(made, (USER, MARKER), strict=True):
        path.write_text(text + "\n")
        path.chmod(0o600)
    return made


def test_a_controller_that_repeats_the_password(tmp_path: Path, echo: str) -> None:
    pytest.importorskip("sushy")
    name, password = files(tmp_path)
    power = HostPower(
        kind="redfish", address=echo, username_file=str(name), password_file=str(password), tls_verify=False
    )
    control = ConfiguredPower({"h1": power}, call_deadline_seconds=PATIENCE)

    with pytest.raises(PowerError) as told:
        control.state("h1")

    assert any(base64.b64encode(f"{USER}:{MARKER}".encode()).decode() in a for a in Echo.asked), "it was not asked"
    assert_hidden("".join(traceback.format_exception(told.value)), "the error")


def written(tmp_path: Path, credentials: bool, ledger: bool = False) -> tuple[Path, dict[str, str]]:
    """A configuration with every secret that there can be, and the environment for it."""
    name, password = files(tmp_path)
    given = (name.name, password.name) if credentials else (str(name), str(password))
    environment = {**os.environ, "NO_COLOR": "1"} | ({"CREDENTIALS_DIRECTORY": str(tmp_path)} if credentials else {})
    file = tmp_path / "rebalancerd.toml"
    hosts = "".join(
        f'[[hosts]]\nname = "h{n}"\nuri = "qemu+unix:///system?socket={tmp_path}/none{n}"\n'
        f'[hosts.power]\nkind = "redfish"\naddress = "https://127.0.0.{n}:1"\n'
        f'username_file = "{given[0]}"\npassword_file = "{given[1]}"\n'
        for n in (1, 2)
    )
    ledger_text = (
        f'[ledger]\nurl = "postgresql://nobody@127.0.0.1:1/none"\npassword_file = "{given[1]}"\n' if ledger else ""
    )
    file.write_text(
        f'mode = "auto"\nstate_dir = "{tmp_path}/state"\npause_file = "{tmp_path}/pause"\n{hosts}'
        f'[ticks]\nsample = "1 s"\ndecide = "1 s"\n[serve]\nsocket = "{tmp_path}/s"\nmetrics_listen = "127.0.0.1:0"\n'
        f'{ledger_text}[models]\ncost = "physics"\ndemand = "persistence"\n[log]\nlevel = "debug"\n'
    )
    return file, environment


def ask(*arguments: str) -> str:
    """What a command says; it must not show the secret."""
    done = CliRunner().invoke(app, list(arguments))
    assert_hidden(done.output + "".join(traceback.format_exception(done.exception)), " ".join(arguments))
    return done.output


def test_nothing_that_comes_out_of_a_daemon_shows_it(tmp_path: Path) -> None:
    """Log at debug, ledger, status, configuration, metrics, history, export, doctor, and the whole state directory."""
    file, environment = written(tmp_path, credentials=True)
    log, socket, config_option = tmp_path / "log", ("--socket", f"{tmp_path}/s"), ("--config", str(file))
    with log.open("wb") as stream:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "rebalancerd", "run", *config_option], env=environment, stdout=stream, stderr=stream
        )
    try:
        until = time.monotonic() + PATIENCE
        while b'"event": "cycle"' not in log.read_bytes() and time.monotonic() < until:
            assert daemon.poll() is None, log.read_text()
            time.sleep(0.2)
        assert "password_file" in ask("config", "show", *config_option), "the path of its file is shown"
        assert '"h1"' in ask("status", "--output", "json", *socket)
        for words in (("status",), ("history", "--cycles"), ("power", "status"), ("explain", "host", "h1")):
            ask(*words, *socket)
        for words in (("config", "show", "--output", "json"), ("ledger", "export"), ("ledger", "check")):
            ask(*words, *config_option)
        port = next(json.loads(line)["port"] for line in log.read_text().splitlines() if '"event": "metrics"' in line)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
            assert_hidden(answer.read(), "the metrics")
        assert_hidden(Path(f"/proc/{daemon.pid}/cmdline").read_bytes(), "the arguments")
        assert_hidden(Path(f"/proc/{daemon.pid}/environ").read_bytes(), "the environment")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(PATIENCE)
    for path in sorted((tmp_path / "state").rglob("*")):
        if path.is_file():
            assert_hidden(path.read_bytes(), str(path))
    assert_hidden(log.read_bytes(), "the log")


@pytest.mark.parametrize("credentials", [False, True])
def test_a_ledger_that_cannot_be_reached_is_told_without_it(
    tmp_path: Path, credentials: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    file, environment = written(tmp_path, credentials, ledger=True)
    if credentials:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", environment["CREDENTIALS_DIRECTORY"])

    told = ask("ledger", "check", "--config", str(file))
    ask("config", "show", "--config", str(file))

    assert "Connection refused" in told, "the database was asked"
