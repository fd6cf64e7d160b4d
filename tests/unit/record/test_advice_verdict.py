"""How a piece of advice turned out, on hand-made histories. Headroom of a host ends at 6.4 of its 8 cores."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.advice import AdvisedMove, Verdict
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.stays import Stays
from rebalancerd.record.advice_verdict import judge
from rebalancerd.record.hindsight import RESOURCES, Past, look_back, window
from tests.unit.record.advice_world import (
    BESIDE,
    DUE,
    ROWS,
    STEP,
    T0,
    THERE,
    VM,
    advice,
    host,
    past,
    snapshot,
    vm,
)

LATER = DUE + 2 * STEP
HOT = {VM: 2.0, BESIDE: 5.0, THERE: 1.0}  # a: 7.2 cores with its own 0.2, 0.8 above headroom
COOL = {VM: 2.0, BESIDE: 3.0, THERE: 1.0}


def verdict(given=None, seen=None, now=None):
    return judge(given or advice(), seen or past(HOT), now or snapshot(), at=LATER)


def test_a_source_that_was_hot_and_a_destination_that_stays_cool():
    score = verdict()

    assert score.verdict is Verdict.RIGHT
    assert score.relief == pytest.approx(0.8 * ROWS * STEP, rel=1e-4)
    assert score.harm == 0
    assert score.source_peak == pytest.approx(7.2 / 8, rel=1e-4)
    assert score.destination_peak == pytest.approx(3.2 / 8, rel=1e-4)
    assert score.hot_after_seconds == 0
    assert score.followed_at is None
    assert score.reason == "a got hot (90 %): 1440 core-s relieved for 100"


def test_relief_counts_from_the_end_of_the_move_on():
    """A move of 10 minutes is over in the third step of six."""
    assert verdict(advice(move_seconds=600.0)).relief == pytest.approx(0.8 * (ROWS - 2) * STEP, rel=1e-4)
    score = verdict(advice(move_seconds=7200.0))
    assert (score.verdict, score.relief) == (Verdict.NEEDLESS, 0.0)


def test_how_long_before_it_was_given():
    score = verdict(seen=past({**HOT, BESIDE: [3, 3, 3, 5, 5, 5]}))

    assert score.verdict is Verdict.RIGHT
    assert score.hot_after_seconds == 3 * STEP


def test_a_source_that_was_never_hot():
    score = verdict(seen=past(COOL))

    assert (score.verdict, score.reason) == (Verdict.NEEDLESS, "a never got hot (65 %)")
    assert score.hot_after_seconds is None


def test_a_relief_that_is_not_worth_its_cost():
    score = verdict(advice(cost=1500.0))

    assert score.verdict is Verdict.NEEDLESS
    assert score.reason == "a got hot, but its relief of 1440 core-s was not worth a cost of 1500 core-s"
    assert verdict(advice(cost=float("inf"))).verdict is Verdict.NEEDLESS


def test_a_destination_that_would_have_been_hot():
    score = verdict(seen=past({**HOT, THERE: [1, 1, 1, 1, 1, 5]}))

    assert score.verdict is Verdict.HARMFUL
    assert score.harm == pytest.approx((5 + 0.2 + 2 - 6.4) * STEP, rel=1e-4)
    assert score.reason == "b would have been hot (90 %)"


def test_a_destination_that_is_hot_before_the_vm_could_be_there_is_no_harm():
    score = verdict(advice(move_seconds=300.0), past({**HOT, THERE: [7, 1, 1, 1, 1, 1]}))

    assert score.verdict is Verdict.RIGHT


def test_a_slow_destination_carries_more_of_the_same_load():
    """2 cores of a are 4 of a host with half the speed: 4 + 2.7 are above 6.4 of its cores."""
    slow = (host("a"), host("b", speed_factor=0.5))
    score = verdict(advice(slow), past({**HOT, THERE: 2.5}), snapshot((*slow, host("c"))))

    assert score.verdict is Verdict.HARMFUL
    assert score.destination_peak == pytest.approx(6.7 / 8, rel=1e-4)
    assert verdict(seen=past({**HOT, THERE: 2.5})).verdict is Verdict.RIGHT


def test_a_fast_source_gives_up_more_than_its_cores():
    fast = (host("a", speed_factor=1.5), host("b"))
    score = verdict(advice(fast), past(HOT), snapshot((*fast, host("c"))))

    assert score.destination_peak == pytest.approx((1.2 + 2 * 1.5) / 8, rel=1e-4)
    assert score.source_peak == pytest.approx(7.2 / 8, rel=1e-4)


def test_memory_counts_as_cpu_does():
    """The headroom of memory ends at 27.2 of 32 GiB: b holds 26 and would hold 28."""
    score = verdict(seen=past(HOT, held={"b": 24.0}))

    assert score.verdict is Verdict.HARMFUL
    assert score.harm == pytest.approx((28 - 27.2) * 8 / 32 * ROWS * STEP, rel=1e-4)
    relieved = verdict(seen=past(COOL, held={"a": 25.0}))
    assert relieved.verdict is Verdict.RIGHT
    assert relieved.relief == pytest.approx((29 - 27.2) * 8 / 32 * ROWS * STEP, rel=1e-4)


def test_a_starved_guest_asks_for_more_than_it_uses():
    """Delay counts up to a quarter of the use, and only where the host is short of CPU."""
    plain, starved = verdict(), verdict(seen=past(HOT, waited={VM: 3.0}))

    assert starved.relief == pytest.approx(plain.relief + 0.5 * ROWS * STEP, rel=1e-4)
    assert verdict(seen=past({VM: 1.0, BESIDE: 1.0, THERE: 1.0}, waited={VM: 3.0})).source_peak == pytest.approx(
        2.2 / 8, rel=1e-4
    )
    capped = verdict(seen=past(HOT, waited={VM: 3.0}), now=snapshot(vms=(vm(VM, "a", 8), vm(BESIDE, "a", 5))))
    assert capped.relief == starved.relief
    none_left = look_back(advice(), past(HOT, waited={VM: 3.0}), {VM: 2})
    assert none_left.source_without[:, 0] == pytest.approx(7.2, rel=1e-4)


def test_the_reservation_of_a_host_holds_its_own_use():
    kept = (host("a", reserved_cores=1.0), host("b"))
    score = verdict(advice(kept), past(HOT, own={"a": 0.9, "b": 0.2}), snapshot((*kept, host("c"))))

    assert score.source_peak == pytest.approx(7.0 / 7, rel=1e-4)


@pytest.mark.parametrize("gap", ["a", "b", VM])
@pytest.mark.parametrize("row", [0, ROWS - 1])
def test_a_gap_is_unknown(gap, row):
    score = verdict(seen=past(HOT, gaps=[(gap, row)]))

    assert score.verdict is Verdict.UNKNOWN
    assert score.reason == f"1 of {ROWS} steps were not measured"
    assert verdict(seen=past(COOL, gaps=[(gap, row)])).verdict is Verdict.UNKNOWN


def test_harm_that_was_measured_is_harm_beside_a_gap():
    score = verdict(seen=past({**HOT, THERE: 5.0}, gaps=[("b", 0), (VM, 1)]))

    assert score.verdict is Verdict.HARMFUL


def test_a_guest_beside_that_is_not_measured_stays_in_the_use_of_its_host():
    assert verdict(seen=past(HOT, gaps=[(BESIDE, 2)])).relief == pytest.approx(verdict().relief, rel=1e-4)


def test_no_history_at_all():
    none = Past({name: Series.empty(name, STEP, T0) for name in RESOURCES}, past(HOT).stays)

    assert verdict(seen=none).verdict is Verdict.UNKNOWN
    assert verdict(seen=Past(none.series, Stays({}))).verdict is Verdict.OVERTAKEN


def test_history_that_ends_before_the_window_does():
    score = verdict(seen=past(HOT, rows=4))

    assert (score.verdict, score.reason) == (Verdict.UNKNOWN, f"2 of {ROWS} steps were not measured")


def test_a_window_shorter_than_a_step():
    assert verdict(advice(proposed_at=T0 + 200, due_at=T0 + 300)).verdict is Verdict.UNKNOWN


def test_advice_from_the_future_after_the_clock_went_back():
    score = judge(advice(), past(HOT), snapshot(), at=T0 - 3600)

    assert score.verdict is Verdict.UNKNOWN
    assert "the clock went back" in score.reason


def test_followed_by_hand_is_judged_by_what_happened():
    """From the third step on the guest is on b; the step in which it moved is left out."""
    seen = past(HOT, stays={VM: ((0.0, "a"), (T0 + 2 * STEP + 100, "b"))})
    score = verdict(seen=seen)

    assert score.verdict is Verdict.RIGHT
    assert score.followed_at == T0 + 2 * STEP + 100
    assert score.relief == pytest.approx(0.8 * (ROWS - 1) * STEP, rel=1e-4)
    assert score.source_peak == pytest.approx(7.2 / 8, rel=1e-4)


def test_followed_to_a_host_that_got_hot():
    seen = past({**HOT, THERE: [1, 1, 1, 5, 5, 5]}, stays={VM: ((0.0, "a"), (T0 + 20, "b"))})
    score = verdict(seen=seen)

    assert (score.verdict, score.followed_at) == (Verdict.HARMFUL, T0 + 20)


@pytest.mark.parametrize(
    ("stays", "words"),
    [
        (((0.0, "a"), (T0 + 400, "c")), "name-vm was moved to c"),
        (((0.0, "a"), (T0 + 400, "b"), (T0 + 700, "c")), "name-vm was moved to c"),
        (((0.0, "a"), (T0 + 400, None)), "name-vm is gone"),
    ],
)
def test_a_vm_that_went_elsewhere(stays, words):
    score = verdict(seen=past(HOT, stays={VM: stays}))

    assert (score.verdict, score.reason) == (Verdict.OVERTAKEN, words)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (snapshot(hosts=(host("a"), host("c")), vms=(vm(VM, "a"),)), "b is not in the cluster any more"),
        (snapshot(hosts=(host("a", cores=16.0), host("b"), host("c"))), "a is another size than it was"),
        (snapshot(hosts=(host("a"), host("b", reserved_cores=1.0), host("c"))), "b is another size than it was"),
        (snapshot(vms=(vm(VM, "a", vcpus=4),)), "name-vm was resized"),
    ],
)
def test_what_changed_too_much_is_overtaken(now, words):
    score = verdict(now=now)

    assert (score.verdict, score.reason) == (Verdict.OVERTAKEN, words)


def test_a_host_that_is_silent_now_has_not_changed():
    now = snapshot(hosts=(host("a", cores=None, facts=None, unusable="stale"), host("b"), host("c")))

    assert verdict(now=now).verdict is Verdict.RIGHT


def test_a_source_that_another_move_relieved_is_neither_needless_nor_right():
    """Its neighbour left in the second step, so the source never stays hot."""
    moved = {BESIDE: ((0.0, "a"), (T0 + 10, "c"))}
    score = verdict(seen=past(HOT, stays=moved))

    assert (score.verdict, score.reason) == (Verdict.OVERTAKEN, "a was relieved of beside meanwhile")
    stopped = verdict(seen=past(HOT, stays={BESIDE: ((0.0, "a"), (T0 + 10, None))}))
    assert stopped.verdict is Verdict.NEEDLESS, "a guest that ended is load that went away, not a relief"


def test_a_destination_that_another_move_relieved_proves_nothing():
    score = verdict(seen=past(HOT, stays={THERE: ((0.0, "b"), (T0 + 10, "c"))}))

    assert (score.verdict, score.reason) == (Verdict.OVERTAKEN, "b was relieved of there meanwhile")


def test_a_step_presumes_those_before_it():
    """Alone the second guest relieves a; after the first step there is little left, and b carries both."""
    first = AdvisedMove(vm_uuid=BESIDE, source="a", destination="b")
    second = advice(before=(first,))

    assert verdict().verdict is Verdict.RIGHT
    score = verdict(second)
    assert score.relief == 0
    assert score.destination_peak == pytest.approx((1 + 0.2 + 5 + 2) / 8, rel=1e-4)
    assert score.verdict is Verdict.HARMFUL


def test_the_window_holds_the_steps_whose_middle_lies_in_it():
    assert list(window(advice(), STEP) - T0) == [STEP * n for n in range(1, ROWS + 1)]
    late = advice(proposed_at=T0 + 160, due_at=DUE + 160)
    assert list(window(late, STEP) - T0) == [STEP * n for n in range(2, ROWS + 2)]


def test_hostile_names_are_shown_as_data():
    given = replace(advice(), vm_name="x\x1b[2J\n")
    score = verdict(given, past(HOT, stays={VM: ((0.0, "a"), (T0 + 400, None))}))

    assert score.reason == r"x\x1b[2J\n is gone"
