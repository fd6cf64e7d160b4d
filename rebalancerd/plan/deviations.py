"""Deviations: a cluster score that is a weighted sum of spreads, as a field of (VMs × hosts) that a descent goes through.

What the planner's own objective calls imbalance is such a score, and so is the one of Ganeti's hbal. It has no demand to
relieve, so every VM is a candidate at any time and all of them are evaluated at once: for V VMs and H hosts one round
costs about V · H · (terms) multiplications in a few calls of NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.descent import Offer
from rebalancerd.plan.spread import EachMove, Spread

EVERYTHING = 0  # its one source: all VMs are looked at together
LEAST_GAIN = 1e-12


@dataclass(frozen=True)
class Term:
    """weight · standard deviation over hosts of base (H,) + scale (H,) · Σ amount (V,) of the VMs there."""

    weight: float
    amount: Floats
    base: Floats
    scale: Floats


@dataclass(frozen=True, slots=True)
class Hop:
    """One VM to one host and what the score falls by."""

    vm: int
    source: int
    destination: int
    gain: float


class Deviations:
    """The score of a placement and of all moves from it; a `descent.Field` with one source.

    ``place`` (V,): host of each VM. ``room`` (H,) and ``need`` (V,): a VM only goes where need < room left. ``open_to``
    (V, H): destinations that are allowed at all, None for all of them. ``evaluated`` counts candidates, ``work_budget``
    ends the search.
    """

    anew = 1

    def __init__(
        self,
        terms: Sequence[Term],
        place: Indices,
        room: Floats,
        need: Floats,
        *,
        open_to: NDArray[np.bool_] | None = None,
        work_budget: int = 10**12,
    ) -> None:
        self.place = np.array(place, dtype=np.intp)
        self.vms, self.hosts = len(self.place), len(room)
        self.evaluated, self.work_budget = 0, work_budget
        self._terms, self._need = terms, np.asarray(need, dtype=np.float64)
        used = np.bincount(self.place, weights=self._need, minlength=self.hosts)
        self._left = np.asarray(room, dtype=np.float64) - used
        self._share = np.full(self.hosts, 1.0 / self.hosts)
        self._figures = [t.base + t.scale * np.bincount(self.place, t.amount, self.hosts) for t in terms]
        self._spreads = [Spread.of(self._share, figure) for figure in self._figures]
        self._each = [EachMove(self._share, t.amount, t.scale) for t in terms]
        shape = (self.vms, self.hosts)
        self._closed = np.zeros(shape) if open_to is None else np.where(open_to, 0.0, np.inf)
        self._penalty = np.where(self._need[:, None] < self._left, self._closed, np.inf)
        self._penalty[np.arange(self.vms), self.place] = np.inf
        self._total, self._one = np.empty(shape), np.empty(shape)

    @property
    def exhausted(self) -> bool:
        """Whether the work budget is used up."""
        return self.evaluated >= self.work_budget

    def score(self) -> float:
        """The score of the placement."""
        return sum(t.weight * s.deviation() for t, s in zip(self._terms, self._spreads, strict=True))

    def scores(self) -> Floats:
        """Scores (V, H) after each move alone, infinite where it is not allowed. The array is used again by the next call."""
        total, one = self._total, self._one
        total[:] = self._penalty
        for term, spread, each in zip(self._terms, self._spreads, self._each, strict=True):
            each.deviations(spread, self.place, out=one)
            if term.weight != 1.0:
                one *= term.weight
            total += one
        self.evaluated += total.size
        return total

    def sources(self) -> Sequence[int]:
        """One: everything."""
        return (EVERYTHING,)

    def bound(self, source: int) -> float:
        """No bound is known."""
        del source
        return float("inf")

    def look(self, sources: Sequence[int], version: int) -> list[Offer[Hop]]:
        """The best move of all."""
        return [self._offer(version) for _ in sources]

    def _offer(self, version: int) -> Offer[Hop]:
        scores = self.scores()
        vm, host = divmod(int(scores.argmin()), self.hosts)
        gain = self.score() - float(scores[vm, host])
        if not gain > LEAST_GAIN:
            return Offer(version, float("-inf"))
        return Offer(version, gain, Hop(vm, int(self.place[vm]), host, gain))

    def fits(self, vm: int, host: int) -> bool:
        """Whether the VM may go there now."""
        return bool(self._closed[vm, host] == 0 and self._need[vm] < self._left[host])

    def apply(self, vm: int, host: int) -> None:
        """Move a VM; only what concerns its two hosts is made anew."""
        source = int(self.place[vm])
        self.place[vm] = host
        need = self._need[vm]
        self._left[source] += need
        self._left[host] -= need
        for i, (term, figure) in enumerate(zip(self._terms, self._figures, strict=True)):
            figure[source] -= term.scale[source] * term.amount[vm]
            figure[host] += term.scale[host] * term.amount[vm]
            self._spreads[i] = Spread.of(self._share, figure)
        for h in (source, host):
            self._penalty[:, h] = np.where(self._need < self._left[h], self._closed[:, h], np.inf)
            self._penalty[self.place == h, h] = np.inf
