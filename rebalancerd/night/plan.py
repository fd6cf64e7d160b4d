"""NightPlan: a whole night as it would go, told before it begins."""

from dataclasses import dataclass

from rebalancerd.cluster.night import Night


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMove:
    """A move of the night. ``at``: when it starts (epoch seconds), ``seconds``: its predicted duration."""

    at: float
    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    seconds: float
    unfolding: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSleep:
    """A host that goes to sleep. Epoch seconds; ``off_at``: when it is off; ``test``: only to be woken at once."""

    host: str
    at: float
    off_at: float
    why: str
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWake:
    """A host that is woken. Epoch seconds; ``up_at``: when it has booted, ``unfolded_by``: when VMs are back on it."""

    host: str
    at: float
    up_at: float
    unfolded_by: float
    why: str
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPlan:
    """A rehearsed night. ``predicted``: its account as the book of nights would keep it, by the forecast's mean.

    ``unfolded_at``: when the last move of the unfolding has ended, None where it needs none. ``still_asleep``: hosts that
    nobody has woken yet as the window ends. ``stays_on``: (host, code, why) of each that never sleeps. ``held_back``:
    (code, why, how often) of moves that guards put off. ``notes``: what the reader must know of what it rests on.
    """

    predicted: Night
    unfolds_at: float
    unfolded_at: float | None
    basis: str
    moves: tuple[PlannedMove, ...]
    sleeps: tuple[PlannedSleep, ...]
    wakes: tuple[PlannedWake, ...]
    still_asleep: tuple[str, ...]
    stays_on: tuple[tuple[str, str, str], ...]
    held_back: tuple[tuple[str, str, int], ...]
    notes: tuple[str, ...] = ()
