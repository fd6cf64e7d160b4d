"""A canonical digest of a frozen value: equal values give equal digests on any machine."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from operator import attrgetter
from types import MappingProxyType
from typing import Any

Writer = Callable[[Any], str]
MOST_RECALLED = 100_000

# Metadata of a field that earlier versions did not have: it is left out while it has its default, so that digests that were
# written down before (plan files, plans on record, approvals) still hold.
ADDED_LATER: Mapping[str, bool] = MappingProxyType({"added later": True})


def canonical(value: object) -> str:
    """Canonical text of a tree of frozen dataclasses, enums, tuples, sets, mappings and scalars.

    Sets and mappings are ordered by the text of their keys; strings are quoted, so that no hostile name can imitate
    the text of another value. Raises TypeError for any other type.
    """
    return (_WRITERS.get(type(value)) or _writer(type(value)))(value)


def _writer(kind: type[Any]) -> Writer:
    """What writes values of a type that was not met before: enums, dataclasses, mappings, subclasses of plain types."""
    found: Writer
    if issubclass(kind, Enum):
        found = _enum_writer(kind)
    elif is_dataclass(kind):
        found = _dataclass_writer(kind)
    elif issubclass(kind, Mapping):
        found = _mapping
    else:
        plain = next((text for base, text in _PLAIN.items() if issubclass(kind, base)), None)
        if plain is None:
            raise TypeError(f"cannot digest a value of type {kind.__name__}")
        found = plain
    _WRITERS[kind] = found
    return found


def _enum_writer(kind: type[Enum]) -> Writer:
    texts = {member: canonical(member.value) for member in kind}
    return lambda value: texts[value] if value in texts else canonical(value.value)


def _dataclass_writer(kind: type[Any]) -> Writer:
    """Fields that take part in comparison, in their order; one that was added later is left out at its default."""
    compared = [f for f in fields(kind) if f.compare]
    if not compared:
        return lambda _: f"{kind.__name__}()"
    names = [f.name for f in compared]
    # most fields of most values are None: their text is made beforehand, "" where it is left out
    later = [_default(f) if "added later" in f.metadata else MISSING for f in compared]
    told = [(f"{f.name}=", "" if d is None else f"{f.name}=None") for f, d in zip(compared, later, strict=True)]
    valued = [(i, d) for i, d in enumerate(later) if d is not MISSING and d is not None]
    read = attrgetter(*names) if len(names) > 1 else (lambda value: (getattr(value, names[0]),))
    known, new, opening = _WRITERS.get, _writer, f"{kind.__name__}("
    droppable = any(d is not MISSING for d in later)

    def write(value: object) -> str:
        values = read(value)
        inner = [
            none if v is None else label + (known(type(v)) or new(type(v)))(v)
            for (label, none), v in zip(told, values, strict=True)
        ]
        for i, default in valued:
            if values[i] == default:
                inner[i] = ""
        return opening + ",".join(filter(None, inner) if droppable else inner) + ")"

    return write


def _default(later: Field[Any]) -> Any:
    return later.default if later.default_factory is MISSING else later.default_factory()


def _mapping(value: Mapping[object, object]) -> str:
    return "map{" + ",".join(sorted(f"{canonical(k)}:{canonical(v)}" for k, v in value.items())) + "}"


def _number(value: float) -> str:
    # equal numbers have equal texts: 3.0 is 3, and subclasses such as numpy's print like plain floats
    return repr(int(value)) if value.is_integer() else float.__repr__(value)


def _listed(values: Sequence[object]) -> str:
    known, new = _WRITERS.get, _writer
    return "[" + ",".join([(known(type(item)) or new(type(item)))(item) for item in values]) + "]" if values else "[]"


def _unordered(values: AbstractSet[object]) -> str:
    return "{" + ",".join(sorted([canonical(item) for item in values])) + "}" if values else "{}"


# bool before int, of which it is a subclass
_PLAIN: dict[type[Any], Writer] = {
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
# by exact type; what was met once is found at once
_WRITERS: dict[type[Any], Writer] = dict(_PLAIN)


class Recall:
    """Texts of values that are met again as the same objects: what was not met between two turns is forgotten."""

    def __init__(self, write: Writer) -> None:
        self._write = write
        self._before: dict[int, tuple[object, str]] = {}
        self._now: dict[int, tuple[object, str]] = {}

    def __call__(self, value: object) -> str:
        """Its canonical text."""
        key = id(value)
        found = self._now.get(key) or self._before.get(key)
        if found is None or found[0] is not value:
            found = (value, self._write(value))
        if len(self._now) >= MOST_RECALLED:
            self._now = {}
        self._now[key] = found
        return found[1]

    def turn(self) -> None:
        """Forget what was not met since the last turn."""
        self._before, self._now = self._now, {}


def recalled(kind: type[Any]) -> None:
    """Have the texts of a frozen type's values kept. Only for what holds nothing that can change."""
    _WRITERS[kind] = found = Recall(_dataclass_writer(kind))
    _RECALLS.append(found)


def turn_recalls() -> None:
    """Forget the texts of what was not met since the last turn."""
    for recall in _RECALLS:
        recall.turn()


_RECALLS: list[Recall] = []


def digest(value: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical text."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]
