"""Copies of one wave share the links of their hosts and of their failure domains."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.plan.balance import balance
from rebalancerd.plan.drain import drain
from rebalancerd.plan.order import Placed, order
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.state import PlacementState
from tests.unit.plan.plan_cluster import FixedCosts, cost_of, host, inputs_of, vm
from tests.unit.plan.plan_random import random_inputs

MANY: dict[str, Any] = {"out_per_host": 9, "in_per_host": 9, "per_cluster": 9}
FAST, SLOW = cost_of(seconds=10.0), cost_of(seconds=25.0)  # 1 GB: 100 and 40 MB/s; a link carries 125 MB/s


def waves(moves: list[tuple[str, str]], cost: object = FAST, hosts: object = None, **changes: Any) -> object:
    """Waves of moves given as (source, destination), each of its own VM."""
    hosts = hosts or [host(name) for name in sorted({n for pair in moves for n in pair})]
    guests = [vm(f"v{i}", source) for i, (source, _) in enumerate(moves)]
    costs = FixedCosts(default=cost)  # type: ignore[arg-type]
    state = PlacementState(inputs_of(hosts, guests, settings=PlanSettings(**{**MANY, **changes}), costs=costs))  # type: ignore[arg-type]
    found = order(state, [Placed(i, state.host_index[to], i) for i, (_, to) in enumerate(moves)])
    assert found.dropped == {}
    return found.waves


def test_copies_that_fill_a_link_go_one_after_the_other() -> None:
    assert waves([("a", "c"), ("b", "c")]) == ((0,), (1,))
    assert waves([("a", "b"), ("a", "c")]) == ((0,), (1,))


def test_slower_copies_share_a_link_up_to_what_it_carries() -> None:
    assert waves([("a", "b"), ("a", "c"), ("a", "d"), ("a", "e")], SLOW) == ((0, 1, 2), (3,))


def test_what_leaves_and_what_arrives_is_held_apart() -> None:
    assert waves([("a", "b"), ("b", "c"), ("c", "a")]) == ((0, 1, 2),)


def test_the_share_can_be_set_and_taken_away() -> None:
    moves = [("a", "b"), ("a", "c")]

    assert waves(moves, SLOW, link_share_max=0.5) == ((0,), (1,))
    assert waves(moves, link_share_max=2.0) == ((0, 1),)
    assert waves(moves, link_share_max=0.0) == ((0, 1),)


def test_a_slow_destination_bounds_what_a_copy_takes_of_its_source() -> None:
    hosts = [host("a"), host("b", link_bytes_per_second=50e6), host("c", link_bytes_per_second=50e6)]

    assert waves([("a", "b"), ("a", "c")], hosts=hosts) == ((0, 1),)


def test_one_copy_alone_is_never_too_much() -> None:
    hosts = [host("a", link_bytes_per_second=1e6), host("b")]

    assert waves([("a", "b")], cost_of(seconds=0.5), hosts, link_share_max=0.1) == ((0,),)


def test_an_uplink_is_shared_by_the_copies_that_cross_it() -> None:
    hosts = [host(n, failure_domain=d) for n, d in (("a", "r1"), ("b", "r1"), ("c", "r2"), ("d", "r2"), ("e", "r1"))]
    uplink = (("r1", 150e6),)

    assert waves([("a", "c"), ("b", "d")], hosts=hosts, failure_domain_link_bytes_per_second=uplink) == ((0,), (1,))
    assert waves([("a", "e"), ("b", "d")], hosts=hosts, failure_domain_link_bytes_per_second=uplink) == ((0, 1),)
    assert waves([("a", "c"), ("b", "d")], hosts=hosts) == ((0, 1),)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_no_wave_asks_more_of_a_link_than_it_carries(seed: int, share: float) -> None:
    inputs = random_inputs(seed, 0.1)
    inputs = replace(inputs, settings=replace(inputs.settings, link_share_max=share, **MANY))
    for plan in (balance(inputs), drain(inputs, [inputs.snapshot.hosts[0].name])):
        for wave in {step.wave for step in plan.steps}:
            taken: dict[tuple[str, str], list[float]] = {}
            for move in (s.move for s in plan.steps if s.wave == wave):
                rate = move.cost.bytes.value / move.cost.seconds.value
                for end in (("out", move.source), ("in", move.destination)):
                    taken.setdefault(end, []).append(min(rate, 125e6))
            for rates in taken.values():
                assert len(rates) == 1 or sum(rates) <= share * 125e6 * (1 + 1e-6)
