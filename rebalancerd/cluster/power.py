"""Host power: what a management controller says, and how far a host is on its way to sleep or back."""

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from rebalancerd.cluster.digest import ADDED_LATER


class PowerState(StrEnum):
    """What is known of a host's power. Unknown is a value, never off."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PowerReading:
    """One answer about a host's power, with what exactly was said. ``tells`` False: this way of control never knows.

    ``machine``: UUID of the machine that the controller says it is of, None where it does not say.
    """

    state: PowerState
    detail: str
    tells: bool = True
    machine: str | None = None


class PowerFault(StrEnum):
    """Why a management controller gave no usable answer."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    CREDENTIALS = "wrong_credentials"
    CERTIFICATE = "certificate"
    REFUSED = "refused"
    INCONSISTENT = "inconsistent"  # an answer that makes no sense, or contradicts another one
    SETUP = "setup"  # our side: a secret's file, a command, a library that is missing


class PowerPhase(StrEnum):
    """Where a host is between running and asleep. Every phase is on record before the act that it names."""

    AWAKE = "awake"
    CLOSING = "closing"  # takes nothing in; asked whether it is empty; no order was given
    SHUTTING_DOWN = "shutting_down"  # the order to shut down may have been given
    ASLEEP = "asleep"  # off, by our order
    WAKING = "waking"  # the order to power on may have been given
    STUCK = "stuck"  # a shutdown was ordered and is not confirmed: neither trusted to be on nor known to be off
    FAILED = "failed"  # did not come back in time, or as another machine

    @property
    def is_away(self) -> bool:
        """Whether it is down by our doing, or on its way there or back: its silence is no fault."""
        return self in (PowerPhase.SHUTTING_DOWN, PowerPhase.ASLEEP, PowerPhase.WAKING)

    @property
    def takes_vms(self) -> bool:
        """Whether VMs may be moved there, as far as power is concerned."""
        return self is PowerPhase.AWAKE


US = "rebalancerd"  # who puts hosts to sleep of its own accord, in records
MOST_BOOTS = 15
ARRIVAL_SECONDS = 300.0  # of a host that came up: its first samples are still to come, or it must show that it stays


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionMove:
    """The definition of a shut-off domain that is to stand on another host, durable before the call. ``at``: epoch seconds.

    ``autostart``: the flag it had, which a migration loses and which is set again.
    """

    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    autostart: bool
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRecord:
    """The state of one host's power sequence, as the ledger keeps it. Times are epoch seconds.

    ``since``: when the phase began; ``by``: who asked for it. ``empty_at``: first of the two times libvirt said it was
    empty; ``ordered_at``: first order of this phase, ``orders`` their number. ``up_since``: when it last came up by us or
    by hand; ``by_hand_at``: when somebody else powered it on while we had it asleep. ``slept_at``: when it was seen to be
    off. ``tested_at``: when it last woke by our order, the proof that it can. ``disabled``: why it may not be powered off.
    ``wake_wanted``: why it is to be woken as soon as it is down. ``test``: it sleeps only to be woken at once.
    ``host_uuid``, ``cpus``, ``memory_bytes``: what must come back. ``boots``: seconds from order to libvirt's answer, the
    newest last. ``command_id``: the last operator's command that was obeyed or refused. ``definition``: the move of a
    shut-off domain's definition off this host of which it is not yet seen how it ended.
    """

    host: str
    phase: PowerPhase = PowerPhase.AWAKE
    since: float = 0.0
    reason: str = ""
    by: str = ""
    empty_at: float | None = None
    ordered_at: float | None = None
    orders: int = 0
    up_since: float | None = None
    by_hand_at: float | None = None
    slept_at: float | None = None
    tested_at: float | None = None
    disabled: str | None = None
    wake_wanted: str | None = None
    test: bool = False
    host_uuid: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    boots: tuple[float, ...] = ()
    command_id: int = 0
    definition: DefinitionMove | None = field(default=None, metadata=ADDED_LATER)

    def is_arriving(self, now: float) -> bool:
        """Whether it came up a moment ago by our doing, so that it is nothing to wonder at if it is not usable yet."""
        return (
            self.phase is PowerPhase.AWAKE and self.up_since is not None and abs(now - self.up_since) < ARRIVAL_SECONDS
        )

    @property
    def comes_back(self) -> bool:
        """Whether it is on, on its way, or will be woken at the end of the night at the latest.

        Not so: its wake failed, its shutdown is stuck, or an operator sent it to sleep and nothing needed it since.
        """
        if self.phase in (PowerPhase.AWAKE, PowerPhase.WAKING):
            return True
        if self.phase in (PowerPhase.STUCK, PowerPhase.FAILED):
            return False
        return self.by == US or self.test or self.wake_wanted is not None

    def boot_seconds(self, otherwise: float) -> float:
        """Median of the measured boot times, or what is assumed where none was measured."""
        return float(median(self.boots)) if self.boots else otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLimits:
    """What must hold before a host may sleep, and when one must wake. Seconds, shares 0 to 1.

    What is on must carry the ``quantile`` of the cluster's forecast demand within the headrooms, with ``spare_hosts`` of
    its largest hosts dead. Hosts must be back ``margin_seconds`` before that fails, after booting (``boot_seconds`` until
    it was measured) and ``unfold_seconds`` of migrations. Demand above its forecast bound by ``surprise_share`` wakes one
    at once. ``by_hand_seconds``: how long a host is left on that somebody powered on by hand.
    """

    boot_seconds: float = 300.0
    min_up_seconds: float = 3600.0
    min_down_seconds: float = 1800.0
    by_hand_seconds: float = 43_200.0
    sleep_at_once: int = 1
    hosts_on_min: int = 2
    spare_hosts: int = 1
    cpu_headroom: float = 0.7
    memory_headroom: float = 0.8
    quantile: float = 0.95
    unfold_seconds: float = 600.0
    margin_seconds: float = 300.0
    surprise_share: float = 0.2
    command_max_age_seconds: float = 3600.0
