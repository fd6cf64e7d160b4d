"""Advice: a move that was proposed, and how it would have turned out, judged once its window is over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rebalancerd.cluster.host import Host


class Verdict(StrEnum):
    """What became of advice."""

    RIGHT = "right"  # it relieves more than it costs, and its destination stays cool
    NEEDLESS = "needless"  # its source was never hot, or not hot enough to be worth the cost
    HARMFUL = "harmful"  # its destination would have been hot
    OVERTAKEN = "overtaken"  # VM or hosts changed so that it cannot be judged
    UNKNOWN = "unknown"  # too little was measured

    @property
    def is_scored(self) -> bool:
        """Whether it says something of how good the advice was."""
        return self in (Verdict.RIGHT, Verdict.NEEDLESS, Verdict.HARMFUL)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTerms:
    """What a load of a host is measured against: cores of its own, bytes, and reference cores per core."""

    name: str
    cores: float
    memory_bytes: int
    speed_factor: float
    reserved_cores: float
    reserved_memory_bytes: int

    @classmethod
    def of(cls, host: Host) -> "HostTerms | None":
        """Of a host; None where its size is unknown or nothing."""
        if not host.capacity_cores or not host.capacity_memory_bytes or host.cores is None or host.memory_bytes is None:
            return None
        return cls(
            name=host.name,
            cores=host.cores,
            memory_bytes=host.memory_bytes,
            speed_factor=host.speed_factor,
            reserved_cores=host.reserved_cores,
            reserved_memory_bytes=host.reserved_memory_bytes,
        )

    @property
    def capacity_cores(self) -> float:
        """Reference cores that guests may use."""
        return max(0.0, self.cores - self.reserved_cores) * self.speed_factor

    @property
    def capacity_memory_bytes(self) -> int:
        """Bytes that guests may use."""
        return max(0, self.memory_bytes - self.reserved_memory_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisedMove:
    """One VM from one host to another."""

    vm_uuid: str
    source: str
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A move as it was first proposed. ``id`` 0 until the ledger numbers it.

    ``due_at``: end of its window, the horizon of the forecast it rests on; it is judged after that. ``before``: earlier
    steps of the same plan, which it presumes. ``hosts``: the terms of all hosts these moves name. ``resource`` to
    ``source_peak``: the forecast for its source, peaks as shares of usable capacity; ``lead_seconds``: None where the
    median forecast never passes the headroom. ``relief``, ``cost``: core-seconds, the planner's currency
    (``plan.objective``), predicted over the window; ``move_seconds``: how long the move itself was to take.
    """

    id: int = 0
    proposed_at: float
    due_at: float
    plan_id: str
    step: int
    move: AdvisedMove
    vm_name: str
    vcpus: int
    memory_bytes: int
    before: tuple[AdvisedMove, ...]
    hosts: tuple[HostTerms, ...]
    cpu_headroom: float
    memory_headroom: float
    cores_per_byte: float
    resource: str | None
    probability: float | None
    lead_seconds: float | None
    source_peak: float | None
    destination_peak: float | None
    relief: float
    cost: float
    move_seconds: float
    basis: str

    def terms(self, host: str) -> HostTerms:
        """The terms of the host of that name. Raises KeyError if no move names it."""
        return {terms.name: terms for terms in self.hosts}[host]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceScore:
    """How advice turned out. ``reason`` in words; ``followed_at``: when the VM was moved there after all.

    ``relief``: core-seconds of unmet demand that the move takes from its source, ``harm``: that it adds to its
    destination; ``source_peak``: the source's highest load without the move, ``destination_peak``: the destination's with
    it, as shares of usable capacity of whichever resource comes nearest its headroom; ``hot_after_seconds``: from the
    proposal to the first step in which the source was above its headroom. None where not measured.
    """

    advice_id: int
    scored_at: float
    verdict: Verdict
    reason: str
    followed_at: float | None = None
    relief: float | None = None
    harm: float | None = None
    source_peak: float | None = None
    destination_peak: float | None = None
    hot_after_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedHour:
    """An hour (number ``hour`` since the epoch) of measured host load, and the hotspots that began in it.

    ``known``: share of hosts and steps that were measured. ``hot_seconds``: summed over hosts. Hotspots of two steps or
    more by the advice there was: ``foreseen`` (before it), ``late`` (while it was hot), ``unadvised``.
    """

    hour: int
    known: float
    hot_seconds: float
    foreseen: int = 0
    late: int = 0
    unadvised: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceRecord:
    """What the advice of a period adds up to.

    ``verdicts``: how many by verdict; ``open``: not judged yet; ``followed``: moved after all. ``advised_days``: days (UTC)
    with a scored piece; ``watched_days``: time in which hosts were measured; the rest as in ``WatchedHour``.
    """

    verdicts: Mapping[Verdict, int] = field(default_factory=dict)
    open: int = 0
    followed: int = 0
    advised_days: int = 0
    watched_days: float = 0.0
    hot_seconds: float = 0.0
    foreseen: int = 0
    late: int = 0
    unadvised: int = 0

    def count(self, verdict: Verdict) -> int:
        """How many have that verdict."""
        return self.verdicts.get(verdict, 0)

    @property
    def scored(self) -> int:
        """How many say something of how good the advice was."""
        return sum(count for verdict, count in self.verdicts.items() if verdict.is_scored)

    @property
    def hotspots(self) -> int:
        """Hotspots that began."""
        return self.foreseen + self.late + self.unadvised


__all__ = [
    "Advice",
    "AdviceRecord",
    "AdviceScore",
    "AdvisedMove",
    "HostTerms",
    "Verdict",
    "WatchedHour",
]
