"""ports.Power over the ways that the configuration names, host by host."""

from collections.abc import Mapping

from rebalancerd.act.power.bmc import ask_bmc
from rebalancerd.act.power.child import ChildLateError, Ended, run_child
from rebalancerd.act.power.settings import HostPower
from rebalancerd.act.power.wake_on_lan import send_magic_packet
from rebalancerd.cluster.power import PowerFault, PowerReading, PowerState
from rebalancerd.ports import PowerError

STATE_CODES = {0: PowerState.ON, 1: PowerState.OFF}
MOST_WORDS = 300


class ConfiguredPower:
    """ports.Power. A command that is set for a host takes the place of what its kind would do."""

    def __init__(self, hosts: Mapping[str, HostPower], *, call_deadline_seconds: float) -> None:
        self._hosts, self._seconds = dict(hosts), call_deadline_seconds

    def hosts(self) -> frozenset[str]:
        """Names of the hosts with a way to control their power."""
        return frozenset(self._hosts)

    def state(self, host: str) -> PowerReading:
        """What is said of the host's power now. Raises PowerError."""
        power = self._of(host)
        if power.state_command:
            ended = self._run(host, power.state_command)
            if ended.code < 0 or ended.code > 125:
                raise PowerError(host, PowerFault.REFUSED, _failed(power.state_command, ended.code, ended.errors))
            state = STATE_CODES.get(ended.code, PowerState.UNKNOWN)
            return PowerReading(state, f"state_command ended with {ended.code}")
        if power.kind in ("redfish", "ipmi"):
            return ask_bmc(host, power, "state", self._seconds)
        return PowerReading(PowerState.UNKNOWN, f"{power.kind} cannot tell", tells=False)

    def on(self, host: str) -> None:
        """Order it on. Raises PowerError."""
        power = self._of(host)
        if power.on_command:
            self._order(host, power.on_command)
        elif power.kind in ("redfish", "ipmi"):
            ask_bmc(host, power, "on", self._seconds)
        elif power.kind == "wake_on_lan" and power.mac:
            send_magic_packet(host, power.mac, power.broadcast)
        else:
            raise PowerError(host, PowerFault.SETUP, "nothing is configured that powers it on")

    def graceful_off(self, host: str) -> None:
        """Order its operating system to shut down. Raises PowerError."""
        power = self._of(host)
        if power.off_command:
            self._order(host, power.off_command)
        elif power.kind in ("redfish", "ipmi"):
            ask_bmc(host, power, "graceful_off", self._seconds)
        else:
            raise PowerError(host, PowerFault.SETUP, "nothing is configured that shuts it down")

    def _of(self, host: str) -> HostPower:
        if host not in self._hosts:
            raise PowerError(host, PowerFault.SETUP, "no way to control its power is configured")
        return self._hosts[host]

    def _order(self, host: str, argv: tuple[str, ...]) -> None:
        ended = self._run(host, argv)
        if ended.code != 0:
            raise PowerError(host, PowerFault.REFUSED, _failed(argv, ended.code, ended.errors))

    def _run(self, host: str, argv: tuple[str, ...]) -> Ended:
        try:
            return run_child(argv, seconds=self._seconds, environment={"REBALANCERD_HOST": host})
        except ChildLateError as error:
            raise PowerError(host, PowerFault.TIMEOUT, f"{argv[0]}: {error}") from None
        except (OSError, ValueError) as error:
            raise PowerError(host, PowerFault.SETUP, f"{argv[0]} cannot be started: {error}") from None


class WatchedPower:
    """ports.Power for a mode that moves nothing: it knows which hosts could sleep, and holds no way to any of them."""

    def __init__(self, hosts: frozenset[str], mode: str) -> None:
        self._hosts, self._mode = hosts, mode

    def hosts(self) -> frozenset[str]:
        """Names of the hosts with a way to control their power."""
        return self._hosts

    def state(self, host: str) -> PowerReading:
        """Not asked. Raises PowerError."""
        raise self._error(host)

    def on(self, host: str) -> None:
        """Not ordered. Raises PowerError."""
        raise self._error(host)

    def graceful_off(self, host: str) -> None:
        """Not ordered. Raises PowerError."""
        raise self._error(host)

    def _error(self, host: str) -> PowerError:
        return PowerError(host, PowerFault.SETUP, f"mode {self._mode} builds no way to its power")


def _failed(argv: tuple[str, ...], code: int, errors: str) -> str:
    told = " ".join(errors.split())[:MOST_WORDS]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    return f"{argv[0]} {how}{': ' + told if told else ''}"
