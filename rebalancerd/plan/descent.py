"""Descent: the best candidate first, whatever the objective; the one loop of every search for moves.

Candidates are grouped by source (what they leave). Each source offers its best candidate; the best offer of all is
taken. With few sources all of them are looked at anew in each round. With many, one is only looked at again when it
would be next (lazy greedy: Minoux, "Accelerated greedy algorithms", 1978): a move fills its destination and so seldom makes
another source's best better, and what it did make better is found before the end, for the search does not end before every
source's answer is of the present placement. Objectives are fields: they know sources, bounds and how to look, many at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

EQUAL = 1e-6  # gains that differ by less are equal
UNSEEN = -1
C = TypeVar("C")
Rank = tuple[float, int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Offer(Generic[C]):
    """The best candidate of a source when ``version`` moves had been made, its rank among ties, and what else was seen.

    ``gain``: what it brings, below everything where there is none; of a source not looked at yet, a bound of it.
    """

    version: int
    gain: float
    best: C | None = None
    rank: Rank = (float("inf"), 0, ())
    seen: tuple[C, ...] = ()


class Field(Protocol[C]):
    """An objective over candidates. ``anew``: number of sources up to which all of them are looked at in each round."""

    @property
    def anew(self) -> int:
        """See above."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether the work budget is used up."""
        ...

    def sources(self) -> Sequence[int]:
        """What something may leave in the present placement, ascending."""
        ...

    def bound(self, source: int) -> float:
        """What one move off a source may gain at most; asked once, at the beginning."""
        ...

    def look(self, sources: Sequence[int], version: int) -> Sequence[Offer[C]]:
        """The best admissible candidate of each of those sources in the present placement."""
        ...


class Descent(Generic[C]):
    """Offers one candidate after the other; the caller applies each before it asks for the next."""

    def __init__(self, field: Field[C]) -> None:
        self.field = field
        self.version = 0
        self.offers: dict[int, Offer[C]] = {}

    def __iter__(self) -> Iterator[Offer[C]]:
        """Until nothing is gained any more or the field is exhausted."""
        while not self.field.exhausted:
            taken = self._best(self.field.sources())
            if taken is None or taken.best is None:
                return
            self.version += 1
            yield taken

    def current(self) -> list[Offer[C]]:
        """Offers that were made beside the one taken last."""
        return [offer for _, offer in sorted(self.offers.items()) if offer.version == self.version - 1]

    def _best(self, sources: Sequence[int]) -> Offer[C] | None:
        if not sources:
            return None
        if len(sources) <= self.field.anew:
            self._look(sources)
            return self._first_of(sources)
        for source in sources:
            if source not in self.offers:
                self.offers[source] = Offer(UNSEEN, self.field.bound(source))
        gains = np.array([self.offers[h].gain for h in sources])
        while True:
            i = int(gains.argmax())  # the first of equal ones
            source = sources[i]
            if self.offers[source].version == self.version:
                return self.offers[source]
            if self.field.exhausted:
                return None
            self._look([source])
            gains[i] = self.offers[source].gain

    def _look(self, sources: Sequence[int]) -> None:
        self.offers.update(zip(sources, self.field.look(sources, self.version), strict=True))

    def _first_of(self, sources: Sequence[int]) -> Offer[C]:
        """The best offer; among equal ones that of the best rank."""
        ranked = sorted((self.offers[h] for h in sources), key=lambda o: o.rank)
        best = ranked[0]
        for offer in ranked[1:]:
            if offer.gain > best.gain + EQUAL:
                best = offer
        return best
