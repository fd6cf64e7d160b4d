"""CostBook: predicted costs of migrations, asked in batches and remembered; and the options a move will run with."""

from collections.abc import Iterable

from rebalancerd.cluster.cost import Candidate, MigrationCost, MigrationOptions
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings

# What QEMU is allowed, of what the VM accepts: it may use all of that for the last pages, and the fixed part of the
# switch-over (device state, resume) and a link slower than rated come on top. Without the margin no bound ever fits; at
# the default limit of 0.5 s a share of 0.7 is too much already (0.52 s for a guest whose dirty curve is not known).
PRECOPY_SHARE = 0.6


def downtime_limit(vm: Vm, settings: PlanSettings) -> float:
    """Seconds of downtime the VM accepts: its own limit, else the cluster's."""
    own = vm.policy.max_downtime_seconds
    return settings.max_downtime_seconds if own is None else own


def options(vm: Vm, settings: PlanSettings) -> MigrationOptions:
    """Options its migration will run with; post-copy and throttling only where its policy allows them."""
    return MigrationOptions(
        max_downtime_seconds=PRECOPY_SHARE * downtime_limit(vm, settings),
        postcopy=vm.policy.postcopy,
        auto_converge=vm.policy.auto_converge,
    )


def link_share(settings: PlanSettings) -> float:
    """Least share of a link a migration gets while the caps hold: as many as one host may have run at once."""
    at_once = min(max(settings.out_per_host, settings.in_per_host), settings.per_cluster)
    return 1.0 / max(1, at_once)


class CostBook:
    """Costs by (VM index, host index). A pair is asked once per planning run."""

    def __init__(self, inputs: PlanInputs) -> None:
        self._inputs = inputs
        self._share = link_share(inputs.settings)
        self._known: dict[tuple[int, int], MigrationCost] = {}

    def fetch(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Ask the cost model for those pairs that are not known yet, in one call."""
        missing = sorted(set(pairs) - self._known.keys())
        if not missing:
            return
        snapshot, settings = self._inputs.snapshot, self._inputs.settings
        asked = [
            Candidate(
                vm_uuid=snapshot.vms[v].uuid,
                source=snapshot.vms[v].host,
                destination=snapshot.hosts[h].name,
                link_share=self._share,
                options=options(snapshot.vms[v], settings),
            )
            for v, h in missing
        ]
        self._known.update(zip(missing, self._inputs.costs.costs(snapshot, asked), strict=True))

    def cost(self, vm: int, host: int) -> MigrationCost:
        """Cost of one pair."""
        if (vm, host) not in self._known:
            self.fetch([(vm, host)])
        return self._known[vm, host]
