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

    def after_each(self, amount: Floats, scale: Floats, sources: Indices, out: Floats | None = None) -> Floats:
        """Deviations (N, H) after each of N things alone goes from its source (N,) to each host; its own: undefined.

        A thing adds amount · scale[h] to the figure of host h, ``scale`` (H,). Same as `after`, whose two sums are here
        one product of (N, 4) and (4, H): what leaves is the thing's own, what arrives is amount, its square and figures of
        the host.
        """
        share, figure = self.share, self.figure
        given = amount * scale[sources]
        first = self.first - share[sources] * given
        second = self.second + share[sources] * given * (given - 2 * figure[sources])
        there = share * scale
        things = np.stack((second - first * first, amount, amount * first, amount * amount), axis=1)
        hosts = np.stack((np.ones_like(there), 2 * there * figure, -2 * there, there * scale - there * there))
        found: Floats = np.matmul(things, hosts, out=out)
        np.maximum(found, 0.0, out=found)
        return np.sqrt(found, out=found)
