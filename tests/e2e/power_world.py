"""Management controllers that really speak their protocols, started from packages, and liars in front of them."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import bcrypt

from rebalancerd.act.power.settings import HostPower

USER, PASSWORD = "operator", "correct-horse"
SYSTEM_UUID = "27946b59-9e44-4fa7-8e91-f3527a1ef094"
SYSTEM = f"/redfish/v1/Systems/{SYSTEM_UUID}"
ONE_SYSTEM = {"uuid": SYSTEM_UUID, "name": "one"}
CHASSIS = "/redfish/v1/Chassis/one"


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def secret(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def controlled(directory: Path, kind: str, address: str, *, password: str = PASSWORD, **more: object) -> HostPower:
    return HostPower(
        kind=kind,
        address=address,
        username_file=secret(directory, "username", USER),
        password_file=secret(directory, f"password-{len(password)}", password),
        **more,  # type: ignore[arg-type]
    )


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.2)


@contextmanager
def redfish_emulator(
    directory: Path, *, tls: bool = False, systems: Sequence[Mapping[str, object]] = (ONE_SYSTEM,), notify: str = ""
) -> Iterator[str]:
    """``sushy-emulator`` with systems that are on, behind a name and password; yields its URL.

    ``notify``: a URL to which a system is sent by PUT whenever it changes.
    """
    port = free_port()
    (directory / "htpasswd").write_bytes(USER.encode() + b":" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)))
    each = [{"power_state": "On", "nics": [], "external_notifier": bool(notify), **system} for system in systems]
    config = directory / "emulator.conf"
    config.write_text(
        f"SUSHY_EMULATOR_FAKE_SYSTEMS = {each!r}\n"
        f"EXTERNAL_NOTIFICATION_URL = {notify!r}\n"
        f"SUSHY_EMULATOR_STATE_DIR = {str(directory)!r}\n"
        f"SUSHY_EMULATOR_AUTH_FILE = {str(directory / 'htpasswd')!r}\n"
    )
    argv = [str(Path(sys.executable).with_name("sushy-emulator")), "--fake", "--config", str(config)]
    argv += ["-i", "127.0.0.1", "-p", str(port)]
    if tls:
        certificate(directory)
        argv += ["--ssl-certificate", str(directory / "cert.pem"), "--ssl-key", str(directory / "key.pem")]
    with running(argv, directory, lambda: answers(port)):
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"


def certificate(directory: Path) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1"]
    argv += ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run(argv, check=True, capture_output=True)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(argv: list[str], directory: Path, ready: Callable[[], bool]) -> Iterator[None]:
    with (directory / "log").open("wb") as log:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
    try:
        wait_for(lambda: child.poll() is not None or ready(), 30)
        assert child.poll() is None, (directory / "log").read_text()
        yield
    finally:
        child.kill()
        child.wait()


@contextmanager
def ipmi_simulator(directory: Path, *, lies: bool = False) -> Iterator[tuple[str, Path]]:
    """``ipmi_sim`` with a chassis whose power is a file; yields its address and that file. A liar always says on."""
    port, power = free_port(socket.SOCK_DGRAM), directory / "power"
    power.write_text("1")
    said = "1" if lies else f"$(cat {power})"
    chassis = directory / "chassis"
    chassis.write_text(
        f'#!/bin/sh\ncase "$*" in\n*"get power") echo "power:{said}";;\n'
        f'*"set power 1") echo 1 >{power};;\n*"set power 0") echo force >{power};;\n*"set shutdown"*) echo 0 >{power};;\nesac\n'
    )
    chassis.chmod(0o755)
    (directory / "lan.conf").write_text(
        'name "bmc"\nset_working_mc 0x20\n  startlan 1\n'
        f"    addr 127.0.0.1 {port}\n    priv_limit admin\n"
        + "".join(f"    allowed_auths_{p} none md2 md5 straight\n" for p in ("callback", "user", "operator", "admin"))
        + "    guid a123456789abcdefa123456789abcdef\n  endlan\n"
        f'  chassis_control "{chassis} 0x20"\n'
        f'  user 2 true "{USER}" "{PASSWORD}" admin 10 none md2 md5 straight\n'
    )
    (directory / "bmc.emu").write_text(
        "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n"
    )
    program = shutil.which("ipmi_sim")
    assert program is not None, "the package openipmi is not installed"
    argv = [program, "-c", "lan.conf", "-f", "bmc.emu", "-s", str(directory), "-n"]
    with running(argv, directory, lambda: bound(port)):
        yield f"127.0.0.1:{port}", power


def bound(port: int) -> bool:
    return f":{port:04X} " in Path("/proc/net/udp").read_text()


@contextmanager
def liar(url: str, *, state: str | None) -> Iterator[str]:
    """A Redfish controller that carries every order out and always says the same of the power (None: nothing)."""
    with in_front(url, {SYSTEM: {"PowerState": state}}) as there:
        yield there


@contextmanager
def in_front(url: str, told: dict[str, dict[str, object]]) -> Iterator[str]:
    """A Redfish controller before another one: its resources are overlaid by path, and there are more."""
    there = url.removeprefix("http://")

    class Overlaid(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)) or None
            inner = http.client.HTTPConnection(there, timeout=20)
            inner.request(self.command, self.path, body, dict(self.headers))
            answer = inner.getresponse()
            raw, status = answer.read(), answer.status
            over = told.get(self.path.rstrip("/"))
            if over is not None and status in (200, 404, 500):
                raw = json.dumps({**(json.loads(raw) if status == 200 else {}), **over}).encode()
                status = 200
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
            inner.close()

        do_GET = do_POST = _forward

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Overlaid) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def silent(kind: int) -> Iterator[int]:
    """A port at which something listens and never answers."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen(8)
        yield int(sock.getsockname()[1])
