"""ports.Power over the simulated cluster: machines that boot and shut down in their own time, and controllers that lie."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from rebalancerd.cluster.power import PowerFault, PowerReading, PowerState
from rebalancerd.ports import PowerError
from rebalancerd.sim import disasters
from rebalancerd.sim.adapters import CALL_DEADLINE_SECONDS
from rebalancerd.sim.cluster import SimCluster

NEVER = float("inf")
OFF_WITH_VMS = "powered off with VMs on it"


class Bmc(StrEnum):
    """How a management controller behaves. Orders reach the machine where it answers, and where it hangs."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"  # hangs, and carries orders out all the same
    CREDENTIALS = "credentials"
    REFUSES = "refuses"  # tells its state, refuses orders
    SAYS_ON = "says-on"  # carries orders out, and always says on
    SAYS_OFF = "says-off"
    MUTE = "mute"  # carries orders out, and cannot tell, as Wake-on-LAN


FAULTS = {
    Bmc.UNREACHABLE: PowerFault.UNREACHABLE,
    Bmc.TIMEOUT: PowerFault.TIMEOUT,
    Bmc.CREDENTIALS: PowerFault.CREDENTIALS,
}


@dataclass(slots=True, kw_only=True)
class Machine:
    """One host's power as it truly is. ``change_at``: when the change under way is done; NEVER: it hangs."""

    powered: bool = True
    bmc: Bmc = Bmc.OK
    of: str = ""  # the machine that its controller is of, "" for the one it should be
    boot_seconds: float = 120.0
    shutdown_seconds: float = 30.0
    change_to: bool | None = None
    change_at: float = NEVER


class SimPower:
    """ports.Power. ``settle`` brings machines to the cluster's present; ``before_off`` sees every order to shut down."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self.machines = {
            spec.name: Machine(boot_seconds=spec.boot_seconds, shutdown_seconds=spec.shutdown_seconds)
            for spec in cluster.spec.hosts
            if spec.power
        }
        self.orders: list[tuple[float, str, str]] = []
        self.before_off: Callable[[str], None] = lambda _host: None
        self.after_call: Callable[[], None] = lambda: None

    def hosts(self) -> frozenset[str]:
        """Hosts with a management controller."""
        return frozenset(self.machines)

    def state(self, host: str) -> PowerReading:
        """What the controller says."""
        machine = self._enter(host)
        if machine.bmc is Bmc.MUTE:
            return PowerReading(PowerState.UNKNOWN, "it cannot tell", tells=False)
        said = machine.powered
        if machine.bmc in (Bmc.SAYS_ON, Bmc.SAYS_OFF):
            said = machine.bmc is Bmc.SAYS_ON
        state = PowerState.ON if said else PowerState.OFF
        return PowerReading(
            state, f"power is {state}", machine=self._cluster.hosts[machine.of or host].spec.facts().uuid
        )

    def on(self, host: str) -> None:
        """Order it on."""
        self._order(host, on=True)

    def graceful_off(self, host: str) -> None:
        """Order it to shut down."""
        self._order(host, on=False)

    def by_hand(self, host: str, *, on: bool) -> None:
        """Somebody presses the button."""
        machine = self.machines[host]
        machine.change_to, machine.change_at = on, self._cluster.now + (machine.boot_seconds if on else 0.0)
        machine.powered = machine.powered or on

    def settle(self) -> None:
        """Machines whose change is done are what they became."""
        for host, machine in self.machines.items():
            if machine.change_to is None or machine.change_at > self._cluster.now:
                continue
            machine.powered, machine.change_to = machine.change_to, None
            if machine.powered:
                disasters.revive_host(self._cluster, host)
            else:
                self._go_down(host)

    def _go_down(self, host: str) -> None:
        it = self._cluster.hosts[host]
        lost = [d.uuid for d in it.domains.values() if d.state.is_active]
        if not lost:
            it.alive = False  # definitions of shut-off VMs stay on its disk
            self._cluster.changed()
            return
        disasters.kill_host(self._cluster, host)
        for uuid in lost:
            self._cluster.note(OFF_WITH_VMS, uuid, host)

    def _order(self, host: str, *, on: bool) -> None:
        self._cluster.advance()
        if not on:
            self.before_off(host)
        self.orders.append((self._cluster.now, host, "on" if on else "off"))
        machine = self.machines[host]
        reached = machine.bmc in (Bmc.OK, Bmc.TIMEOUT, Bmc.SAYS_ON, Bmc.SAYS_OFF, Bmc.MUTE)
        if reached and machine.powered is not on:
            # a machine that shuts down takes no power-on until it is off
            seconds = machine.boot_seconds if on else machine.shutdown_seconds
            if machine.change_to is None:
                machine.change_to, machine.change_at = on, self._cluster.now + seconds
                machine.powered = True  # it draws power while it boots, and until it is down
        self.after_call()
        self._enter(host)
        if machine.bmc is Bmc.REFUSES:
            raise PowerError(host, PowerFault.REFUSED, "it refused the order")

    def _enter(self, host: str) -> Machine:
        self._cluster.advance()
        self.settle()
        machine = self.machines[host]
        if machine.bmc in FAULTS:
            if machine.bmc is Bmc.TIMEOUT:
                self._cluster.clock.sleep(CALL_DEADLINE_SECONDS)
            raise PowerError(host, FAULTS[machine.bmc], f"its controller: {machine.bmc}")
        return machine
