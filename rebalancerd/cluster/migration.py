"""MigrationRecord: one migration from intent to verdict, and what is read from a running job."""

from dataclasses import dataclass
from enum import StrEnum

from rebalancerd.cluster.cost import MigrationCost, MigrationOptions
from rebalancerd.cluster.known import MigrationFacts


class MigrationState(StrEnum):
    """Where a migration stands. The verdicts are decided by where the VM runs, asked of both hosts by UUID."""

    INTENT = "intent"  # durable, the libvirt call not yet known to have begun
    RUNNING = "running"
    ABORTING = "aborting"
    UNOBSERVED = "unobserved"  # a host does not answer: slots kept, nothing assumed
    STUCK = "stuck"  # past its deadline and the abort had no effect
    # verdicts
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # runs on the source, rolled back
    ABORTED = "aborted"  # runs on the source, by our abort
    ABANDONED = "abandoned"  # intent without a job: nothing ever began
    VM_STOPPED = "vm_stopped"
    LOST_SOURCE = "lost_source"
    DEGRADED = "degraded"  # on the destination, but paused: never resumed by us
    POSTCOPY_BROKEN = "postcopy_broken"
    DUPLICATED = "duplicated"  # active on both hosts: critical
    MISSING = "missing"  # on neither host: critical

    @property
    def is_open(self) -> bool:
        """Whether it still holds slots and must be watched."""
        return self in OPEN_STATES


MOVED_NOTE = "moved by somebody else"  # in the reason of a FAILED whose VM runs on a third host: nobody is to blame
CRASHED_NOTE = "the guest crashed"  # how the reason begins of a VM_STOPPED whose guest did not stop by itself
OPEN_STATES = frozenset(
    {
        MigrationState.INTENT,
        MigrationState.RUNNING,
        MigrationState.ABORTING,
        MigrationState.UNOBSERVED,
        MigrationState.STUCK,
    }
)
CRITICAL_STATES = frozenset({MigrationState.DUPLICATED, MigrationState.MISSING, MigrationState.POSTCOPY_BROKEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A reading of a running job (libvirt's jobStats); None is not told. Bytes and seconds; rates in bytes/second."""

    elapsed_seconds: float
    total_bytes: int | None = None
    processed_bytes: int | None = None
    remaining_bytes: int | None = None
    rate_bytes_per_second: float | None = None
    dirty_bytes_per_second: float | None = None
    iteration: int | None = None
    throttle: float | None = None
    expected_downtime_seconds: float | None = None
    postcopy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What libvirt says of a finished job; None is not told."""

    total_seconds: float | None = None
    downtime_seconds: float | None = None
    transferred_bytes: int | None = None
    iterations: int | None = None
    throttle: float | None = None


class AbortCause(StrEnum):
    """Why an abort was ordered."""

    DEADLINE = "deadline"  # it had not ended by then
    STALL = "stall"  # its remainder did not become smaller any more
    STANDSTILL = "standstill"  # nothing was sent any more: that tells of the link or a host, not of the guest
    OPERATOR = "operator"

    @property
    def is_non_convergence(self) -> bool:
        """Whether pre-copy was at work and did not come to its end."""
        return self in (AbortCause.DEADLINE, AbortCause.STALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortOrder:
    """Our order to abort. ``elapsed_seconds``: the job's own age when it was given."""

    cause: AbortCause
    elapsed_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationRecord:
    """One migration: the intent that was written before the act, then its course and verdict. Instants are epoch seconds.

    ``autostart``: value read on the source before, to be set on the destination after. ``adopted``: watched by a daemon
    that did not start it. ``known``: what the prediction rested on. ``ours`` False: started by somebody else and only
    counted. ``start_before``: monotonic-clock bound after which the libvirt call must not begin, as seconds left when the
    intent was written. ``deadline_seconds``: hand-over to the abort that was intended. ``postcopy``: it was seen in
    post-copy. ``abort``: the order that we gave.
    """

    id: str
    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    state: MigrationState
    intent_at: float
    plan_id: str | None = None
    step: int | None = None
    cycle_id: int | None = None
    controller: str = ""
    epoch: int = 0
    start_before_seconds: float = 30.0
    options: MigrationOptions = MigrationOptions()
    predicted: MigrationCost | None = None
    known: MigrationFacts | None = None
    deadline_seconds: float | None = None
    persistent: bool = True
    autostart: bool | None = None
    autostart_restored: bool | None = None
    started_at: float | None = None
    ended_at: float | None = None
    completion: Completion | None = None
    postcopy: bool = False
    abort: AbortOrder | None = None
    reason: str = ""
    adopted: bool = False
    ours: bool = True

    @property
    def seconds(self) -> float | None:
        """Hand-over to verdict."""
        return None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at
