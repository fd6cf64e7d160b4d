"""The harvest: a lab of its own, lanes of two hosts each, and rows until the time is over. It resumes where it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.clock import SystemClock
from rebalancerd.lab.harvest.agenda import blocks
from rebalancerd.lab.harvest.families import BUILT_IN, Family
from rebalancerd.lab.harvest.lane import Lane
from rebalancerd.lab.harvest.rowfile import RowFile
from rebalancerd.lab.lab import Lab
from rebalancerd.lab.spec import LabSpec
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.settings import HostSettings, ObserveSettings

CALL_DEADLINE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestPlan:
    """What to harvest.

    Args:
        out: the CSV file; rows it has already are not made again.
        minutes: no migration is begun after that long.
        seed: settings are drawn from it; the same seed and families give the same settings.
        families: of workloads.
        directory: of the lab.
        lanes: pairs of hosts; one measures its guest while another's migrates.
        host_cores: CPU time of each host.
        pairs: whether two migrations at once on one link are among them.
    """

    out: Path
    minutes: float
    seed: int
    families: tuple[Family, ...] = BUILT_IN
    directory: Path
    lanes: int = 2
    host_cores: float = 0.9
    pairs: bool = True


def harvest(plan: HarvestPlan, tell: Callable[[str], None]) -> int:
    """Bring a lab up, harvest, take it down; returns how many rows were added.

    Raises:
        LabError: the lab cannot run here, or the file is of another kind.
    """
    rows = RowFile(plan.out)
    there = len(rows.outcomes)
    spec = LabSpec(
        name="hv", hosts=2 * plan.lanes, subnet="10.81.0.0/24", cpu_quota_cores=plan.host_cores, memory_limit_mib=3072
    )
    lab = Lab(spec, plan.directory)
    ends_at = time.monotonic() + 60 * plan.minutes
    try:
        lab.up(lambda step: tell(f"starting {step}"))
        _run_lanes(plan, lab, rows, lambda: time.monotonic() >= ends_at, tell)
    finally:
        lab.down()
    return len(rows.outcomes) - there


def _run_lanes(
    plan: HarvestPlan, lab: Lab, rows: RowFile, over: Callable[[], bool], tell: Callable[[str], None]
) -> None:
    turn, observe = threading.Lock(), ObserveSettings(call_deadline_seconds=CALL_DEADLINE_SECONDS)
    hosts = tuple(_settings(lab, name) for name in lab.spec.host_names)
    clock = SystemClock()
    read, probe, write = (
        LibvirtRead(hosts, observe, clock),
        LibvirtProbe(hosts, observe, clock),
        LibvirtWrite(hosts, observe),
    )

    def work(number: int) -> None:
        pair = hosts[2 * number : 2 * number + 2]
        lane = Lane(
            lab,
            (pair[0].name, pair[1].name),
            pair,
            rows,
            directory=plan.directory / f"history{number}",
            turn=turn,
            over=over,
            tell=tell,
        )
        # which lane does a block follows from its number alone
        every = blocks(plan.seed, plan.families, pairs=plan.pairs)
        mine = (block for block in every if block.number % plan.lanes == number)
        lane.run(mine, read, probe, write)

    try:
        with ThreadPoolExecutor(plan.lanes) as pool:
            for done in [pool.submit(work, number) for number in range(plan.lanes)]:
                done.result()
    finally:
        for port in (read, probe, write):
            port.close()


def _settings(lab: Lab, name: str) -> HostSettings:
    host = lab.host(name)
    return HostSettings(
        name=name,
        uri=host.uri,
        ro_socket=str(host.directory / "run" / "libvirt-sock-ro"),
        peer_uri=host.peer_uri,
        migration_uri=f"tcp://{host.migration_address}",
        cores=host.cpu_quota_cores,
    )
