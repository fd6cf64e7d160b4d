"""A daemon at work on the lab and the means to strike while it moves a guest; what was broken is mended after each test."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.cli.exits import CliError
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Move, Plan, Score, Step
from rebalancerd.guard.checks import DRAIN
from rebalancerd.lab import GuestSpec, Heartbeat, Lab, LabError, Phase
from rebalancerd.record.planfile import document
from tests.lab.after import assert_whole, known_to, until
from tests.lab.daemon_on_lab import DaemonOnLab
from tests.unit.act.act_world import cost

# content that has to be copied and that is hardly written to: one round, long enough to strike in
STEADY = (Phase(seconds=36000, cpu_percent=2, working_set_mib=40),)
SLOW_MBIT = 24.0
# a test moves the same guest again and again, and a fault is no reason to let the next test wait for ten minutes
GUARD = """
[guard]
cooldown = "1 s"
cooldown_growth = 1.0
reverse_tabu = "1 s"
per_hour = 1000
per_vm_per_day = 1000
breaker_failures = 100
"""
ACT = """
settle = "10 s"
lost_source = "30 s"
abort_patience = "20 s"
deadline_floor = "10 min"
"""


@dataclass(frozen=True)
class Struck:
    """A migration that is under way, and what its guest said before it."""

    record: MigrationRecord
    before: Mapping[str, Heartbeat]

    @property
    def source(self) -> str:
        """Where it runs."""
        return self.record.source

    @property
    def destination(self) -> str:
        """Where it is to run."""
        return self.record.destination


class Strike:
    """Guests, a daemon that reaches their hosts over the lab's network, and faults."""

    def __init__(self, lab: Lab, directory: Path, **fields: str) -> None:
        self.lab = lab
        self.daemon = DaemonOnLab(
            lab, directory, tcp=True, act=fields.pop("act", ACT), extra=fields.pop("extra", GUARD), **fields
        )
        self._routes: list[str] = []
        self._earlier: set[str] = set()  # migrations of earlier tests, whose ends are told for an hour

    # guests

    def guest(self, name: str = "traveller", **fields: object) -> str:
        """A guest that runs, its host being whichever it is; made if there is none. Returns where it runs."""
        if name not in {g.name for g in self.lab.guests}:
            self.lab.add_guest(GuestSpec(**{"name": name, "host": "h1", "phases": STEADY, "autostart": True, **fields}))  # type: ignore[arg-type]
        self.lab.wait_booted(name, 180)
        where = self.lab.find(name)
        assert where is not None
        return where

    def uuid(self, name: str = "traveller") -> str:
        """Its UUID."""
        return self.lab.spec.guest_uuid(name)

    def virsh(self, host: str, *words: str) -> "subprocess.CompletedProcess[str]":
        """What an operator types on a host."""
        return subprocess.run(
            ["virsh", "-c", self.lab.host(host).uri, *words], capture_output=True, text=True, check=False, timeout=120
        )

    # moving

    def ready(self) -> None:
        """Wait until the daemon could move something: every host usable, nothing under way."""
        if self.daemon.process is None or self.daemon.process.poll() is not None:
            self.daemon.start()

        def wrong() -> object:
            try:
                status = self.daemon.get("status")
            except CliError as error:
                return str(error)
            seen = {h["name"]: h["unusable"] for h in status["hosts"]}
            return status["moving"] or not seen or {n: u for n, u in seen.items() if u}

        until("the daemon is ready", wrong)

    def order(self, destination: str | None = None, *, postcopy: bool = False, name: str = "traveller") -> str:
        """Order a move: to ``destination`` by a plan of our own, else by draining its host. Returns its host."""
        source = self.lab.find(name)
        assert source is not None
        if destination is None and not postcopy:
            with suppress(CliError):  # it is to be drained already
                self.daemon.post("drain", host=source)
            return source
        to = destination or next(h for h in self.lab.spec.host_names if h != source)
        self.daemon.post("apply", document=document(self.plan(source, to, postcopy=postcopy, name=name)))
        return source

    def plan(self, source: str, to: str, *, postcopy: bool = False, name: str = "traveller") -> Plan:
        """A plan of one move."""
        move = Move(
            vm_uuid=self.uuid(name),
            vm_name=name,
            source=source,
            destination=to,
            why="test",
            cost=cost(),
            options=MigrationOptions(postcopy=postcopy),
            gain=1.0,
            payback_seconds=None,
        )
        now = time.time()
        return Plan(
            id=f"p-{int(now * 1000):x}",
            policy=DRAIN,  # what a person orders waits for no host to be hot
            created_at=now,
            expires_at=now + 600,
            snapshot_digest="0",
            steps=(Step(number=1, wave=1, move=move),),
            before=Score(total=1, unmet=1, imbalance=0),
            after=Score(total=0, unmet=0, imbalance=0),
            why="test",
        )

    def under_way(
        self,
        share: float = 0.2,
        *,
        mbit: float = SLOW_MBIT,
        destination: str | None = None,
        postcopy: bool = False,
        name: str = "traveller",
    ) -> Struck:
        """Let the guest's move begin, slowly, and return once this share of its memory was looked at."""
        self.guest(name)
        self.ready()
        known = {r.id for r in self.daemon.migrations()}
        before = {g.name: self.lab.counter(g.name) for g in self.lab.guests}
        source = self.lab.find(name)
        assert source is not None
        self.lab.shape(source, rate_mbit=mbit)
        self.order(destination, postcopy=postcopy, name=name)
        self.daemon.wait(lambda: bool(self.since(known)), 120, "a migration is begun")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            record = self.since(known)[-1]
            if record.state is MigrationState.ABANDONED:  # a connection of before the last fault; it is tried again
                time.sleep(0.5)
                continue
            if record.state is MigrationState.RUNNING and self.share(source, name) >= share:
                return Struck(record, before)
            assert record.state.is_open, f"ended before it could be struck: {record}"
            time.sleep(0.1)
        raise AssertionError(f"no share of {share}: {self.since(known)}")

    def share(self, source: str, name: str = "traveller") -> float:
        """How much of the running copy is done, 0 to 1; -1 without a job."""
        with suppress(LabError), self.lab.host(source).connected() as connection:
            stats = connection.lookupByUUIDString(self.uuid(name)).jobStats()
            total = stats.get("memory_total")
            if total:
                return 1.0 - float(stats["memory_remaining"]) / float(total)
            return 0.0 if stats.get("type") else -1.0
        return -1.0

    def since(self, known: set[str]) -> list[MigrationRecord]:
        """Migrations that are not among these, the first first."""
        return sorted((r for r in self.daemon.migrations() if r.id not in known), key=lambda r: r.intent_at)

    def record(self, struck: Struck) -> MigrationRecord:
        """The migration as the ledger has it now."""
        return next(r for r in self.daemon.migrations() if r.id == struck.record.id)

    def verdict(self, struck: Struck, seconds: float = 180.0) -> MigrationRecord:
        """Wait for the migration's verdict."""
        until("a verdict", lambda: None if not self.record(struck).state.is_open else str(self.record(struck)), seconds)
        return self.record(struck)

    def codes(self) -> dict[str, str]:
        """Health codes that the daemon tells, with their severity."""
        return {c["code"]: c["severity"] for c in self.daemon.get("status")["checks"]}

    def told(self, code: str, seconds: float = 90.0) -> None:
        """Wait until the daemon tells a health code."""
        until(f"{code} is told", lambda: None if code in self.codes() else self.codes(), seconds)

    def whole(self, struck: Struck | Mapping[str, Heartbeat], **expected: object) -> dict[str, str]:
        """Everything that must hold after a fault (`after.assert_whole`), the guest's autostart flag included."""
        before = struck.before if isinstance(struck, Struck) else struck
        for host in self.lab.spec.host_names:
            self.lab.shape(host)
            with suppress(CliError):  # nothing more is to be begun while we look, unless it is down
                self.daemon.post("undrain", host=host)
        lost = expected.get("lost", ())
        flagged = [n for n in before if self.lab.guest(n).autostart and n not in lost]  # type: ignore[operator]
        return assert_whole(self.daemon, before, **{"autostart": flagged, "earlier": self._earlier, **expected})  # type: ignore[arg-type]

    # faults

    def kill_qemu(self, host: str, name: str = "traveller") -> None:
        """SIGKILL to a guest's process on a host."""
        cgroup = self.lab.host(host).cgroup
        for pid in cgroup.pids():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"qemu-system-x86_64") and any(
                    w.startswith(f"guest={name},".encode()) for w in words
                ):
                    cgroup.kill(pid)
                    return
        raise AssertionError(f"no QEMU of {name} on {host}")

    def restart_libvirtd(self, host: str, pause: float = 1.0) -> None:
        """SIGKILL to a host's libvirtd, and start it again."""
        self.lab.kill_libvirtd(host, signal.SIGKILL)
        time.sleep(pause)
        self.lab.start_libvirtd(host)

    def cut_controller(self, host: str) -> None:
        """The way from the daemon's machine to a host, and nothing else."""
        address = self.lab.host(host).address
        subprocess.run(["ip", "route", "add", "blackhole", f"{address}/32"], check=True)
        self._routes.append(address)

    def heal_controller(self) -> None:
        """Give the daemon its way back."""
        while self._routes:
            subprocess.run(["ip", "route", "del", "blackhole", f"{self._routes.pop()}/32"], check=False)

    def freeze_daemon(self) -> None:
        """SIGSTOP."""
        assert self.daemon.process is not None
        self.daemon.process.send_signal(signal.SIGSTOP)

    def wake_daemon(self) -> None:
        """SIGCONT."""
        assert self.daemon.process is not None
        self.daemon.process.send_signal(signal.SIGCONT)

    def reload(self, change: Callable[[str], str]) -> None:
        """Rewrite its configuration and send SIGHUP."""
        text = self.daemon.config.read_text()
        self.daemon.config.write_text(change(text))
        assert self.daemon.process is not None
        os.kill(self.daemon.process.pid, signal.SIGHUP)

    # mending

    def mend(self) -> None:
        """Bring back whatever a test broke: links, libvirtds, guests, the daemon, and what it holds against hosts."""
        self.heal_controller()
        for host in self.lab.hosts:
            with suppress(LabError):
                self.lab.kill_libvirtd(host.name, signal.SIGCONT)
            self.lab.heal(host.name)
            self.lab.shape(host.name)
        self.lab.up()
        for guest in self.lab.guests:
            if self.lab.panicked(guest.name) or self.doubled(guest.name):
                self.lab.remove_guest(guest.name)
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            with suppress(ProcessLookupError):
                self.wake_daemon()
            self.forgive()
        if (self.daemon.directory / "state" / "ledger.sqlite").exists():
            self._earlier = {r.id for r in self.daemon.migrations()}

    def doubled(self, name: str) -> bool:
        """Whether two hosts know it, or it is paused: a test that failed left it so."""
        here = [k for host in self.lab.hosts for k in known_to(host) if k.uuid == self.uuid(name)]
        return len(here) != 1 or here[0].paused

    def forgive(self) -> None:
        """Undo drains, quarantines and an open breaker."""
        for path, fields in (
            *(("undrain", {"host": h}) for h in self.lab.spec.host_names),
            *(("clear-quarantine", {"host": h}) for h in self.lab.spec.host_names),
            ("close-breaker", {}),
            ("resume", {}),
        ):
            with suppress(CliError):  # there was none
                self.daemon.post(path, **fields)
