"""Laws of the simulated pre-copy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rebalancerd.predict.physics import DirtyCurves, PrecopyInputs, simulate

MIB = float(2**20)
memory = st.floats(64, 65536).map(lambda m: m * MIB)
rate = st.floats(5, 5000).map(lambda m: m * MIB)
dirty = st.tuples(st.floats(0, 500), st.floats(0, 500)).map(lambda p: (p[0] * MIB, (p[0] + p[1]) * MIB))
larger = st.floats(1.0, 20.0)


def both(first, second):
    """Simulate two migrations side by side; each is (resident, rate, curve)."""
    rows = (first, second)
    column = lambda i: np.array([row[i] for row in rows], dtype=np.float64)  # noqa: E731
    return simulate(
        PrecopyInputs(
            resident_bytes=column(0),
            zero_bytes=np.zeros(2),
            rate_bytes_per_second=column(1),
            link_bytes_per_second=column(1),
            max_downtime_seconds=np.full(2, 0.3),
            deadline_seconds=np.full(2, 900.0),
            auto_converge=np.zeros(2, dtype=np.bool_),
            curves=DirtyCurves.of(np.tile([1.0, 4.0], (2, 1)), np.array([row[2] for row in rows]), column(0)),
        )
    )


def no_better(result):
    """The second case takes no less time and converges only if the first does."""
    slack = 1 + 1e-9
    assert result.seconds[1] * slack >= result.seconds[0]
    assert result.converged[0] or not result.converged[1]


@given(memory, rate, dirty, larger)
def test_more_memory_never_helps(m, r, d, k):
    no_better(both((m, r, d), (m * k, r, d)))


@given(memory, rate, dirty, larger)
def test_more_dirtying_never_helps(m, r, d, k):
    no_better(both((m, r, d), (m, r, (d[0] * k, d[1] * k))))


@given(memory, rate, dirty, larger)
def test_a_slower_link_never_helps(m, r, d, k):
    no_better(both((m, r, d), (m, r / k, d)))


@given(memory, rate, dirty)
def test_all_memory_crosses_and_nothing_is_nan(m, r, d):
    got = both((m, r, d), (m, r, d))
    assert (got.bytes >= m).all()
    for figure in (got.seconds, got.downtime_seconds, got.bytes, got.throttle):
        assert np.isfinite(figure).all()
        assert (figure >= 0).all()
    assert got.seconds[0] == got.seconds[1]


@given(memory, rate, dirty)
def test_a_converged_switch_over_is_within_the_allowed_downtime(m, r, d):
    got = both((m, r, d), (m, r, d))
    assert not got.converged[0] or got.downtime_seconds[0] <= 0.3 + 1e-9
