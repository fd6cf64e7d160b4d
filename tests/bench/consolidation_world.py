"""The world of CloudSim 3.0.3's PlanetLab example: 800 hosts, one VM per trace, a decision every five minutes.

A VM's demand is its trace, interpolated linearly, times its MIPS. Power is instantaneous: a host without load draws
nothing. A migration takes RAM / 62.5 MB/s; meanwhile the source serves 90 % of the VM and the destination counts 10 %
of it. "compat" keeps the original's quirks: a VM whose demand is exactly zero is destroyed for good, and memory binds
only the first placement. "corrected" destroys nobody, gives a host 16 GiB and enforces them always, and counts only
VMs that live on a host. Times are seconds, memory MB, power W, energy kWh; hosts and VMs are row numbers.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HOSTS = 800
STEP_SECONDS = 300.0
FIRST_STEP = 300.1
HOST_PE_MIPS = np.array([1860.0, 2660.0])
PES = 2
HOST_WATTS = np.array(
    [
        [86.0, 89.4, 92.6, 96.0, 99.5, 102.0, 106.0, 108.0, 112.0, 114.0, 117.0],
        [93.7, 97.0, 101.0, 105.0, 110.0, 116.0, 121.0, 125.0, 129.0, 133.0, 135.0],
    ]
)
VM_MIPS = np.array([2500.0, 2000.0, 1000.0, 500.0])
VM_RAM = np.array([870.0, 1740.0, 1740.0, 613.0])
MIGRATION_MB_PER_SECOND = 62.5
IN_SHARE, OUT_SHARE = 0.1, 0.9
KWH = 3.6e6
HISTORY = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Which rules hold. ``host_ram``: MB of a host; ``ram_always``: memory binds every move, not the first placement only."""

    name: str
    kills: bool
    host_ram: float
    ram_always: bool
    residents_only: bool


COMPAT = Variant(name="compat", kills=True, host_ram=4096.0, ram_always=False, residents_only=False)
CORRECTED = Variant(name="corrected", kills=False, host_ram=16384.0, ram_always=True, residents_only=True)


def watts(kinds: Ints, utilisation: Floats) -> Floats:
    """SPECpower by the original's own arithmetic: ties between hosts are decided by its rounding."""
    tenths = utilisation * 10
    low, high = np.floor(tenths).astype(np.int64), np.ceil(tenths).astype(np.int64)
    first, second = HOST_WATTS[kinds, low], HOST_WATTS[kinds, high]
    between = first + (second - first) / 10 * (utilisation - low / 10) * 100
    found: Floats = np.where(np.fmod(utilisation, 0.1) == 0, HOST_WATTS[kinds, tenths.astype(np.int64)], between)
    return found


@dataclass(slots=True)
class Flight:
    """One migration under way."""

    vm: int
    target: int
    ends: float


@dataclass(slots=True)
class Tally:
    """What a run adds up: MIPS-seconds of VMs, seconds of hosts, W-seconds."""

    watt_seconds: float = 0.0
    migrations: int = 0
    requested: float = 0.0
    allocated: float = 0.0
    lost_migrating: float = 0.0
    active_seconds: float = 0.0
    short_seconds: float = 0.0
    killed: int = 0

    @property
    def energy_kwh(self) -> float:
        """Energy of all hosts."""
        return self.watt_seconds / KWH

    @property
    def slav(self) -> float:
        """SLATAH × PDM, as shares."""
        if not self.active_seconds or not self.requested:
            return 0.0
        return (self.short_seconds / self.active_seconds) * (self.lost_migrating / self.requested)

    @property
    def shortage(self) -> float:
        """Unserved ÷ requested MIPS-seconds of the VMs where they live, what migrations slow down included."""
        return (self.requested - self.allocated) / self.requested if self.requested else 0.0


@dataclass(slots=True)
class World:
    """State and rules of one day. ``percent``: (N, T) CPU per cent of each VM, one column every 300 s."""

    percent: NDArray[np.int64]
    variant: Variant
    hosts: int = HOSTS
    tally: Tally = field(default_factory=Tally)
    now: float = 0.0
    flights: list[Flight] = field(default_factory=list)

    mips: Floats = field(init=False)
    ram: Floats = field(init=False)
    kinds: Ints = field(init=False)
    pe_mips: Floats = field(init=False)
    host_mips: Floats = field(init=False)
    shares: Floats = field(init=False)
    home: Ints = field(init=False)
    arrival: Ints = field(init=False)
    request: Floats = field(init=False)
    served: Floats = field(init=False)
    history: Floats = field(init=False)
    used_mips: Floats = field(init=False)
    _host_asked: Floats = field(init=False)
    _host_given: Floats = field(init=False)
    _moving: Bools = field(init=False)
    _arrivals: int = 0

    def __post_init__(self) -> None:
        """Sizes by number: VMs in four equal runs of types, hosts of both kinds in turn."""
        count = len(self.percent)
        vm_types = np.arange(count) // int(np.ceil(count / len(VM_MIPS)))
        self.mips, self.ram = VM_MIPS[vm_types], VM_RAM[vm_types]
        self.kinds = np.arange(self.hosts) % 2
        self.pe_mips = HOST_PE_MIPS[self.kinds]
        self.host_mips = self.pe_mips * PES
        self.shares = np.concatenate([self.percent, self.percent[:, -1:]], axis=1) / 100.0
        self.home = np.full(count, -1, dtype=np.int64)
        self.arrival = np.zeros(count, dtype=np.int64)
        self.request, self.served = np.zeros(count), np.zeros(count)
        self.history = np.zeros((count, HISTORY))
        self.used_mips, self._host_asked, self._host_given = (np.zeros(self.hosts) for _ in range(3))
        self._moving = np.zeros(count, dtype=np.bool_)

    @property
    def steps(self) -> int:
        """Decisions of the day."""
        return self.percent.shape[1] - 1

    @property
    def utilisation(self) -> Floats:
        """Share of each host's MIPS given out at the last update."""
        return np.minimum(self.used_mips / self.host_mips, 1.0)

    def residents(self) -> Ints:
        """VMs that exist, in the order in which they came to their hosts."""
        order = np.argsort(self.arrival, kind="stable")
        found: Ints = order[self.home[order] >= 0]
        return found

    def settle(self, vm: int, host: int) -> None:
        """Put a VM on a host, last of its list."""
        self._arrivals += 1
        self.home[vm], self.arrival[vm] = host, self._arrivals

    def share_at(self, time: float) -> Floats:
        """Each VM's demand as a share of its MIPS, linear between samples."""
        before = int(time // STEP_SECONDS)
        after = min(before + 1, self.shares.shape[1] - 1)
        slope = (self.shares[:, after] - self.shares[:, before]) / STEP_SECONDS
        found: Floats = self.shares[:, before] + slope * (time - before * STEP_SECONDS)
        return found

    def update(self, time: float) -> None:
        """Let the world come to this time: what ran until now is booked, demand and power change, the idle may be killed."""
        seconds = time - self.now
        before = self.utilisation
        self._book(seconds)
        self.now = time
        self.request = np.where(self.home >= 0, self.share_at(time) * self.mips, 0.0)
        self.allocate()
        if seconds > 0:
            on = before > 0
            mean = (watts(self.kinds, before) + watts(self.kinds, self.utilisation)) / 2
            self.tally.watt_seconds += float(np.sum(mean[on]) * seconds)
        if self.variant.kills:
            dead = (self.home >= 0) & ~self._moving & (self.request == 0)
            self.tally.killed += int(np.count_nonzero(dead))
            self.home[dead] = -1
        if seconds > 0 and (time - 0.1) % STEP_SECONDS == 0:
            alive = self.home >= 0
            self.history[alive, 1:] = self.history[alive, :-1]
            self.history[alive, 0] = (self.request / self.mips)[alive]

    def _book(self, seconds: float) -> None:
        tally = self.tally
        tally.requested += float(self.request.sum()) * seconds
        tally.allocated += float(self.served.sum()) * seconds
        tally.lost_migrating += float(np.sum((self.request - self.served)[self._moving])) * seconds
        active = self.used_mips > 0
        tally.active_seconds += int(np.count_nonzero(active)) * seconds
        tolerance = 1e-6 if self.variant.residents_only else 0.0
        short = active & (self._host_given + tolerance < self._host_asked)
        tally.short_seconds += int(np.count_nonzero(short)) * seconds

    def allocate(self) -> None:
        """Share out every host's MIPS by the requests of now: hosts asked for more than they have scale all down alike."""
        members = self.residents()
        vms = np.array([flight.vm for flight in self.flights], dtype=np.int64)
        targets = np.array([flight.target for flight in self.flights], dtype=np.int64)
        at = self.home[members]
        capped = np.minimum(self.request[members], self.pe_mips[at])
        capped_in = np.minimum(self.request[vms], self.pe_mips[targets])
        load = self._per_host(at, capped) + self._per_host(targets, capped_in * IN_SHARE)
        crowded = load > self.host_mips
        scale = np.where(crowded, self.host_mips / np.where(crowded, load, 1.0), 1.0)
        out = np.where(self._moving[members], OUT_SHARE, 1.0)
        given = np.where(crowded[at], np.floor(capped * scale[at] * out), capped * out)
        given_in = capped_in * IN_SHARE
        given_in = np.where(crowded[targets], np.floor(given_in * scale[targets]), given_in)
        full = np.where(self._moving[members], given / OUT_SHARE, given)
        self.served = np.zeros(len(self.home))
        self.served[members] = given
        self.used_mips = self._per_host(np.concatenate([at, targets]), np.concatenate([full, given_in]))
        if self.variant.residents_only:
            self._host_given = self._per_host(at, full)
            self._host_asked = self._per_host(at, self.request[members])
        else:
            self._host_given = self.used_mips
            both = np.concatenate([at, targets])
            self._host_asked = self._per_host(both, np.concatenate([self.request[members], self.request[vms]]))

    def _per_host(self, at: Ints, values: Floats) -> Floats:
        return np.bincount(at, weights=values, minlength=self.hosts)

    def start(self, moves: list[tuple[int, int]]) -> None:
        """Start migrations (VM, destination). Raises ValueError for one that memory forbids or that goes nowhere."""
        for vm, target in moves:
            if self.home[vm] < 0 or self.home[vm] == target:
                raise ValueError(f"VM {vm} on host {self.home[vm]} cannot move to host {target}")
            self.flights.append(Flight(vm, target, self.now + float(self.ram[vm]) / MIGRATION_MB_PER_SECOND))
            self._moving[vm] = True
        self.tally.migrations += len(moves)
        if self.variant.ram_always:
            self._check_memory()
        if moves:
            self.allocate()

    def _check_memory(self) -> None:
        used = self.ram_used()
        if used.max() > self.variant.host_ram:
            raise ValueError(f"host {int(used.argmax())} would hold {used.max():.0f} MB of {self.variant.host_ram:.0f}")

    def ram_used(self) -> Floats:
        """MB of each host, VMs that are on their way counted at both ends."""
        members = self.residents()
        used = self._per_host(self.home[members], self.ram[members])
        for flight in self.flights:
            used[flight.target] += self.ram[flight.vm]
        return used

    def land(self, until: float) -> None:
        """Let migrations end that end before that time, those of one moment together."""
        while self.flights and (ends := min(flight.ends for flight in self.flights)) < until:
            self.update(ends)
            landed = [flight for flight in self.flights if flight.ends == ends]
            self.flights = [flight for flight in self.flights if flight.ends != ends]
            for flight in landed:
                self.settle(flight.vm, flight.target)
                self._moving[flight.vm] = False
            self.update(ends)
