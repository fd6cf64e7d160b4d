"""Alike and likeness: rows that are the same share a kind; weights stay within their bounds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rebalancerd.predict.alike import Alike
from rebalancerd.predict.likeness import LEAST_WEIGHT, likeness

some = st.sampled_from([0.0, 1.0, 1.5, -2.0, float("nan"), float("inf")])


@given(st.lists(st.tuples(some, some), min_size=1, max_size=40))
def test_kinds_are_exactly_the_distinct_rows(rows):
    columns = [np.array(c) for c in zip(*rows, strict=True)]
    alike = Alike.of(*columns)
    for column in columns:
        np.testing.assert_array_equal(column[alike.first][alike.kind], column)
    assert len(alike.first) == len({tuple("nan" if x != x else x + 0.0 for x in row) for row in rows}) or len(
        alike.first
    ) == len({tuple(np.array(row).view(np.uint64)) for row in rows})


matrices = arrays(
    np.float64, st.tuples(st.integers(0, 30), st.just(3)), elements=st.one_of(st.floats(-5, 5), st.just(np.nan))
)


@given(matrices, matrices)
def test_likeness_is_a_weight(shipped, own):
    weights = likeness(shipped, own)
    assert weights.shape == (shipped.shape[0],)
    assert (weights >= LEAST_WEIGHT).all()
    assert (weights <= 1).all()


def test_what_is_alike_weighs_more():
    random = np.random.default_rng(1)
    own = random.normal(0, 1, (40, 4))
    weights = likeness(np.array([[0.0] * 4, [8.0] * 4]), own)
    assert weights[0] > 0.8
    assert weights[1] < 0.5
