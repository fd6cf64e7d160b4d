"""Five named levels of aggressiveness: how much a move must bring, how soon it must pay back, how many are made at once.

A level is nothing but values of settings; each can be set singly and then wins. Headrooms from which a host is hot and
the guard's cooldowns and caps are safety, not appetite: no level changes them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rebalancerd.plan.settings import PlanSettings

DEFAULT = "moderate"
COLUMNS = (
    "weight_cost",
    "min_gain",
    "payback_max_seconds",
    "max_moves",
    "hot_probability",
    "consolidate_cpu_headroom",
    "consolidate_memory_headroom",
)
_ROWS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "cautious": (4.0, 0.20, 1800.0, 2, 0.9, 0.55, 0.70),
        "calm": (2.0, 0.10, 2700.0, 4, 0.7, 0.62, 0.75),
        "moderate": (1.0, 0.05, 3600.0, 8, 0.5, 0.70, 0.80),
        "eager": (0.5, 0.03, 7200.0, 16, 0.4, 0.75, 0.82),
        "aggressive": (0.25, 0.01, 14400.0, 32, 0.3, 0.78, 0.84),
    }
)
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "cautious": "only what is all but certain to help: large relief, quickly repaid, one or two moves at a time",
        "calm": "clear relief only; the cost of a move counts double",
        "moderate": "a core-second relieved is worth a core-second spent",
        "eager": "acts on likelier than not, takes small gains, fills hosts further at night",
        "aggressive": "every gain counts: many moves, long payback, the fewest hosts at night",
    }
)
NAMES = tuple(_ROWS)


def values(level: str) -> dict[str, Any]:
    """The settings of a level by name. Raises ValueError for a level that does not exist."""
    if level not in _ROWS:
        raise ValueError(f"{level!r:.60} is no level of aggressiveness: {', '.join(NAMES)}")
    return dict(zip(COLUMNS, _ROWS[level], strict=True))


def at_level(level: str, **singly: Any) -> PlanSettings:
    """Settings of planning at a level; what is given singly wins. Raises ValueError for an unknown level."""
    return PlanSettings(**{"aggressiveness": level, **values(level), **singly})


def overrides(settings: PlanSettings) -> dict[str, Any]:
    """Settings that are not what their level says."""
    return {n: getattr(settings, n) for n, v in values(settings.aggressiveness).items() if getattr(settings, n) != v}


def told(settings: PlanSettings) -> str:
    """E.g. "eager" or "eager, but max_moves 4"."""
    singly = [f"{name} {value:g}" for name, value in overrides(settings).items()]
    return f"{settings.aggressiveness}, but {', '.join(singly)}" if singly else settings.aggressiveness
