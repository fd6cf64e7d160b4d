"""The way to sleep: closed, found empty twice, shut down in good order, seen to be off. Each step is on record first."""

from rebalancerd.act.power.definitions import Definitions
from rebalancerd.act.power.emptiness import ask_if_empty
from rebalancerd.act.power.hands import Hands, is_off, is_on
from rebalancerd.cluster.power import PowerPhase, PowerReading, PowerRecord
from rebalancerd.ports import HostError, PowerError


def closing(hands: Hands, definitions: Definitions, record: PowerRecord) -> None:
    """Ask until it was found empty twice; one other answer, or one doubt, and it stays on. No order was given yet.

    Definitions of shut-off domains are moved away first where that is wanted.
    """
    host, settings = record.host, hands.settings
    if (back := hands.held_back()) is not None:
        return stay_on(hands, host, f"not powered off: {back}")
    if record.definition is not None and (open_still := definitions.settle(record)) is not None:
        return stay_on(hands, host, f"not powered off: {open_still}")
    asked = ask_if_empty(hands.read, host, hands.moving)
    if asked.refusal is not None:
        refusal = definitions.instead_of(asked, hands.book.of(host))
        if refusal is not None:
            return stay_on(hands, host, f"not powered off: {refusal}")
        hands.lasted(host, "empty", holds=False)
        hands.book.note(host, empty_at=None)
        return None
    lasted = hands.lasted(host, "empty", holds=True)
    if record.empty_at is None:
        return _first_answer(hands, record)
    if hands.lasted(host, "closing", holds=True) > settings.closing_deadline_seconds:
        return stay_on(hands, host, f"not powered off: not ready within {settings.closing_deadline_seconds:g} s")
    if lasted < settings.empty_settle_seconds:
        return None
    reading = hands.reading(host)
    if reading is None or (reading.tells and not is_on(reading)):
        if is_off(reading):
            why = f"its controller says it is off ({reading.detail if reading else ''}) while its libvirt answers"
            return stay_on(hands, host, f"not powered off: {why}", disabled=why)
        return stay_on(hands, host, f"not powered off: its controller gives no clear word: {hands.said.get(host)}")
    if (other := hands.another_machine(host, hands.book.of(host).host_uuid)) is not None:
        why = f"its controller is that of {other} by its own word: who powers it off powers off {other}"
        return stay_on(hands, host, f"not powered off: {why}", disabled=why)
    return _order(hands, host)


def _first_answer(hands: Hands, record: PowerRecord) -> None:
    try:
        facts = hands.read.sample(record.host).facts
    except HostError as error:
        return stay_on(hands, record.host, f"not powered off: {error}")
    hands.lasted(record.host, "closing", holds=True)
    hands.book.note(
        record.host,
        empty_at=hands.clock.wall(),
        host_uuid=facts.uuid,
        cpus=facts.cpus,
        memory_bytes=facts.memory_bytes,
    )
    return None


def _order(hands: Hands, host: str) -> None:
    """The intent is durable, then it is asked once more, then the order goes out as the very next call."""
    now = hands.clock.wall()
    hands.book.enter(host, PowerPhase.SHUTTING_DOWN, "found empty twice", ordered_at=now, orders=1)
    hands.forget(host)
    asked = ask_if_empty(hands.read, host, hands.moving)
    if asked.refusal is not None:
        return stay_on(hands, host, f"not powered off: {asked.refusal}")
    if (back := hands.held_back()) is not None:
        return stay_on(hands, host, f"not powered off: {back}")
    try:
        hands.power.graceful_off(host)
    except PowerError as error:
        # the order may have been carried out all the same: only what is seen later decides
        hands.said[host] = f"{error.fault}: {error}"
        hands.book.note(host, reason=f"its controller answered the order with {error.fault}: {error}")
    return None


def shutting_down(hands: Hands, record: PowerRecord) -> None:
    """Wait until it is off by its controller's word and by libvirt's silence, or until that has taken too long."""
    host, settings = record.host, hands.settings
    reading = hands.reading(host)
    overdue = hands.clock.wall() - record.since > settings.shutdown_deadline_seconds
    if is_on(reading) and not overdue:
        return
    up = hands.is_up(host)
    if _confirmed(hands, host, reading, up=up):
        fall_asleep(hands, host, reading)
    elif overdue:
        why = f"its shutdown is not confirmed after {settings.shutdown_deadline_seconds:g} s: {_doubt(hands, host, reading, up=up)}"
        hands.forget(host)
        # after a restart nobody knows whether the order was given: that the host is up says nothing against it
        disabled = record.disabled or (why if record.wake_wanted is None else None)
        hands.book.enter(host, PowerPhase.STUCK, why, disabled=disabled, test=False)


def stuck(hands: Hands, record: PowerRecord) -> None:
    """Nothing more is ordered. It ends where the host is seen to be off, or has been up for long enough to trust it.

    A shutdown that hangs may still end hours later: until then the host takes nothing in.
    """
    host = record.host
    reading = hands.reading(host)
    up = hands.is_up(host)
    if _confirmed(hands, host, reading, up=up):
        fall_asleep(hands, host, reading)
    elif hands.lasted(host, "up again", holds=up and not is_off(reading)) >= hands.settings.stuck_hold_seconds:
        stay_on(hands, host, f"it has been up for {hands.settings.stuck_hold_seconds:g} s since its shutdown failed")


def fall_asleep(hands: Hands, host: str, reading: PowerReading | None) -> None:
    """It is off by our order."""
    said = reading.detail if reading is not None and reading.tells else "libvirt is silent; nothing else can tell"
    hands.forget(host)
    hands.book.enter(host, PowerPhase.ASLEEP, f"off: {said}", slept_at=hands.clock.wall())


def stay_on(hands: Hands, host: str, reason: str, *, disabled: str | None = None) -> None:
    """It takes VMs again."""
    record = hands.book.of(host)
    hands.forget(host)
    hands.book.enter(
        host,
        PowerPhase.AWAKE,
        reason,
        disabled=disabled or record.disabled,
        wake_wanted=None,
        test=False,
        slept_at=None,
    )


def _confirmed(hands: Hands, host: str, reading: PowerReading | None, *, up: bool) -> bool:
    silent = hands.lasted(host, "silent", holds=not up)
    if up:
        return False
    if reading is not None and not reading.tells:
        return silent >= hands.settings.silent_off_seconds
    return is_off(reading)


def _doubt(hands: Hands, host: str, reading: PowerReading | None, *, up: bool) -> str:
    libvirt = "libvirt answers" if up else "libvirt is silent"
    return (
        f"{libvirt}, and its controller says {hands.said.get(host, 'nothing')!r}"
        if reading
        else (f"{libvirt}, and its controller gives no word: {hands.said.get(host)}")
    )
