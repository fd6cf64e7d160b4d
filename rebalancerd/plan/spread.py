"""Spread: the standard deviation over hosts of a figure that is linear in what stands on them, and what a move makes of it.

The imbalance of the planner's objective is made of two of them (CPU, memory), and so are the scores of other balancers.
With share p_h (Σ p = 1) and figure f_h, deviation² = Σ p f² − (Σ p f)²; a move changes two hosts' terms of both sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rebalancerd.plan.demand import Floats, Indices


@dataclass(frozen=True, slots=True)
class Spread:
    """Shape (H,): ``share`` of each host in the sums, its ``figure``. ``first``, ``second``: Σ share · figure (· figure)."""

    share: Floats
    figure: Floats
    first: float
    second: float

    @classmethod
    def of(cls, share: Floats, figure: Floats) -> "Spread":
        """The spread of those figures."""
        return cls(share, figure, float(share @ figure), float(share @ (figure * figure)))

    def deviation(self) -> float:
        """Standard deviation as it is."""
        return float(np.sqrt(max(0.0, self.second - self.first**2)))

    def after(self, sources: Sequence[int], given: Floats, targets: Indices, taken: Floats) -> Floats:
        """Deviations (N,) after the sources give up ``given`` and each of the N targets alone takes ``taken`` (N,)."""
        first, second = np.full(len(targets), self.first), np.full(len(targets), self.second)
        for host, part in zip(sources, given, strict=True):
            old = self.figure[host]
            first -= self.share[host] * part
            second += self.share[host] * ((old - part) ** 2 - old**2)
        old_there = self.figure[targets]
        first += self.share[targets] * taken
        second += self.share[targets] * ((old_there + taken) ** 2 - old_there**2)
        deviations: Floats = np.sqrt(np.maximum(0.0, second - first**2))
        return deviations


class EachMove:
    """Deviations after each of V things alone goes from its host to each of H: `Spread.after` for all of them at once.

    A thing adds amount (V,) · scale (H,) to the figure of its host. The two sums of a spread are here one product of (V, 4)
    and (4, H): what leaves is the thing's own, what arrives is amount, its square and figures of the host. What does not
    change from one placement to the next is kept.
    """

    def __init__(self, share: Floats, amount: Floats, scale: Floats) -> None:
        there = share * scale
        self._share, self._amount, self._scale, self._there = share, amount, scale, there
        self._things, self._hosts = np.empty((len(amount), 4)), np.ones((4, len(scale)))
        self._things[:, 1], self._things[:, 3] = amount, amount * amount
        self._hosts[2], self._hosts[3] = -2 * there, there * scale - there * there

    def deviations(self, spread: Spread, sources: Indices, out: Floats) -> Floats:
        """(V, H), written to ``out``; where a thing is already: undefined. ``sources`` (V,): hosts of the things."""
        things, hosts, first = self._things, self._hosts, spread.first
        given = self._amount * self._scale[sources]
        share = self._share[sources] * given
        left = first - share
        np.multiply(self._amount, left, out=things[:, 2])
        np.add(share * (given - 2 * spread.figure[sources]), spread.second - left * left, out=things[:, 0])
        np.multiply(2 * self._there, spread.figure, out=hosts[1])
        np.matmul(things, hosts, out=out)
        np.maximum(out, 0.0, out=out)
        return np.sqrt(out, out=out)
