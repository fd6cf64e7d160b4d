"""The real daemon as a process of its own, on the lab's hosts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rebalancerd.cli.client import Client
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.lab import Lab, LabHost
from rebalancerd.record.sql_ledger import SqlLedger


class DaemonOnLab:
    """Starts, asks, kills and restarts ``rebalancerd run``; the state directory stays the same over restarts."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        *,
        mode: str = "auto",
        extra: str = "",
        host_extra: str | Mapping[str, str] = "",
        observe: str = "",
        top: str = "",
        act: str = "",
        plan: str = "",
        tcp: bool = False,
    ) -> None:
        """``tcp``: it reaches the hosts over the lab's network, as from another machine, and not by their sockets.

        The rest is as in ``configure``.
        """
        self.lab, self.directory, self.tcp = lab, directory, tcp
        self.socket = directory / "api.sock"
        self.config = directory / "rebalancerd.toml"
        self.log = directory / "daemon.log"
        self.configure(mode, extra=extra, host_extra=host_extra, observe=observe, top=top, act=act, plan=plan)
        self.process: subprocess.Popen[bytes] | None = None

    def configure(
        self,
        mode: str = "auto",
        *,
        extra: str = "",
        host_extra: str | Mapping[str, str] = "",
        observe: str = "",
        top: str = "",
        act: str = "",
        plan: str = "",
    ) -> None:
        """Write the configuration for the next start. ``host_extra``: lines of every host, or of hosts by name."""
        text = [
            f'mode = "{mode}"',
            top,
            f'state_dir = "{self.directory / "state"}"',
            f'pause_file = "{self.directory / "pause"}"',
            "[ticks]\nsample = 2\nprobe = 3\ndecide = 3",
            f"[observe]\nstale_after = 15\nflap_stable = 5\n{observe}",
            # few rounds: QEMU before 9.0 loses pages between them in software emulation (docs/benchmarks.md)
            f'[act]\ndowntime_start = "600 ms"\ndowntime_steps = 1\n{act}',
            f'[plan]\nmax_downtime = "1 s"\n{plan}',
            f'[serve]\nsocket = "{self.socket}"\nmetrics_listen = ""',
            '[log]\nlevel = "debug"\nformat = "json"',
            extra,
        ]
        text += [
            f'[[hosts]]\nname = "{host.name}"\nuri = "{self.uri(host)}"\npeer_uri = "{host.peer_uri}"\n'
            f'migration_uri = "tcp://{host.migration_address}"\ncores = {host.cpu_quota_cores}\n'
            f'link = "1 Gbit/s"\n{host_extra if isinstance(host_extra, str) else host_extra.get(host.name, "")}'
            for host in self.lab.hosts
        ]
        self.config.write_text("\n".join(text) + "\n")

    def uri(self, host: LabHost) -> str:
        """By which it reaches a host."""
        return host.peer_uri if self.tcp else host.uri

    def start(self, **environment: str) -> "DaemonOnLab":
        """Start it and wait until it answers. ``environment``: variables of it beside this process's."""
        self.launch(**environment)
        self.wait(self.answers, 300, "the daemon answers")
        return self

    def launch(self, **environment: str) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rebalancerd", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **environment},
            )

    def answers(self) -> bool:
        """Whether it answers on its socket."""
        return Client(self.socket).is_there()

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Ask its API without a process in between. Raises CliError."""
        return Client(self.socket).get(path, **query)

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Command it, likewise. Raises CliError."""
        return Client(self.socket).post(path, body)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def cli(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """One command, as an operator types it."""
        environment = {**os.environ, "REBALANCERD_SOCKET": str(self.socket), "REBALANCERD_CONFIG": str(self.config)}
        return subprocess.run(
            [sys.executable, "-m", "rebalancerd", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    def ask(self, *words: str) -> Any:
        """The JSON answer of a command that must succeed."""
        answer = self.cli(*words, "--output", "json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def migrations(self) -> tuple[MigrationRecord, ...]:
        """What the ledger says, read beside the daemon."""
        ledger = SqlLedger(f"sqlite:///{self.directory / 'state' / 'ledger.sqlite'}", SystemClock())
        try:
            return ledger.migrations()
        finally:
            ledger.close()

    def wait(self, reached: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until ``reached``; fails with the end of the log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process is None or self.process.poll() is None, f"daemon ended: {self.tail()}"
            if reached():
                return
            time.sleep(0.2)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def close(self) -> None:
        """End it whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
