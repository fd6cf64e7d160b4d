"""What no policy can go below: the energy of hosts that carry the day's demand, and memory, as if it were fluid.

At every decision Σ power is the least of a linear programme over how many hosts of each kind stand at each breakpoint of
the lower convex hull of their power curve: together they carry the MIPS and, where memory binds, the megabytes. Powers
are interpolated between decisions as the world does. VMs that the world kills ask for nothing from then on.
"""

import numpy as np
from scipy.optimize import linprog

from tests.bench.consolidation_policies import first_placement
from tests.bench.consolidation_world import (
    FIRST_STEP,
    HOST_PE_MIPS,
    HOST_WATTS,
    KWH,
    PES,
    STEP_SECONDS,
    Floats,
    Ints,
    Variant,
    World,
)

SHARES = np.arange(11) / 10


def lower_hull(shares: Floats, power: Floats) -> list[int]:
    """Indices of the breakpoints of the greatest convex function that is nowhere above the points."""
    kept: list[int] = []
    for i in range(len(shares)):
        while len(kept) >= 2:
            a, b = kept[-2:]
            left = (power[b] - power[a]) * (shares[i] - shares[a])
            if left < (power[i] - power[a]) * (shares[b] - shares[a]):
                break
            kept.pop()
        kept.append(i)
    return kept


class FluidHosts:
    """Least power of a set of hosts for a demand. ``hosts``: of both kinds together, half of each."""

    def __init__(self, hosts: int, ram: float | None) -> None:
        kinds, shares, watts = [], [], []
        for kind in range(len(HOST_WATTS)):
            for i in lower_hull(SHARES, HOST_WATTS[kind]):
                kinds.append(kind)
                shares.append(SHARES[i])
                watts.append(HOST_WATTS[kind, i])
        of = np.array(kinds)
        self._watts = np.array(watts)
        mips = np.array(shares) * HOST_PE_MIPS[of] * PES
        rows = [-mips] + ([] if ram is None else [np.full(len(of), -ram)])
        self._rows = np.array([*rows, *((of == kind).astype(float) for kind in range(len(HOST_WATTS)))])
        self._of_kind = [float((hosts + 1 - kind) // 2) for kind in range(len(HOST_WATTS))]
        self._memory_binds = ram is not None

    def watts(self, mips: float, megabytes: float) -> float:
        """Least power that carries so much. Raises ValueError where the hosts cannot."""
        asked = [-mips, -megabytes] if self._memory_binds else [-mips]
        found = linprog(self._watts, A_ub=self._rows, b_ub=[*asked, *self._of_kind], method="highs")
        if not found.success:
            raise ValueError(f"{mips:.0f} MIPS and {megabytes:.0f} MB do not fit: {found.message}")
        return float(found.fun)


def bound_kwh(percent: Ints, variant: Variant, hosts: int) -> float:
    """The bound of one day."""
    world = World(percent, variant, hosts)
    alive = np.ones(len(percent), dtype=bool)
    fluid = FluidHosts(hosts, variant.host_ram if variant.ram_always else None)
    powers = []
    for step in range(world.steps):
        demand = world.share_at(FIRST_STEP + step * STEP_SECONDS) * world.mips
        if variant.kills:
            alive &= demand > 0
        powers.append(fluid.watts(float(demand[alive].sum()), float(world.ram[alive].sum())))
    return float(np.sum(powers[:-1] + np.diff(powers) / 2) * STEP_SECONDS / KWH)


def fold_moves(percent: Ints, variant: Variant, hosts: int) -> int:
    """Moves without which the first placement cannot come onto as few hosts as memory alone allows.

    On k hosts no more VMs can have stayed than the k fullest had at first.
    """
    world = World(percent, variant, hosts)
    first_placement(world, first_fit=False)
    fewest = int(np.ceil(world.ram.sum() / variant.host_ram))
    counts = np.sort(np.bincount(world.home, minlength=hosts))[::-1]
    return int(len(percent) - counts[:fewest].sum())


def bound_with_moves(percent: Ints, variant: Variant, hosts: int, moves: int) -> float:
    """kWh below which nobody comes who moves so few VMs, in a world that kills none.

    A VM that never moves keeps its first host on, which draws its idle power at least, whenever the VM asks for anything.
    Which hosts are rid of all their VMs is left to a fluid knapsack: most kWh for a move first, a part of a host allowed,
    all at the beginning. What the demand itself draws is left out, so that the true least is higher.
    """
    world = World(percent, variant, hosts)
    first_placement(world, first_fit=False)
    asking = np.zeros(len(percent))
    for step in range(world.steps - 1):
        asking += world.share_at(FIRST_STEP + step * STEP_SECONDS) > 0
    alone = asking * HOST_WATTS[world.kinds[world.home], 0] * STEP_SECONDS / KWH
    least = np.full(hosts, np.inf)
    np.minimum.at(least, world.home, alone)
    counts = np.bincount(world.home, minlength=hosts)
    used = np.flatnonzero(counts)
    order = used[np.argsort(-least[used] / counts[used], kind="stable")]
    before = np.cumsum(counts[order]) - counts[order]
    emptied = np.clip((moves - before) / counts[order], 0.0, 1.0)
    return float(np.sum(least[order] * (1 - emptied)))
