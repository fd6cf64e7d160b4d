"""Rounds of the balance search: in each, the best admissible move off any host that is still above headroom.

The loop is `descent.Descent`; here is its field: hosts are the sources, demand relieved is what counts. With few hot hosts
each look goes through a host's units anew. With many, a unit too is only evaluated again when it would be next, for what
it brought in an earlier placement bounds what it brings now, unless a host with room has been relieved since; so a host
that seems to have nothing left is looked at anew before that is believed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rebalancerd.plan.descent import Descent, Offer, Rank
from rebalancerd.plan.relief import NOTHING, hopeless, pays, unready
from rebalancerd.plan.search import Candidate, Search, Unit

LOOKED_AT_ANEW = 8  # hot hosts
PRICED_OF_A_HOST = 4  # units whose costs are asked for in one call: a call costs more than the candidates in it
PROBED_OF_A_HOST = 8  # units of which the search wants to know about what they cost before it looks
NONE = float("-inf")


@dataclass(slots=True)
class Row:
    """A unit of a hot host. ``most``: what it brings at most; ``found``: its candidates when it was last evaluated."""

    relief: float
    priority: int
    unit: Unit
    most: float
    found: Sequence[Candidate] = ()

    @property
    def rank(self) -> Rank:
        """Order among equals: what relieves most first."""
        return -self.relief, self.priority, self.unit.vms


@dataclass(frozen=True, slots=True)
class Table:
    """The units of a host as they were when ``version`` moves had been made, most useful first."""

    version: int
    rows: list[Row]


class HotHosts:
    """A `descent.Field` of the hosts above headroom; a search evaluates, what moved is told by ``moved``."""

    anew = LOOKED_AT_ANEW

    def __init__(self, search: Search) -> None:
        self._search = search
        self._weight = search.state.settings.weight_unmet
        self._moved: set[int] = set()
        self._tables: dict[int, Table] = {}
        self._bounds: dict[int, float] = {}
        self._useful: dict[int, list[tuple[float, int, Unit]]] = {}
        self._stays: dict[tuple[int, ...], bool] = {}
        self._hot = {h: self._is_hot(h) for h in sorted(search.state.hot)}
        self._sources = [h for h, hot in self._hot.items() if hot]
        self._begin()

    @property
    def exhausted(self) -> bool:
        """Whether the work budget is used up."""
        return self._search.exhausted

    @property
    def room(self) -> int:
        """Moves that the plan may still have."""
        return self._search.state.settings.max_moves - len(self._moved)

    def sources(self) -> Sequence[int]:
        """Hosts that are hot still, none once the plan is full."""
        return self._sources if self.room > 0 else ()

    def bound(self, source: int) -> float:
        """What one move off a host relieves at most in the placement of the beginning."""
        return self._bounds.get(source, float("inf"))

    def moved(self, candidate: Candidate) -> None:
        """The candidate was applied: its hosts' loads are others."""
        self._moved.update(candidate.unit.vms)
        changed = {*candidate.unit.sources, candidate.destination} & self._hot.keys()
        for host in changed:
            self._hot[host] = self._is_hot(host)
            self._tables.pop(host, None)
            self._useful.pop(host, None)
        if changed:
            self._sources = [h for h, hot in self._hot.items() if hot]

    def look(self, sources: Sequence[int], version: int) -> list[Offer[Candidate]]:
        """The best candidate of each of those hosts."""
        if len(self._sources) <= self.anew:
            return [self._look(host, version) for host in sources]
        return [self._look_again(host, version) for host in sources]

    def _is_hot(self, host: int) -> bool:
        search = self._search
        hot = search.state.above_headroom(host) or search.objective.waits(host)
        return hot and bool(search.objective.counted[host])

    def _units(self, host: int) -> list[tuple[float, int, Unit]]:
        """(relief, priority, unit) of whatever may leave a host and whose leaving is worth a look, most useful first."""
        room = self.room
        if host not in self._useful:
            self._useful[host] = self._found(host)
        return [row for row in self._useful[host] if len(row[2].vms) <= room]

    def _found(self, host: int) -> list[tuple[float, int, Unit]]:
        found: list[tuple[float, int, Unit]] = []
        search = self._search
        state = search.state
        here = state.settled_on(host)
        alone = dict(zip(here, search.reliefs(host, here), strict=True))
        for vms in sorted({state.groups.unit(v, here) for v in here}):
            if self._moved.intersection(vms) or (len(vms) == 1 and alone[vms[0]] <= NOTHING):
                continue
            if vms not in self._stays:
                self._stays[vms] = unready(state, vms) is not None
            if self._stays[vms]:
                continue
            unit = search.unit(vms)
            relief = float(alone[vms[0]]) if len(vms) == 1 else search.relief_at_source(unit)
            if relief > NOTHING and not hopeless(search, unit, relief):
                found.append((relief, max(state.vms[v].policy.priority for v in vms), unit))
        return sorted(found, key=lambda row: (-row[0], row[1], row[2].vms))

    def _look(self, host: int, version: int) -> Offer[Candidate]:
        """The best candidate of a host in the present placement, everything that may matter evaluated anew."""
        search, best, weight = self._search, None, self._weight
        rank: Rank = (float("inf"), 0, ())
        seen: list[Candidate] = []
        units = self._units(host)
        for i, (relief, priority, unit) in enumerate(units):
            if search.exhausted or (best is not None and weight * relief + max(0.0, best.imbalance_gain) <= best.gain):
                break
            if i & (i - 1) == 0:  # ever more at once: the search seldom gets far
                search.prefetch([row[2] for row in units[i : max(PRICED_OF_A_HOST, 2 * i)]])
            found = search.evaluate(unit, partial(pays, search), relief)
            seen += found
            if found and (best is None or found[0].gain > best.gain + NOTHING):
                best, rank = found[0], (-relief, priority, unit.vms)
        return Offer(version, NONE if best is None else best.gain, best, rank, tuple(seen))

    def _look_again(self, host: int, version: int) -> Offer[Candidate]:
        """The best candidate of a host; of its units only those are evaluated that may be it."""
        table = self._tables.get(host)
        if table is not None:
            offer = self._from(table, version)
            if offer.best is not None or table.version == version or self.exhausted:
                return offer
        rows = [Row(relief, priority, unit, self._most(unit, relief)) for relief, priority, unit in self._units(host)]
        self._tables[host] = Table(version, rows)
        return self._from(self._tables[host], version)

    def _most(self, unit: Unit, relief: float) -> float:
        """What a unit brings at most besides balance, if no destination is cheaper than those whose costs are known."""
        return self._weight * relief - self._search.state.settings.weight_cost * self._search.least_cost(unit)

    def _hopeless(self, row: Row) -> bool:
        return hopeless(self._search, row.unit, row.relief, self._search.least_cost(row.unit))

    def _from(self, table: Table, version: int) -> Offer[Candidate]:
        """The best of a host's units: evaluate what promises most until nothing left promises more than what was found."""
        search, fresh, room = self._search, set[int](), self.room
        best: Row | None = None
        while not search.exhausted:
            balance = 0.0 if best is None else max(0.0, best.found[0].imbalance_gain)
            left = [i for i, row in enumerate(table.rows) if i not in fresh and len(row.unit.vms) <= room]
            i = max(left, key=lambda r: table.rows[r].most, default=None)
            if i is None or table.rows[i].most == NONE:
                break
            row = table.rows[i]
            if best is not None and row.most + balance <= best.most:
                break
            if self._hopeless(row):
                row.most = NONE
                continue
            give_up = partial(self._hopeless, row)
            row.found = search.evaluate(row.unit, partial(pays, search), row.relief, give_up)
            row.most = row.found[0].gain if row.found else NONE
            fresh.add(i)
            if row.found and (best is None or row.most > best.most + NOTHING):
                best = row
        seen = tuple(c for i in sorted(fresh) for c in table.rows[i].found)
        if best is None:
            return Offer(version, NONE, seen=seen)
        return Offer(version, best.most, best.found[0], best.rank, seen)

    def _begin(self) -> None:
        """Bound what each hot host can give; of few, ask for the costs in one call."""
        search = self._search
        state = search.state
        for host in self._sources:
            here = state.settled_on(host)
            single = float(search.reliefs(host, here).max(initial=0.0))
            grouped = any(state.groups.bound(v) for v in here)
            self._bounds[host] = float("inf") if grouped else self._weight * single
        ranked = sorted(self._bounds, key=lambda h: (-self._bounds[h], h))[: self.anew + self.room]
        if len(self._sources) <= self.anew:
            search.prefetch([row[2] for h in ranked for row in self._units(h)[:PRICED_OF_A_HOST]])
        else:
            state.costs.fetch([pair for h in ranked for pair in self._probes(h)])

    def _probes(self, host: int) -> list[tuple[int, int]]:
        """The most useful units of a host, each with the likeliest destination: what a VM costs hardly depends on it."""
        units = [row[2] for row in self._units(host)[:PROBED_OF_A_HOST]]
        likely = self._search.with_room(units[0], 1)[0][:1].tolist() if units else []
        return [(v, h) for unit in units for v in unit.vms for h in likely]


class Rounds:
    """Iterates over (candidate, the others that were admissible) on a search; the caller applies each before the next."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def __iter__(self) -> Iterator[tuple[Candidate, list[Candidate]]]:
        """Until nothing admissible is left, at ``max_moves`` or at ``work_budget``."""
        field = HotHosts(self._search)
        descent = Descent(field)
        for taken in descent:
            assert taken.best is not None
            others = [c for offer in descent.current() for c in offer.seen if c is not taken.best]
            yield taken.best, others
            field.moved(taken.best)
