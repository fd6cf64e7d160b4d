"""When a night begins, goes on and is over, and what becomes of it where the ledger, the window or the leader is gone."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from rebalancerd.cluster.decision import CycleRecord, OperatorState, Outcome
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.night import Night
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerPhase, PowerRecord
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.cycle import LoopView
from rebalancerd.guard.policy_windows import InForce
from rebalancerd.guard.settings import PolicyWindow
from rebalancerd.night.book import ENDLESS, ENDLESS_SECONDS, HOME_SECONDS, LATEST_SECONDS, NightBook
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.plan.plan_cluster import host, inputs_of, vm
from tests.unit.record.record_values import FixedClock

BEGIN = 1_000_000.0
HOUR, CYCLE = 3600.0, 60.0
END = BEGIN + 8 * HOUR
WINDOW = PolicyWindow(start="0 20 * * *", end="0 4 * * *", unfold_seconds=HOUR, name="night")


@dataclass
class Stage:
    """A daemon without rooms: what the book asks of it, to be set."""

    ledger: SqlLedger
    now: float = BEGIN
    holds: InForce | None = None
    records: tuple[PowerRecord, ...] = ()
    standby: bool = False
    fit: bool = True
    mode: Mode = Mode.AUTO
    cpus: float | None = 8.0
    where: str = "b"
    cores: float = 1.0
    view: LoopView | None = None
    moves: tuple[MigrationRecord, ...] = ()
    book: NightBook = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.book = NightBook(
            ledger=self.ledger,
            view=lambda: self.view,
            policy_at=lambda _: self.holds or InForce("balance"),
            plan=lambda: PlanSettings(host_idle_watts=100.0, watts_per_core=10.0),
            records=lambda: self.records,
            moves=lambda _since: self.moves,
            standby=lambda: self.standby,
            cycle_seconds=CYCLE,
        )

    def in_window(self) -> None:
        self.holds = InForce("consolidate", WINDOW, END - HOUR, END)

    def unfolding(self) -> None:
        self.holds = InForce("balance", WINDOW, END, END)

    def asleep(self, *hosts: str) -> None:
        self.records = tuple(PowerRecord(host=h, phase=PowerPhase.ASLEEP, cpus=8) for h in hosts)

    def cycle(self, at: float, *, moving: int = 0, outcome: Outcome = Outcome.NO_ACTION, **seen: Any) -> None:
        facts = VmFacts(uuid="v", name="v", vcpus=8, memory_bytes=GIB)
        vm = Vm(facts=facts, host=self.where, state=DomainState.RUNNING, load=VmLoad(cpu_cores=self.cores))
        other = replace(vm, facts=replace(facts, uuid="w", name="w"), host="a")
        hosts = tuple(Host(name=n, facts=HostFacts(uuid=None, cpus=8, memory_bytes=GIB), cores=self.cpus) for n in "ab")
        record = CycleRecord(
            id=int(at),
            started_at=at,
            seconds=0.1,
            mode=self.mode,
            policy="any",
            outcome=outcome,
            reason="",
            snapshot_digest=None,
            moving=moving,
        )
        scenarios: Any = object() if self.fit else None
        snapshot = Snapshot(taken_at=at, hosts=hosts, vms=(vm, other))
        self.view = LoopView(
            snapshot=snapshot, record=record, operator=OperatorState(), guard_notes=(), scenarios=scenarios, **seen
        )
        self.book.after_cycle(record)

    def cycles(self, first: float, last: float) -> None:
        at = first
        while at <= last:
            self.cycle(at)
            at += CYCLE

    @property
    def night(self) -> Night:
        assert self.book.told.now is not None
        return self.book.told.now

    @property
    def last(self) -> Night:
        assert self.book.told.last is not None
        return self.book.told.last


@pytest.fixture
def stage() -> Iterator[Stage]:
    ledger = SqlLedger("sqlite://", FixedClock())
    yield Stage(ledger)
    ledger.close()


def test_it_begins_with_the_policy_and_is_over_with_the_window(stage: Stage) -> None:
    stage.cycle(BEGIN)
    assert stage.ledger.nights() == ()
    stage.in_window()
    stage.cycle(BEGIN + CYCLE)
    assert (stage.night.window, stage.night.ends_at) == ("night (0 20 * * * to 0 4 * * *)", END)
    stage.cycles(BEGIN + 2 * CYCLE, BEGIN + 10 * CYCLE)
    stage.unfolding()
    stage.cycle(BEGIN + 11 * CYCLE)
    assert stage.night.accounted_seconds == 10 * CYCLE
    stage.holds = None
    stage.book.told = replace(stage.book.told, now=replace(stage.night, noted_at=END - CYCLE))
    stage.cycle(END)
    assert stage.book.told.now is None
    assert stage.last.ended_at == END
    assert stage.ledger.nights_total().nights == 1


def test_it_is_not_over_before_the_cluster_is_unfolded(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(END - CYCLE)
    stage.holds = None
    stage.asleep("a")
    stage.cycle(END)
    stage.records = (PowerRecord(host="a", phase=PowerPhase.WAKING),)
    stage.cycle(END + CYCLE)
    stage.records = (PowerRecord(host="a"),)
    stage.cycle(END + 2 * CYCLE, outcome=Outcome.STARTED)
    stage.cycle(END + 3 * CYCLE, moving=1)
    assert stage.night.asleep_seconds == (("a", CYCLE),)
    stage.cycle(END + 4 * CYCLE)
    assert stage.last.ended_at == END + 4 * CYCLE


def test_it_is_not_over_while_a_host_is_hot_that_unfolding_would_have_cooled(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(END - CYCLE)
    stage.holds, stage.where, stage.cores = None, "a", 3.5
    stage.cycle(END)
    assert stage.book.told.now is not None and stage.night.caused_seconds == CYCLE
    stage.where = "b"
    stage.cycle(END + CYCLE)
    assert stage.last.ended_at == END + CYCLE


def test_a_host_that_stays_hot_is_the_day_s_matter_after_an_hour(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(END - CYCLE)
    stage.holds, stage.where, stage.cores = None, "a", 3.5
    stage.cycles(END, END + HOUR)
    assert stage.last.ended_at == END + HOUR


def test_a_host_that_is_never_woken_ends_it_with_the_next_night_or_a_day_later(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(END - CYCLE)
    stage.holds = None
    stage.asleep("a")
    stage.cycle(END)
    stage.in_window()
    assert stage.holds is not None
    stage.holds = replace(stage.holds, ends_at=END + 24 * HOUR)
    stage.cycle(END + CYCLE)
    assert stage.last.ended_at == END + CYCLE
    assert (stage.night.began_at, stage.night.ends_at) == (END + CYCLE, END + 24 * HOUR)

    stage.holds = None
    stage.cycle(END + 2 * CYCLE)  # the window was taken away
    assert stage.night.ends_at == END + 2 * CYCLE
    late = END + 2 * CYCLE + LATEST_SECONDS
    stage.cycle(late - CYCLE)
    assert stage.book.told.now is not None
    stage.cycle(late)
    assert stage.last.ended_at == late


def test_a_window_that_is_changed_while_it_is_open_ends_when_it_says_now(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(BEGIN)
    stage.holds = InForce("consolidate", WINDOW, END, END + HOUR)
    stage.cycle(BEGIN + CYCLE)
    assert stage.night.ends_at == END + HOUR


def test_outside_of_all_windows_a_night_is_a_day(stage: Stage) -> None:
    stage.holds = InForce("consolidate")
    stage.cycle(BEGIN)
    assert (stage.night.window, stage.night.ends_at) == (ENDLESS, BEGIN + ENDLESS_SECONDS)
    first = stage.night.id
    stage.cycle(BEGIN + ENDLESS_SECONDS)
    assert (stage.last.id, stage.night.began_at) == (first, BEGIN + ENDLESS_SECONDS)


def test_a_restart_goes_on_and_claims_nothing_for_its_absence(stage: Stage) -> None:
    stage.in_window()
    stage.cycles(BEGIN, BEGIN + HOUR)
    stage.where = "a"  # folded away from b meanwhile; in the account of the unfolded night it stays there
    stage.asleep("b")
    stage.restart()
    stage.cpus = None  # of b, which nobody has seen since, they are on record; a draws what it draws idle
    stage.cycle(BEGIN + 2 * HOUR)
    assert (stage.night.accounted_seconds, stage.night.missed_seconds) == (HOUR, HOUR)
    before = stage.night.unfolded_joules
    stage.cycle(BEGIN + 2 * HOUR + CYCLE)
    assert stage.night.unfolded_joules - before == pytest.approx((100.0 + 110.0) * CYCLE)
    assert stage.night.asleep_seconds == (("b", CYCLE),)
    assert len(stage.ledger.nights()) == 1


def test_a_daemon_that_was_away_as_it_ended_ends_it_with_its_window(stage: Stage) -> None:
    stage.in_window()
    stage.cycles(BEGIN, BEGIN + HOUR)
    stage.restart()
    stage.holds = None
    stage.cycle(END + 72 * HOUR)
    assert stage.book.told.now is None
    assert (stage.last.ended_at, stage.last.accounted_seconds, stage.last.missed_seconds) == (END, HOUR, 7 * HOUR)


def test_a_cycle_that_could_not_plan_is_missed(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(BEGIN)
    stage.fit = False
    stage.cycle(BEGIN + CYCLE)
    stage.fit = True
    stage.cycle(BEGIN + 2 * CYCLE)
    assert (stage.night.accounted_seconds, stage.night.missed_seconds) == (CYCLE, CYCLE)


def test_the_one_that_stands_by_writes_nothing_and_takes_over_what_the_leader_wrote(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(BEGIN)
    stage.standby = True
    stage.cycle(BEGIN + CYCLE)
    leader = Stage(stage.ledger)
    leader.in_window()
    leader.cycle(BEGIN + CYCLE)
    leader.cycle(BEGIN + 2 * CYCLE)
    stage.standby = False
    stage.cycle(BEGIN + 3 * CYCLE)
    assert (stage.night.id, stage.night.accounted_seconds) == (leader.night.id, 3 * CYCLE)


def test_a_ledger_that_is_away_is_told_once_and_loses_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.in_window()
    stage.cycle(BEGIN)

    def away(_: Night) -> int:
        raise LedgerUnavailableError("disk is full")

    with capture_logs() as logs, monkeypatch.context() as broken:
        broken.setattr(stage.ledger, "record_night", away)
        stage.cycles(BEGIN + CYCLE, BEGIN + 5 * CYCLE)
    assert [entry["reason"] for entry in logs if entry["event"] == "night_not_recorded"] == ["disk is full"]
    stage.cycle(BEGIN + 6 * CYCLE)
    (kept,) = stage.ledger.nights()
    assert kept.accounted_seconds == 6 * CYCLE


def test_a_bug_in_it_does_not_reach_the_cycle(stage: Stage) -> None:
    stage.in_window()
    stage.records = (None,)  # type: ignore[assignment]
    stage.cycle(BEGIN)
    with capture_logs() as logs:
        stage.cycle(BEGIN + CYCLE)
    assert [entry["event"] for entry in logs] == ["night_failed"]


def test_a_night_in_which_nothing_may_move_says_so(stage: Stage) -> None:
    stage.in_window()
    stage.mode = Mode.OBSERVE
    stage.cycle(BEGIN)
    assert stage.night.mode == "observe"
    stage.mode = Mode.RECOMMEND
    stage.cycle(BEGIN + CYCLE)
    stage.mode = Mode.OBSERVE
    stage.cycle(BEGIN + 2 * CYCLE)
    assert stage.night.mode == "recommend"
    assert stage.night.saved_kwh == 0.0


def moved(vm: str, to: str, **more: Any) -> MigrationRecord:
    at = {"state": MigrationState.SUCCEEDED, "intent_at": BEGIN + 60.0, **more}
    return MigrationRecord(id=f"m-{vm}-{to}", vm_uuid=vm, vm_name=vm, source="b", destination=to, **at)


def test_whoever_the_night_moved_has_a_home_and_nobody_else(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(BEGIN)  # v on b, w on a
    stage.where = "a"
    stage.cycle(BEGIN + CYCLE)
    assert stage.view is not None
    snapshot = stage.view.snapshot
    assert stage.book.homes(snapshot) == {}

    stage.moves = (moved("v", "a"), moved("w", "a", state=MigrationState.FAILED))
    assert stage.book.homes(snapshot) == {"v": "b"}
    stage.moves = (moved("v", "a", ours=False),)
    assert stage.book.homes(snapshot) == {}, "who was moved by hand stays there"
    stage.moves = (moved("v", "a"), moved("v", "b"), moved("v", "a"))
    assert stage.book.homes(snapshot) == {}, "it was back, and had to go again"
    stage.moves = (moved("v", "c"),)
    assert stage.book.homes(snapshot) == {}, "it is not where it was moved to: somebody else moved it since"


def test_who_unfolding_sent_elsewhere_has_a_new_home(stage: Stage) -> None:
    hosts = [host(name, 8.0) for name in "abc"]
    stage.in_window()
    stage.cycle(BEGIN)
    stage.where = "a"
    stage.cycle(BEGIN + CYCLE)
    assert stage.view is not None
    plan = decide(inputs_of(hosts, [vm("v", "a", 0.5)], homes={"u-v": "b"}, plan_id="p-morning"))
    assert plan.policy == "unfold"
    stage.ledger.record_plan(plan)
    stage.ledger.record_plan(replace(plan, id="p-relief", policy="balance"))

    for plan_id, homes in (("p-morning", {}), ("p-relief", {"v": "b"}), ("p-lost", {"v": "b"}), (None, {"v": "b"})):
        stage.moves = (moved("v", "a", plan_id=plan_id),)
        for _ in range(2):
            assert stage.book.homes(stage.view.snapshot) == homes, plan_id
        stage.restart()
        stage.cycle(BEGIN + 2 * CYCLE)


def test_the_morning_is_counted_from_the_end_of_the_window(stage: Stage) -> None:
    assert stage.book.morning_seconds(BEGIN) is None
    stage.in_window()
    stage.cycle(BEGIN)
    assert stage.book.morning_seconds(END - 60.0) == -60.0
    assert stage.book.morning_seconds(END + 60.0) == 60.0
    stage.standby = True
    assert stage.book.morning_seconds(END) is None


def test_the_day_is_seen_to_once_a_morning_whoever_leads(stage: Stage) -> None:
    hosts = [host(name, 8.0) for name in "abc"]
    made = inputs_of(hosts, [vm("v", "a", 0.5)], homes={"u-v": "gone"})
    day = replace(made, day=made.scenarios)
    relief = decide(inputs_of(hosts, [vm("v", "a", 0.5)], homes={"u-v": "b"}))
    none = replace(relief, steps=())
    stage.in_window()
    stage.cycle(BEGIN)

    def sees(at: float, inputs: PlanInputs | None, plan: Plan | None, *, moving: int = 0) -> float | None:
        stage.cycle(at, moving=moving, inputs=inputs, plan=plan)
        return stage.book.morning_seconds(END)

    assert sees(BEGIN + CYCLE, None, None) == 0.0
    assert sees(BEGIN + 2 * CYCLE, made, none) == 0.0, "there was no forecast of the day"
    assert sees(BEGIN + 3 * CYCLE, replace(day, homes={"u-v": "b"}, homes_may_return=True), none) == 0.0, "it may go"
    assert sees(BEGIN + 4 * CYCLE, day, relief) == 0.0
    assert sees(BEGIN + 5 * CYCLE, day, none, moving=1) == 0.0
    assert stage.night.relieved_at is None
    assert sees(BEGIN + 6 * CYCLE, day, none) is None
    stage.restart()
    stage.cycle(BEGIN + 7 * CYCLE)
    assert stage.book.morning_seconds(END) is None
    assert stage.night.relieved_at == BEGIN + 6 * CYCLE


def test_a_night_is_not_over_while_vms_are_to_go_home(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(BEGIN)
    stage.unfolding()
    stage.where, stage.moves = "a", (moved("v", "a"),)
    stage.cycle(END)
    stage.cycle(END + HOME_SECONDS - CYCLE)
    assert stage.book.told.now is not None
    stage.where = "b"
    stage.cycle(END + HOME_SECONDS - CYCLE / 2)
    assert stage.book.told.now is None


def test_who_cannot_go_home_keeps_no_night_open_for_ever(stage: Stage) -> None:
    stage.in_window()
    stage.cycle(BEGIN)
    stage.unfolding()
    stage.where, stage.moves = "a", (moved("v", "a"),)
    stage.cycle(END)
    stage.cycle(END + HOME_SECONDS)
    assert stage.book.told.now is None
