"""A migration against its prediction: past its bound it is told once, allowed all its downtime, and given less patience.

And what its record keeps for those who learn from it: what was known, the deadline, why an abort was ordered.
"""

from collections.abc import Iterable

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from rebalancerd.act.machine import LATE_PATIENCE, Act, Course, Running, under_way
from rebalancerd.act.stall import StallTrack
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.migration import AbortCause, AbortOrder, Completion, MigrationRecord, MigrationState, Progress
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.ports import HostRefusedError
from tests.unit.act.act_world import SETTINGS, VM, Scene, cost, one_step_plan

LIMIT = 0.6
INFINITE = float("inf")
KNOWN = MigrationFacts(memory_bytes=GIB, resident_bytes=GIB // 2, vcpus=2, link_bytes_per_second=1e9)
TOLD = "longer than the 20 s predicted at most"


def play(
    readings: Iterable[tuple[float, int, int]], *, bound: float | None, deadline: float = 900.0, postcopy: bool = False
) -> list[Course]:
    """What follows from (seconds since the hand-over, iteration, remaining MiB), the downtime set as asked for."""
    stall, allowed, made = StallTrack(), None, []
    for at, iteration, remaining in readings:
        progress = Progress(
            elapsed_seconds=at,
            iteration=iteration,
            remaining_bytes=remaining * MIB,
            processed_bytes=1,
            postcopy=postcopy,
        )
        it = Running(
            state=MigrationState.RUNNING,
            now=1000.0 + at,
            progress=progress,
            deadline_at=1000.0 + deadline,
            limit_downtime_seconds=LIMIT,
            allowed_downtime_seconds=allowed,
            stall=stall,
            ran_seconds=at,
            bound_seconds=bound,
        )
        course = under_way(it, SETTINGS)
        made.append(course)
        stall = course.stall
        if course.act is Act.SET_DOWNTIME:
            allowed = course.seconds
    return made


def first(courses: list[Course], act: Act) -> int:
    return next((i for i, course in enumerate(courses) if course.act is act), 10**9)


STALLING = [(10.0 * i, i, 500) for i in range(1, 60)]


def test_before_the_bound_nothing_changes() -> None:
    early = [reading for reading in STALLING if reading[0] <= 200.0]

    assert play(early, bound=200.0) == play(early, bound=None)
    assert all(not course.late for course in play(early, bound=200.0))


def test_past_the_bound_the_downtime_goes_to_the_limit_at_once() -> None:
    """The ladder would be at its third rung."""
    courses = play([(1.0, 1, 900), (11.0, 2, 500), (21.0, 3, 400), (22.0, 3, 390)], bound=20.0)

    assert [c.seconds for c in courses if c.act is Act.SET_DOWNTIME] == [0.1, 0.2, LIMIT]
    assert courses[3].act is Act.NOTHING
    assert [bool(c.late) for c in courses] == [False, False, True, True]


def test_past_the_bound_half_the_patience_is_left() -> None:
    """The first boundary that can be compared is at 30 s."""
    usual, late = play(STALLING, bound=None), play(STALLING, bound=60.0)
    when = [STALLING[first(courses, Act.ABORT)][0] - 30.0 for courses in (usual, late)]

    assert when == [SETTINGS.stall_seconds, pytest.approx(LATE_PATIENCE * SETTINGS.stall_seconds, abs=10.0)]
    assert late[first(late, Act.ABORT)].cause is AbortCause.STALL


def test_a_copy_that_shrinks_is_late_but_never_stalls() -> None:
    courses = play([(60.0 * i, i, 1000 - 60 * i) for i in range(1, 14)], bound=30.0)

    assert first(courses, Act.ABORT) == 10**9
    assert len({course.reason for course in courses}) == 1, "told in words that stay the same"


def test_the_first_copy_may_take_as_long_as_bytes_flow_even_if_it_is_late() -> None:
    assert first(play([(10.0 * n, 1, 100_000 - 10 * n) for n in range(85)], bound=5.0), Act.ABORT) == 10**9


@pytest.mark.parametrize("bound", [None, 1e12])
def test_without_a_bound_that_can_be_passed_nothing_changes(bound: float | None) -> None:
    assert play(STALLING, bound=bound) == play(STALLING, bound=None)


def test_post_copy_is_left_alone_however_late() -> None:
    courses = play(STALLING, bound=1.0, deadline=5.0, postcopy=True)

    assert {course.act for course in courses} == {Act.NOTHING}
    assert {course.late for course in courses} == {""}


def accumulated(steps: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """Readings in the order of time, iterations never falling."""
    at, iteration, made = 0.0, 1, []
    for seconds, more, remaining in steps:
        at, iteration = at + seconds, iteration + more
        made.append((at, iteration, remaining))
    return made


READINGS = st.lists(
    st.tuples(st.floats(0.5, 40.0), st.integers(0, 1), st.integers(0, 1000)), min_size=1, max_size=80
).map(accumulated)


@given(READINGS, st.floats(0.0, 1500.0))
def test_a_bound_is_never_laxer_and_never_aborts_before_the_limit_was_tried(
    readings: list[tuple[float, int, int]], bound: float
) -> None:
    """Whatever a job tells: an abort comes no later than without a prediction, the downtime never stands lower."""
    usual, late = play(readings, bound=None), play(readings, bound=bound)
    stop = first(late, Act.ABORT)
    highest = [0.0, 0.0]

    assert stop <= first(usual, Act.ABORT)
    for index, pair in enumerate(zip(usual, late, strict=True)):
        if index >= stop:
            break
        for side, course in enumerate(pair):
            highest[side] = max(highest[side], course.seconds)
        assert highest[1] >= highest[0]
        if readings[index][0] <= bound:
            assert pair[0] == pair[1]
    if stop < first(usual, Act.ABORT):
        assert highest[1] == LIMIT, "stricter than usual only once all the downtime was allowed"


class TestRecord:
    def start(self, upper: float = 20.0) -> Scene:
        scene = Scene()
        plan = one_step_plan(
            scene.world,
            options=MigrationOptions(max_downtime_seconds=LIMIT),
            predicted=cost(upper=upper),
            known=KNOWN,
        )
        scene.started(plan)
        return scene

    def test_the_intent_keeps_what_was_known_and_the_deadline(self) -> None:
        scene = self.start(upper=30.0)
        intent = next(iter(scene.ledger.rows.values()))[0]

        assert intent.state is MigrationState.INTENT
        assert intent.known == KNOWN
        assert intent.deadline_seconds == 90.0
        assert scene.ledger.last().known == KNOWN

    def test_it_is_told_once_and_stays_in_the_verdict(self) -> None:
        scene = self.start()
        with structlog.testing.capture_logs() as logs:
            for n in range(25):
                scene.world.run(iteration=1, remaining_bytes=GIB - n * MIB)
                scene.pass_time(1)
        told = [r.reason for r in next(iter(scene.ledger.rows.values()))]

        assert [entry["reason"] for entry in logs if entry["event"] == "migration_late"] == [TOLD]
        assert told == ["", "", TOLD], "one row in the ledger, not one for each look"
        assert [c[2] for c in scene.world.calls if c[0] == "downtime"] == ["0.1", "0.6"]
        scene.world.arrive()
        scene.executor.tick()
        record = scene.ledger.last()
        assert (record.state, record.reason) == (MigrationState.SUCCEEDED, TOLD)

    def test_within_its_bound_nothing_is_told(self) -> None:
        scene = self.start()
        for n in range(20):
            scene.world.run(iteration=1, remaining_bytes=GIB - n * MIB)
            scene.pass_time(1)
        scene.world.arrive()
        scene.executor.tick()

        assert scene.ledger.last().reason == ""
        assert [c[2] for c in scene.world.calls if c[0] == "downtime"] == ["0.1"]

    def test_without_a_finite_bound_nothing_is_told(self) -> None:
        scene = self.start(upper=INFINITE)
        for n in range(100):
            scene.world.run(iteration=1, remaining_bytes=GIB - n * MIB)
            scene.pass_time(1)

        assert scene.ledger.last().reason == ""
        assert scene.ledger.last().state is MigrationState.RUNNING

    def test_an_adopted_one_is_late_by_its_jobs_own_age(self) -> None:
        scene = self.start()
        scene.world.run(iteration=2, remaining_bytes=GIB, elapsed_seconds=30.0)
        (record,) = scene.restart()

        assert record.reason == TOLD

    @pytest.mark.parametrize("late", [False, True])
    def test_a_deadline_is_kept_as_the_cause(self, late: bool) -> None:
        scene = self.start(upper=20.0 if late else INFINITE)
        deadline = 60.0 if late else 150.0
        for n in range(int(deadline) + 2):
            scene.world.run(iteration=1 + n // 9, remaining_bytes=GIB - n * 5 * MIB, elapsed_seconds=float(n))
            scene.pass_time(1)
            if scene.world.job().aborts:
                break
        scene.world.roll_back(HostRefusedError("a", "operation aborted", 78))
        scene.executor.tick()
        record = scene.ledger.last()

        assert record.state is MigrationState.ABORTED
        assert record.abort == AbortOrder(cause=AbortCause.DEADLINE, elapsed_seconds=deadline - 1)
        assert record.reason.endswith(f"; {TOLD}") is late

    def test_a_deadline_in_a_transfer_that_stands_still_tells_nothing_of_the_guest(self) -> None:
        scene = self.start()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.pass_time(62)

        order = scene.ledger.last().abort
        assert order is not None
        assert order.cause is AbortCause.STANDSTILL
        assert not order.cause.is_non_convergence

    def test_an_operators_abort_is_kept_as_such(self) -> None:
        scene = self.start()
        scene.world.run(iteration=1, remaining_bytes=GIB, elapsed_seconds=4.0)
        scene.executor.tick()
        scene.executor.abort(VM, "deadline passed after 900 s")

        assert scene.ledger.last().abort == AbortOrder(cause=AbortCause.OPERATOR, elapsed_seconds=4.0)

    def test_post_copy_that_was_seen_is_kept(self) -> None:
        scene = self.start()
        scene.world.run(iteration=2, remaining_bytes=GIB, postcopy=True)
        scene.pass_time(1)
        scene.world.arrive()
        scene.executor.tick()

        assert scene.ledger.last().postcopy
        assert scene.ledger.last().state is MigrationState.SUCCEEDED


class TestEnd:
    """When a migration ended that nobody saw ending."""

    def gone(self, told: float | None) -> MigrationRecord:
        """Arrived after 3 s, while no daemon ran; the next one comes ten minutes later."""
        scene = Scene()
        scene.started()
        scene.world.arrive()
        scene.world.completion_of = Completion(total_seconds=told)
        scene.world.clock.sleep(600.0)
        (record,) = scene.restart()
        assert record.state is MigrationState.SUCCEEDED
        return record

    def test_libvirt_tells_how_long_it_took(self) -> None:
        assert self.gone(3.0).seconds == pytest.approx(3.0)

    @pytest.mark.parametrize("told", [None, 1e300])
    def test_otherwise_it_had_ended_by_now(self, told: float | None) -> None:
        assert self.gone(told).seconds == pytest.approx(600.0)

    @pytest.mark.parametrize("told", [-5.0, float("nan")])
    def test_nonsense_never_ends_it_before_it_began(self, told: float) -> None:
        assert self.gone(told).seconds == 0.0
