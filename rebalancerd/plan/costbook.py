"""CostBook: predicted costs of migrations and the options they will run with, asked in batches and remembered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rebalancerd.cluster.cost import COPY_CORES, Candidate, MigrationCost, MigrationOptions
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.options import options, others
from rebalancerd.plan.price import Bounds, Quote, quotes
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.vetoes import admissible_each

Pair = tuple[int, int]


def link_share(settings: PlanSettings) -> float:
    """Least share of a link a migration gets while the caps hold: as many as one host may have run at once."""
    at_once = min(max(settings.out_per_host, settings.in_per_host), settings.per_cluster)
    return 1.0 / max(1, at_once)


@dataclass(frozen=True, slots=True)
class Priced:
    """A migration with its options and what it will cost.

    ``vetoed``: what it would cost with the usual options, where a veto stands against those and not against these; None
    where it runs with the usual ones, or where no allowed options pass and the cost is that of the usual ones.
    """

    candidate: Candidate
    cost: MigrationCost
    vetoed: MigrationCost | None = None


class CostBook:
    """Costs by (VM index, host index). A pair is asked once per planning run.

    Where a veto stands against the usual options, everything else that the VM's policy allows is asked as well, in one
    more call for all such pairs, and the first that passes every veto is taken.
    """

    def __init__(self, inputs: PlanInputs) -> None:
        self._inputs = inputs
        self._share = link_share(inputs.settings)
        self._known: dict[Pair, Quote] = {}
        self._usual: dict[int, MigrationOptions] = {}
        self._cheapest: dict[int, tuple[float, float]] = {}

    def fetch(self, pairs: Iterable[Pair]) -> None:
        """Ask the cost model for those pairs that are not known yet."""
        missing = sorted({pair for pair in pairs if pair not in self._known})
        if not missing:
            return
        self._known.update(zip(missing, self._quoted(missing, [self._options(vm) for vm, _ in missing]), strict=True))
        self._try_others([pair for pair in missing if not self._known[pair].admissible])
        for pair in missing:
            quote = self._known[pair]
            if quote.admissible:
                least = self._cheapest.get(pair[0], (np.inf, np.inf))
                self._cheapest[pair[0]] = min(least[0], quote.lost_seconds), min(least[1], quote.seconds)

    def covers(self, pairs: Sequence[Pair], share: float) -> bool:
        """Whether at least that share of the pairs is known."""
        return sum(pair in self._known for pair in pairs) >= share * len(pairs)

    def least_core_seconds(self, vm: int, mean_cores: float) -> float:
        """A cost below all that are known of a VM and may be paid, 0 if none is known."""
        lost, seconds = self._cheapest.get(vm, (0.0, 0.0))
        return lost * mean_cores + seconds * COPY_CORES

    def _try_others(self, pairs: Sequence[Pair]) -> None:
        """Give each pair the first of the other options that passes; what none helps keeps the usual ones."""
        vms, settings = self._inputs.snapshot.vms, self._inputs.settings
        asked = [(pair, o) for pair in pairs for o in others(vms[pair[0]], settings)]
        if not asked:
            return
        found = self._quoted([pair for pair, _ in asked], [o for _, o in asked])
        for (pair, _), quote in zip(asked, found, strict=True):
            usual = self._known[pair]
            if quote.admissible and not usual.admissible:
                self._known[pair] = quote._replace(usual=usual.costs[usual.row])

    def _quoted(self, pairs: Sequence[Pair], chosen: Sequence[MigrationOptions]) -> list[Quote]:
        """One quote per pair, run with those options."""
        asked = [self._candidate(pair, o) for pair, o in zip(pairs, chosen, strict=True)]
        found = self._inputs.costs.costs(self._inputs.snapshot, asked)
        if len(found) != len(asked):
            raise ValueError(f"the cost model gave {len(found)} costs for {len(asked)} candidates")
        vms, bounds = self._inputs.snapshot.vms, Bounds.of(found)
        return quotes(
            found, chosen, bounds, admissible_each(bounds, [vms[vm] for vm, _ in pairs], self._inputs.settings)
        )

    def _options(self, vm: int) -> MigrationOptions:
        if vm not in self._usual:
            self._usual[vm] = options(self._inputs.snapshot.vms[vm], self._inputs.settings)
        return self._usual[vm]

    def _candidate(self, pair: Pair, chosen: MigrationOptions) -> Candidate:
        vm, host = self._inputs.snapshot.vms[pair[0]], self._inputs.snapshot.hosts[pair[1]]
        return Candidate(vm_uuid=vm.uuid, source=vm.host, destination=host.name, link_share=self._share, options=chosen)

    def quote(self, vm: int, host: int) -> Quote:
        """One pair as the search reads it."""
        if (vm, host) not in self._known:
            self.fetch([(vm, host)])
        return self._known[vm, host]

    def priced(self, vm: int, host: int) -> Priced:
        """One pair with its options."""
        quote = self.quote(vm, host)
        return Priced(self._candidate((vm, host), quote.options), quote.costs[quote.row], vetoed=quote.usual)

    def cost(self, vm: int, host: int) -> MigrationCost:
        """Cost of one pair."""
        quote = self.quote(vm, host)
        return quote.costs[quote.row]

    def admissible(self, vm: int, host: int) -> bool:
        """Whether no veto stands against one pair."""
        return self.quote(vm, host).admissible
