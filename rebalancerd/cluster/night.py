"""Night: what one window of consolidation saved and cost, as it is accounted cycle by cycle."""

from dataclasses import dataclass, field

from rebalancerd.cluster.digest import ADDED_LATER

KWH_JOULES = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Evening:
    """Where every VM was as a night began: (VM UUID, host), sorted."""

    vms: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A window of consolidation, so far or as a whole. Times in epoch seconds, energies in joules.

    ``id``: its number in the ledger, 0 before it is there. ``ends_at``: when the window ends; the night goes on until it
    is unfolded. ``mode``: the one that may do most of those in force in it. ``actual_joules``: what the hosts drew by the
    power model at their measured use, sleeping ones nothing. ``unfolded_joules``: what they would have drawn with
    every host on and every VM where it was in the evening. ``moves``, ``moves_joules``: migrations of ours that ended in
    it, whatever came of them, and what their copying drew. ``asleep_seconds``: by host. ``hot_seconds``,
    ``caused_seconds``: host-seconds above headroom, and how many of them are more than with the evening's placement. ``accounted_seconds``: time with a reading; ``missed_seconds``: without, of which
    nothing is claimed. ``relieved_at``: when the day after it was seen to, where VMs could not go home.
    """

    id: int = 0
    window: str
    began_at: float
    ends_at: float
    noted_at: float
    mode: str = "observe"
    evening: Evening = Evening()
    actual_joules: float = 0.0
    unfolded_joules: float = 0.0
    moves: int = 0
    moves_joules: float = 0.0
    asleep_seconds: tuple[tuple[str, float], ...] = field(default_factory=tuple)
    hot_seconds: float = 0.0
    caused_seconds: float = 0.0
    accounted_seconds: float = 0.0
    missed_seconds: float = 0.0
    ended_at: float | None = None
    relieved_at: float | None = field(default=None, metadata=ADDED_LATER)

    @property
    def saved_kwh(self) -> float:
        """What the night saved, the moves paid for; below zero where it cost more than it saved."""
        return (self.unfolded_joules - self.actual_joules - self.moves_joules) / KWH_JOULES


@dataclass(frozen=True, slots=True, kw_only=True)
class NightsTotal:
    """What the nights on record that are over add up to."""

    nights: int = 0
    saved_kwh: float = 0.0
