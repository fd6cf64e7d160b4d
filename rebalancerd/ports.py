"""The Protocols between the pure rooms and the world. The simulator and the libvirt adapters implement the same ones."""

from collections.abc import Sequence
from typing import Protocol

from rebalancerd.cluster.advice import Advice, AdviceRecord, AdviceScore, WatchedHour
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.decision import Command, CommandKind, CycleRecord, OperatorState
from rebalancerd.cluster.migration import Completion, MigrationRecord, Progress
from rebalancerd.cluster.night import Night, NightsTotal
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.power import PowerFault, PowerReading, PowerRecord
from rebalancerd.cluster.sample import AgentSample, CpuFit, Definition, HostInventory, HostSample
from rebalancerd.cluster.vm import DomainState, VmFacts


class HostError(Exception):
    """A host did not give an answer. ``host`` names it; the message says what was asked and what came back."""

    def __init__(self, host: str, message: str) -> None:
        super().__init__(f"{host}: {message}")
        self.host = host


class HostUnreachableError(HostError):
    """No connection, or it broke, or the call's deadline passed: nothing is known of the host."""


class HostRefusedError(HostError):
    """The host answered with an error. ``code`` is libvirt's error code (VIR_ERR_*), 0 if there is none."""

    def __init__(self, host: str, message: str, code: int = 0) -> None:
        super().__init__(host, message)
        self.code = code


class PowerError(HostError):
    """A host's power could not be asked or changed. ``fault`` says why; the message holds no secret.

    After an order this says nothing of whether the order was carried out.
    """

    def __init__(self, host: str, fault: PowerFault, message: str) -> None:
        super().__init__(host, message)
        self.fault = fault


class LedgerUnavailableError(Exception):
    """The ledger cannot be written or read: nothing may be started."""


class Clock(Protocol):
    """Time comes in here."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, UTC; may step."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class HypervisorRead(Protocol):
    """Read-only connections. Every call has its own deadline and raises HostUnreachableError or HostRefusedError."""

    def hosts(self) -> tuple[str, ...]:
        """Names of the configured hosts."""
        ...

    def sample(self, host: str) -> HostSample:
        """One bulk reading of a host and its domains."""
        ...

    def locate(self, host: str, vm_uuid: str) -> DomainState:
        """State of that domain on that host; ABSENT if it is not even defined there."""
        ...

    def progress(self, host: str, vm_uuid: str) -> Progress | None:
        """The running migration job of that domain on that host, None if there is no job."""
        ...

    def completion(self, host: str, vm_uuid: str) -> Completion | None:
        """Statistics of the last finished migration of that domain, asked of the destination or kept from the event."""
        ...

    def inventory(self, host: str) -> HostInventory:
        """Networks, secrets, filters, domains and the like that a preflight compares."""
        ...

    def domain_facts(self, host: str, vm_uuid: str) -> VmFacts | None:
        """Facts of one domain, read now and not from a cache; None if it is not there."""
        ...

    def definition(self, host: str, vm_uuid: str) -> Definition | None:
        """What is defined of a domain that is shut off, and what the host keeps for it; None if it is not there."""
        ...


class HypervisorProbe(Protocol):
    """The few harmless calls that libvirt refuses to read-only clients."""

    def start_dirty_rate(self, host: str, vm_uuid: str, period_seconds: int) -> None:
        """Start a page-sampling dirty-rate calculation; the result arrives in a later sample."""
        ...

    def cpu_fit(self, vm_uuid: str, source: str, destination: str) -> tuple[CpuFit, str]:
        """Whether the destination's hypervisor accepts the VM's live CPU, and the detail in words."""
        ...


class MigrationHandle(Protocol):
    """A migrate call that was handed to libvirt."""

    def done(self) -> bool:
        """Whether the call has returned (which says nothing about where the VM runs)."""
        ...

    def error(self) -> HostError | None:
        """The error it returned with, None if it returned without one or has not returned."""
        ...


class HypervisorWrite(Protocol):
    """The calls that change something. Built in ``guarded`` and ``auto`` mode only."""

    def migrate(self, record: MigrationRecord) -> MigrationHandle:
        """Hand a live migration to the source's libvirt (peer to peer) and return at once."""
        ...

    def abort(self, host: str, vm_uuid: str) -> None:
        """Ask for the job's abort; returns before it has effect."""
        ...

    def set_max_downtime(self, host: str, vm_uuid: str, seconds: float) -> None:
        """Change the allowed downtime of a running migration."""
        ...

    def set_bandwidth(self, host: str, vm_uuid: str, bytes_per_second: float) -> None:
        """Change the bandwidth cap of a running migration."""
        ...

    def set_autostart(self, host: str, vm_uuid: str, autostart: bool) -> None:
        """Set a domain's autostart flag."""
        ...

    def may_set_autostart(self, host: str) -> bool:
        """Whether this connection has the right to set autostart on that host."""
        ...

    def move_definition(self, source: str, destination: str, vm_uuid: str) -> None:
        """Have libvirt move the definition of a domain that is shut off; what is seen afterwards decides how it ended."""
        ...


class Agents(Protocol):
    """The hosts' own metrics agents, where a host names one."""

    def read(self, host: str) -> AgentSample | None:
        """The agent's figures; None if the host names no agent or it does not answer."""
        ...


class Power(Protocol):
    """Power of hosts. Every call has its own deadline and raises PowerError. Nothing here can force a host off."""

    def hosts(self) -> frozenset[str]:
        """Names of the hosts whose power can be controlled."""
        ...

    def state(self, host: str) -> PowerReading:
        """What the host's management controller says now."""
        ...

    def on(self, host: str) -> None:
        """Order it to be powered on; nothing where it is on already."""
        ...

    def graceful_off(self, host: str) -> None:
        """Order its operating system to shut down; returns before it has."""
        ...


class PowerMeter(Protocol):
    """One source of what hosts draw. ``name`` in words; ``asks``: a reading costs a call to a controller."""

    name: str
    asks: bool

    def hosts(self) -> frozenset[str]:
        """Hosts that it may tell of."""
        ...

    def watts(self, host: str) -> float | None:
        """What the host draws now, unchecked; None while nothing is said. Raises PowerError."""
        ...


class PowerLedger(Protocol):
    """Memory of who is asleep and why. Every method raises LedgerUnavailableError when it cannot do what it says."""

    def record_power(self, record: PowerRecord) -> None:
        """Append a host's new state, durable when this returns."""
        ...

    def power_records(self) -> tuple[PowerRecord, ...]:
        """The newest state of every host that ever had one, by name."""
        ...


class NightLedger(Protocol):
    """What nights of consolidation saved and cost. Every method raises LedgerUnavailableError when it cannot."""

    def record_night(self, night: Night) -> int:
        """Write a night as it is now, a new one (``id`` 0) with its evening; returns its number."""
        ...

    def night_under_way(self) -> Night | None:
        """The night that is not over, with its evening."""
        ...

    def nights(self, limit: int = 30) -> tuple[Night, ...]:
        """The last nights without their evenings, newest first."""
        ...

    def nights_total(self) -> NightsTotal:
        """What the nights that are over add up to."""
        ...

    def plan(self, plan_id: str) -> Plan | None:
        """The plan of that id."""
        ...

    def moves_between(self, since: float, until: float) -> tuple[int, float]:
        """How many migrations of ours ended in that time, and the seconds they took together."""
        ...


class Lease(Protocol):
    """The right to be the one controller."""

    def held(self) -> bool:
        """Whether this controller holds it now."""
        ...

    @property
    def epoch(self) -> int:
        """Number of this tenure."""
        ...

    @property
    def standby(self) -> bool:
        """Whether this controller waits for its turn beside others: not holding the lease is no fault then."""
        ...


class Ledger(Protocol):
    """Append-only memory. Every method raises LedgerUnavailableError when it cannot do what it says."""

    def record_cycle(self, record: CycleRecord) -> int:
        """Write a cycle with its decisions and refusals; returns its number."""
        ...

    def record_plan(self, plan: Plan) -> None:
        """Write a plan (idempotent by id)."""
        ...

    def plan(self, plan_id: str) -> Plan | None:
        """The plan of that id."""
        ...

    def open_intent(self, record: MigrationRecord) -> None:
        """Make the intent durable, before the libvirt call."""
        ...

    def update_migration(self, record: MigrationRecord) -> None:
        """Append the migration's new state."""
        ...

    def open_migrations(self) -> tuple[MigrationRecord, ...]:
        """Migrations without a verdict."""
        ...

    def migrations(
        self, *, since: float = 0.0, vm_uuid: str | None = None, limit: int | None = None
    ) -> tuple[MigrationRecord, ...]:
        """Migrations whose intent is not older than ``since``, newest first."""
        ...

    def add_command(
        self,
        kind: CommandKind,
        *,
        at: float,
        by: str,
        subject: str | None = None,
        step: int | None = None,
        digest: str | None = None,
        until: float | None = None,
        reason: str = "",
    ) -> Command:
        """Write an operator's command and return it numbered."""
        ...

    def operator_state(self, now: float) -> OperatorState:
        """What all commands so far add up to at that instant."""
        ...

    def use_approval(self, command_id: int, migration_id: str) -> bool:
        """Consume an approval for one start; False if that approval was used for this step already."""
        ...

    def cycles(self, *, limit: int = 20, before: int | None = None) -> Sequence[CycleRecord]:
        """The last cycles, newest first."""
        ...


class AdviceLedger(Protocol):
    """What became of advice. Every method raises LedgerUnavailableError when it cannot do what it says."""

    def add_advice(self, advice: Advice) -> int:
        """Write advice; returns its number."""
        ...

    def score_advice(self, score: AdviceScore) -> None:
        """Write how a piece of advice turned out; the first verdict stays."""
        ...

    def unscored_advice(self) -> tuple[tuple[int, Advice | None], ...]:
        """(number, advice) of all that is not judged yet, oldest first; None in place of one that cannot be read."""
        ...

    def advised_sources(self, since: float, until: float) -> tuple[tuple[str, float, float], ...]:
        """(source, proposed at, end of its window) of advice whose window reaches into that time, oldest first."""
        ...

    def add_watched_hour(self, hour: WatchedHour) -> None:
        """Write what an hour was like; the first word stays."""
        ...

    def last_watched_hour(self, until: int) -> int | None:
        """The newest hour on record that is not later than ``until``."""
        ...

    def advice_record(self, since: float) -> AdviceRecord:
        """What advice and hours since then add up to."""
        ...


__all__ = [
    "AdviceLedger",
    "Agents",
    "Clock",
    "HostError",
    "HostRefusedError",
    "HostUnreachableError",
    "HypervisorProbe",
    "HypervisorRead",
    "HypervisorWrite",
    "Lease",
    "Ledger",
    "LedgerUnavailableError",
    "MigrationHandle",
    "MigrationOptions",
    "NightLedger",
    "Power",
    "PowerError",
    "PowerLedger",
    "PowerMeter",
]
