"""What hosts draw at a utilisation, declared as a table, as idle and busy, or not at all."""

import pytest

from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.power_curve import PowerDefaults, host_watts, interpolated, table_fault

DEFAULTS = PowerDefaults(idle_watts=100.0, watts_per_core=10.0)
G4 = (86.0, 89.4, 92.6, 96.0, 99.5, 102.0, 106.0, 108.0, 112.0, 114.0, 117.0)


def host(**more):
    return Host(
        name="a",
        facts=HostFacts(uuid=None, cpus=8, memory_bytes=1),
        **{"cores": 8.0, "memory_bytes": 1, "speed_factor": 1.0, **more},
    )


@pytest.mark.parametrize(("busy", "watts"), [(0.0, 86.0), (4.0, 102.0), (8.0, 117.0), (0.4, 87.7), (99.0, 117.0)])
def test_a_table_is_linear_between_its_points(busy, watts):
    assert host_watts(host(power_watts=G4), busy, DEFAULTS) == pytest.approx(watts)


def test_a_line_from_idle_to_busy():
    assert host_watts(host(idle_watts=90.0, max_watts=250.0), 4.0, DEFAULTS) == pytest.approx(170.0)


def test_the_host_s_own_reserved_cores_draw_too():
    assert host_watts(host(idle_watts=90.0, max_watts=250.0, reserved_cores=2.0), 4.0, DEFAULTS) == pytest.approx(210.0)


def test_a_faster_core_serves_more_of_the_reference():
    assert host_watts(host(idle_watts=90.0, max_watts=250.0, speed_factor=2.0), 8.0, DEFAULTS) == pytest.approx(170.0)


def test_what_nobody_declared_is_the_default():
    assert host_watts(host(), 2.0, DEFAULTS) == pytest.approx(120.0)
    assert host_watts(host(cores=None), 2.0, DEFAULTS) == 100.0
    assert host_watts(host(cores=None, power_watts=G4), 2.0, DEFAULTS) == 86.0


def test_the_ends_of_a_table():
    assert interpolated(G4, 0.0) == 86.0
    assert interpolated(G4, 1.0) == 117.0


@pytest.mark.parametrize(("watts", "words"), [((1.0, 2.0), "not 11"), ((5.0, *range(10)), "must not fall")])
def test_a_table_that_cannot_be(watts, words):
    found = table_fault(watts)
    assert found is not None
    assert words in found


def test_a_table_that_can_be():
    assert table_fault(G4) is None
