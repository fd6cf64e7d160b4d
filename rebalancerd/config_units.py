"""Human units at the edge: durations, sizes and rates as a configuration file writes them, base units inside."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from rebalancerd.cluster.host import HugePages

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ/]*)")
_DURATIONS = {
    "ms": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_SIZES = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_RATES = {
    "bit/s": 0.125, "kbit/s": 125.0, "Mbit/s": 125e3, "Gbit/s": 125e6, "Tbit/s": 125e9,
    **{f"{unit}/s": float(factor) for unit, factor in _SIZES.items()},
}  # fmt: skip
Kind = Literal["duration", "size", "rate"]
_UNITS: dict[Kind, dict[str, float]] = {"duration": _DURATIONS, "size": dict(_SIZES), "rate": _RATES}
_EXAMPLES = {
    "duration": '90, "30 s", "5 min", "2 h" or "1h30m"',
    "size": '"512 MiB" or "64 GiB"',
    "rate": '"10 Gbit/s"',
}
_SHOWN: dict[Kind, tuple[tuple[str, float], ...]] = {
    "duration": (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 0.001)),
    "size": (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1)),
    "rate": (("Tbit/s", 125e9), ("Gbit/s", 125e6), ("Mbit/s", 125e3), ("kbit/s", 125.0), ("bit/s", 0.125)),
}


def parsed(kind: Kind, value: Any) -> float:
    """Base units of a number (taken as base units already) or of a text with units. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"not a {kind}; write {_EXAMPLES[kind]}")  # noqa: TRY004 - pydantic collects ValueError
    if isinstance(value, str):
        return _with_units(kind, value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"a {kind} is finite and not negative")
    return number


def _with_units(kind: Kind, text: str) -> float:
    total, position, stripped = 0.0, 0, text.strip()
    while position < len(stripped):
        part = _NUMBER.match(stripped, position)
        factor = _UNITS[kind].get(part[2]) if part is not None else None
        if part is None or factor is None:
            break
        total += float(part[1]) * factor
        position = part.end()
        while position < len(stripped) and stripped[position] == " ":
            position += 1
        if kind != "duration":
            break  # only durations are written in several parts
    if not stripped or position < len(stripped) or not math.isfinite(total):
        raise ValueError(f"{text[:60]!r} is not a {kind}; write {_EXAMPLES[kind]}")
    return total


def shown(kind: Kind, value: float) -> str:
    """The value in the largest unit in which it is a short number that reads back exactly, else in base units."""
    if value == 0:
        return {"duration": "0 s", "size": "0 B", "rate": "0 bit/s"}[kind]
    for unit, factor in _SHOWN[kind]:
        count = value / factor
        text = f"{count:.10g}"
        if count >= 1 and len(text) <= 5 and "e" not in text and float(text) * _UNITS[kind][unit] == value:
            return f"{text} {unit}"
    return f"{value!r} s" if kind == "duration" and "e" not in repr(value) else repr(value)


def _whole_bytes(value: Any) -> int:
    number = parsed("size", value)
    if number != int(number):
        raise ValueError("not a whole number of bytes")
    return int(value) if isinstance(value, int) else int(number)


def huge_page_pools(value: Any) -> tuple[HugePages, ...]:
    """Pools out of a table of page size and count, e.g. { "2 MiB" = 8192 }. Raises ValueError."""
    if isinstance(value, tuple) and all(isinstance(pool, HugePages) for pool in value):
        return value
    if not isinstance(value, dict) or len(value) > 16:
        raise ValueError(
            'not a table of page sizes and counts; write { "2 MiB" = 8192 }'
        )  # pydantic collects ValueError
    found: dict[int, HugePages] = {}
    for text, count in value.items():
        size = _whole_bytes(text)
        if size < 4096 or size in found:
            raise ValueError(f"{str(text)[:60]!r} is no page size, or is given twice")
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 2**40:
            raise ValueError(f"{str(count)[:60]!r} is no count of pages")
        found[size] = HugePages(size_bytes=size, total=count)
    return tuple(pool for _, pool in sorted(found.items()))


def named_rates(value: Any) -> tuple[tuple[str, float], ...]:
    """Rates by name out of a table, e.g. { "rack1" = "40 Gbit/s" }. Raises ValueError."""
    if isinstance(value, tuple) and all(isinstance(pair, tuple) for pair in value):
        return value
    if not isinstance(value, dict) or len(value) > 10_000:
        raise ValueError(
            'not a table of names and rates; write { "rack1" = "40 Gbit/s" }'
        )  # pydantic collects ValueError
    found = tuple(sorted((str(name), parsed("rate", rate)) for name, rate in value.items()))
    slow = [name for name, rate in found if rate <= 0]
    if slow:
        raise ValueError(f"the rate of {slow[0][:60]!r} is not above 0")
    return found


Seconds = Annotated[
    float, BeforeValidator(lambda v: parsed("duration", v)), PlainSerializer(lambda v: shown("duration", v))
]
Bytes = Annotated[int, BeforeValidator(_whole_bytes), PlainSerializer(lambda v: shown("size", v))]
Rate = Annotated[float, BeforeValidator(lambda v: parsed("rate", v)), PlainSerializer(lambda v: shown("rate", v))]
