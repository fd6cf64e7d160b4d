"""Settings of guarding."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Local times of day in the guard's zone, "HH:MM"; ``days`` 0 (Monday) to 6; may pass midnight (end before start)."""

    start: str
    end: str
    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWindow:
    """A time in which another policy holds: from ``start`` to ``end``, cron expressions in the guard's zone.

    ``unfold_seconds`` before the end balancing begins again, so that the VMs are spread when the window ends.
    """

    start: str
    end: str
    policy: str = "consolidate"
    unfold_seconds: float = 1800.0
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Limits. Cooldown grows by ``cooldown_growth`` with each of a VM's recent moves, up to ``cooldown_max_seconds``.

    ``hold_rounds``: cycles in a row in which a host must have been hot. The breaker opens after ``breaker_failures``
    failed migrations within ``breaker_window_seconds`` and stays open until an operator closes it. A host that failed a
    migration as destination is quarantined for ``quarantine_seconds``, doubling with each further failure up to
    ``quarantine_max_seconds``. A (VM, destination) pair that libvirt refused is not tried again for
    ``blocked_pair_seconds``. A VM is moved at most ``per_vm_per_day`` times within any 24 hours, drains excepted.
    """

    timezone: str = "UTC"
    windows: tuple[Window, ...] = ()
    blackouts: tuple[Window, ...] = ()
    policy_windows: tuple[PolicyWindow, ...] = ()
    cooldown_seconds: float = 1800.0
    cooldown_growth: float = 2.0
    cooldown_max_seconds: float = 86400.0
    cooldown_memory_seconds: float = 86400.0
    out_per_host: int = 1
    in_per_host: int = 1
    per_cluster: int = 2
    per_hour: int = 20
    per_vm_per_day: int = 8
    hold_rounds: int = 3
    min_gain: float = 0.05
    payback_max_seconds: float = 3600.0
    breaker_failures: int = 3
    breaker_window_seconds: float = 3600.0
    quarantine_seconds: float = 600.0
    quarantine_max_seconds: float = 86400.0
    blocked_pair_seconds: float = 21600.0
    reverse_tabu_seconds: float = 7200.0
