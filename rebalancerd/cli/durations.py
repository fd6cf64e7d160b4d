"""Durations as people type them."""

import math
import re

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[smhd]?)\s*")


def seconds(text: str) -> float:
    """Seconds in ``90``, ``90s``, ``15m``, ``2h``, ``1h30m`` or ``1d``. Raises ValueError for anything else, or zero."""
    position, total = 0, 0.0
    stripped = text.strip().lower()
    while position < len(stripped):
        part = _PART.match(stripped, position)
        if part is None:
            break
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    if position < len(stripped) or not stripped or not math.isfinite(total) or total <= 0:
        raise ValueError(f"{text!r} is no duration; write 90s, 15m, 2h, 1h30m or 1d")
    return total
