"""Rounds of the balance search: in each, the best admissible move off any host that is still above headroom.

Every hot host keeps its best candidate. With few hot hosts all of them are looked at anew in every round. With many, one
is only looked at again when it would be next (lazy greedy: Minoux, "Accelerated greedy algorithms", 1978): a move fills
its destination and so seldom makes another host's best better, and what it did make better is found before the end, for
the search does not end before every host's answer is of the present placement.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rebalancerd.plan.relief import NOTHING, unready, worth_it
from rebalancerd.plan.search import Candidate, Search, Unit

LOOKED_AT_ANEW = 8  # hot hosts
UNSEEN = -1
PRICED_OF_A_HOST = 4  # units whose costs are asked for in one call: a call costs more than the candidates in it
Rank = tuple[float, int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Offer:
    """The best candidate of a host when ``version`` moves had been made, its rank among ties, and what else was seen.

    ``gain``: what it brings, below everything where there is none; of a host not looked at yet, what one move off it can
    relieve at most.
    """

    version: int
    gain: float
    best: Candidate | None = None
    rank: Rank = (float("inf"), 0, ())
    seen: tuple[Candidate, ...] = ()


class Rounds:
    """Iterates over (candidate, the others that were admissible) on a search; the caller applies each before the next."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._moved: set[int] = set()
        self._offers: dict[int, Offer] = {}
        self._hot = {h: self._is_hot(h) for h in sorted(search.state.hot)}

    def __iter__(self) -> Iterator[tuple[Candidate, list[Candidate]]]:
        """Until nothing admissible is left, at ``max_moves`` or at ``work_budget``."""
        search, version, most = self._search, 0, self._search.state.settings.max_moves
        self._begin()
        while not search.exhausted and len(self._moved) < most:
            hosts = sorted(h for h, hot in self._hot.items() if hot)
            taken = self._best(hosts, version)
            if taken is None or taken.best is None:
                return
            current = [o for h in hosts if (o := self._offers[h]).version == version]
            others = [c for offer in current for c in offer.seen if c is not taken.best]
            self._moved.update(taken.best.unit.vms)
            version += 1
            yield taken.best, others
            for host in {*taken.best.unit.sources, taken.best.destination} & self._hot.keys():
                self._hot[host] = self._is_hot(host)

    def _is_hot(self, host: int) -> bool:
        search = self._search
        hot = search.state.above_headroom(host) or search.objective.waits(host)
        return hot and bool(search.objective.counted[host])

    def _best(self, hosts: Sequence[int], version: int) -> Offer | None:
        if not hosts:
            return None
        if len(hosts) <= LOOKED_AT_ANEW:
            for host in hosts:
                self._look(host, version)
            return self._first_of(hosts)
        for host in hosts:
            self._offers.setdefault(host, Offer(UNSEEN, float("inf")))
        while True:
            host = max(hosts, key=lambda h: (self._offers[h].gain, -h))
            if self._offers[host].version == version:
                return self._offers[host]
            if self._search.exhausted:
                return None
            self._look(host, version)

    def _first_of(self, hosts: Sequence[int]) -> Offer:
        """The best offer; among equal ones that of the unit whose leaving relieves most."""
        ranked = sorted((self._offers[h] for h in hosts), key=lambda o: o.rank)
        best = ranked[0]
        for offer in ranked[1:]:
            if offer.gain > best.gain + NOTHING:
                best = offer
        return best

    def _units(self, host: int) -> list[tuple[float, int, Unit]]:
        """(relief, priority, unit) of whatever may leave a host, most useful first."""
        search, found = self._search, []
        state, room = search.state, search.state.settings.max_moves - len(self._moved)
        here = state.settled_on(host)
        alone = dict(zip(here, search.reliefs(host, here), strict=True))
        for vms in sorted({state.groups.unit(v, here) for v in here}):
            if len(vms) > room or self._moved.intersection(vms) or (len(vms) == 1 and alone[vms[0]] <= NOTHING):
                continue
            if unready(state, vms) is not None:
                continue
            unit = Unit.of(state, vms)
            relief = float(alone[vms[0]]) if len(vms) == 1 else search.relief_at_source(unit)
            if relief > NOTHING:
                found.append((relief, max(state.vms[v].policy.priority for v in vms), unit))
        return sorted(found, key=lambda row: (-row[0], row[1], row[2].vms))

    def _look(self, host: int, version: int) -> None:
        """Find the best candidate of a host in the present placement."""
        search, best = self._search, None
        weight = search.state.settings.weight_unmet
        rank: Rank = (float("inf"), 0, ())
        seen: list[Candidate] = []
        units = self._units(host)
        for i, (relief, priority, unit) in enumerate(units):
            if search.exhausted or (best is not None and weight * relief + max(0.0, best.imbalance_gain) <= best.gain):
                break
            if i & (i - 1) == 0:  # ever more at once: the search seldom gets far
                search.prefetch([row[2] for row in units[i : max(PRICED_OF_A_HOST, 2 * i)]])
            found = search.evaluate(unit, partial(worth_it, search), relief)
            seen += found
            if found and (best is None or found[0].gain > best.gain + NOTHING):
                best, rank = found[0], (-relief, priority, unit.vms)
        self._offers[host] = Offer(version, float("-inf") if best is None else best.gain, best, rank, tuple(seen))

    def _begin(self) -> None:
        """Bound what each hot host can give, and ask for the costs of the most promising in one call."""
        search = self._search
        weight = search.state.settings.weight_unmet
        for host, hot in self._hot.items():
            if hot:
                here = search.state.settled_on(host)
                single = float(search.reliefs(host, here).max(initial=0.0))
                grouped = any(search.state.groups.bound(v) for v in here)
                self._offers[host] = Offer(UNSEEN, float("inf") if grouped else weight * single)
        ranked = sorted(self._offers, key=lambda h: (-self._offers[h].gain, h))
        promising = ranked[: LOOKED_AT_ANEW + search.state.settings.max_moves]
        search.prefetch([row[2] for h in promising for row in self._units(h)[:PRICED_OF_A_HOST]])
