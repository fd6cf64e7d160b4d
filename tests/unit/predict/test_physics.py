"""The simulated pre-copy against closed forms and known behaviour of QEMU."""

import numpy as np
import pytest

from rebalancerd.cluster.units import MIB
from rebalancerd.predict.physics import PAGE_OVERHEAD, DirtyCurves, PrecopyInputs, simulate, wire_bytes


def run(
    resident,
    unique,
    *,
    seconds=(1.0, 4.0),
    zero=0.0,
    rate=100 * MIB,
    link=None,
    downtime=0.3,
    deadline=900.0,
    auto=False,
    cpu_share=None,
    left=1.0,
):
    one = lambda x: np.array([float(x)])  # noqa: E731
    return simulate(
        PrecopyInputs(
            resident_bytes=one(resident),
            zero_bytes=one(zero),
            rate_bytes_per_second=one(rate),
            link_bytes_per_second=one(link or rate),
            max_downtime_seconds=one(downtime),
            deadline_seconds=one(deadline),
            auto_converge=np.array([auto]),
            cpu_share=None if cpu_share is None else np.array([cpu_share]),
            curves=DirtyCurves.of(
                np.array([seconds]), np.array([unique], dtype=float), one(resident), left_weight=left
            ),
        )
    )


def test_linear_curve_is_the_geometric_series():
    """Liu HPDC'11: V_i = M·λ^i, rounds until V_n ≤ R·d, bytes = M·(1 − λ^(n+1)) / (1 − λ)."""
    memory, rate, downtime, ratio = 1000 * MIB, 100 * MIB, 0.3, 0.5
    dirty = ratio * rate / PAGE_OVERHEAD
    got = run(memory, (dirty, 4 * dirty), rate=rate, downtime=downtime)
    sent = memory * PAGE_OVERHEAD
    n = int(np.ceil(np.log(rate * downtime / sent) / np.log(ratio)))
    assert got.converged[0]
    assert got.rounds[0] == n + 1
    assert got.bytes[0] == pytest.approx(sent * (1 - ratio ** (n + 1)) / (1 - ratio))
    assert got.seconds[0] == pytest.approx(got.bytes[0] / rate)
    assert got.downtime_seconds[0] == pytest.approx(sent * ratio**n / rate)


def test_idle_guest_needs_one_copy():
    got = run(512 * MIB, (0, 0))
    assert got.rounds[0] == 2
    assert got.bytes[0] == pytest.approx(512 * MIB * PAGE_OVERHEAD)
    assert got.downtime_seconds[0] == 0


def test_working_set_larger_than_the_allowed_remainder_never_converges():
    """A finite working set alone does not save a migration: 99 MiB stay dirty, 30 MiB are allowed."""
    got = run(512 * MIB, (98 * MIB, 99 * MIB), deadline=200)
    assert not got.converged[0]
    assert got.seconds[0] == 200
    assert got.bytes[0] == 200 * 100 * MIB


def test_saturating_curve_converges_where_a_single_rate_would_not():
    """20 MiB rewritten all the time at a rate far above the link: unique pages are what counts."""
    assert run(512 * MIB, (20 * MIB, 20 * MIB)).converged[0]


def test_cap_decides_but_link_carries_the_switch_over():
    """QEMU decides with the capped rate and lifts the cap for the switch-over."""
    got = run(100 * MIB, (4 * MIB, 5 * MIB), rate=20 * MIB, link=200 * MIB)
    assert got.converged[0]
    assert got.switch_bytes[0] / (20 * MIB) <= 0.3
    assert got.downtime_seconds[0] == pytest.approx(got.switch_bytes[0] / (200 * MIB))


def test_zero_pages_cost_their_headers():
    got = run(100 * MIB, (0, 0), zero=900 * MIB)
    assert got.bytes[0] == pytest.approx(100 * MIB * PAGE_OVERHEAD + 900 * MIB / 4096 * 8)
    assert wire_bytes(np.array([0.0]), np.array([4096.0]))[0] == 8


def test_auto_converge_rescues_at_the_price_of_throttling():
    """Throttled 20 %, then 10 % more at every second round that dirties over half of what was sent."""
    assert not run(512 * MIB, (98 * MIB, 99 * MIB)).converged[0]
    got = run(512 * MIB, (98 * MIB, 99 * MIB), auto=True)
    assert got.converged[0]
    assert 0.1 < got.throttle[0] < 0.99


def test_throttling_takes_nothing_from_a_guest_that_needs_less_than_is_left():
    """A guest on a fifth of its vCPUs dirties on until four fifths are taken: many rounds later than a busy one."""
    busy, idler = (run(512 * MIB, (98 * MIB, 99 * MIB), auto=True, cpu_share=share) for share in (1.0, 0.2))
    assert busy.seconds[0] == run(512 * MIB, (98 * MIB, 99 * MIB), auto=True).seconds[0]
    assert idler.rounds[0] > busy.rounds[0] + 5
    assert idler.throttle[0] > busy.throttle[0]


def test_auto_converge_leaves_a_guest_alone_that_converges_anyway():
    assert run(512 * MIB, (2 * MIB, 4 * MIB), auto=True).throttle[0] == 0


def test_deadline_counts_as_not_converging():
    assert not run(2000 * MIB, (MIB, MIB), deadline=10).converged[0]


class TestCurve:
    """Between, left of and right of the measured points."""

    def curve(self, left=1.0, points=((1.0, 4.0), (40.0, 55.0)), limit=1000.0):
        return DirtyCurves.of(np.array([points[0]]), np.array([points[1]]), np.array([limit]), left_weight=left)

    def at(self, t, **kw):
        return self.curve(**kw).at(np.array([t]))[0]

    def test_passes_through_the_points(self):
        assert self.at(1.0) == 40
        assert self.at(4.0) == 55
        assert self.at(2.0) == 45

    def test_goes_on_with_the_last_slope_up_to_the_limit(self):
        assert self.at(6.0) == 65
        assert self.at(1e6) == 1000

    def test_left_of_the_first_point(self):
        assert self.at(0.5, left=1.0) == 37.5
        assert self.at(0.5, left=0.0) == 20.0
        assert self.at(0.5, left=0.5) == pytest.approx(28.75)

    def test_noisy_convex_curve_never_falls_below_its_chord(self):
        assert self.at(0.5, points=((1.0, 4.0), (10.0, 100.0))) == 5.0

    def test_falling_readings_are_noise(self):
        assert self.at(4.0, points=((1.0, 4.0), (50.0, 30.0))) == 50.0

    def test_one_point_is_taken_for_the_highest_concave_curve_through_it(self):
        lone = ((1.0,), (40.0,))
        assert self.at(0.5, points=lone) == 40.0
        assert self.at(0.5, points=lone, left=0.0) == 20.0
        assert self.at(3.0, points=lone) == 120.0

    @pytest.mark.parametrize(
        ("seconds", "unique"),
        [
            ([[4.0, 1.0]], [[1.0, 2.0]]),
            ([[0.0, 1.0]], [[1.0, 2.0]]),
            ([[1.0]], [[-1.0]]),
            ([[1.0]], [[np.nan]]),
            ([[]], [[]]),
        ],
    )
    def test_rejects_what_is_no_curve(self, seconds, unique):
        with pytest.raises(ValueError, match="dirty curves"):
            DirtyCurves.of(np.array(seconds), np.array(unique), np.array([1.0]))
