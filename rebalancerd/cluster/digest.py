"""A canonical digest of a frozen value: equal values give equal digests on any machine."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any

# Metadata of a field that earlier versions did not have: it is left out while it has its default, so that digests that were
# written down before (plan files, plans on record, approvals) still hold.
ADDED_LATER: Mapping[str, bool] = MappingProxyType({"added later": True})


def canonical(value: object) -> str:
    """Canonical text of a tree of frozen dataclasses, enums, tuples, sets, mappings and scalars.

    Sets and mappings are ordered by the text of their keys; strings are quoted, so that no hostile name can imitate
    the text of another value. Raises TypeError for any other type.
    """
    known = _PLAIN.get(type(value))
    return _other(value) if known is None else known(value)


def _other(value: object) -> str:
    """Whatever is not of exactly one of the plain types: enums, dataclasses, mappings, and subclasses of plain types."""
    if isinstance(value, Enum):
        return canonical(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        told = ((name, default, getattr(value, name)) for name, default in _compared(type(value)))
        inner = ",".join([f"{name}={canonical(v)}" for name, default, v in told if default is MISSING or v != default])
        return f"{type(value).__name__}({inner})"
    if isinstance(value, Mapping):
        return "map{" + ",".join(sorted(f"{canonical(k)}:{canonical(v)}" for k, v in value.items())) + "}"
    for kind, text in _PLAIN.items():
        if isinstance(value, kind):
            return text(value)
    raise TypeError(f"cannot digest a value of type {type(value).__name__}")


def _number(value: float) -> str:
    # equal numbers have equal texts: 3.0 is 3, and subclasses such as numpy's print like plain floats
    return repr(int(value)) if value.is_integer() else float.__repr__(value)


def _listed(values: Sequence[object]) -> str:
    return "[" + ",".join([canonical(item) for item in values]) + "]"


def _unordered(values: AbstractSet[object]) -> str:
    return "{" + ",".join(sorted([canonical(item) for item in values])) + "}"


# bool before int, of which it is a subclass
_PLAIN: dict[type[Any], Callable[[Any], str]] = {
    type(None): repr,
    bool: repr,
    float: _number,
    int: int.__repr__,
    str: repr,
    tuple: _listed,
    list: _listed,
    frozenset: _unordered,
    set: _unordered,
}


@cache
def _compared(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    """Fields of a dataclass that take part in comparison, and the default of each that was added later, else MISSING."""
    return tuple((f.name, _default(f) if "added later" in f.metadata else MISSING) for f in fields(kind) if f.compare)


def _default(later: Field[Any]) -> Any:
    return later.default if later.default_factory is MISSING else later.default_factory()


def digest(value: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical text."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]
