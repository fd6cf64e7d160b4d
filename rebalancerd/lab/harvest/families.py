"""Families of workloads for the harvest, and the workloads file that names others.

The file is TOML, one ``[[family]]`` a family. Every range is ``[least, most]``, drawn evenly (rates and shares of them:
evenly in the logarithm) for each setting::

    [[family]]
    name = "database"                # letters, digits and dashes
    order = "hot"                    # how the rate is spent: see Phase.order
    working_set_share = [0.2, 0.6]   # of the memory that the guest can use
    intensity = [0.05, 2.0]          # dirty rate as a multiple of what the migration's link carries
    most_mib_per_second = 300        # ceiling of that rate
    cpu_percent = [0, 20]            # CPU demand beside it
    on_seconds = [1, 4]              # optional: the rate holds that long ...
    off_seconds = [1, 6]             # ... then for this long
    off_order = "sequential"         # ... another order (the same if left out)
    off_intensity = [0.0, 0.1]       # ... and this multiple
    weight = 1.0                     # share of the settings, relative to the other families
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rebalancerd.lab.commands import LabError
from rebalancerd.lab.spec import Order

Range = tuple[float, float]
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family: the ranges from which its settings are drawn.

    Args:
        name: what its rows are called.
        order: how the rate is spent (``Phase.order``).
        working_set_share: of the memory that the guest can use.
        intensity: dirty rate as a multiple of the rate of the migration's link; (0, 0): it dirties nothing.
        most_mib_per_second: ceiling of that rate, MiB/s.
        cpu_percent: CPU demand beside it, per cent of one virtual CPU.
        on_seconds, off_seconds: lengths of the two phases in turn; None: one phase for ever.
        off_order, off_intensity: of the second phase.
        weight: share of the settings, relative to the other families.

    Raises:
        ValueError: a range is empty or out of bounds.
    """

    name: str
    order: Order = "sequential"
    working_set_share: Range = (0.1, 0.8)
    intensity: Range = (0.05, 2.0)
    most_mib_per_second: float = 300.0
    cpu_percent: Range = (0.0, 0.0)
    on_seconds: Range | None = None
    off_seconds: Range | None = None
    off_order: Order | None = None
    off_intensity: Range = (0.0, 0.0)
    weight: float = 1.0

    def __post_init__(self) -> None:
        at = f"family {self.name!r}"
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{at}: a name has 1 to 32 characters of a-z 0-9 and -")
        bounds = {"working_set_share": (0.0, 1.0), "intensity": (0.0, 20.0), "cpu_percent": (0.0, 100.0)}
        bounds |= {"on_seconds": (0.1, 3600.0), "off_seconds": (0.1, 3600.0), "off_intensity": (0.0, 20.0)}
        for field, (least, most) in bounds.items():
            value: Range | None = getattr(self, field)
            if value is not None and not least <= value[0] <= value[1] <= most:
                raise ValueError(f"{at}: {field} must be [least, most] within {least:g} to {most:g}, not {list(value)}")
        if (self.on_seconds is None) != (self.off_seconds is None):
            raise ValueError(f"{at}: on_seconds and off_seconds go together")
        if not 0 < self.most_mib_per_second <= 1e4:
            raise ValueError(f"{at}: most_mib_per_second must be above 0 and at most 10000")
        if not 0 < self.weight <= 1000:
            raise ValueError(f"{at}: weight must be above 0 and at most 1000, not {self.weight:g}")


BUILT_IN = (
    Family(name="idle", working_set_share=(0.05, 0.8), intensity=(0.0, 0.0), weight=0.7),
    Family(name="sequential", intensity=(0.05, 5.0), cpu_percent=(0, 20), weight=1.3),
    Family(name="random", order="random", intensity=(0.05, 5.0), cpu_percent=(0, 20), weight=1.3),
    Family(name="hot", order="hot", intensity=(0.05, 5.0), cpu_percent=(0, 20)),
    Family(
        name="bursts",
        order="random",
        intensity=(0.2, 5.0),
        on_seconds=(1.0, 4.0),
        off_seconds=(1.0, 6.0),
        off_intensity=(0.0, 0.1),
    ),
    Family(name="growing", order="growing", working_set_share=(0.3, 0.8), intensity=(0.05, 3.0)),
    Family(name="unchanged", order="unchanged", intensity=(0.05, 1.5), weight=0.7),
    Family(name="reader", order="reader", intensity=(0.5, 4.0), cpu_percent=(60, 100), weight=0.7),
    Family(name="churn", order="churn", working_set_share=(0.1, 0.5), intensity=(0.05, 3.0)),
)


def load_families(path: Path) -> tuple[Family, ...]:
    """Read a workloads file.

    Raises:
        LabError: it cannot be read, or does not say what it must; the text names file, family and field.
    """
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"workloads file {path}: {error}") from error
    if set(document) != {"family"} or not isinstance(document["family"], list) or not document["family"]:
        raise LabError(f"workloads file {path}: it must hold one or more [[family]] and nothing else")
    adapter = TypeAdapter(Family)
    found = []
    for number, row in enumerate(document["family"], start=1):
        unknown = sorted(set(row) - set(Family.__dataclass_fields__))
        if unknown:
            raise LabError(f"workloads file {path}: family {number}: unknown keys {', '.join(unknown)}")
        try:
            found.append(adapter.validate_python(row))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise LabError(
                f"workloads file {path}: family {number}: {field} {first['msg']}".replace("  ", " ")
            ) from error
    names = [family.name for family in found]
    if len(set(names)) != len(names):
        raise LabError(f"workloads file {path}: two families have the same name")
    return tuple(found)
