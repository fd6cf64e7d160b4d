"""ports.PowerMeter over the hosts' agents: what their processor packages draw, as the last sample has it."""

from collections.abc import Callable

from rebalancerd.cluster.power import PowerFault
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.ports import PowerError


class PackageMeter:
    """ports.PowerMeter. A package is not the whole host, so that what is saved is more than this says."""

    name = "RAPL, processor packages only"
    asks = False

    def __init__(self, snapshot: Callable[[], Snapshot | None]) -> None:
        self._snapshot = snapshot

    def hosts(self) -> frozenset[str]:
        """Hosts whose agents know of packages, readable or not."""
        seen = self._snapshot()
        hosts = () if seen is None else seen.hosts
        return frozenset(h.name for h in hosts if h.load.package_watts is not None or h.load.package_fault is not None)

    def watts(self, host: str) -> float | None:
        """Of the last sample. Raises PowerError where the agent may not read them."""
        seen = self._snapshot()
        found = None if seen is None else seen.host_by_name.get(host)
        if found is None:
            return None
        if found.load.package_fault is not None:
            raise PowerError(host, PowerFault.SETUP, found.load.package_fault)
        return found.load.package_watts
