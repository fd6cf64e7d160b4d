"""Which hosts are worth emptying for the night: those that could not be put to sleep are told to planning, with the reason.

Controllers of hosts that are on are asked now and then, one at a time, so that one that is dead is known beforehand.
"""

from collections.abc import Callable, Iterable, Mapping

from rebalancerd.act.power.hands import Hands, is_off
from rebalancerd.cluster.power import PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.ports import HostError


class Listening:
    """What the controllers of hosts that are on said last. Not thread-safe."""

    def __init__(self, hands: Hands, every_seconds: float) -> None:
        self._hands, self._every = hands, every_seconds
        self._asked: dict[str, float] = {}  # on the monotonic clock
        self.faults: dict[str, str] = {}

    def due(self, hosts: Iterable[str]) -> str | None:
        """The one that was asked longest ago, if that is long enough ago."""
        now, never = self._hands.clock.monotonic(), float("-inf")
        oldest = min(hosts, key=lambda host: (self._asked.get(host, never), host), default=None)
        return oldest if oldest is not None and now - self._asked.get(oldest, never) >= self._every else None

    def ask(self, host: str) -> None:
        """Ask that one."""
        reading = self._hands.reading(host)
        self._asked[host] = self._hands.clock.monotonic()
        self.faults.pop(host, None)
        said = self._hands.said.get(host, "")
        if reading is None:
            self.faults[host] = f"its controller gives no usable answer: {said}"
        elif self._hands.twin(host) is not None and (other := self._mistaken(host)) is not None:
            self.faults[host] = f"its controller is that of {other} by its own word"
        elif is_off(reading) and self._hands.answers(host):
            self.faults[host] = f"its controller says {said!r} while its libvirt answers"

    def _mistaken(self, host: str) -> str | None:
        try:
            return self._hands.another_machine(host, self._hands.read.inventory(host).host_uuid)
        except HostError:
            return self._hands.twin(host)

    def forget(self, host: str) -> None:
        """Its power changes: what was said is no longer true."""
        self._asked.pop(host, None)
        self.faults.pop(host, None)


def no_sleep(
    hosts: Iterable[str], controlled: frozenset[str], record_of: Callable[[str], PowerRecord], faults: Mapping[str, str]
) -> dict[str, Refusal]:
    """Why each of those hosts could not be put to sleep were it empty. Nothing where no host's power is controlled."""
    found: dict[str, Refusal] = {}
    for host in hosts if controlled else ():
        record = record_of(host)
        if host not in controlled:
            found[host] = about_host(Code.NO_POWER_CONTROL, host, "no way to control its power is configured")
        elif record.disabled is not None:
            found[host] = about_host(Code.POWER_DISABLED, host, f"its power-off is disabled: {record.disabled}")
        elif record.phase in (PowerPhase.STUCK, PowerPhase.FAILED):
            found[host] = about_host(Code.POWER_BUSY, host, f"it is {record.phase}: {record.reason}")
        elif host in faults:
            found[host] = about_host(Code.POWER_FAULT, host, faults[host])
        elif record.tested_at is None:
            found[host] = about_host(Code.POWER_UNTESTED, host, "it never woke by our order")
    return found
