"""What both sequences work with: the ports, the book, and the questions that may be asked of one host."""

from collections.abc import Callable
from dataclasses import dataclass, field

from rebalancerd.act.power.book import PowerBook
from rebalancerd.act.power.settings import PowerSettings
from rebalancerd.cluster.power import PowerReading, PowerRecord, PowerState
from rebalancerd.cluster.sample import HostInventory
from rebalancerd.ports import Clock, HostError, HostUnreachableError, HypervisorRead, Power, PowerError

UNSET = "03000200040005000006000700080009"  # what many boards are sold with


@dataclass(frozen=True, kw_only=True)
class Hands:
    """``moving``: words about a migration of ours from or to a host. ``held_back``: why no host may be powered off now.

    ``answers``: a hint that a host's libvirt answered lately, so that no call to a sleeping host must wait for nothing.
    """

    power: Power
    read: HypervisorRead
    book: PowerBook
    clock: Clock
    settings: PowerSettings
    moving: Callable[[str], str | None]
    held_back: Callable[[], str | None]
    answers: Callable[[str], bool]
    said: dict[str, str] = field(default_factory=dict)  # by host: the last word of its controller, for the status
    machines: dict[str, str] = field(default_factory=dict)  # by host: of which machine its controller says it is
    _timers: dict[tuple[str, str], float] = field(default_factory=dict)

    def reading(self, host: str) -> PowerReading | None:
        """The controller's word; None where it gave none (``said`` has the reason)."""
        try:
            reading = self.power.state(host)
        except PowerError as error:
            self.said[host] = f"{error.fault}: {error}"
            return None
        self.said[host] = reading.detail
        if (machine := known_machine(reading.machine)) is not None:
            self.machines[host] = machine
        return reading

    def twin(self, host: str) -> str | None:
        """Another host whose controller says that it is of the same machine: whoever powers one down takes the other."""
        mine = self.machines.get(host)
        return min((h for h, m in self.machines.items() if m == mine and h != host), default=None) if mine else None

    def another_machine(self, host: str, host_uuid: str | None) -> str | None:
        """The host that its controller is of by its own word, where that is not the one it is configured for, of that UUID.

        A UUID that is no host's says nothing: libvirt's may be set by hand, and makers write theirs in two orders.
        """
        machine = self.machines.get(host)
        if machine is None or same_machine(machine, host_uuid):
            return None
        for other in self.read.hosts():
            if other == host or not self.answers(other):
                continue
            try:
                if same_machine(machine, self.read.inventory(other).host_uuid):
                    return other
            except HostError:
                continue
        return self.twin(host)

    def libvirt(self, host: str) -> HostInventory | None:
        """libvirt's answer; None where it is silent. Raises HostError for an answer that is an error: it is not down."""
        try:
            return self.read.inventory(host)
        except HostUnreachableError:
            return None

    def is_up(self, host: str) -> bool:
        """Whether its libvirt says anything at all."""
        try:
            return self.libvirt(host) is not None
        except HostError:
            return True

    def lasted(self, host: str, what: str, holds: bool) -> float:
        """For how long something has held, in seconds of this run of the daemon, on a clock that no one sets."""
        if not holds:
            self._timers.pop((host, what), None)
            return 0.0
        now = self.clock.monotonic()
        return now - self._timers.setdefault((host, what), now)

    def forget(self, host: str) -> None:
        """A new phase: nothing has lasted yet."""
        for key in [key for key in self._timers if key[0] == host]:
            del self._timers[key]

    def insane(self, record: PowerRecord, inventory: HostInventory) -> str | None:
        """Why the host that answers is not the one that was put to sleep; None if it is. Raises HostError."""
        if record.host_uuid is not None and inventory.host_uuid != record.host_uuid:
            return f"host UUID {inventory.host_uuid} answers, {record.host_uuid} was put to sleep"
        facts = self.read.sample(record.host).facts
        if record.cpus is not None and facts.cpus < record.cpus:
            return f"it came back with {facts.cpus} of {record.cpus} CPUs"
        if record.memory_bytes is not None and facts.memory_bytes < 0.98 * record.memory_bytes:
            return f"it came back with {facts.memory_bytes} of {record.memory_bytes} bytes of memory"
        return None


def known_machine(told: str | None) -> str | None:
    """A machine's UUID in one spelling; None for what makers leave unset on every board."""
    plain = "".join(c for c in (told or "").lower() if c.isalnum())
    return plain if len(set(plain)) > 1 and plain != UNSET else None


def same_machine(machine: str, host_uuid: str | None) -> bool:
    """Whether a controller's UUID, as ``known_machine`` gives it, is that host's: its first three fields either way round."""
    plain = known_machine(host_uuid)
    if plain is None or len(plain) != 32:
        return False
    turned = "".join(
        bytes.fromhex(part)[::-1].hex() if _is_hex(part) else part for part in (plain[:8], plain[8:12], plain[12:16])
    )
    return machine in (plain, turned + plain[16:])


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdef" for c in text)


def is_off(reading: PowerReading | None) -> bool:
    """Whether a controller says so in so many words."""
    return reading is not None and reading.state is PowerState.OFF


def is_on(reading: PowerReading | None) -> bool:
    """Whether a controller says so in so many words."""
    return reading is not None and reading.state is PowerState.ON
