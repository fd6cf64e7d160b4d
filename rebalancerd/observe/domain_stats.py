"""What libvirt's dictionaries say, parsed defensively: states, bulk statistics, job statistics. Pure.

Numbers of states and reasons are libvirt's ABI (libvirt-domain.h); every field may be missing or absurd, and what is
missing or absurd is None, never zero.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rebalancerd.cluster.migration import Completion, Progress
from rebalancerd.cluster.sample import DomainSample
from rebalancerd.cluster.units import KIB, MIB
from rebalancerd.cluster.vm import DomainState, VmFacts

Stats = Mapping[str, object]
MAX_COUNTER = 2**63
MAX_VCPUS = 4096

RUNNING_REASONS = {10: DomainState.RUNNING_POSTCOPY, 11: DomainState.RUNNING_POSTCOPY_FAILED}
PAUSED_REASONS = {
    2: DomainState.PAUSED_MIGRATION,
    5: DomainState.PAUSED_IOERROR,
    12: DomainState.PAUSED_POSTCOPY,
    13: DomainState.PAUSED_POSTCOPY_FAILED,
}
# "shutdown" (4) is being shut down: neither running nor gone, so nothing is assumed of it
STATES = {2: DomainState.RUNNING, 5: DomainState.SHUTOFF, 6: DomainState.CRASHED, 7: DomainState.PAUSED}
JOB_UNBOUNDED, JOB_BOUNDED, JOB_COMPLETED = 2, 1, 3
OPERATION_MIGRATION_IN, OPERATION_MIGRATION_OUT = 4, 5
OPERATIONS = {
    1: "start",
    2: "save",
    3: "restore",
    4: "migration in",
    5: "migration out",
    6: "snapshot",
    7: "snapshot revert",
    8: "dump",
    9: "backup",
    10: "snapshot delete",
}


def domain_state(state: object, reason: object) -> DomainState:
    """The (state, reason) pair of libvirt reduced to what decisions need."""
    if state == 1:
        return RUNNING_REASONS.get(reason, DomainState.RUNNING) if isinstance(reason, int) else DomainState.RUNNING
    if state == 3:
        return PAUSED_REASONS.get(reason, DomainState.PAUSED) if isinstance(reason, int) else DomainState.PAUSED
    return STATES.get(state, DomainState.UNKNOWN) if isinstance(state, int) else DomainState.UNKNOWN


def whole(stats: Stats, key: str, *, most: int = MAX_COUNTER) -> int | None:
    """A non-negative whole number below ``most``, else None."""
    value = stats.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value < most else None


def _sum(stats: Stats, group: str, fields: tuple[str, ...]) -> int | None:
    """Sum of ``group.N.field`` over N; None if a count is told but no figure. No device at all is a true zero."""
    count = whole(stats, f"{group}.count", most=65536)
    found = [
        value for n in range(count or 0) for f in fields if (value := whole(stats, f"{group}.{n}.{f}")) is not None
    ]
    if count is None or (count > 0 and not found):
        return None
    return sum(found)


@dataclass(frozen=True, slots=True)
class DirtyStatus:
    """The dirty-rate group: ``started`` is on a clock of the host, good only to tell one calculation from another."""

    measuring: bool
    started: int
    period_seconds: int
    rate_bytes_per_second: int


def dirty_status(stats: Stats) -> DirtyStatus | None:
    """The last or running page-sampling calculation; None if there is none, or it was made in another mode."""
    status = whole(stats, "dirtyrate.calc_status", most=3)
    if status not in (1, 2) or stats.get("dirtyrate.calc_mode", "page-sampling") != "page-sampling":
        return None
    started = whole(stats, "dirtyrate.calc_start_time") or 0
    period = whole(stats, "dirtyrate.calc_period", most=61) or 0
    rate = whole(stats, "dirtyrate.megabytes_per_second", most=2**24)
    if status == 2 and (rate is None or period < 1):
        return None
    return DirtyStatus(status == 1, started, period, (rate or 0) * MIB)


def domain_sample(uuid: str, name: str, stats: Stats, facts: VmFacts | None, *, fault: str | None) -> DomainSample:
    """Counters of one domain out of one record of ``getAllDomainStats``; dirty readings are added by the caller."""
    vcpus = whole(stats, "vcpu.current", most=MAX_VCPUS)
    delays = [
        delay
        for n in range(whole(stats, "vcpu.maximum", most=MAX_VCPUS) or vcpus or 0)
        if (delay := whole(stats, f"vcpu.{n}.delay")) is not None
    ]
    balloon = whole(stats, "balloon.current")
    rss = whole(stats, "balloon.rss")
    return DomainSample(
        uuid=uuid,
        name=name,
        state=domain_state(stats.get("state.state"), stats.get("state.reason")),
        facts=facts,
        vcpus=vcpus or None,
        cpu_time_ns=whole(stats, "cpu.time"),
        vcpu_delay_ns=sum(delays) if delays else None,
        balloon_bytes=balloon * KIB if balloon else None,
        rss_bytes=rss * KIB if rss else None,
        block_bytes=_sum(stats, "block", ("rd.bytes", "wr.bytes")),
        network_bytes=_sum(stats, "net", ("rx.bytes", "tx.bytes")),
        fault=fault,
    )


def _seconds(stats: Stats, *keys: str) -> float | None:
    """The first of these milliseconds that is told, in seconds."""
    return next((ms / 1000 for key in keys if (ms := whole(stats, key)) is not None), None)


def running_job(stats: Stats) -> str | None:
    """The job that runs now, in words; None if there is none."""
    if stats.get("type") not in (JOB_BOUNDED, JOB_UNBOUNDED):
        return None
    operation = stats.get("operation")
    return OPERATIONS.get(operation, f"job {operation}") if isinstance(operation, int) else "a job"


def progress_of(stats: Stats) -> Progress | None:
    """A running live migration, in or out; None if no migration runs.

    ``downtime`` of a running job is the *expected* one. All memory fields are 0 in setup: then nothing is told.
    """
    job = running_job(stats)
    if job is None or (job not in ("migration in", "migration out", "a job")):
        return None
    total = whole(stats, "memory_total")
    page = whole(stats, "memory_page_size") or 4096
    dirty_pages = whole(stats, "memory_dirty_rate")
    begun = bool(total)
    return Progress(
        elapsed_seconds=_seconds(stats, "time_elapsed") or 0.0,
        total_bytes=total if begun else None,
        processed_bytes=whole(stats, "memory_processed") if begun else None,
        remaining_bytes=whole(stats, "memory_remaining") if begun else None,
        rate_bytes_per_second=whole(stats, "memory_bps") if begun else None,
        dirty_bytes_per_second=None if dirty_pages is None or not begun else float(dirty_pages * page),
        iteration=whole(stats, "memory_iteration") if begun else None,
        throttle=_throttle(stats),
        expected_downtime_seconds=_seconds(stats, "downtime"),
        postcopy=bool(whole(stats, "memory_postcopy_requests")),
    )


def completion_of(stats: Stats) -> Completion | None:
    """A finished migration, from the JOB_COMPLETED event (no ``type``) or from completed job statistics."""
    if stats.get("type", JOB_COMPLETED) != JOB_COMPLETED or stats.get("success") is False:
        return None
    if stats.get("operation", OPERATION_MIGRATION_OUT) not in (OPERATION_MIGRATION_IN, OPERATION_MIGRATION_OUT):
        return None
    processed, elapsed = whole(stats, "memory_processed"), _seconds(stats, "time_elapsed")
    if elapsed is None and processed is None:
        return None
    return Completion(
        total_seconds=elapsed,
        downtime_seconds=_seconds(stats, "downtime", "downtime_net"),
        transferred_bytes=processed,
        iterations=whole(stats, "memory_iteration"),
        throttle=_throttle(stats),
    )


def _throttle(stats: Stats) -> float | None:
    percent = whole(stats, "auto_converge_throttle", most=101)
    return None if percent is None else percent / 100
