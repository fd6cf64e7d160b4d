"""One descent, two objectives: a score of standard deviations, and the planner's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.plan.descent import Descent
from rebalancerd.plan.deviations import Deviations, Term
from rebalancerd.plan.reconsider import descend
from rebalancerd.plan.rounds import HotHosts
from rebalancerd.plan.search import Search
from rebalancerd.plan.spread import EachMove, Spread
from rebalancerd.plan.state import PlacementState
from tests.bench.planner_world import speed_inputs


def field_of(seed: int, hosts: int, vms: int) -> tuple[Deviations, list[Term]]:
    random = np.random.default_rng(seed)
    terms = [
        Term(w, random.random(vms), random.random(hosts), 0.2 + random.random(hosts)) for w in random.random(3) + 0.1
    ]
    need = random.random(vms)
    place = random.integers(0, hosts, vms)
    room = np.bincount(place, need, hosts) + random.random(hosts)
    open_to = random.random((vms, hosts)) < 0.9
    return Deviations(terms, place, room, need, open_to=open_to), terms


def recomputed(terms: list[Term], place: np.ndarray, hosts: int) -> float:
    return sum(t.weight * float(np.std(t.base + t.scale * np.bincount(place, t.amount, hosts))) for t in terms)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 25))
def test_every_score_of_the_field_is_that_of_the_placement_it_stands_for(seed, hosts, vms):
    field, terms = field_of(seed, hosts, vms)
    for _ in range(4):
        scores = field.scores().copy()
        for vm in range(vms):
            for host in range(hosts):
                if np.isfinite(scores[vm, host]):
                    there = field.place.copy()
                    there[vm] = host
                    assert scores[vm, host] == pytest.approx(recomputed(terms, there, hosts), abs=1e-7)
                    assert field.fits(vm, host)
                else:
                    assert host == field.place[vm] or not field.fits(vm, host)
        if not np.isfinite(scores).any():
            return
        vm, host = divmod(int(scores.argmin()), hosts)
        field.apply(vm, host)
        assert field.score() == pytest.approx(recomputed(terms, field.place, hosts), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_exchange_is_never_worse_than_the_descent_and_its_moves_can_be_made_in_turn(seed, moves):
    (plain, terms), (better, _), (fresh, _) = field_of(seed, 5, 20), field_of(seed, 5, 20), field_of(seed, 5, 20)
    descend(plain, moves, passes=0)
    found = descend(better, moves, passes=2)

    assert len(found) <= moves
    for vm, host in found:
        assert fresh.fits(vm, host)
        fresh.apply(vm, host)
    assert np.array_equal(fresh.place, better.place)
    assert recomputed(terms, better.place, 5) <= recomputed(terms, plain.place, 5) + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_both_ways_to_a_deviation_agree(seed):
    random = np.random.default_rng(seed)
    hosts, vms = 6, 9
    share = random.random(hosts)
    spread = Spread.of(share / share.sum(), random.random(hosts))
    amount, scale, sources = random.random(vms), random.random(hosts), random.integers(0, hosts, vms)
    each = EachMove(spread.share, amount, scale).deviations(spread, sources, out=np.empty((vms, hosts)))
    for v in range(vms):
        others = np.array([h for h in range(hosts) if h != sources[v]])
        one = spread.after([sources[v]], amount[v : v + 1] * scale[sources[v]], others, amount[v] * scale[others])
        assert each[v, others] == pytest.approx(one, abs=1e-7)


@pytest.mark.parametrize("hosts", [10, 50])  # all looked at in each round; most only when they would be next
def test_the_planners_objective_falls_by_what_the_same_descent_promises(hosts):
    search = Search(PlacementState(speed_inputs(hosts, 10 * hosts, seed=3)))
    field = HotHosts(search)
    assert (len(field.sources()) > field.anew) == (hosts == 50)
    last, taken = float("inf"), 0
    for offer in Descent(field):
        assert offer.best is not None
        before, weight = search.objective.score().total, search.state.settings.weight_cost
        search.apply(offer.best)
        field.moved(offer.best)
        fresh = Search(search.state).objective.score().total
        assert search.objective.score().total == pytest.approx(fresh, rel=1e-9)
        assert before - fresh - weight * offer.best.cost == pytest.approx(offer.gain, rel=1e-6, abs=1e-3)
        last, taken = min(last, offer.gain), taken + 1
    assert taken >= 3 and last > 0
    assert not [h for h in field.sources() if field.look([h], taken)[0].best is not None]


def test_a_full_plan_does_not_depend_on_how_often_it_is_made():
    def moves() -> list[tuple[tuple[int, ...], int]]:
        search = Search(PlacementState(speed_inputs(50, 500, seed=2)))
        field, found = HotHosts(search), []
        for offer in Descent(field):
            found.append((offer.best.unit.vms, offer.best.destination))
            search.apply(offer.best)
            field.moved(offer.best)
        return found

    assert moves() == moves() != []
