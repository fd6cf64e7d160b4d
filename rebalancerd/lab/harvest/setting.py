"""Settings of the harvest: what is varied from migration to migration, drawn from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from rebalancerd.cluster.units import MIB
from rebalancerd.lab.harvest.families import Family, Range
from rebalancerd.lab.spec import GUEST_OVERHEAD_MIB, Phase

# few small ones: page sampling looks at 512 pages a GiB, so a reading of a small guest says little
MEMORY_MIB = (128, 192, 256, 384, 512, 512, 640, 768, 768, 1024)
LINK_MBIT: Range = (100.0, 8000.0)
FIRST_COPY_SECONDS: Range = (1.0, 8.0)
ANY_INTENSITY: Range = (0.0, math.inf)
BASE_RESIDENT_MIB = 50.0  # what a lab guest holds before its working set
DOWNTIME_SECONDS: Range = (0.05, 0.5)
CAP_SHARE: Range = (0.3, 0.95)
BYSTANDER_CORES: Range = (0.1, 0.5)
DEADLINE_SECONDS: Range = (10.0, 30.0)
DEADLINE_COPIES, DEADLINE_MARGIN_SECONDS = 3.5, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one guest does: its phases, over and over."""

    family: str
    phases: tuple[Phase, ...]

    @property
    def repeat(self) -> bool:
        """Whether the phases follow each other for ever."""
        return len(self.phases) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting; ``loads`` has one entry for each guest that migrates (two at once share the link)."""

    loads: tuple[Load, ...]
    memory_mib: int
    link_mbit: float
    bandwidth_mib: int | None
    max_downtime_seconds: float
    auto_converge: bool
    parallel: int
    source_bystander_cores: float
    destination_bystander_cores: float
    deadline_seconds: float

    @property
    def link_bytes_per_second(self) -> float:
        """What the link is rated at."""
        return self.link_mbit * 1e6 / 8


def _log_between(random: Random, low: float, high: float) -> float:
    return math.exp(random.uniform(math.log(low), math.log(high)))


def _between(random: Random, span: Range) -> float:
    low, high = span
    return _log_between(random, low, high) if low > 0 else random.uniform(low, high)


def draw_load(
    random: Random, family: Family, memory_mib: int, rate_mib_per_second: float, within: Range = ANY_INTENSITY
) -> Load:
    """A load of that family for a guest of that memory, its dirty rate a multiple of ``rate_mib_per_second``.

    ``within``: part of the family's intensities to draw from; a family that has none there keeps its own.
    """
    room = memory_mib - GUEST_OVERHEAD_MIB
    working_set = max(1.0, room * _between(random, family.working_set_share))
    cpu = random.uniform(*family.cpu_percent)
    low, high = max(family.intensity[0], within[0]), min(family.intensity[1], within[1])
    intensity = (low, high) if low <= high else family.intensity

    def phase(seconds: float, intensity: Range, order: str) -> Phase:
        rate = min(family.most_mib_per_second, rate_mib_per_second * _between(random, intensity))
        return Phase(
            seconds=round(seconds, 2),
            cpu_percent=round(cpu, 1),
            working_set_mib=round(working_set, 2),
            dirty_mib_per_second=round(rate, 2),
            order=order,  # type: ignore[arg-type]
        )

    if family.on_seconds is None or family.off_seconds is None:
        return Load(family=family.name, phases=(phase(3600.0, intensity, family.order),))
    on = phase(_between(random, family.on_seconds), intensity, family.order)
    off = phase(_between(random, family.off_seconds), family.off_intensity, family.off_order or family.order)
    return Load(family=family.name, phases=(on, off))


def draw_setting(
    random: Random,
    families: tuple[Family, ...],
    memory_mib: int,
    *,
    guests: int = 1,
    within: Range = ANY_INTENSITY,
) -> Setting:
    """A setting for guests of that memory; each guest's family is drawn by weight, its intensity ``within`` a range.

    The link is drawn so that a first copy takes ``FIRST_COPY_SECONDS``: small guests on slow links, large on fast ones.
    """
    chosen = random.choices(families, weights=[family.weight for family in families], k=guests)
    share = sum(family.working_set_share[0] + family.working_set_share[1] for family in chosen) / 2 / guests
    about_bytes = guests * (BASE_RESIDENT_MIB + share * (memory_mib - GUEST_OVERHEAD_MIB)) * MIB
    link = about_bytes / _log_between(random, *FIRST_COPY_SECONDS) * 8 / 1e6
    link = round(min(LINK_MBIT[1], max(LINK_MBIT[0], link)))
    carried_mib = link * 1e6 / 8 / MIB
    bandwidth = None
    if random.random() < 0.4:
        bandwidth = max(4, round(carried_mib * _between(random, CAP_SHARE) / guests))
    rate = min(carried_mib / guests, bandwidth or math.inf)
    loads = tuple(draw_load(random, family, memory_mib, rate, within) for family in chosen)
    parallel = random.choice((2, 4)) if random.random() < 0.15 else 0
    first_copy = about_bytes / guests / MIB / rate
    deadline = min(
        DEADLINE_SECONDS[1], max(DEADLINE_SECONDS[0], DEADLINE_COPIES * first_copy + DEADLINE_MARGIN_SECONDS)
    )

    def bystander() -> float:
        return round(_between(random, BYSTANDER_CORES), 2) if random.random() < 0.3 else 0.0

    return Setting(
        loads=loads,
        memory_mib=memory_mib,
        link_mbit=float(link),
        bandwidth_mib=bandwidth,
        max_downtime_seconds=round(_log_between(random, *DOWNTIME_SECONDS), 3),
        auto_converge=random.random() < 0.25,
        parallel=parallel,
        source_bystander_cores=bystander(),
        destination_bystander_cores=bystander(),
        deadline_seconds=round(deadline, 1),
    )
