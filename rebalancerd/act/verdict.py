"""Where a VM is after a migration, as both hosts say: every pair of states and what it means, in one table.

Nothing here knows what the libvirt call returned. A pair that is seen on the way of a healthy migration, or that a
later look may explain, must hold for a while before it is believed; so must every critical one, because the hosts are
read one after the other and the VM may switch in between (source first, so it can look doubled but never lost).
"""

from dataclasses import dataclass
from enum import StrEnum

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.vm import DomainState


class Side(StrEnum):
    """What one host says of the domain, reduced to what the verdict needs."""

    RUNS = "runs"
    PAUSED = "is paused"
    COPY = (
        "is paused by migration"  # an unfinished copy on the destination, the remains after switch-over on the source
    )
    POSTCOPY = "is in post-copy"
    BROKEN = "is in failed post-copy"
    OFF = "is off"
    ABSENT = "is absent"
    SILENT = "is unknown"


SIDES: dict[DomainState, Side] = {
    DomainState.RUNNING: Side.RUNS,
    DomainState.PAUSED: Side.PAUSED,
    DomainState.PAUSED_IOERROR: Side.PAUSED,
    DomainState.PAUSED_MIGRATION: Side.COPY,
    DomainState.PAUSED_POSTCOPY: Side.POSTCOPY,
    DomainState.RUNNING_POSTCOPY: Side.POSTCOPY,
    DomainState.PAUSED_POSTCOPY_FAILED: Side.BROKEN,
    DomainState.RUNNING_POSTCOPY_FAILED: Side.BROKEN,
    DomainState.SHUTOFF: Side.OFF,
    DomainState.CRASHED: Side.OFF,
    DomainState.ABSENT: Side.ABSENT,
    DomainState.UNKNOWN: Side.SILENT,
}


class Patience(StrEnum):
    """How long a pair must hold before it is believed."""

    NONE = "none"
    SETTLE = "settle"
    LOST_SOURCE = "lost_source"
    LOST_SOURCE_AFTER_DEADLINE = "lost_source_after_deadline"
    LOST_SOURCE_REMOVED = "lost_source_removed"  # and only when the operator has taken the source out of the cluster


@dataclass(frozen=True, slots=True)
class Finding:
    """What a pair means: a verdict, STUCK where only a person can tell, or None: no verdict, wait."""

    state: MigrationState | None
    patience: Patience = Patience.NONE
    note: str = ""


_S = MigrationState
_LATER = Patience.SETTLE

WAIT = Finding(None)
HAPPENED = Finding(_S.SUCCEEDED)
CLEANUP = Finding(
    _S.SUCCEEDED, _LATER, "runs on the destination; the source still holds a paused copy, which must never be resumed"
)
STILL_DEFINED = Finding(
    _S.SUCCEEDED,
    _LATER,
    "runs on the destination; the source still defines it, shut off: undefine it there, or that host may start it a "
    "second time when it boots",
)
SOURCE_GONE = Finding(
    _S.SUCCEEDED, Patience.LOST_SOURCE_REMOVED, "runs on the destination; the source is no host of the cluster any more"
)
ROLLED_BACK = Finding(_S.FAILED)
LEFTOVER = Finding(_S.FAILED, _LATER, "runs on the source; a paused copy is left on the destination")
NO_ANSWER = Finding(_S.FAILED, _LATER, "runs on the source; the destination does not answer")
PAUSED_AT_HOME = Finding(_S.FAILED, _LATER, "paused on the source, and not by the migration")
UNCLEAR = Finding(_S.STUCK, _LATER, "paused: only a person can tell which copy is whole")
DOUBLED = Finding(_S.DUPLICATED, _LATER, "active on both hosts")
NOWHERE = Finding(_S.MISSING, _LATER, "on neither host")
STOPPED = Finding(_S.VM_STOPPED, Patience.NONE, "the guest stopped")
STOPPED_COPY = Finding(
    _S.VM_STOPPED, _LATER, "the guest stopped on the source; an unfinished copy is left on the destination"
)
ARRIVED_STOPPED = Finding(_S.VM_STOPPED, _LATER, "the guest arrived and stopped there")
ARRIVED_PAUSED = Finding(_S.DEGRADED, _LATER, "paused on the destination")
SOURCE_LOST = Finding(
    _S.LOST_SOURCE, Patience.LOST_SOURCE, "the source does not answer, the destination has no whole copy"
)
SOURCE_LOST_COPY = Finding(
    _S.LOST_SOURCE,
    Patience.LOST_SOURCE_AFTER_DEADLINE,
    "the source does not answer, the destination holds an unfinished copy",
)
SOURCE_EMPTY = Finding(_S.LOST_SOURCE, _LATER, "gone from the source, an unfinished copy is left on the destination")
TORN = Finding(_S.POSTCOPY_BROKEN, _LATER, "post-copy broke")

_COLUMNS = (Side.RUNS, Side.PAUSED, Side.COPY, Side.POSTCOPY, Side.BROKEN, Side.OFF, Side.ABSENT, Side.SILENT)
# a row per state of the source; columns: what the destination says, in the order of _COLUMNS
_ROWS: dict[Side, tuple[Finding, ...]] = {
    Side.RUNS: (DOUBLED, LEFTOVER, LEFTOVER, DOUBLED, TORN, ROLLED_BACK, ROLLED_BACK, NO_ANSWER),
    Side.PAUSED: (CLEANUP, UNCLEAR, PAUSED_AT_HOME, UNCLEAR, TORN, PAUSED_AT_HOME, PAUSED_AT_HOME, WAIT),
    Side.COPY: (CLEANUP, UNCLEAR, UNCLEAR, UNCLEAR, TORN, UNCLEAR, UNCLEAR, WAIT),
    Side.POSTCOPY: (CLEANUP, UNCLEAR, UNCLEAR, WAIT, TORN, TORN, TORN, WAIT),
    Side.BROKEN: (CLEANUP, TORN, TORN, TORN, TORN, TORN, TORN, TORN),
    Side.OFF: (STILL_DEFINED, ARRIVED_PAUSED, STOPPED_COPY, TORN, TORN, STOPPED, STOPPED, WAIT),
    Side.ABSENT: (HAPPENED, ARRIVED_PAUSED, SOURCE_EMPTY, TORN, TORN, ARRIVED_STOPPED, NOWHERE, WAIT),
    Side.SILENT: (SOURCE_GONE, SOURCE_LOST, SOURCE_LOST_COPY, WAIT, TORN, SOURCE_LOST, SOURCE_LOST, WAIT),
}
TABLE: dict[tuple[Side, Side], Finding] = {
    (source, destination): finding
    for source, row in _ROWS.items()
    for destination, finding in zip(_COLUMNS, row, strict=True)
}


def side(state: DomainState | None) -> Side:
    """The side a state belongs to; None (no answer) is silent."""
    return Side.SILENT if state is None else SIDES[state]


def finding(source: DomainState | None, destination: DomainState | None) -> Finding:
    """What the pair of states means once no job runs; None stands for a host that does not answer."""
    return TABLE[side(source), side(destination)]
