"""PowerKeeper: who is asleep, who is on the way, and what comes next. Killed at any instant it finds its way from the ledger.

Orders (``sleep``, ``wake``) only write what is wanted; ``tick`` takes every host one step further and is the only place
from which a management controller is told anything. Hosts that are being woken come first.
"""

import threading
from collections.abc import Callable, Iterable, Mapping

import structlog

from rebalancerd.act.power import sleeping, waking
from rebalancerd.act.power.book import PowerBook
from rebalancerd.act.power.candidates import Listening, no_sleep
from rebalancerd.act.power.definitions import Definitions, Homes, nowhere
from rebalancerd.act.power.hands import Hands
from rebalancerd.act.power.settings import PowerSettings
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.power import PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.ports import Clock, HypervisorRead, HypervisorWrite, Lease, Power, PowerLedger

log = structlog.get_logger(__name__)

RESTED = frozenset({PowerPhase.ASLEEP, PowerPhase.STUCK, PowerPhase.FAILED})  # looked at less often
URGENCY = {PowerPhase.WAKING: 0, PowerPhase.FAILED: 1, PowerPhase.SHUTTING_DOWN: 2, PowerPhase.CLOSING: 2}


class PowerKeeper:
    """``tick``, orders and questions may come from different threads."""

    def __init__(
        self,
        *,
        power: Power,
        read: HypervisorRead,
        ledger: PowerLedger,
        clock: Clock,
        settings: PowerSettings,
        migrations: Callable[[], Iterable[MigrationRecord]],
        lease: Lease | None = None,
        held_back: Callable[[], str | None] = lambda: None,
        answers: Callable[[str], bool] = lambda _host: False,
        boot_seconds: float = 300.0,
        write: HypervisorWrite | None = None,
        homes: Homes = nowhere,
    ) -> None:
        """``migrations``: ours without a verdict. ``held_back``: why no host may be powered off now (a pause, the end).

        ``write``, ``homes``: by which definitions of shut-off domains are moved, and where they may stand.
        """
        self.settings = settings
        self._lease, self._migrations, self._may_off = lease, migrations, held_back
        self._power, self._clock, self._boot_seconds = power, clock, boot_seconds
        self._book = PowerBook(ledger, clock)
        self._hands = Hands(
            power=power,
            read=read,
            book=self._book,
            clock=clock,
            settings=settings,
            moving=self._moving,
            held_back=self._held_back,
            answers=answers,
        )
        self._definitions = Definitions(self._hands, write, homes)
        self._listening = Listening(self._hands, settings.awake_poll_seconds)
        self._lock = threading.RLock()
        self._recovered = False
        self._looked: dict[str, float] = {}
        self._strangers: frozenset[str] = frozenset()

    # questions

    def records(self) -> tuple[PowerRecord, ...]:
        """Every host that is on record or controlled, by name. Raises LedgerUnavailableError before the first tick."""
        self._load()
        known = {record.host: record for record in self._book.all()}
        hosts = sorted(known.keys() | self._power.hosts())
        return tuple(known.get(host) or PowerRecord(host=host) for host in hosts)

    def controlled(self) -> frozenset[str]:
        """Hosts whose power can be controlled."""
        return self._power.hosts()

    def said(self, host: str) -> str | None:
        """The last word of the host's management controller."""
        return self._hands.said.get(host)

    def blocked(self) -> dict[str, Refusal]:
        """Hosts that take no VM because of power, and why: they sleep or are on their way, or are not expected back.

        One that came up a moment ago is on its way until its first samples are there.
        """
        now, found = self._clock.wall(), {}
        for r in self.records():
            if not r.phase.takes_vms or (r.is_arriving(now) and not self._hands.answers(r.host)):
                code = Code.HOST_ASLEEP if r.comes_back else Code.HOST_NOT_BACK
                found[r.host] = about_host(code, r.host, f"{r.host} is {r.phase.value.replace('_', ' ')}: {r.reason}")
        return found

    def no_sleep(self, hosts: Iterable[str]) -> Mapping[str, Refusal]:
        """Of those hosts the ones that could not be put to sleep were they empty, and why; none where nothing is controlled."""
        self._load()
        return no_sleep(hosts, self._power.hosts(), self._book.of, dict(self._listening.faults))

    def away(self) -> frozenset[str]:
        """Hosts that are down, or on their way, or came up a moment ago by our own doing: no fault of the cluster's."""
        now = self._clock.wall()
        return frozenset(r.host for r in self.records() if r.phase.is_away or r.is_arriving(now))

    # orders

    def sleep(self, host: str, reason: str, *, by: str, test: bool = False, command_id: int = 0) -> Refusal | None:
        """Begin to put it to sleep. What may sleep is decided by whoever asks; what must hold is asked here again."""
        with self._lock:
            self._ready()
            record = self._book.of(host)
            if host not in self._power.hosts():
                return about_host(Code.NO_POWER_CONTROL, host, f"no way to control the power of {host} is configured")
            if record.phase is not PowerPhase.AWAKE:
                return about_host(Code.POWER_BUSY, host, f"{host} is {record.phase}: {record.reason}")
            if record.disabled is not None and not test:
                return about_host(Code.POWER_DISABLED, host, f"power-off of {host} is disabled: {record.disabled}")
            if record.tested_at is None and not test:
                hint = f"it never woke by our order: `rebalancerd power test {host}` while it is empty"
                return about_host(Code.POWER_UNTESTED, host, hint)
            if (back := self._held_back()) is not None:
                return about_host(Code.PAUSED, host, back)
            self._hands.forget(host)
            changes = {"by": by, "test": test, "wake_wanted": None, "command_id": command_id or record.command_id}
            self._book.enter(host, PowerPhase.CLOSING, reason, **changes)
            self._looked.pop(host, None)
            return None

    def wake(self, host: str, reason: str, *, by: str, command_id: int = 0) -> Refusal | None:
        """Have it back, from wherever it is. Only a host that was put to sleep here is ever powered on."""
        with self._lock:
            if not self._ready():
                return about_host(Code.LEASE_LOST, host, "another controller holds the lease, or nobody does")
            record = self._book.of(host)
            given = {"by": by, "command_id": command_id or record.command_id}
            if host not in self._power.hosts() and record.phase is not PowerPhase.AWAKE:
                return about_host(Code.NO_POWER_CONTROL, host, f"no way to control the power of {host} is configured")
            self._looked.pop(host, None)
            if record.phase is PowerPhase.AWAKE:
                detail = f"{host} was not put to sleep by this daemon: only hosts that were are woken"
                return about_host(Code.POWER_BUSY, host, detail)
            if record.phase is PowerPhase.CLOSING:
                sleeping.stay_on(self._hands, host, reason)
                self._book.note(host, **given)
            elif record.phase in (PowerPhase.SHUTTING_DOWN, PowerPhase.STUCK):
                self._book.note(host, wake_wanted=reason, **given)
            elif record.phase in (PowerPhase.ASLEEP, PowerPhase.FAILED):
                waking.begin_waking(self._hands, host, reason)
                self._book.note(host, **given)
            return None

    def answer(self, host: str, command_id: int) -> None:
        """A command about that host was refused, which is not to be asked again."""
        with self._lock:
            self._load()
            self._book.note(host, command_id=command_id)

    # time

    def tick(self) -> None:
        """Take every host one step further. Raises LedgerUnavailableError: then nothing was ordered."""
        with self._lock:
            if not self._ready():
                return
        hosts = [r.host for r in sorted(self._book.all(), key=lambda r: (URGENCY.get(r.phase, 3), r.host))]
        for host in hosts:
            with self._lock:  # host by host: an order waits for one slow controller, not for all of them
                record = self._book.of(host)
                if record.phase is PowerPhase.AWAKE and record.definition is not None and self._due(record):
                    self._definitions.settle(record)
                elif record.phase is not PowerPhase.AWAKE and host in self._power.hosts() and self._due(record):
                    self._step(record)
        with self._lock:
            awake = [h for h in self._power.hosts() if self._book.of(h).phase is PowerPhase.AWAKE]
            if (host_due := self._listening.due(awake)) is not None:
                self._listening.ask(host_due)

    def _ready(self) -> bool:
        """Whether the lease is ours; if so, what an earlier run left has been taken over before anything new begins."""
        if self._lease is not None and not self._lease.held():
            self._recovered = False  # another controller may have moved on: its word is in the ledger
            self._book.load()
            return False
        if not self._recovered:
            self._recover()
        return True

    def _load(self) -> None:
        """What is on record, before the first tick or without the lease; no question waits for a tick under way."""
        if not self._recovered:
            self._book.load()

    def _recover(self) -> None:
        """What an earlier run left. In doubt a host is woken."""
        self._book.load()
        self._looked.clear()
        self._recovered = True
        self._tell_strangers()
        for record in self._book.all():
            if record.host not in self._power.hosts():
                continue
            if record.phase is PowerPhase.CLOSING:
                sleeping.stay_on(self._hands, record.host, "the daemon was restarted before anything was ordered")
            elif record.phase in (PowerPhase.SHUTTING_DOWN, PowerPhase.STUCK) and record.wake_wanted is None:
                self._book.note(record.host, wake_wanted="the daemon was restarted while it was shutting down")
            elif record.phase is PowerPhase.ASLEEP and self._hands.reading(record.host) is None:
                why = f"the daemon was restarted and its controller gives no word: {self.said(record.host)}"
                waking.begin_waking(self._hands, record.host, why)

    def _tell_strangers(self) -> None:
        """Hosts that are asleep and that no one can wake, as they left the configuration."""
        gone = {r.host for r in self._book.all() if r.phase is not PowerPhase.AWAKE} - self._power.hosts()
        for host in sorted(gone):
            record = self._book.of(host)
            reason = "its power control is not configured any more: it is left as it is; configure it again to wake it"
            log.error("power_host_unknown", host=host, phase=str(record.phase), since=record.since, reason=reason)
        self._strangers = frozenset(gone)

    def strangers(self) -> frozenset[str]:
        """Hosts on record as not awake whose power is not configured any more."""
        return self._strangers

    def _due(self, record: PowerRecord) -> bool:
        hurried = record.phase not in RESTED or (
            record.phase is PowerPhase.ASLEEP and (record.test or record.wake_wanted is not None)
        )
        every = 0.0 if hurried else self.settings.asleep_poll_seconds
        now = self._clock.monotonic()
        if now - self._looked.get(record.host, float("-inf")) < every:
            return False
        self._looked[record.host] = now
        return True

    def _step(self, record: PowerRecord) -> None:
        self._listening.forget(record.host)
        match record.phase:
            case PowerPhase.CLOSING:
                sleeping.closing(self._hands, self._definitions, record)
            case PowerPhase.SHUTTING_DOWN:
                sleeping.shutting_down(self._hands, record)
            case PowerPhase.STUCK:
                sleeping.stuck(self._hands, record)
            case PowerPhase.ASLEEP:
                waking.asleep(self._hands, record)
            case PowerPhase.FAILED:
                waking.failed(self._hands, record)
            case PowerPhase.WAKING:
                test = record.test
                if waking.waking(self._hands, record) and not test:
                    self._wake_another(record.host)

    def _wake_another(self, instead_of: str) -> None:
        """The sleeper that boots fastest comes in the place of one that did not."""
        sleepers = [r for r in self._book.all() if r.phase is PowerPhase.ASLEEP and r.host in self._power.hosts()]
        if not sleepers:
            log.error("no_other_host_to_wake", instead_of=instead_of)
            return
        best = min(sleepers, key=lambda r: (r.disabled is not None, r.boot_seconds(self._boot_seconds), r.host))
        waking.begin_waking(self._hands, best.host, f"in the place of {instead_of}, which failed to wake")
        self._looked.pop(best.host, None)

    # what the steps ask

    def _held_back(self) -> str | None:
        if self._lease is not None and not self._lease.held():
            return "another controller holds the lease, or nobody does"
        return self._may_off()

    def _moving(self, host: str) -> str | None:
        for record in self._migrations():
            if record.state.is_open and host in (record.source, record.destination):
                return f"migration {record.id} of {record.vm_name!r} from {record.source} to {record.destination}"
        return None
