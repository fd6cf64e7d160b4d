"""The power model from readings: outliers do not bend it, and what is no line or too little is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.power_curve import PowerDefaults
from rebalancerd.cluster.power_fit import MOST_WATTS, READINGS_MIN, PowerFit, WattsReading, fit, odd, told


def readings(watts: list[float], use: list[float]) -> list[WattsReading]:
    return [WattsReading(float(i), w, u) for i, (w, u) in enumerate(zip(watts, use, strict=True))]


def line(count: int = 100, idle: float = 90.0, slope: float = 150.0, noise: float = 4.0, seed: int = 1):
    rng = np.random.default_rng(seed)
    use = rng.uniform(0.05, 0.8, count)
    return readings(list(idle + slope * use + rng.normal(0, noise, count)), list(use))


def test_a_line_is_found_in_noise() -> None:
    found = fit(line(), "its controller")
    assert isinstance(found, PowerFit)
    assert found.idle_watts == pytest.approx(90, abs=3)
    assert found.busy_watts == pytest.approx(240, abs=5)
    assert (found.readings, found.source) == (100, "its controller")


def test_a_fifth_of_wild_readings_does_not_bend_it() -> None:
    rows = line()
    wild = [WattsReading(r.at, 4000.0 if i % 5 == 0 else r.watts, r.utilisation) for i, r in enumerate(rows)]
    found = fit(wild, "x")
    assert isinstance(found, PowerFit)
    assert found.idle_watts == pytest.approx(90, abs=12)
    assert found.busy_watts == pytest.approx(240, abs=30)


@pytest.mark.parametrize(
    ("watts", "use", "why"),
    [
        (float("nan"), 0.5, "no number"),
        (float("inf"), 0.5, "no number"),
        (100.0, float("nan"), "no number"),
        (0.0, 0.5, "not above 0 W"),
        (-3.0, 0.5, "not above 0 W"),
        (MOST_WATTS + 1, 0.5, "above 20000 W"),
        (100.0, -0.1, "utilisation"),
        (100.0, 1.5, "utilisation"),
    ],
)
def test_what_cannot_be_true_is_no_reading(watts: float, use: float, why: str) -> None:
    bad = WattsReading(0.0, watts, use)
    assert why in str(odd(bad))
    assert fit([*line(), *([bad] * 50)], "x") == fit(line(), "x")


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (line(READINGS_MIN - 1), f"23 of {READINGS_MIN} readings"),
        (readings([100.0] * 50, list(np.linspace(0.4, 0.5, 50))), "only seen from 40 to 50 %"),
        (line(slope=-80.0, idle=200.0), "less the busier"),
        (readings(list(np.tile([20.0, 900.0], 50)), list(np.linspace(0, 1, 100))), "off any line"),
    ],
)
def test_what_is_no_model_says_why(rows: list[WattsReading], why: str) -> None:
    assert why in str(fit(rows, "x"))


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=80))
def test_whatever_is_read_the_model_is_within_bounds(rows: list[tuple[float, float]]) -> None:
    found = fit([WattsReading(0.0, w, u) for w, u in rows], "x")
    if isinstance(found, PowerFit):
        assert 0 <= found.idle_watts <= found.busy_watts <= MOST_WATTS


def test_which_model_is_used_is_said() -> None:
    given_by = PowerDefaults(idle_watts=100.0, watts_per_core=10.0)
    plain = Host(name="a", facts=None)
    table = Host(name="a", facts=None, power_watts=tuple(float(w) for w in range(80, 91)))
    stated = Host(name="a", facts=None, idle_watts=70.0, max_watts=200.0)
    found = PowerFit(idle_watts=88.0, busy_watts=210.5, readings=30, source="its controller")
    assert told(plain, None, given_by) == "assumed: 100 W idle, 10 W per busy core assumed"
    assert told(table, None, given_by) == "declared table: 80 W idle, 90 W busy"
    assert told(stated, None, given_by) == "declared: 70 W idle, 200 W busy"
    measured = "measured by its controller (30 readings): 88 W idle, 210.5 W busy"
    assert told(table, found, given_by) == measured
