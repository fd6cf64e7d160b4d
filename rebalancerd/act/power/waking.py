"""The way back: powered on, libvirt answers, the same machine, in use. Each step is on record first."""

from rebalancerd.act.power.hands import Hands, is_off, is_on
from rebalancerd.cluster.power import MOST_BOOTS, PowerPhase, PowerRecord
from rebalancerd.cluster.sample import HostInventory
from rebalancerd.ports import HostError, PowerError

MOST_DEADLINES = 3.0


def asleep(hands: Hands, record: PowerRecord) -> None:
    """Woken where that is wanted; a host that somebody powered on by hand is left on."""
    host = record.host
    wanted = record.wake_wanted or ("the second half of its wake test" if record.test else None)
    if wanted is not None:
        begin_waking(hands, host, wanted)
        return
    reading = hands.reading(host)
    if is_off(reading) and not hands.answers(host):
        hands.lasted(host, "on without us", holds=False)
        return
    if reading is None and not hands.answers(host):
        return
    inventory = _libvirt(hands, host)
    if inventory is not None and not is_off(reading):
        _came_up(hands, record, inventory, by_hand=True)
    elif inventory is not None:
        if hands.lasted(host, "up", holds=True) >= hands.settings.stuck_hold_seconds:
            hands.book.note(host, disabled=f"its controller says {hands.said.get(host)!r} while its libvirt answers")
            _came_up(hands, hands.book.of(host), inventory, by_hand=True)
    elif hands.lasted(host, "on without us", holds=is_on(reading)) > hands.settings.wake_deadline_seconds:
        why = f"its controller says {hands.said.get(host)!r}, nobody here woke it, and its libvirt is silent"
        hands.forget(host)
        hands.book.enter(host, PowerPhase.FAILED, why, disabled=why)


def begin_waking(hands: Hands, host: str, reason: str) -> None:
    """It is to come back; the next step gives the order."""
    hands.forget(host)
    hands.book.enter(host, PowerPhase.WAKING, reason, wake_wanted=None)


def waking(hands: Hands, record: PowerRecord) -> bool:
    """Order it on, again and again where nothing happens, until libvirt answers. True where it has failed just now."""
    host, settings = record.host, hands.settings
    reading = hands.reading(host)
    if record.orders or not is_off(reading):
        inventory = _libvirt(hands, host)
        if inventory is not None:
            return _came_up(hands, record, inventory, by_hand=False)
    seen = hands.lasted(host, "waking", holds=True)
    age = hands.clock.wall() - record.since
    # time in which no daemon was there to order again is not the host's fault, up to a point
    if seen > settings.wake_deadline_seconds or age > MOST_DEADLINES * settings.wake_deadline_seconds:
        why = f"it did not come back within {settings.wake_deadline_seconds:g} s: {hands.said.get(host)}"
        hands.forget(host)
        hands.book.enter(host, PowerPhase.FAILED, why, disabled=why, test=False)
        return True
    since_order = hands.lasted(host, "ordered on", holds=record.orders > 0)
    lost = seen == 0.0 and is_off(reading)  # ordered by a daemon before this one, which may have died before the order
    if record.orders == 0 or lost or (since_order >= settings.reorder_seconds and not is_on(reading)):
        _order_on(hands, record)
    return False


def failed(hands: Hands, record: PowerRecord) -> None:
    """It is tried again from time to time; it takes VMs again only when it answers and is the same machine."""
    host = record.host
    reading = hands.reading(host)
    if not is_off(reading) or hands.answers(host):
        inventory = _libvirt(hands, host)
        if inventory is not None:
            _came_up(hands, record, inventory, by_hand=False)
            return
    if is_on(reading):
        return
    if hands.lasted(host, "ordered on", holds=True) >= hands.settings.retry_failed_seconds:
        _order_on(hands, record)


def _order_on(hands: Hands, record: PowerRecord) -> None:
    host = record.host
    first = record.ordered_at if record.ordered_at is not None else hands.clock.wall()
    hands.book.note(host, ordered_at=first, orders=record.orders + 1)
    hands.lasted(host, "ordered on", holds=False)
    hands.lasted(host, "ordered on", holds=True)
    try:
        hands.power.on(host)
    except PowerError as error:
        hands.said[host] = f"{error.fault}: {error}"


def _libvirt(hands: Hands, host: str) -> HostInventory | None:
    """libvirt's answer, None while it gives none that can be used."""
    try:
        return hands.libvirt(host)
    except HostError as error:
        hands.said[host] = str(error)
        return None


def _came_up(hands: Hands, record: PowerRecord, inventory: HostInventory, *, by_hand: bool) -> bool:
    """It answers. True where it is not what was put to sleep, which it is told for once."""
    host, now = record.host, hands.clock.wall()
    try:
        wrong = hands.insane(record, inventory)
    except HostError:
        return False  # it answered a moment ago: the next look decides
    if wrong is not None:
        if record.phase is not PowerPhase.FAILED:
            hands.forget(host)
            hands.book.enter(host, PowerPhase.FAILED, wrong, disabled=wrong, test=False)
            return True
        return False
    ours = record.ordered_at is not None and not by_hand
    boots, tested_at, disabled = record.boots, record.tested_at, record.disabled
    reason = "powered on by hand, and left on"
    if ours and record.ordered_at is not None:
        seconds = max(0.0, now - record.ordered_at)
        reason = f"woken: its libvirt answers {seconds:.0f} s after the order"
        if record.phase is PowerPhase.WAKING:
            boots, tested_at = (*boots, seconds)[-MOST_BOOTS:], now
            disabled = None if record.test else disabled  # a passed test says that whatever was wrong is mended
    elif not by_hand:
        reason = "it was on already"
    hands.forget(host)
    hands.book.enter(
        host,
        PowerPhase.AWAKE,
        reason,
        boots=boots,
        tested_at=tested_at,
        disabled=disabled,
        up_since=now,
        by_hand_at=now if by_hand else None,
        slept_at=None,
        wake_wanted=None,
        test=False,
    )
    return False
