"""The course of one simulated live migration: the truth that the product's predictions are measured against.

Pre-copy is stepped event by event: a round sends what is left at the rate the links give, while the guest dirties
pages by dU/dt = rate·(1 − U/W) (working set W), and the end of the round decides: switch over if what was dirtied fits
rate × allowed downtime, else another round, for ever if it never fits. This is on purpose not the product's own cost
physics, which interpolates a measured curve: here rates change with contention, throttling and other migrations.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from rebalancerd.cluster.migration import Completion, Progress
from rebalancerd.cluster.units import PAGE_BYTES

SETUP_SECONDS = 0.6  # libvirt's Begin and Prepare
FINISH_SECONDS = 1.4  # from resumed on the destination to the return of the call
DEVICE_SECONDS = 0.025  # device state and resume, within the downtime
PAGE_HEADER = 8  # bytes on the wire beside each page; a zero page is the header alone
KEEPALIVE_SECONDS = 30.0  # a peer that vanished is noticed after that
THROTTLE_FIRST, THROTTLE_STEP, THROTTLE_MAX = 0.20, 0.10, 0.99  # QEMU's auto-converge

ABORTED, OPERATION_FAILED, SYSTEM_ERROR, NO_DOMAIN, NOT_RUNNING = 78, 9, 38, 42, 55
LOCK_TIMEOUT, UNSAFE, NO_NETWORK, CPU_INCOMPATIBLE, CONFIG_UNSUPPORTED = 68, 81, 43, 91, 67


class Phase(StrEnum):
    """Where a migration is."""

    SETUP = "setup"  # source runs, destination prepares
    COPY = "copy"  # source runs, pages flow
    SWITCH = "switch"  # paused on both
    POSTCOPY = "postcopy"  # runs on the destination, pages still come from the source
    FINISH = "finish"  # runs on the destination, the source not yet cleaned up
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PlannedFailure:
    """A failure ordered by a fault: libvirt's code, and the share of the first round after which it strikes."""

    code: int
    message: str
    at_share: float = 0.5


@dataclass(slots=True, kw_only=True)
class Transfer:
    """One migration. ``wire_rate`` is set by the cluster whenever shares of the links change."""

    vm_uuid: str
    row: int
    source: str
    destination: str
    started: float
    max_downtime_seconds: float
    bandwidth_bytes_per_second: float | None
    auto_converge: bool
    persistent: bool
    ours: str | None  # id of our record; None is somebody else's migration
    memory_bytes: int
    refuse: PlannedFailure | None = None  # the preparation will be refused
    failure: PlannedFailure | None = None
    lie: bool = False  # the call reports an error although the VM moves
    arrive_paused: bool = False
    unattended: bool = False  # libvirt's own link is gone: the call has failed, QEMU goes on
    phase: Phase = Phase.SETUP
    phase_ends: float = 0.0
    remaining: float = 0.0
    dirty: float = 0.0
    sent: float = 0.0
    round_bytes: float = 0.0
    first_round: float = 0.0
    iteration: int = 0
    throttle: float = 0.0
    strikes: int = 0
    wire_rate: float = 0.0
    link_rate: float = 0.0
    cut_at: float | None = None
    abort_at: float | None = None
    downtime: float | None = None
    ended: float | None = None
    error: tuple[int, str] | None = field(default=None)

    def __post_init__(self) -> None:
        """The preparation takes its time."""
        self.phase_ends = self.started + SETUP_SECONDS

    @property
    def over(self) -> bool:
        """Whether libvirt's call has returned."""
        return self.phase in (Phase.DONE, Phase.FAILED) or self.unattended

    @property
    def copying(self) -> bool:
        """Whether it uses the links."""
        return self.phase in (Phase.COPY, Phase.POSTCOPY) and self.cut_at is None

    def begin_copy(self, resident_bytes: float) -> None:
        """First round: every page that holds something, and a header for every page that does not."""
        pages, zero = resident_bytes / PAGE_BYTES, max(0.0, self.memory_bytes - resident_bytes) / PAGE_BYTES
        self.phase, self.iteration = Phase.COPY, 1
        self.remaining = pages * (PAGE_BYTES + PAGE_HEADER) + zero * PAGE_HEADER
        self.round_bytes = self.first_round = self.remaining

    def next_event(self, now: float) -> float:
        """Virtual second of its next change of phase or round, at the present rates."""
        if self.over and not self.unattended:
            return math.inf
        times = [self.abort_at if self.abort_at is not None else math.inf]
        if self.phase is Phase.POSTCOPY:
            times.append(now + self.remaining / self.wire_rate if self.wire_rate > 0 else math.inf)
        elif self.phase is not Phase.COPY:
            times.append(self.phase_ends)
        elif self.cut_at is not None:
            times.append(self.cut_at + KEEPALIVE_SECONDS)
        elif self.wire_rate > 0:
            times.append(now + self.remaining / self.wire_rate)
            if self.failure is not None:
                left = self.first_round * self.failure.at_share - self.sent
                times.append(now + max(0.0, left) / self.wire_rate)
        return min(times)

    def flow(self, seconds: float, dirty_rate: float, working_set: float) -> None:
        """Let bytes flow and pages get dirty for a while in which no rate changes."""
        if self.phase not in (Phase.COPY, Phase.POSTCOPY):
            return
        moved = 0.0 if self.cut_at is not None else min(self.remaining, self.wire_rate * seconds)
        self.remaining -= moved
        self.sent += moved
        if working_set > 0 and dirty_rate > 0 and self.phase is Phase.COPY:
            self.dirty = working_set - (working_set - self.dirty) * math.exp(-dirty_rate * seconds / working_set)

    def end_round(self) -> bool:
        """Close a round; True if what is dirty now fits the allowed downtime. QEMU decides with the capped rate."""
        left = self.dirty * (1 + PAGE_HEADER / PAGE_BYTES)
        if left <= self.wire_rate * self.max_downtime_seconds:
            return True
        if self.auto_converge:
            self._throttle()
        self.iteration += 1
        self.remaining = self.round_bytes = left
        self.dirty = 0.0
        return False

    def _throttle(self) -> None:
        """QEMU: dirtied more than half of what was sent, twice, then slow the guest a step further."""
        self.strikes = self.strikes + 1 if self.dirty > self.round_bytes / 2 else 0
        if self.strikes >= 2:
            self.strikes = 0
            self.throttle = min(THROTTLE_MAX, self.throttle + THROTTLE_STEP) if self.throttle else THROTTLE_FIRST

    def begin_switch(self, now: float) -> None:
        """Pause and send the rest; the cap is lifted for that, so the link's own rate counts."""
        rest = self.dirty * (1 + PAGE_HEADER / PAGE_BYTES)
        self.downtime = rest / self.link_rate + DEVICE_SECONDS
        self.sent += rest
        self.remaining = 0.0
        self.phase, self.phase_ends = Phase.SWITCH, now + self.downtime

    def begin_postcopy(self) -> None:
        """The guest wakes on the destination at once; what it has not got yet comes from the source."""
        self.remaining += self.dirty
        self.dirty, self.downtime, self.phase = 0.0, DEVICE_SECONDS, Phase.POSTCOPY

    def fail(self, now: float, code: int, message: str) -> None:
        """End it with the VM where it was."""
        self.phase, self.ended, self.error = Phase.FAILED, now, (code, message)

    def progress(self, now: float, dirty_rate: float) -> Progress:
        """What the job's statistics say; nothing but the time while libvirt still shakes hands."""
        if self.phase is Phase.SETUP:
            return Progress(elapsed_seconds=now - self.started)
        return Progress(
            elapsed_seconds=now - self.started,
            total_bytes=self.memory_bytes,
            processed_bytes=int(self.sent),
            remaining_bytes=int(self.remaining),
            rate_bytes_per_second=self.wire_rate if self.copying else 0.0,
            dirty_bytes_per_second=None if self.iteration < 2 else dirty_rate,
            iteration=self.iteration,
            throttle=self.throttle,
            expected_downtime_seconds=self.dirty / self.wire_rate if self.wire_rate > 0 else None,
            postcopy=self.phase is Phase.POSTCOPY,
        )

    def completion(self) -> Completion:
        """What libvirt says of it when it has ended well."""
        return Completion(
            total_seconds=None if self.ended is None else self.ended - self.started,
            downtime_seconds=self.downtime,
            transferred_bytes=int(self.sent),
            iterations=self.iteration,
            throttle=self.throttle,
        )
