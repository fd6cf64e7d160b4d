"""The policies CloudSim 3.0.3 ships: how a host counts as over-utilised (THR, MAD, IQR, LR), and PABFD placement with MMT.

Rules by reading the tag ``cloudsim-3.0.3``: PowerVmAllocationPolicyMigrationAbstract and its children.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.bench.consolidation_world import Bools, Floats, Ints, World, watts

FALLBACK = 0.7
ENOUGH_SAMPLES = 12  # of a host's history before MAD and IQR are used
LR_SAMPLES = 10
LR_AHEAD = 1  # intervals: the longest migration is shorter than one
CHUNK = 64

Test = Callable[[Floats, Floats], Bools]


@dataclass(frozen=True, slots=True)
class Detector:
    """``features``: of every VM, (N, K), summed over a host's VMs; ``over``: says of such sums and the hosts' MIPS who is over-utilised."""

    features: Callable[[World], Floats]
    over: Test


def threshold(limit: float) -> Detector:
    """THR: requests above a share of the host."""
    return Detector(lambda world: world.request[:, None], lambda sums, mips: sums[:, 0] / mips > limit)


def local_regression(safety: float) -> Detector:
    """LR (and LRR, the same in fact): a line through the last ten samples, ahead by one interval, times the safety."""
    positions = np.arange(1, LR_SAMPLES + 1)
    middle = positions.mean()
    weights = 1 / LR_SAMPLES + (positions - middle) * (LR_SAMPLES + LR_AHEAD - middle) / np.sum(
        (positions - middle) ** 2
    )

    def features(world: World) -> Floats:
        past = world.history * world.mips[:, None]
        line = past[:, LR_SAMPLES - 1 :: -1] @ weights
        return np.column_stack([world.request, line, past[:, LR_SAMPLES - 1 :].sum(axis=1)])

    def over(sums: Floats, mips: Floats) -> Bools:
        return np.where(sums[:, 2] > 0, sums[:, 1] / mips * safety >= 1, sums[:, 0] / mips > FALLBACK)

    return Detector(features, over)


def by_spread(safety: float, spread: Callable[[Floats], Floats]) -> Detector:
    """MAD and IQR: requests above 1 - safety × spread of the host's history."""

    def features(world: World) -> Floats:
        return np.column_stack([world.request, world.history * world.mips[:, None]])

    def over(sums: Floats, mips: Floats) -> Bools:
        past = sums[:, 1:] / mips[:, None]
        known = past.shape[1] - np.argmax(past[:, ::-1] != 0, axis=1)
        known[~past.any(axis=1)] = 1
        limit = np.full(len(mips), FALLBACK)
        for length in np.unique(known[known >= ENOUGH_SAMPLES]):
            rows = known == length
            limit[rows] = 1 - safety * spread(past[rows, :length])
        found: Bools = sums[:, 0] / mips > limit
        return found

    return Detector(features, over)


def mad(past: Floats) -> Floats:
    """Median absolute deviation of each row."""
    found: Floats = np.median(np.abs(past - np.median(past, axis=1, keepdims=True)), axis=1)
    return found


def iqr(past: Floats) -> Floats:
    """Interquartile range of each row, by CloudSim's positions."""
    ordered, length = np.sort(past, axis=1), past.shape[1]
    low, high = (int(np.floor(share * (length + 1) + 0.5)) - 1 for share in (0.25, 0.75))
    found: Floats = ordered[:, high] - ordered[:, low]
    return found


POLICIES: dict[str, Detector | None] = {
    "dvfs": None,
    "thr": threshold(0.8),
    "iqr": by_spread(1.5, iqr),
    "mad": by_spread(2.5, mad),
    "lr": local_regression(1.2),
}


def first_placement(world: World, *, first_fit: bool) -> None:
    """Where VMs start at t = 0, each asking for all its MIPS and memory: the first host that fits, or the least more power."""
    free, ram = world.host_mips.copy(), np.full(world.hosts, world.variant.host_ram)
    idle = watts(world.kinds, np.zeros(world.hosts))
    for vm in range(len(world.home)):
        asks, memory = world.mips[vm], world.ram[vm]
        fits = (world.pe_mips >= asks) & (free >= asks) & (ram >= memory)
        if not fits.any():
            raise ValueError(f"VM {vm} ({asks:g} MIPS, {memory:g} MB) fits on no host at the start")
        host = int(np.argmax(fits))
        if not first_fit:
            after = np.where(fits, (world.host_mips - free + asks) / world.host_mips, 0.0)
            host = int(np.argmin(np.where(fits, watts(world.kinds, after) - idle, np.inf)))
        free[host] -= asks
        ram[host] -= memory
        world.settle(vm, host)


@dataclass(slots=True)
class Board:
    """One step's planning: the hosts' sums as the plan goes on."""

    world: World
    detector: Detector
    features: Floats = field(init=False)
    sums: Floats = field(init=False)
    given: Floats = field(init=False)
    free: Floats = field(init=False)
    ram: Floats = field(init=False)
    power: Floats = field(init=False)
    members: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        """The sums of now."""
        world = self.world
        self.features = self.detector.features(world)
        residents = world.residents()
        at = world.home[residents]
        self.sums = np.zeros((world.hosts, self.features.shape[1]))
        np.add.at(self.sums, at, self.features[residents])
        self.given = world.used_mips.copy()
        capped = np.bincount(at, weights=np.minimum(world.request[residents], world.pe_mips[at]), minlength=world.hosts)
        self.free = np.maximum(world.host_mips - capped, 0.0)
        self.ram = world.ram_used()
        self.power = watts(world.kinds, world.utilisation)
        self.members = [[] for _ in range(world.hosts)]
        for vm, host in zip(residents.tolist(), at.tolist(), strict=True):
            self.members[host].append(vm)

    def over(self, hosts: Ints) -> Bools:
        """Which of the hosts are over-utilised."""
        return self.detector.over(self.sums[hosts], self.world.host_mips[hosts])

    def take_off(self, host: int) -> list[int]:
        """VMs off a host, least memory first (MMT), until it is no longer over-utilised."""
        taken: list[int] = []
        here = np.array([host])
        while self.members[host]:
            vm = min(self.members[host], key=lambda one: self.world.ram[one])
            self.members[host].remove(vm)
            taken.append(vm)
            self.sums[host] = self.features[self.members[host]].sum(axis=0)
            if not self.over(here)[0]:
                break
        return taken

    def find(self, vm: int, excluded: Bools) -> int | None:
        """PABFD: the host with the least more power that would not be over-utilised; an empty one never counts as that."""
        world, asks = self.world, self.world.request[vm]
        fits = ~excluded & (world.pe_mips >= asks) & (self.free >= asks)
        if world.variant.ram_always:
            fits &= self.ram + world.ram[vm] <= world.variant.host_ram
        hosts = np.flatnonzero(fits)
        after = np.minimum((self.given[hosts] + asks) / world.host_mips[hosts], 1.0)
        more = watts(world.kinds[hosts], after) - self.power[hosts]
        hosts = hosts[np.argsort(more, kind="stable")]
        for begin in range(0, len(hosts), CHUNK):
            some = hosts[begin : begin + CHUNK]
            would = self.detector.over(self.sums[some] + self.features[vm], world.host_mips[some])
            good = (world.used_mips[some] == 0) | ~would
            if good.any():
                return int(some[np.argmax(good)])
        return None

    def put(self, vm: int, host: int) -> None:
        """Count a VM on its new host."""
        asks = self.world.request[vm]
        self.sums[host] += self.features[vm]
        self.given[host] += asks
        self.free[host] -= asks
        self.ram[host] += self.world.ram[vm]
        self.members[host].append(vm)

    def place(self, vms: list[int], excluded: Bools, *, all_or_none: bool) -> list[tuple[int, int]]:
        """Places for VMs by falling demand; with ``all_or_none`` nothing is changed when one has none."""
        saved: dict[int, tuple[Floats, float, float, float, int]] = {}
        placed: list[tuple[int, int]] = []
        for vm in sorted(vms, key=lambda one: -self.world.request[one]):
            host = self.find(vm, excluded)
            if host is not None:
                state = (self.sums[host].copy(), self.given[host], self.free[host], self.ram[host])
                saved.setdefault(host, (*state, len(self.members[host])))
                self.put(vm, host)
                placed.append((vm, host))
            elif all_or_none:
                for touched, (sums, given, free, ram, count) in saved.items():
                    self.sums[touched], self.given[touched], self.free[touched] = sums, given, free
                    self.ram[touched] = ram
                    del self.members[touched][count:]
                return []
        return placed


def optimise(world: World, detector: Detector) -> list[tuple[int, int]]:
    """One step's moves: relief of the over-utilised hosts, then the emptying of the least utilised ones."""
    board = Board(world, detector)
    everyone = np.arange(world.hosts)
    over = board.over(everyone)
    taken = [vm for host in np.flatnonzero(over).tolist() for vm in board.take_off(host)]
    moves = board.place(taken, over, all_or_none=False)
    off = world.used_mips == 0
    untried = ~(over | off)
    closed = over | off
    utilisation = world.utilisation
    while untried.any():
        candidates = np.where(untried & (utilisation > 0) & (utilisation < 1), utilisation, np.inf)
        host = int(np.argmin(candidates))
        if not np.isfinite(candidates[host]):
            break
        untried[host] = False
        closed[host] = True
        if board.members[host]:
            placed = board.place(list(board.members[host]), closed, all_or_none=True)
            untried[[target for _, target in placed]] = False
            moves += placed
    return moves
