"""Watch: what is remembered of one open migration between two looks at it."""

import math
import threading
from dataclasses import dataclass, field

from rebalancerd.act.deadline import deadline_seconds
from rebalancerd.act.settings import ActSettings
from rebalancerd.act.stall import StallTrack
from rebalancerd.cluster.migration import Completion, MigrationRecord, Progress
from rebalancerd.cluster.vm import DomainState
from rebalancerd.ports import HostError, MigrationHandle

Pair = tuple[DomainState | None, DomainState | None]


@dataclass(slots=True, kw_only=True, eq=False)
class Watch:
    """One migration under watch; instants are monotonic seconds. ``lock`` is held by whoever looks or acts.

    ``begun_at``: hand-over, or adoption until its job tells its age. ``abandon_at``: from when on an intent without a
    job can no longer become one. ``pair`` and ``pair_since``: both hosts' states as last seen, and since when.
    ``copied`` and ``copied_since``: what its job had copied and left when last seen, and since when that is the same.
    ``late``: that it has outlived its prediction, in words, once that was seen.
    ``unsaved``: the record is newer than the ledger's. ``older_completions``: figures of earlier migrations, which the hosts
    still told when this one was handed over.
    """

    record: MigrationRecord
    begun_at: float
    deadline_at: float
    abandon_at: float
    memory_bytes: int | None = None
    handle: MigrationHandle | None = None
    progress: Progress | None = None
    job_seen: bool = False
    seen_at: float | None = None
    flowed: bool = False
    stall: StallTrack = field(default_factory=StallTrack)
    allowed_downtime_seconds: float | None = None
    abort_at: float | None = None
    abort_reason: str = ""
    abort_retry_at: float | None = None
    late: str = ""
    pair: Pair | None = None
    pair_since: float = 0.0
    copied: tuple[int | None, int | None] | None = None
    copied_since: float = 0.0
    silent_since: float | None = None
    silent_seconds: float = 0.0
    restoring_since: float | None = None
    unsaved: bool = False
    older_completions: tuple[Completion, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def still_seconds(self) -> float:
        """How long nothing had been sent when the job was last seen."""
        moved = self.stall.moved_at
        return 0.0 if moved is None or self.seen_at is None else max(0.0, self.seen_at - moved)

    @property
    def bound_seconds(self) -> float | None:
        """Upper bound of its predicted duration, None without a finite one."""
        predicted = self.record.predicted
        return predicted.seconds.upper if predicted is not None and math.isfinite(predicted.seconds.upper) else None

    @property
    def call_open(self) -> bool:
        """Whether our libvirt call has not returned."""
        return self.handle is not None and not self.handle.done()

    @property
    def error(self) -> HostError | None:
        """What our libvirt call returned with."""
        return self.handle.error() if self.handle is not None else None

    @property
    def begun(self) -> bool:
        """Whether a job was seen, or our call has returned."""
        return self.job_seen or (self.handle is not None and self.handle.done())

    def stopped_seconds(self, progress: Progress, now: float) -> float:
        """Take a reading of its job; returns for how many seconds nothing has been copied."""
        copied = progress.processed_bytes, progress.remaining_bytes
        if copied != self.copied:
            self.copied, self.copied_since = copied, now
        return now - self.copied_since

    def saw_job(self, progress: Progress, now: float, settings: ActSettings) -> None:
        """Take a reading of its job; the first one of an adopted migration tells its age and its size."""
        if not self.job_seen and self.handle is None:
            self.begun_at = now - progress.elapsed_seconds
            self.memory_bytes = self.memory_bytes or progress.total_bytes or None
            self.deadline_at = self.begun_at + deadline_seconds(settings, self.record.predicted, self.memory_bytes)
        self.job_seen, self.seen_at = True, now
        self.flowed = self.flowed or bool(progress.processed_bytes)
        self.progress, self.pair = progress, None
        self.saw_source(now)

    def saw_source(self, now: float) -> None:
        """The source answered."""
        if self.silent_since is not None:
            self.silent_seconds = max(self.silent_seconds, now - self.silent_since)
            self.silent_since = None

    def saw_pair(self, pair: Pair, now: float) -> float:
        """Take the states of both hosts; returns for how many seconds they have been the same."""
        if pair[0] is None or pair[0] is DomainState.UNKNOWN:
            self.silent_since = now if self.silent_since is None else self.silent_since
        else:
            self.saw_source(now)
        if pair != self.pair:
            self.pair, self.pair_since = pair, now
        return now - self.pair_since
