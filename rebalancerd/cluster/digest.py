"""A canonical digest of a frozen value: equal values give equal digests on any machine."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any

# Metadata of a field that earlier versions did not have: it is left out while it is None, so that digests that were
# written down before (plan files, plans on record, approvals) still hold.
ADDED_LATER: Mapping[str, bool] = MappingProxyType({"added later": True})


def canonical(value: object) -> str:
    """Canonical text of a tree of frozen dataclasses, enums, tuples, sets, mappings and scalars.

    Sets and mappings are ordered by the text of their keys; strings are quoted, so that no hostile name can imitate
    the text of another value. Raises TypeError for any other type.
    """
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, float):
        # equal numbers have equal texts: 3.0 is 3, and subclasses such as numpy's print like plain floats
        return repr(int(value)) if value.is_integer() else float.__repr__(value)
    if isinstance(value, int) and not isinstance(value, Enum):
        return int.__repr__(value)
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    if isinstance(value, frozenset | set):
        return "{" + ",".join(sorted(canonical(item) for item in value)) + "}"
    if isinstance(value, Mapping):
        return "map{" + ",".join(sorted(f"{canonical(k)}:{canonical(v)}" for k, v in value.items())) + "}"
    if is_dataclass(value) and not isinstance(value, type):
        told = ((name, later, getattr(value, name)) for name, later in _compared(type(value)))
        inner = ",".join(f"{name}={canonical(v)}" for name, later, v in told if not (v is None and later))
        return f"{type(value).__name__}({inner})"
    raise TypeError(f"cannot digest a value of type {type(value).__name__}")


@cache
def _compared(kind: type[Any]) -> tuple[tuple[str, bool], ...]:
    """Fields of a dataclass that take part in comparison, and whether each was added later."""
    return tuple((f.name, "added later" in f.metadata) for f in fields(kind) if f.compare)


def digest(value: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical text."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]
