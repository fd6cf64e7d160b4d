"""What a harvest does, in order: blocks of settings on one guest size, the same for the same seed and families."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from rebalancerd.lab.harvest.families import Family, Range
from rebalancerd.lab.harvest.setting import ANY_INTENSITY, MEMORY_MIB, Setting, draw_setting

REPEATS = 4
REPEATED, ONCE = 2, 4  # settings of a block; a pair of guests, which gives two rows, comes on top
# what is repeated should end, for it tells how far apart identical migrations are; what is not may well not
CALM: Range = (0.0, 0.8)
HARD: Range = (1.0, math.inf)
HARD_SHARE = 0.7
MOST_PAIRED_MIB = 512  # two of them must fit a host


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A setting and how often it is to be migrated. ``key`` names it for ever: seed, block, number."""

    key: str
    setting: Setting
    repeats: int

    @property
    def guests(self) -> int:
        """How many migrate at once."""
        return len(self.setting.loads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Settings for which one guest (two for pairs) of ``memory_mib`` is booted and sent back and forth."""

    number: int
    memory_mib: int
    items: tuple[Item, ...]

    @property
    def guests(self) -> int:
        """How many guests it needs."""
        return max(item.guests for item in self.items)


def blocks(seed: int, families: tuple[Family, ...], *, pairs: bool = True) -> Iterator[Block]:
    """Blocks without end. Each is drawn from the seed and its own number alone, so that any part can be done anew.

    ``pairs``: whether two migrations at once are among them.
    """
    number = 0
    while True:
        random = Random(f"{seed}/{number}")  # noqa: S311 - a reproducible draw, no secret
        memory = random.choice(MEMORY_MIB)
        items = []
        for at in range(REPEATED + ONCE + 1):
            guests = 2 if at == REPEATED + ONCE else 1
            within = CALM if at < REPEATED else HARD if random.random() < HARD_SHARE else ANY_INTENSITY
            size = min(memory, MOST_PAIRED_MIB) if guests == 2 else memory
            setting = draw_setting(random, families, size, guests=guests, within=within)
            repeats = REPEATS if at < REPEATED else 1
            items.append(Item(key=f"s{seed}-b{number:03d}-{at}", setting=setting, repeats=repeats))
        if not pairs:
            items = [item for item in items if item.guests == 1]
        yield from _split(number, memory, items)
        number += 1


def _split(number: int, memory: int, items: list[Item]) -> Iterator[Block]:
    """Single and paired migrations apart, for they need other guests."""
    for guests in (1, 2):
        own = tuple(item for item in items if item.guests == guests)
        if own:
            size = memory if guests == 1 else own[0].setting.memory_mib
            yield Block(number=number, memory_mib=size, items=own)
