"""Leaders that die or freeze at random moments: whole daemons, a real PostgreSQL, one simulated cluster for all.

Each run ends the leader in one of five ways, waits for the takeover, and brings the victim back: the dead anew, the
frozen where it stood, while another leads. Afterwards what libvirt was asked is held against the ledger.
"""

import argparse
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.bench.report import Report
from tests.controllers import FREEZE, KILL, WAKE, Cluster, judge
from tests.postgres_server import Postgres, wait_until, why_not

# how the leader ends, and how often of a hundred
WAYS = {"kill": 30, "kill after intent": 15, "kill after call": 15, "freeze": 15, "freeze after intent": 25}
ORDER_PATIENCE_SECONDS = 15.0  # for the next start, at which an order strikes
DRAIN_SECONDS = 4.0


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """How many deaths, by which seed, under which lease."""
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, default=2.0, help="seconds")
    return parser


@dataclass
class Deaths:
    """The runs so far."""

    run: Cluster
    rng: random.Random
    takeovers: list[float] = field(default_factory=list)
    ways: Counter[str] = field(default_factory=Counter)
    asleep: list[tuple[float, str]] = field(default_factory=list)  # when to wake whom
    taken: list[tuple[int, float]] = field(default_factory=list)  # tenure, and when it had been seen (wall clock)
    drained_at: float = 0.0

    def one(self) -> None:
        """One leader's end and what follows."""
        leader = self.run.wait_for_leader()
        way = self.rng.choices(list(WAYS), list(WAYS.values()))[0]
        pause = self.rng.uniform(0.2, 1.5 * self.run.lease_seconds)
        struck = self._strike(leader.controller, way, pause)
        if struck is None:  # nothing began meanwhile
            way = "kill"
            struck = self.run.signal(leader.controller, KILL)
        successor = self.run.wait_for_leader(after=leader.epoch)
        self.taken.append((successor.epoch, time.time()))
        self.takeovers.append((time.monotonic() - struck) / self.run.lease_seconds)
        self.ways[way] += 1
        if way.startswith("freeze"):
            # some wake while the intent still counts as running, some after the successor has given it up
            late = self.rng.uniform(0, 4 * self.run.lease_seconds)
            self.asleep.append((time.monotonic() + late, leader.controller))
        else:
            self.run.reap(leader.controller)
            self.run.spawn(leader.controller)
        self._wait(self.run.lease_seconds / 2)

    def _strike(self, name: str, way: str, pause: float) -> float | None:
        number = FREEZE if way.startswith("freeze") else KILL
        if way in ("kill", "freeze"):
            self._wait(pause)
            return self.run.signal(name, number)
        orders = self.run.orders(name)
        orders.give(number, way.rpartition(" ")[2])
        deadline = time.monotonic() + ORDER_PATIENCE_SECONDS
        while not orders.struck.exists() and time.monotonic() < deadline:
            self._wait(0.05)
        if not orders.struck.exists():
            orders.withdraw()
            time.sleep(0.2)
        return float(orders.struck.read_text()) if orders.struck.exists() else None

    def _wait(self, seconds: float) -> None:
        """Let time pass; wake who is to be woken, and keep the cluster busy."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            for when, name in [entry for entry in self.asleep if entry[0] <= now]:
                self.asleep.remove((when, name))
                self.run.signal(name, WAKE)
            if now - self.drained_at > DRAIN_SECONDS:
                self.drained_at = now
                self.run.drain_next()
            if now >= until:
                return
            time.sleep(min(0.05, max(0.001, until - now)))

    def end(self) -> None:
        """Wake all, and let what runs come to its verdict."""
        wait_until(lambda: self._waked() and self.run.leader() is not None, 30, "the last wake")
        self.run.settle()

    def _waked(self) -> bool:
        self._wait(0.0)
        return not self.asleep


def run(options: argparse.Namespace, report: Report) -> None:
    """Run the deaths and report."""
    reason = why_not()
    if reason is not None:
        raise SystemExit(f"failover: {reason}")
    server = Postgres()
    try:
        cluster = Cluster(server, lease_seconds=options.lease, seed=options.seed)
        try:
            deaths = Deaths(cluster, random.Random(options.seed))
            for _ in range(options.runs):
                deaths.one()
            deaths.end()
            _tell(deaths, report)
        finally:
            cluster.close()
    finally:
        server.close()


def _tell(deaths: Deaths, report: Report) -> None:
    found = judge(deaths.run)
    late = [c for c in deaths.run.calls() if any(e > c.record.epoch and c.at > at for e, at in deaths.taken)]
    for call in late:
        print(f"{call.record.id} of epoch {call.record.epoch} was called after a later tenure had begun")
    for line in (*found.double_moves, *found.caps_exceeded, *found.lost_intents, *found.misplaced):
        print(line)
    report.figure("failover.runs", len(deaths.takeovers))
    report.figure("failover.double_moves", len(found.double_moves))
    report.figure("failover.lost_intents", len(found.lost_intents))
    report.figure("failover.max_takeover_leases", max(deaths.takeovers))
    report.figure("failover.mean_takeover_leases", statistics.mean(deaths.takeovers))
    report.figure("failover.caps_exceeded", len(found.caps_exceeded))
    report.figure("failover.late_calls", len(late))
    report.figure("failover.misplaced", len(found.misplaced))
    report.figure("failover.migrations", found.calls)
    for way in WAYS:
        report.figure(f"failover.by.{way.replace(' ', '_')}", deaths.ways[way])
    windows = deaths.run.windows()
    report.figure("failover.window_p50_microseconds", statistics.median(windows) * 1e6 if windows else None)
    report.figure("failover.window_max_microseconds", max(windows) * 1e6 if windows else None)
