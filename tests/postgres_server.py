"""A real PostgreSQL of Debian's package, in a temporary directory, on a UNIX socket and a loopback port."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
USER = "postgres"


def why_not() -> str | None:
    """Why no server can be started here; None if one can."""
    if not BINARIES:
        return "Debian's package postgresql is not installed"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "runuser is missing, and PostgreSQL does not run as root"
    return None


class Postgres:
    """One server. ``databases`` are made on demand; ``stop`` and ``start`` are what an administrator does."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rebalancerd-pg-"))
        self.data = self.directory / "data"
        self.port = _free_port()
        if os.geteuid() == 0:
            shutil.chown(self.directory, USER, USER)
        self._run(
            "initdb",
            "-D",
            str(self.data),
            "-U",
            USER,
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "-N",
            "-E",
            "UTF8",
        )
        (self.data / "postgresql.auto.conf").write_text(
            f"unix_socket_directories = '{self.directory}'\nport = {self.port}\nlisten_addresses = '127.0.0.1'\n"
            "shared_buffers = 32MB\nmax_connections = 60\n"
        )
        self.start()

    def start(self) -> None:
        log = self.directory / "server.log"
        self._run("pg_ctl", "-D", str(self.data), "-l", str(log), "-w", "-t", "60", "start")

    def stop(self, mode: str = "immediate") -> None:
        """``immediate`` is a crash: no checkpoint, recovery at the next start."""
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "-t", "60", "stop")

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def freeze(self, number: int) -> None:
        """SIGSTOP or SIGCONT to the server and every session of it."""
        for pid in (self.pid, *_children(self.pid)):
            os.kill(pid, number)

    def url(self, name: str = "ledger") -> str:
        """URL of a database on the UNIX socket."""
        return f"postgresql://{USER}@/{name}?host={self.directory}&port={self.port}"

    def tcp_url(self, user: str, name: str) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def create(self, name: str = "ledger") -> str:
        """Make an empty database and return its URL."""
        self.sql(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def sql(self, statement: str, database: str = "postgres") -> str:
        return self._run(
            "psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1",
            "-h", str(self.directory), "-p", str(self.port), "-U", USER, "-d", database, "-c", statement,
        )  # fmt: skip

    def close(self) -> None:
        try:
            self.freeze(signal.SIGCONT)
            self.stop()
        except (OSError, subprocess.CalledProcessError, IndexError):
            pass
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, program: str, *words: str) -> str:
        command = [str(BINARIES[-1] / program), *words]
        if os.geteuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        with tempfile.TemporaryFile("w+") as out:  # no pipe: the server would inherit it and keep it open
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, cwd="/", timeout=120, check=False)
            out.seek(0)
            told = out.read()
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, told)
        return told.strip()


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds, seconds: float, what: str) -> float:
    """Wait for something; returns how long it took. Raises AssertionError if it never came."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.01)
    return time.monotonic() - begun
