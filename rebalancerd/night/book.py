"""The book of nights: what a window of consolidation saves and costs, noted after every cycle and kept in the ledger.

A night begins with the first cycle in which the policy is ``consolidate``. It is over when its window has ended and the
cluster is unfolded: no host that was put to sleep here is down or on its way, no migration of ours is under way, the cycle
started none, no VM that was moved is still to go home (for six hours at most), and no more hosts are hot than with the
evening's placement (for an hour at most); at the latest when the next one begins, or a day after its window ended. Where
consolidation holds outside of all windows, a night is a day long.

It is accounted in every mode: where nothing is moved and nobody sleeps, nothing was saved.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import structlog

from rebalancerd.cluster.decision import CycleRecord, Outcome
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.night import Night, NightsTotal
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerPhase, PowerRecord
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cycle import LoopView
from rebalancerd.guard.policy_windows import InForce, describe
from rebalancerd.plan.day_ahead import homeless
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.standing import CONSOLIDATE, UNFOLD
from rebalancerd.ports import LedgerUnavailableError, NightLedger
from rebalancerd.record.night_account import closed, moved, noted, opened

log = structlog.get_logger(__name__)

LATEST_SECONDS = 86_400.0  # after its window a night is over, whoever still sleeps
HOME_SECONDS = 6 * 3600.0  # who could not go home by then after it has a new home
HOT_SECONDS = 3600.0  # hosts that are hot for longer after it are the day's matter
ENDLESS_SECONDS = 86_400.0  # length of a night where consolidation has no window
ENDLESS = "outside of all windows"
CYCLES_MISSED = 5
LEAST_MISSED_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NightsTold:
    """What the book knows: the night under way, the last one that is over, and the sum of those that are."""

    now: Night | None = None
    last: Night | None = None
    total: NightsTotal = NightsTotal()


class NightBook:
    """``after_cycle`` is called once per cycle, in the thread of the loop, after host power was seen to."""

    def __init__(
        self,
        *,
        ledger: NightLedger,
        view: Callable[[], LoopView | None],
        policy_at: Callable[[float], InForce],
        plan: Callable[[], PlanSettings],
        records: Callable[[], tuple[PowerRecord, ...]] = tuple,
        moves: Callable[[float], Iterable[MigrationRecord]] = lambda _since: (),
        standby: Callable[[], bool] = lambda: False,
        cycle_seconds: float = 60.0,
    ) -> None:
        """``records``: every host's power; ``moves``: migrations since an instant, newest first; ``standby``: whether
        another controller keeps the book now.

        ``cycle_seconds``: time between two cycles; where several of them are missing, what passed is missed.
        """
        self._ledger, self._view, self._policy_at, self._plan = ledger, view, policy_at, plan
        self._records, self._moves, self._standby = records, moves, standby
        self._most_seconds = max(LEAST_MISSED_SECONDS, CYCLES_MISSED * cycle_seconds)
        self._policies: dict[str, str] = {}  # of the night's plans, as they are asked for
        self._loaded = False
        self._away = False  # the ledger, and that was told
        self.told = NightsTold()

    def after_cycle(self, record: CycleRecord) -> None:
        """Note what passed since the last cycle. Never raises: a night without an account is no reason to stop."""
        try:
            self._note(record)
            self._away = False
        except LedgerUnavailableError as error:
            if not self._away:
                log.error("night_not_recorded", reason=str(error))
            self._away = True
        except Exception:
            log.exception("night_failed", bug=True)

    def morning_seconds(self, now: float) -> float | None:
        """Seconds since the window of the night under way ended, below 0 while it is open.

        None without a night, and once the day after it was seen to: that is done once a morning.
        """
        night = self.told.now
        if night is None or night.relieved_at is not None or self._standby():
            return None
        return now - night.ends_at

    def homes(self, snapshot: Snapshot) -> dict[str, str]:
        """Where the VMs that were moved in the night under way were in the evening. Raises LedgerUnavailableError.

        Those that others moved since are left out, and those that were back: what moved them off again had its reason.
        So are those that unfolding sent elsewhere, so that no host gets hot in the day: they have a new home.
        """
        night = self.told.now
        if night is None or self._standby():
            return {}
        evening = dict(night.evening.vms)
        moves = [m for m in self._moves(night.began_at) if m.state is MigrationState.SUCCEEDED]
        back = {m.vm_uuid for m in moves if m.destination == evening.get(m.vm_uuid)}
        homes: dict[str, str] = {}
        for move in reversed(moves):  # the newest has the last word
            vm, home = snapshot.vm_by_uuid.get(move.vm_uuid), evening.get(move.vm_uuid)
            homes.pop(move.vm_uuid, None)
            if (
                move.ours
                and vm is not None
                and home is not None
                and vm.host == move.destination
                and vm.uuid not in back
                and not self._settled_anew(move)
            ):
                homes[vm.uuid] = home
        return homes

    def _settled_anew(self, move: MigrationRecord) -> bool:
        """Whether a move that was not to the VM's home was one of unfolding. A plan that cannot be read was none."""
        if move.plan_id is None:
            return False
        known = self._policies.get(move.plan_id)
        if known is None:
            try:
                plan = self._ledger.plan(move.plan_id)
            except LedgerUnavailableError:
                return False
            known = self._policies[move.plan_id] = "" if plan is None else plan.policy
        return known == UNFOLD

    def _note(self, record: CycleRecord) -> None:
        if self._standby():
            self._loaded = False  # the one that leads goes on with it; it is read anew if that is ever this one
            return
        self._load()
        view = self._view()
        if view is None or (view.record is not record and view.record.id != record.id):
            return
        now, holds = view.snapshot.taken_at, self._policy_at(view.snapshot.taken_at)
        folding = holds.policy == CONSOLIDATE
        records = self._records()
        night = self.told.now
        if night is not None:
            night = _ends(night, holds, now)
            if night.relieved_at is None and _relieved(view):
                night = replace(night, relieved_at=now)
                log.info("day_seen_to", window=night.window)
            so_far = self._to(night, view, records)
            cool = so_far.caused_seconds <= night.caused_seconds or now >= night.ends_at + HOT_SECONDS
            late = now >= night.ends_at + LATEST_SECONDS
            # the ledger is asked who is still to go home only once nothing else keeps the night open
            over = now >= night.ends_at and (
                folding or late or (cool and _unfolded(record, records) and not self._waits(night, view))
            )
            if over and now - night.noted_at > self._most_seconds:
                end = max(night.noted_at, night.ends_at)  # it ended while nobody looked
                missed = night.missed_seconds + end - night.noted_at
                so_far = replace(night, noted_at=end, missed_seconds=missed)
            self._write(so_far, over=over)
            night = self.told.now
        if night is None and folding:
            name = ENDLESS if holds.window is None else describe(holds.window)
            ends = now + ENDLESS_SECONDS if holds.ends_at is None else holds.ends_at
            night = replace(opened(name, view.snapshot, ends), mode=record.mode.value)
            log.info("night_began", window=name, ends_at=ends, vms=len(night.evening.vms))
            self._policies.clear()
            self._write(night, over=False)

    def _waits(self, night: Night, view: LoopView) -> bool:
        return view.snapshot.taken_at < night.ends_at + HOME_SECONDS and bool(self.homes(view.snapshot))

    def _load(self) -> None:
        if not self._loaded:
            last = next((n for n in self._ledger.nights(30) if n.ended_at is not None), None)
            self.told = NightsTold(now=self._ledger.night_under_way(), last=last, total=self._ledger.nights_total())
            self._loaded = True

    def _to(self, night: Night, view: LoopView, records: tuple[PowerRecord, ...]) -> Night:
        """The night up to this cycle."""
        plan, snapshot = self._plan(), _with_cores(view.snapshot, records)
        mode = max((Mode(night.mode), view.record.mode), key=lambda m: m.rank)
        return noted(
            replace(night, mode=mode.value),
            snapshot,
            asleep=frozenset(r.host for r in records if r.phase is PowerPhase.ASLEEP),
            power=plan.power_defaults,
            cpu_headroom=plan.cpu_headroom,
            most_seconds=self._most_seconds,
            trusted=view.scenarios is not None,
        )

    def _write(self, night: Night, *, over: bool) -> None:
        self.told = replace(self.told, now=night)  # so that nothing is lost where the ledger is away for a while
        done = self._ledger.moves_between(night.began_at, night.noted_at)
        night = moved(night, *done, self._plan().power_defaults)
        if over:
            night = closed(night, night.noted_at)
        night = replace(night, id=self._ledger.record_night(night))
        if not over:
            self.told = replace(self.told, now=night)
            return
        self.told = NightsTold(now=None, last=night, total=self._ledger.nights_total())
        log.info(
            "night_ended",
            window=night.window,
            saved_kwh=round(night.saved_kwh, 3),
            moves=night.moves,
            caused_seconds=round(night.caused_seconds),
            missed_seconds=round(night.missed_seconds),
        )


def _ends(night: Night, holds: InForce, now: float) -> Night:
    """The night with the end that its window has by now: windows are changed, and taken away, while they are open."""
    if now >= night.ends_at:
        return night
    if holds.window is not None and holds.window.policy == CONSOLIDATE and holds.ends_at is not None:
        return replace(night, ends_at=holds.ends_at)
    return night if holds.policy == CONSOLIDATE else replace(night, ends_at=now)


def _relieved(view: LoopView) -> bool:
    """Whether the day ahead was looked at for those who cannot go home, and nothing was left to move."""
    if view.inputs is None or view.inputs.day is None or view.plan is None or view.plan.steps or view.record.moving:
        return False
    return bool(homeless(view.inputs))


def _unfolded(record: CycleRecord, records: tuple[PowerRecord, ...]) -> bool:
    return record.moving == 0 and record.outcome is not Outcome.STARTED and not any(r.phase.is_away for r in records)


def _with_cores(snapshot: Snapshot, records: tuple[PowerRecord, ...]) -> Snapshot:
    """After a restart nobody has seen the hosts that sleep: their cores are those they had when they were put to sleep."""
    known = {r.host: float(r.cpus) for r in records if r.cpus}
    if not any(h.cores is None and h.name in known for h in snapshot.hosts):
        return snapshot
    hosts = (replace(h, cores=known.get(h.name)) if h.cores is None else h for h in snapshot.hosts)
    return replace(snapshot, hosts=tuple(hosts))
