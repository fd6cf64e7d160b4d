"""Figures and names as people read them. Names come from guests and are data: they are never trusted to be printable."""

from collections.abc import Iterable

from rebalancerd.cluster.units import GIB, MIB

NAME_LIMIT = 64


def shown(name: str) -> str:
    """A name fit for one line of text: control characters escaped, long ones cut."""
    plain = name
    if not name.isprintable():
        plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
    return plain if len(plain) <= NAME_LIMIT else plain[: NAME_LIMIT - 1] + "…"


def percent(share: float) -> str:
    """0.813 as "81 %"."""
    return f"{share * 100:.0f} %"


def cores(count: float) -> str:
    """Reference cores, e.g. "3.25 cores"."""
    return f"{count:.2f} cores"


def size(count: float) -> str:
    """Bytes, e.g. "4.0 GiB" or "128 MiB"."""
    return f"{count / GIB:.1f} GiB" if abs(count) >= GIB else f"{count / MIB:.0f} MiB"


def energy(joules: float) -> str:
    """Joules as "0.25 kWh" or "40 Wh"."""
    hours = joules / 3600
    return f"{hours / 1000:.2f} kWh" if abs(hours) >= 100 else f"{hours:.0f} Wh"


def span(seconds: float) -> str:
    """A length of time, e.g. "45 s", "30 min", "2.5 h"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(items: Iterable[str], limit: int = 4) -> str:
    """At most ``limit`` of the items, and how many more there are."""
    rows = list(items)
    head = ", ".join(rows[:limit])
    return head if len(rows) <= limit else f"{head} and {len(rows) - limit} more"
