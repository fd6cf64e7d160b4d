"""Our executor, from hand-over to verdict, against raw ``virsh migrate --live --p2p``: same guests, in turn, in the lab."""

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from rebalancerd.act.executor import Executor
from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.act.settings import ActSettings
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.cost import Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Move, Plan, Score, Step
from rebalancerd.cluster.units import MIB
from rebalancerd.lab import GuestSpec, Lab, LabSpec, Phase
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.record.sql_ledger import SqlLedger
from tests.bench.report import Report

COST = MigrationCost(
    seconds=Estimate(value=5, upper=60),
    downtime_seconds=Estimate(value=0.3, upper=1),
    bytes=Estimate(value=100 * MIB, upper=500 * MIB),
    slowdown=Estimate(value=0, upper=0.2),
    non_convergence=Estimate(value=0, upper=0.1),
    basis="bench",
)


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """How many pairs of migrations, and what the guest does meanwhile."""
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--dirty-mib-per-second", type=float, default=4.0)
    return parser


class Ours:
    """The production executor on the lab's hosts, with a ledger on disk."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.clock = SystemClock()
        hosts = [
            HostSettings(
                name=h.name,
                uri=h.uri,
                peer_uri=h.peer_uri,
                migration_uri=f"tcp://{h.migration_address}",
            )
            for h in lab.hosts
        ]
        observe = ObserveSettings()
        self.read = LibvirtRead(hosts, observe, self.clock)
        self.ledger = SqlLedger(f"sqlite:///{directory / 'ledger.sqlite'}", self.clock)
        self.executor = Executor(
            read=self.read,
            write=LibvirtWrite(hosts, observe),
            ledger=self.ledger,
            clock=self.clock,
            settings=ActSettings(),
        )
        self.stop = threading.Event()
        self.watcher = threading.Thread(target=self.executor.run_watch, args=(self.stop,), daemon=True)
        self.watcher.start()
        self.number = 0

    def migrate(self, name: str, uuid: str, source: str, destination: str) -> float:
        """Seconds from hand-over to verdict. Raises RuntimeError unless it succeeded."""
        facts = self.read.domain_facts(source, uuid)
        assert facts is not None
        self.number += 1
        options = MigrationOptions(max_downtime_seconds=0.3)
        move = Move(
            vm_uuid=uuid,
            vm_name=name,
            source=source,
            destination=destination,
            why="bench",
            cost=COST,
            options=options,
            gain=1.0,
            payback_seconds=None,
        )
        now = self.clock.wall()
        score = Score(total=0, unmet=0, imbalance=0)
        plan = Plan(
            id=f"bench-{self.number}",
            policy="balance",
            created_at=now,
            expires_at=now + 300,
            snapshot_digest="",
            steps=(Step(number=1, wave=1, move=move),),
            before=score,
            after=score,
            why="bench",
        )
        begun = self.executor.start(plan.steps[0], plan, facts=facts)
        if not isinstance(begun, MigrationRecord):
            raise RuntimeError(f"refused: {begun}")  # noqa: TRY004 - a refusal is no wrong type
        while True:
            (row,) = [r for r in self.ledger.migrations(since=begun.intent_at, vm_uuid=uuid) if r.id == begun.id]
            if not row.state.is_open:
                break
            time.sleep(0.05)
        if row.state is not MigrationState.SUCCEEDED or row.seconds is None:
            raise RuntimeError(f"{row.state}: {row.reason}")
        return row.seconds

    def close(self) -> None:
        """Stop watching."""
        self.stop.set()
        self.watcher.join(5)
        self.ledger.close()


def by_virsh(lab: Lab, name: str, source: str, destination: str) -> float:
    """Seconds of one virsh migration."""
    there = lab.host(destination)
    command = [
        "virsh",
        "-c",
        lab.host(source).uri,
        "migrate",
        "--live",
        "--p2p",
        "--persistent",
        "--undefinesource",
        "--abort-on-error",
        name,
        there.peer_uri,
        f"tcp://{there.migration_address}",
    ]
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def run(options: argparse.Namespace, report: Report) -> None:
    """Migrate back and forth, each way in turn by virsh and by us; the figure is the median of the pairs' ratios."""
    load = (Phase(seconds=60, cpu_percent=10, working_set_mib=32, dirty_mib_per_second=options.dirty_mib_per_second),)
    guest = GuestSpec(name="bench", host="h1", phases=load)
    with tempfile.TemporaryDirectory(prefix="rbl-bench-", dir="/var/tmp") as scratch:
        lab = Lab(LabSpec(name="bench", hosts=2, guests=(guest,), subnet="10.79.0.0/24"), Path(scratch) / "lab")
        ours: Ours | None = None
        try:
            lab.up(print)
            lab.wait_booted("bench", 90)
            ours = Ours(lab, Path(scratch))
            uuid = lab.spec.guest_uuid("bench")
            by_virsh(lab, "bench", "h1", "h2")  # the first migration of a guest copies more: not counted
            ours.migrate("bench", uuid, "h2", "h1")
            ratios, virsh, mine = [], [], []
            for pair in range(options.pairs):
                here, there = ("h1", "h2")
                if pair % 2 == 0:
                    virsh.append(by_virsh(lab, "bench", here, there))
                    mine.append(ours.migrate("bench", uuid, there, here))
                else:
                    mine.append(ours.migrate("bench", uuid, here, there))
                    virsh.append(by_virsh(lab, "bench", there, here))
                ratios.append(mine[-1] / virsh[-1])
                print(f"pair {pair + 1}: virsh {virsh[-1]:.2f} s, ours {mine[-1]:.2f} s, ratio {ratios[-1]:.3f}")
            report.figure("migrate.ratio_median", statistics.median(ratios))
            report.figure("migrate.pairs", len(ratios))
            report.figure("migrate.virsh.seconds_median", statistics.median(virsh))
            report.figure("migrate.ours.seconds_median", statistics.median(mine))
            report.figure("migrate.ratio_min", min(ratios))
            report.figure("migrate.ratio_max", max(ratios))
        finally:
            if ours is not None:
                ours.close()
            lab.down(print)
