"""What past migrations forbid."""

import pytest

from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.migration import CRITICAL_STATES, MigrationState
from rebalancerd.cluster.refusal import Code
from rebalancerd.guard.memory import needed_since
from rebalancerd.guard.settings import GuardSettings

S = MigrationState


class TestCooldown:
    """Half an hour after one move, doubling with each further one of the last day, a day at most."""

    @pytest.mark.parametrize(
        ("moves", "seconds"), [(1, 1800), (2, 3600), (3, 7200), (6, 57600), (7, 86400), (50, 86400)]
    )
    def test_grows_with_moves(self, make, moves, seconds):
        last = 100.0
        past = [make.record(id=f"m{i}", ago=last + 10 * i) for i in range(moves)]
        assert "u" in make.remember(*past, now=make.NOW - last + seconds - 1).resting
        assert "u" not in make.remember(*past, now=make.NOW - last + seconds).resting

    @pytest.mark.parametrize("state", [S.FAILED, S.ABORTED, S.DEGRADED, S.VM_STOPPED, S.RUNNING, S.STUCK])
    def test_failures_and_running_ones_count_too(self, make, state):
        assert "u" in make.remember(make.record(state)).resting

    def test_what_never_began_does_not_count(self, make):
        memory = make.remember(make.record(S.ABANDONED))
        assert memory.resting == {}
        assert memory.recent_starts == frozenset()

    def test_a_move_by_hand_counts(self, make):
        assert "u" in make.remember(make.record(ours=False)).resting

    def test_a_clock_that_stepped_back_lengthens(self, make):
        """The move lies an hour in the future: it is read as just now, whenever it is asked."""
        memory = make.remember(make.record(ago=-3600))
        assert "rests for 1800 s" in memory.resting["u"].detail

    def test_one_more_move_never_shortens_it(self, make):
        """A day's worth of cooldown stays, though the move that comes on top counts fewer moves of its last day."""
        busy = [make.record(id=f"m{i}", ago=3000 + 80_000 * (i > 0) + i) for i in range(7)]
        until = make.NOW - 3000 + 86400
        assert "u" in make.remember(*busy, now=until - 1).resting
        assert "u" in make.remember(*busy, make.record(id="new", ago=-4000), now=until - 1).resting

    def test_moves_of_another_day_are_forgotten(self, make):
        far = make.record(id="m0", ago=100 + 86401)
        memory = make.remember(far, make.record(ago=100), now=make.NOW - 100 + 1800)
        assert memory.resting == {}

    def test_repeats_and_order_do_not_matter(self, make):
        past = [make.record(id=f"m{i}", ago=100 + i) for i in range(3)]
        assert make.remember(*past) == make.remember(*past[::-1], *past)


class TestReverse:
    """A VM does not go back where it came from for two hours."""

    def test_back_is_tabu_and_onward_is_not(self, make):
        memory = make.remember(make.record(source="a", destination="b"))
        assert set(memory.tabu_pairs) == {("u", "a")}
        assert memory.tabu_pairs["u", "a"].code is Code.REVERSE_MOVE

    def test_it_ends(self, make):
        assert make.remember(make.record(ago=7200)).tabu_pairs == {}

    def test_a_move_that_failed_has_nothing_to_reverse(self, make):
        assert make.remember(make.record(S.FAILED)).tabu_pairs == {}


class TestQuarantine:
    """A host that fails as a destination rests for ten minutes, doubling."""

    def fail(self, make, n, last=10.0):
        return [make.record(S.FAILED, id=f"f{i}", vm=f"x{i}", ago=last + i) for i in range(n)]

    @pytest.mark.parametrize(("failures", "seconds"), [(1, 600), (2, 1200), (3, 2400), (40, 86400)])
    def test_doubles(self, make, failures, seconds):
        past = self.fail(make, failures)
        assert set(make.remember(*past, now=make.NOW - 10 + seconds - 1).quarantined) == {"b"}
        assert make.remember(*past, now=make.NOW - 10 + seconds).quarantined == {}

    def test_a_success_there_resets(self, make):
        past = self.fail(make, 3, last=100.0)
        assert make.remember(*past, make.record(id="ok", ago=50)).quarantined == {}
        once_more = make.record(S.FAILED, id="again", vm="y", ago=40)
        assert (
            "failed 1 migrations"
            in make.remember(*past, make.record(id="ok", ago=50), once_more).quarantined["b"].detail
        )

    def test_a_success_before_does_not(self, make):
        assert "b" in make.remember(*self.fail(make, 1), make.record(id="ok", ago=50)).quarantined

    def test_an_operator_clears_it(self, make):
        past = self.fail(make, 2, last=100.0)
        cleared = OperatorState(quarantine_cleared=(("b", make.NOW - 50), ("b", make.NOW - 5000)))
        assert make.remember(*past, operator=cleared).quarantined == {}
        later = make.record(S.FAILED, id="late", vm="y", ago=20)
        assert "failed 1 " in make.remember(*past, later, operator=cleared).quarantined["b"].detail
        other = OperatorState(quarantine_cleared=(("c", make.NOW),))
        assert "b" in make.remember(*past, operator=other).quarantined

    def test_a_source_that_died_is_not_trusted_as_a_destination(self, make):
        assert set(make.remember(make.record(S.LOST_SOURCE)).quarantined) == {"a"}

    @pytest.mark.parametrize("state", [S.ABORTED, S.VM_STOPPED, S.RUNNING, S.SUCCEEDED])
    def test_nobody_is_blamed(self, make, state):
        assert make.remember(make.record(state)).quarantined == {}

    def test_a_strangers_failure_blames_nobody(self, make):
        memory = make.remember(*[make.record(S.FAILED, id=f"f{i}", ours=False) for i in range(5)])
        assert memory.quarantined == {}
        assert not memory.breaker.is_open


class TestBlockedPairs:
    """What libvirt refused is the pair's fault, not the host's."""

    def test_pair_and_its_end(self, make):
        refused = make.record(S.FAILED, reason="libvirt_refused: CPU lacks avx512f")
        memory = make.remember(refused)
        assert set(memory.blocked_pairs) == {("u", "b")}
        assert "avx512f" in memory.blocked_pairs["u", "b"].detail
        assert memory.quarantined == {}
        assert make.remember(refused, now=make.NOW - 60 + 21600).blocked_pairs == {}

    def test_missing_rights_are_not_the_destinations_fault(self, make):
        memory = make.remember(make.record(S.FAILED, reason="rights; access denied"))
        assert memory.blocked_pairs["u", "b"].code is Code.RIGHTS
        assert memory.quarantined == {}

    def test_refusals_open_the_breaker_all_the_same(self, make):
        """One cause that refuses everything everywhere must not be tried on every pair in turn."""
        past = [make.record(S.FAILED, id=f"f{i}", vm=f"x{i}", reason="libvirt_refused: x") for i in range(3)]
        assert make.remember(*past).breaker.is_open


class TestBreaker:
    """Three failures within an hour, or one thing that must never happen."""

    def failures(self, make, *agos, state=S.FAILED):
        return [make.record(state, id=f"f{i}", vm=f"x{i}", ago=a) for i, a in enumerate(agos)]

    def test_three_in_an_hour(self, make):
        assert not make.remember(*self.failures(make, 10, 20)).breaker.is_open
        assert make.remember(*self.failures(make, 10, 20, 3609)).breaker.is_open
        assert not make.remember(*self.failures(make, 10, 20, 3611)).breaker.is_open

    @pytest.mark.parametrize("state", [S.ABORTED, S.VM_STOPPED, S.ABANDONED, S.SUCCEEDED])
    def test_what_is_no_failure(self, make, state):
        assert not make.remember(*self.failures(make, 10, 20, 30, state=state)).breaker.is_open

    @pytest.mark.parametrize("state", sorted(CRITICAL_STATES))
    def test_one_critical_state_is_enough(self, make, state):
        memory = make.remember(make.record(state, ours=False))
        assert memory.breaker.is_open
        assert state.value in memory.describe()[0]

    def test_growing_old_does_not_close_it(self, make):
        past = self.failures(make, 10, 20, 30)
        assert make.remember(*past, now=make.NOW + 30 * 86400).breaker.is_open
        assert make.remember(make.record(S.MISSING), now=make.NOW + 30 * 86400).breaker.is_open

    def test_only_an_operator_closes_it_and_it_opens_again(self, make):
        past = [make.record(S.DUPLICATED, ago=500), *self.failures(make, 300, 310, 320)]
        closed = OperatorState(breaker_closed_at=make.NOW - 200)
        assert not make.remember(*past, operator=closed).breaker.is_open
        anew = [make.record(S.FAILED, id=f"n{i}", vm=f"y{i}", ago=10 + i) for i in range(3)]
        assert not make.remember(*past, *anew[:2], operator=closed).breaker.is_open
        assert make.remember(*past, *anew, operator=closed).breaker.is_open
        too_early = OperatorState(breaker_closed_at=make.NOW - 5000)
        assert make.remember(*past, operator=too_early).breaker.is_open


def test_describe_tells_the_gravest_first(make):
    memory = make.remember(
        make.record(S.DUPLICATED, id="d", vm="x", destination="c"),
        make.record(S.FAILED, id="f", vm="y"),
        make.record(S.FAILED, id="r", vm="z", reason="libvirt_refused: no pool"),
    )
    lines = memory.describe()
    assert [line.split()[0] for line in lines] == ["breaker", "quarantined", "quarantined", "blocked", "cooldown:"]
    assert make.remember().describe() == ()


def test_how_far_back_the_ledger_must_be_read(make):
    settings = GuardSettings()
    assert needed_since(settings, OperatorState(), make.NOW) == 0.0
    recent = OperatorState(breaker_closed_at=make.NOW - 10)
    assert needed_since(settings, recent, make.NOW) == make.NOW - 2 * 86400
    long_ago = OperatorState(breaker_closed_at=make.NOW - 90 * 86400)
    assert needed_since(settings, long_ago, make.NOW) == make.NOW - 90 * 86400


def test_steps_that_succeeded(make):
    memory = make.remember(
        make.record(id="1", plan_id="p", step=1),
        make.record(S.FAILED, id="2", plan_id="p", step=2),
        make.record(id="3"),
    )
    assert memory.succeeded_steps == {("p", 1)}


def test_a_link_that_failed_is_in_quarantine_and_its_hosts_are_not(make):
    lost = make.record(MigrationState.FAILED, ago=60, reason="transport: a: keepalive timeout")
    memory = make.remember(lost)

    assert list(memory.links) == [("a", "b")]
    assert memory.quarantined == {}
    assert "quarantined link a-b" in memory.describe()[0]


def test_a_links_quarantine_doubles_and_ends_with_a_success_or_a_word(make):
    def lost(name, ago):
        return make.record(MigrationState.FAILED, id=name, ago=ago, reason="transport: a: no route")

    once, twice = make.remember(lost("m1", 900)), make.remember(lost("m1", 2000), lost("m2", 900))
    assert once.links == {} and list(twice.links) == [("a", "b")]
    back = make.record(id="m3", source="b", destination="a", ago=10)
    assert make.remember(lost("m1", 60), back).links == {}, "either way round"
    word = OperatorState(quarantine_cleared=(("a", make.NOW - 5),))
    assert make.remember(lost("m1", 60), operator=word).links == {}


def test_a_source_is_read_only_when_several_of_its_vms_were_denied(make):
    def denied(vm, state=MigrationState.ABANDONED):
        return make.record(state, id=f"m-{vm}", vm=vm, reason="rights: a: access denied")

    assert make.remember(denied("u")).read_only == {}
    assert list(make.remember(denied("u"), denied("w", MigrationState.FAILED)).read_only) == ["a"]
    assert ("u", "b") in make.remember(denied("u")).blocked_pairs


def test_a_vm_that_somebody_else_moved_is_held_against_nobody(make):
    records = [
        make.record(MigrationState.FAILED, id=f"m{i}", vm=f"v{i}", reason="runs on c: moved by somebody else")
        for i in range(5)
    ]
    memory = make.remember(*records)

    assert memory.quarantined == {} and memory.breaker.reason is None
