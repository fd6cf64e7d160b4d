"""Ganeti's ``hbal`` (Debian package ganeti-htools 3.0.2) on the benches' clusters, and the score that it minimises.

How a case is told to it (formats: man htools and src/Ganeti/HTools/Backend/Text.hs, Loader.hs of Ganeti 3.0): one
group; a node per host with its memory in MiB, its cores and no disk; an instance per VM with its memory in MiB,
⌈demand⌉ vCPUs, no disk and disk template ``ext`` (shared storage: any node may take it; ``diskless`` instances are
never moved); and in the utilisation file (``-U``) per instance its demand ÷ the mean host's cores. ``--max-cpu 8``
vCPUs per core binds nobody here. hbal itself lets no node's memory run out.

Its score (src/Ganeti/HTools/Cluster/MetricsComponents.hs, Node.hs, Loader.hs; ``hbal -v -v -v`` prints the terms) is a
weighted sum over terms, of which for these cases all but three are zero: no disks, no secondaries and so no reserved
memory, no offline or N+1-failing nodes, no tags, no spindles. Each of the three is the *population* standard deviation
over the nodes (Ganeti/Utils/Statistics.hs divides by n) of a figure that is linear in the VMs on the node:

* free_mem_cv and free_mem_cv_forth, 0.5 each (the same figure twice): 1 − Σ memory ÷ memory of the node;
* vcpu_ratio_cv and vcpu_ratio_cv_forth, 0.5 each (the same figure twice): (1 + Σ ⌈demand⌉) ÷ cores of the
  node, the one being the vCPU that a node itself is taken to use where its file does not say;
* cpu_load_cv, 1: Σ utilisation, *not* divided by the size of the node.

So score = 1 · sd(free memory) + 1 · sd(vCPUs per core) + 1 · sd(utilisation).
"""

import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench.planner_cases import MIB, ArrayCase, Floats, Indices

GROUP = "g0|uuid-g0|preferred||\n"
POLICY = "|1024,1,1024,1,1,1|1,1,0,1,1,1;100000000,100000,100000000,16,8,12|ext|8.0|32.0\n"
STEP = re.compile(r"^\s*\d+\.\s+vm(\d+)\s+host(\d+)\s+=>\s+host(\d+)\s+([\d.]+)\s+a=", re.MULTILINE)
INITIAL = re.compile(r"^Initial score:\s+([\d.]+)", re.MULTILINE)
DIGITS = 8  # decimals that it prints


@dataclass(frozen=True)
class HbalRun:
    """``moves``: (VM, destination) in their order. Scores as printed, before, after each move. ``seconds``: wall time."""

    moves: tuple[tuple[int, int], ...]
    before: float
    scores: tuple[float, ...]
    seconds: float

    @property
    def after(self) -> float:
        """The score in the end."""
        return self.scores[-1] if self.scores else self.before


def utilisation(case: ArrayCase) -> Floats:
    """CPU load (V,) as the utilisation file tells it: demand ÷ the mean host's cores, nine decimals."""
    rounded: Floats = np.round(case.cpu / case.capacity_cpu.mean(), 9)
    return rounded


def vcpus(case: ArrayCase) -> Floats:
    """vCPUs (V,) of the instances."""
    whole: Floats = np.maximum(1.0, np.ceil(case.cpu))
    return whole


def hbal_metrics(case: ArrayCase) -> list[tuple[float, Floats, Floats, Floats]]:
    """The non-zero terms of the score, each as (weight, contribution (V,), base (H,), scale (H,)).

    A term is weight · population standard deviation over hosts of base + scale · Σ contribution of the VMs there.
    """
    zero, one = np.zeros(case.hosts), np.ones(case.hosts)
    return [
        (1.0, case.memory / MIB, one, -MIB / case.capacity_memory),
        (1.0, vcpus(case), 1.0 / case.capacity_cpu, 1.0 / case.capacity_cpu),
        (1.0, utilisation(case), zero, one),
    ]


def hbal_score(case: ArrayCase, place: Indices | None = None) -> float:
    """hbal's cluster score of a placement, of the case's own if none is given."""
    where = case.place if place is None else place
    return sum(
        weight * float(np.std(base + scale * np.bincount(where, weights=rows, minlength=case.hosts)))
        for weight, rows, base, scale in hbal_metrics(case)
    )


def text_file(case: ArrayCase) -> str:
    """The case as htools read it with ``-t``."""
    free = case.capacity_memory - case.per_host(case.memory)
    nodes = "".join(
        f"host{h}|{total / MIB:.0f}|0|{left / MIB:.0f}|0|0|{cores:.0f}|N|uuid-g0|1|N\n"
        for h, (total, left, cores) in enumerate(zip(case.capacity_memory, free, case.capacity_cpu, strict=True))
    )
    instances = "".join(
        f"vm{v}|{size / MIB:.0f}|0|{count:.0f}|running|Y|host{home}||ext||0\n"
        for v, (size, count, home) in enumerate(zip(case.memory, vcpus(case), case.place, strict=True))
    )
    return "\n".join((GROUP, nodes, instances, "", POLICY))


def utilisation_file(case: ArrayCase) -> str:
    """CPU load per instance as ``-U`` reads it; memory, disk and network load are none."""
    return "".join(f"vm{v} {load:.9f} 0 0 0\n" for v, load in enumerate(utilisation(case)))


def parse(printed: str) -> tuple[float, list[tuple[int, int]], list[float]]:
    """Score before, moves and the score after each, of what hbal prints. Raises ValueError if it prints no score."""
    initial = INITIAL.search(printed)
    if initial is None:
        raise ValueError(f"hbal printed no score: {printed[-500:]}")
    steps = STEP.findall(printed)
    return float(initial[1]), [(int(vm), int(host)) for vm, _, host, _ in steps], [float(row[3]) for row in steps]


def run_hbal(case: ArrayCase, moves: int, runs: int | None = None, timeout: float | None = None) -> HbalRun:
    """hbal with at most that many moves; the least of ``runs`` wall times (by default 3 up to 200 VMs, else 1).

    The time includes its start and reading the files, some milliseconds. Raises FileNotFoundError if it is not
    installed, CalledProcessError if it refuses the case, TimeoutExpired after ``timeout`` seconds.
    """
    count = runs if runs is not None else (3 if case.vms <= 200 else 1)
    best, printed = float("inf"), ""
    with tempfile.TemporaryDirectory() as scratch:
        data, load = Path(scratch, "data"), Path(scratch, "load")
        data.write_text(text_file(case))
        load.write_text(utilisation_file(case))
        command = ["hbal", "-t", str(data), "-U", str(load), "-l", str(moves), "--no-disk-moves", "--max-cpu", "8"]
        for _ in range(count):
            begun = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout)
            best, printed = min(best, time.perf_counter() - begun), done.stdout
    before, steps, scores = parse(printed)
    return HbalRun(tuple(steps), before, tuple(scores), best)


def placed(case: ArrayCase, moves: Sequence[tuple[int, int]]) -> Indices:
    """Where the VMs are after those moves."""
    place = case.place.copy()
    for vm, host in moves:
        place[vm] = host
    return place


def disagreement(case: ArrayCase, run: HbalRun) -> float:
    """Largest difference between a score that hbal printed and ``hbal_score`` of the same placement."""
    worst = abs(hbal_score(case) - run.before)
    for done, printed in enumerate(run.scores, start=1):
        worst = max(worst, abs(hbal_score(case, placed(case, run.moves[:done])) - printed))
    return worst
