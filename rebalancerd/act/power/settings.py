"""Settings of host power: how one host's power is controlled, and the times of the sequences."""

from dataclasses import dataclass

KINDS = ("redfish", "ipmi", "wake_on_lan", "command")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPower:
    """How one host's power is controlled.

    ``kind`` redfish: ``address`` is https://BMC[:PORT], ``system`` its path (None: the only one). ipmi: ``address`` is
    BMC[:PORT]. wake_on_lan: ``mac``, sent to ``broadcast`` (ADDRESS[:PORT]). command: ``on_command``. The three commands,
    where set, take the place of what the kind does (Wake-on-LAN needs ``off_command``); they get the host's name as
    REBALANCERD_HOST. Exit code 0: done; ``state_command``: 0 on, 1 off, anything else unknown. Secrets are files.
    """

    kind: str
    address: str | None = None
    system: str | None = None
    username_file: str | None = None
    password_file: str | None = None
    tls_verify: bool = True
    ca_file: str | None = None
    mac: str | None = None
    broadcast: str = "255.255.255.255:9"
    on_command: tuple[str, ...] = ()
    off_command: tuple[str, ...] = ()
    state_command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSettings:
    """Times of the sequences; seconds throughout.

    A host must be empty twice, ``empty_settle_seconds`` apart. A shutdown or a wake that is not seen to succeed by its
    deadline is taken to have failed. A host whose shutdown was not confirmed takes nothing in until it has been up for
    ``stuck_hold_seconds``. One that cannot tell its state counts as off after libvirt was silent for
    ``silent_off_seconds``. The controller of a host that is on is asked every ``awake_poll_seconds``.
    ``move_shut_off_definitions``: definitions of shut-off domains on a host that is to sleep are moved to others first.
    """

    call_deadline_seconds: float = 20.0
    poll_seconds: float = 10.0
    asleep_poll_seconds: float = 60.0
    awake_poll_seconds: float = 900.0
    empty_settle_seconds: float = 30.0
    closing_deadline_seconds: float = 300.0
    shutdown_deadline_seconds: float = 600.0
    silent_off_seconds: float = 120.0
    wake_deadline_seconds: float = 900.0
    reorder_seconds: float = 60.0
    retry_failed_seconds: float = 600.0
    stuck_hold_seconds: float = 3600.0
    move_shut_off_definitions: bool = False
