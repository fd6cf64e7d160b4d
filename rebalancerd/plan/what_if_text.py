"""The words of a what-if, read: ``host h4 down``, ``vm web1 on h2``, ``add host h5 cores=16 memory=64GiB like h2``."""

import difflib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from rebalancerd.cluster.units import GIB, KIB, MIB
from rebalancerd.plan.wording import listed, shown

FORMS = (
    "host NAME down",
    "host NAME drain",
    "vm NAME on HOST",
    "vm NAME gone",
    "add host NAME [cores=N] [memory=SIZE] like HOST",
)
HINT = f"say one of: {'; '.join(FORMS)}"
UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
SIZE = re.compile(r"(?P<count>\d+(?:\.\d+)?)(?P<unit>[A-Za-z]+)")
MOST_KNOWN = 12


class WhatIfError(ValueError):
    """A what-if that cannot be understood or does not fit the inputs; ``hint`` says what can be said, or what is known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class HostGone:
    """A host that is down or to be drained: either way its VMs must find another place."""

    host: str


@dataclass(frozen=True, slots=True)
class VmOn:
    """A VM, by name or UUID, that runs on that host instead."""

    vm: str
    host: str


@dataclass(frozen=True, slots=True)
class VmGone:
    """A VM, by name or UUID, that is no longer there."""

    vm: str


@dataclass(frozen=True, slots=True)
class AddHost:
    """One more host that is like another one, but for the figures that are given."""

    name: str
    like: str
    cores: float | None = None
    memory_bytes: int | None = None


WhatIf = HostGone | VmOn | VmGone | AddHost


def parse(text: str) -> WhatIf:
    """The change that is meant; names with spaces stand in quotes. Raises WhatIfError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise WhatIfError(f"“{shown(text)}” cannot be read: {error}", HINT) from error
    match words:
        case ["host", name, "down" | "drain"]:
            return HostGone(name)
        case ["vm", name, "on", host]:
            return VmOn(name, host)
        case ["vm", name, "gone"]:
            return VmGone(name)
        case ["add", "host", name, *figures, "like", model] if name:
            return _add_host(name, model, figures)
    raise WhatIfError(f"“{shown(text)}” is not understood", HINT)


def unknown(given: str, known: Iterable[str]) -> str:
    """What is known, for the hint of an error; what is spelt alike comes first."""
    names = sorted(set(known))
    alike = difflib.get_close_matches(given, names, n=3)
    told = f"known are: {listed(map(shown, names), MOST_KNOWN) or 'none'}"
    return f"did you mean {', '.join(map(shown, alike))}? {told}" if alike else told


def _add_host(name: str, model: str, figures: Iterable[str]) -> AddHost:
    given: dict[str, str] = {}
    for figure in figures:
        key, equals, value = figure.partition("=")
        if key not in ("cores", "memory") or not equals:
            raise WhatIfError(f"“{shown(figure)}” is no figure of a host", "give cores=N and memory=SIZE")
        if key in given:
            raise WhatIfError(f"{key} is given twice")
        given[key] = value
    cores = _cores(given["cores"]) if "cores" in given else None
    return AddHost(name, model, cores, _size(given["memory"]) if "memory" in given else None)


def _cores(text: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = 0.0
    if not isfinite(count) or count <= 0:
        raise WhatIfError(f"cores={shown(text)} is no number of cores", "such as cores=16")
    return count


def _size(text: str) -> int:
    found = SIZE.fullmatch(text)
    if found is None or found["unit"] not in UNITS or (count := int(float(found["count"]) * UNITS[found["unit"]])) < 1:
        raise WhatIfError(f"memory={shown(text)} is no size", f"such as memory=64GiB; units: {', '.join(UNITS)}")
    return count
