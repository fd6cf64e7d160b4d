"""Real controller processes over a shared simulated cluster and a real PostgreSQL, and what can befall them.

Each controller is the whole daemon in a process of its own; only its ways to libvirt lead to ``shared_world``.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from rebalancerd.clock import SystemClock
from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.record.postgres import Access, make_engine
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from tests.postgres_server import Postgres, wait_until
from tests.shared_world import Call, Line, Orders, World

HOSTS, VMS = 4, 12
OUT, INTO, CLUSTER = 1, 1, 2  # caps of running migrations
PRELOAD = [
    "rebalancerd.daemon",
    "tests.shared_world",
    "psycopg",
    "alembic.command",
    "sqlalchemy.dialects.postgresql.psycopg",
]


def cluster(seed: int) -> ClusterSpec:
    """Small guests on fast links: a migration takes about two seconds and a half."""
    hosts = tuple(
        HostSpec(name=f"h{n}", cpus=16, memory_bytes=64 * GIB, link_bytes_per_second=1.25e9) for n in range(HOSTS)
    )
    vms = tuple(
        VmSpec(
            name=f"vm{n}",
            host=f"h{n % HOSTS}",
            memory_bytes=1 * GIB,
            rss_bytes=512 * MIB,
            dirty_bytes_per_second=1.0 * MIB,
            working_set_bytes=8.0 * MIB,
        )
        for n in range(VMS)
    )
    return ClusterSpec(hosts=hosts, vms=vms, seed=seed)


def config_text(name: str, url: str, directory: Path, lease_seconds: float) -> str:
    hosts = "".join(
        f'[[hosts]]\nname = "h{n}"\nuri = "qemu+tcp://h{n}/system"\nmigration_uri = "tcp://h{n}"\n'
        for n in range(HOSTS)
    )
    return f"""
mode = "auto"
controller = "{name}"
state_dir = "{directory}/{name}"
pause_file = "{directory}/{name}.pause"
i_accept_the_risk = ["guard.cooldown"]
{hosts}
[ledger]
url = "{url}"
[models]
cost = "physics"
demand = "persistence"
train = ""
[guard]
cooldown = "0 s"
out_per_host = {OUT}
in_per_host = {INTO}
per_cluster = {CLUSTER}
per_hour = 100000
hold_rounds = 1
[act]
lease = "{lease_seconds} s"
start_before = "{lease_seconds} s"
settle = "0.5 s"
poll = "0.2 s"
[serve]
socket = "{directory}/{name}.sock"
metrics_listen = ""
[log]
level = "info"
format = "json"
"""


def run_world(seed: int, address: str) -> None:
    """Entry of the world's process."""
    World(cluster(seed), address).serve()


def run_controller(config: Path, address: str, orders: Path, serve: bool) -> None:
    """Entry of a controller's process: the production daemon on the world's ports."""
    from rebalancerd import config as configuration
    from rebalancerd import daemon as daemon_module
    from rebalancerd import log
    from tests.shared_world import RemoteProbe, RemoteRead, RemoteWrite

    errors = os.open(config.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, sys.stderr.fileno())
    cfg = configuration.load(config)
    log.configure(level=cfg.log.level, form=cfg.log.format)
    obedient, line = Orders(orders), Line(address)

    write = RemoteWrite(line, obedient)

    def build_ports(*_: object) -> Any:
        return daemon_module.Ports(RemoteRead(line), RemoteProbe(line), write)  # type: ignore[arg-type]

    daemon_module.build_ports = build_ports
    short = {"sample": 0.5, "probe": 0.5, "decide": 0.7}
    daemon = daemon_module.Daemon(config, cfg.model_copy(update={"ticks": cfg.ticks.model_copy(update=short)}))
    inner = daemon.ledger.open_intent

    def open_intent(record: Any) -> None:
        inner(record)
        obedient.obey("intent")

    daemon.ledger.open_intent = open_intent  # type: ignore[method-assign]
    look = daemon.executor._too_late

    def too_late(*words: Any) -> Any:
        answer = look(*words)
        write.checked_at = time.monotonic()
        return answer

    daemon.executor._too_late = too_late
    if serve:
        from rebalancerd.cli.run import _serve

        servers = _serve(daemon)
        daemon.servers.append(servers.stop)
    os._exit(daemon.run())


@dataclass
class Leader:
    """The lease's row, by the database's clock."""

    controller: str
    epoch: int
    valid: bool


class Cluster:
    """Server, world and controllers of one run, under a temporary directory. Close it."""

    def __init__(self, server: Postgres, *, names: tuple[str, ...] = ("a", "b", "c"), lease_seconds: float = 2.0,
                 seed: int = 1, serve: bool = False) -> None:  # fmt: skip
        self.server, self.lease_seconds, self.names, self.serve = server, lease_seconds, names, serve
        self.directory = Path(tempfile.mkdtemp(prefix="rebalancerd-failover-"))
        self.database = f"failover_{os.getpid()}_{time.monotonic_ns()}"
        self.url = server.create(self.database)
        self.context: BaseContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)
        self.address = str(self.directory / "world.sock")
        self.world = self.context.Process(target=run_world, args=(seed, self.address), daemon=True)
        self.world.start()
        wait_until(Path(self.address).exists, 60, "the world's socket")
        self.line = Line(self.address)
        self.ledger = SqlLedger(self.url, SystemClock())  # of the operator: it holds no lease and starts nothing
        self.engine: Engine = make_engine(make_url(self.url), Access(application="test"), connections=2)
        self.processes: dict[str, Any] = {}
        self.drained: str | None = None
        for name in names:
            role = self._role(name)
            server.sql(f'CREATE ROLE "{role}" SUPERUSER LOGIN')
        for name in names:
            self.spawn(name)

    def _role(self, name: str) -> str:
        return f"{self.database}_{name}"

    def orders(self, name: str) -> Orders:
        return Orders(self.directory / f"{name}.order")

    def windows(self) -> list[float]:
        """Seconds between each last look and its call to libvirt, all controllers together."""
        return [float(line) for file in self.directory.glob("*.windows") for line in file.read_text().split()]

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def spawn(self, name: str) -> None:
        """Start a controller, or start it again."""
        own = f"postgresql://{self._role(name)}@/{self.database}?host={self.server.directory}&port={self.server.port}"
        config = self.directory / f"{name}.toml"
        config.write_text(config_text(name, own, self.directory, self.lease_seconds))
        self.orders(name).withdraw()
        words = (config, self.address, self.orders(name).path, self.serve)
        process = self.context.Process(target=run_controller, args=words, daemon=True)
        process.start()
        self.processes[name] = process

    def signal(self, name: str, number: int) -> float:
        """Send it; the instant on the monotonic clock."""
        os.kill(self.processes[name].pid, number)
        return time.monotonic()

    def reap(self, name: str) -> None:
        self.processes[name].join(10)

    def cut(self, name: str) -> None:
        """From now on this controller cannot reach the database."""
        role = self._role(name)
        self.server.sql(f'ALTER ROLE "{role}" NOLOGIN')
        self.server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")

    def heal(self, name: str) -> None:
        self.server.sql(f'ALTER ROLE "{self._role(name)}" LOGIN')

    def leader(self) -> Leader | None:
        with self.engine.connect() as connection:
            row = connection.execute(
                text("SELECT controller, epoch, expires_at > extract(epoch FROM clock_timestamp()) FROM lease")
            ).first()
        return None if row is None or not row[0] else Leader(*row)

    def wait_for_leader(self, *, after: int = 0, seconds: float = 30.0) -> Leader:
        """The leader of a later tenure than ``after``."""

        found: list[Leader] = []

        def there() -> bool:
            leader = self.leader()
            if leader is None or leader.epoch <= after or not leader.valid:
                return False
            found.append(leader)
            return True

        wait_until(there, seconds, f"a tenure after {after}")
        return found[0]

    # the operator

    def drain_next(self) -> None:
        """Empty another host than now: there is always something to move, whatever the load."""
        number = (int(self.drained[1:]) + 1) % HOSTS if self.drained is not None else 0
        if self.drained is not None:
            self._command(CommandKind.UNDRAIN, self.drained)
        self.drained = f"h{number}"
        self._command(CommandKind.DRAIN, self.drained)

    def resume(self) -> None:
        self._command(CommandKind.RESUME, None)

    def pause(self) -> None:
        self._command(CommandKind.PAUSE, None)

    def _command(self, kind: CommandKind, subject: str | None) -> None:
        self.ledger.add_command(kind, at=time.time(), by="test", subject=subject)

    # the truth

    def calls(self) -> list[Call]:
        return list(self.line.ask("world", "noted"))

    def settle(self, seconds: float = 60.0) -> None:
        """Start nothing more, and wait until whoever leads has closed every migration."""
        self.pause()
        time.sleep(2.0)  # a cycle under way has not read the pause yet
        wait_until(
            lambda: not self.ledger.open_migrations() and not self.line.ask("world", "moving"),
            seconds,
            "a verdict for all",
        )

    def close(self) -> None:
        for process in (*self.processes.values(), self.world):
            if process.is_alive():
                process.kill()
            process.join(10)
        self.ledger.close()
        self.engine.dispose()
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass
class Judgement:
    """What the world's notes and the ledger come to once all is settled."""

    calls: int
    double_moves: list[str]
    caps_exceeded: list[str]
    lost_intents: list[str]
    misplaced: list[str]


def judge(run: Cluster) -> Judgement:
    """Hold what libvirt was asked to do against the ledger."""
    calls, records = run.calls(), {r.id: r for r in run.ledger.migrations()}
    closed = _closed_at(run)
    double, caps, lost = [], [], []
    for call in calls:
        record, what = call.record, f"{call.record.id} of {call.record.controller} (epoch {call.record.epoch})"
        if not call.on_source:
            double.append(f"{what}: its VM was not idle on {record.source}")
        if record.id in closed and closed[record.id] < call.at:
            double.append(f"{what}: its intent had been closed {call.at - closed[record.id]:.3f} s before")
        if call.out >= OUT or call.into >= INTO or call.running >= CLUSTER:
            caps.append(f"{what}: {call.out} out, {call.into} in, {call.running} in all were running")
        if record.id not in records:
            lost.append(f"{what}: libvirt was called and the ledger knows no intent")
    lost += [f"{r.id}: still {r.state} when all was settled" for r in records.values() if r.state.is_open]
    called = {c.record.id for c in calls}
    lost += [
        f"{r.id}: {r.state} and never begun" for r in records.values() if r.state == "succeeded" and r.id not in called
    ]
    misplaced = [f"{uuid} is on {hosts}" for uuid, hosts in run.line.ask("world", "places").items() if len(hosts) != 1]
    return Judgement(len(calls), double, caps, lost, misplaced)


def _closed_at(run: Cluster) -> dict[str, float]:
    """Wall-clock instant of each migration's first verdict."""
    with run.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT e.migration_id, min(e.at) FROM migration_events e JOIN outcomes o ON o.migration_id = e.migration_id"
                " WHERE e.state = o.state GROUP BY e.migration_id"
            )
        ).all()
    return {row[0]: float(row[1]) for row in rows}


KILL, FREEZE, WAKE = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
