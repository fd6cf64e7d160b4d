"""ports.PowerMeter over management controllers: what the power supplies give the whole host."""

from collections.abc import Mapping

from rebalancerd.act.power.bmc import ask_watts
from rebalancerd.act.power.settings import HostPower


class BmcMeter:
    """ports.PowerMeter. Redfish (EnvironmentMetrics, Power) and IPMI (DCMI); each reading is a call of its own."""

    name = "its controller"
    asks = True

    def __init__(self, hosts: Mapping[str, HostPower], *, call_deadline_seconds: float) -> None:
        self._hosts = {name: power for name, power in hosts.items() if power.kind in ("redfish", "ipmi")}
        self._seconds = call_deadline_seconds

    def hosts(self) -> frozenset[str]:
        """Hosts with a controller that may tell."""
        return frozenset(self._hosts)

    def watts(self, host: str) -> float | None:
        """What the host draws. Raises PowerError."""
        return ask_watts(host, self._hosts[host], self._seconds)
