"""A spike moves nothing."""

from rebalancerd.guard.hold import advance, held


def test_rounds_in_a_row():
    holds = {}
    for hot in ({"a", "b"}, {"a"}, {"a", "b"}):
        holds = advance(holds, hot)
    assert holds == {"a": 3, "b": 1}


def test_a_round_without_heat_starts_over():
    assert advance({"a": 99}, set()) == {}


def test_held_by_the_source_or_by_all_hot_hosts_of_the_plan():
    holds = {"a": 5, "b": 2}
    assert held(holds, "a", ()) == 5
    assert held(holds, "c", ("a", "b")) == 2
    assert held(holds, "c", ("a", "z")) == 0
    assert held(holds, "c", ()) == 0
