"""PersistenceDemand: present load plus joint residuals, and cautious stand-ins for what is unknown."""

import math

import numpy as np
import pytest

from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.settings import PredictSettings

SETTINGS = PredictSettings(paths=32, horizon_seconds=900, step_seconds=300)
STEPS = 3
EMPTY = Series.empty("x", 300.0, 0.0)


def vm(uuid, *, cpu=1.0, steal=None, memory=GIB, vcpus=4, host="a", state=DomainState.RUNNING):
    facts = VmFacts(uuid=uuid, name=uuid, vcpus=vcpus, memory_bytes=4 * GIB)
    load = VmLoad(cpu_cores=cpu, steal_cores=steal, memory_bytes=memory)
    return Vm(facts=facts, host=host, state=state, load=load)


def snapshot(*vms, unusable=None):
    facts = HostFacts(uuid=None, cpus=8, memory_bytes=64 * GIB)
    hosts = (
        Host(name="a", facts=facts, cores=8, memory_bytes=64 * GIB, unusable=unusable),
        Host(name="fast", facts=facts, cores=8, memory_bytes=64 * GIB, speed_factor=1.5),
    )
    return Snapshot(taken_at=300_000.0, hosts=hosts, vms=vms)


def series(**columns):
    values = np.array(list(columns.values()), dtype=np.float32).T
    return Series(resource="x", ids=tuple(columns), values=values, step_seconds=300.0, end=300_000.0)


def predict(snap, cpu=EMPTY, memory=EMPTY, settings=SETTINGS):
    return PersistenceDemand(settings).scenarios(snap, cpu, memory)


def test_shape_basis_and_order():
    got = predict(snapshot(vm("v"), vm("u")))
    assert got.vm_uuids == ("u", "v")
    assert got.cpu_cores.shape == got.memory_bytes.shape == (2, 32 * STEPS)
    assert got.cpu_cores.dtype == np.float32
    assert (got.paths, got.steps, got.basis) == (32, STEPS, "persistence")


def test_a_constant_past_predicts_the_present():
    got = predict(snapshot(vm("u", cpu=1.5)), series(u=[0.7] * 50), series(u=[5e8] * 50))
    np.testing.assert_allclose(got.cpu_cores, 1.5, atol=1e-6)
    np.testing.assert_allclose(got.memory_bytes, GIB)
    assert got.known.all()


def test_a_ramp_goes_on_from_the_present():
    """+0.01 cores a step in the past: +0.01, +0.02, +0.03 from now on, in every path."""
    got = predict(snapshot(vm("u", cpu=2.0)), series(u=np.arange(60) * 0.01))
    np.testing.assert_allclose(got.cpu_cores.reshape(32, STEPS), np.tile([2.01, 2.02, 2.03], (32, 1)), atol=1e-5)


def test_residuals_are_joint():
    """Two VMs that moved against each other keep doing so: their sum is as steady as it was."""
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, 200)
    got = predict(snapshot(vm("u", cpu=2.0), vm("v", cpu=2.0)), series(u=1 + noise, v=1 - noise))
    assert got.cpu_cores[0].std() > 0.1
    np.testing.assert_allclose(got.cpu_cores.sum(axis=0), 4.0, atol=1e-4)


def test_column_order_of_the_history_does_not_matter():
    snap = snapshot(vm("u"), vm("v", cpu=2.0))
    rng = np.random.default_rng(1)
    one, two = rng.random(40), rng.random(40)
    first, second = predict(snap, series(u=one, v=two)), predict(snap, series(v=two, u=one))
    np.testing.assert_array_equal(first.cpu_cores, second.cpu_cores)


def test_seed_decides_which_rows_are_drawn():
    snap, past = snapshot(vm("u", cpu=2.0)), series(u=np.random.default_rng(1).random(300))
    again = [predict(snap, past, settings=PredictSettings(paths=16, seed=s)).cpu_cores for s in (1, 1, 2)]
    np.testing.assert_array_equal(again[0], again[1])
    assert (again[0] != again[2]).any()


def test_most_rows_stay_from_one_cycle_to_the_next():
    """A row that was drawn is drawn again until it leaves the window, so decisions do not flap with the draw."""
    past = np.random.default_rng(1).random(400).astype(np.float32)
    settings = PredictSettings(paths=64, horizon_seconds=300)

    def drawn(end):
        s = Series(
            resource="x", ids=("u",), values=past[: 390 + end, None], step_seconds=300.0, end=300.0 * (1000 + end)
        )
        return {round(float(x), 5) for x in predict(snapshot(vm("u", cpu=2.0)), s, settings=settings).cpu_cores[0]}

    assert len(drawn(0) & drawn(1)) >= 60


def test_a_coarser_history_is_read_at_its_own_step():
    """One hour a row: what happened in the next row is the least that is known of the next five minutes."""
    hourly = Series(
        resource="x", ids=("u",), values=np.arange(50, dtype=np.float32)[:, None] * 0.1, step_seconds=3600.0, end=3.6e5
    )
    got = predict(snapshot(vm("u", cpu=1.0)), hourly)
    np.testing.assert_allclose(got.cpu_cores, 1.1, atol=1e-5)


class TestPresent:
    """What counts as the present demand."""

    def flat(self, guest):
        return float(predict(snapshot(guest), series(**{guest.uuid: [0.5] * 40})).cpu_cores[0, 0])

    def test_starved_guests_want_more_than_they_use(self):
        assert self.flat(vm("u", cpu=1.0, steal=0.1)) == pytest.approx(1.1)

    def test_delay_tells_that_a_guest_is_starved_not_by_how_much(self):
        """Three guests that want a third of a core each on half a core are runnable all the time."""
        assert self.flat(vm("u", cpu=0.17, steal=0.83)) == pytest.approx(0.17 * 1.25)

    def test_nobody_wants_more_than_all_vcpus(self):
        assert self.flat(vm("u", cpu=3.5, steal=2.0)) == pytest.approx(4.0)

    def test_a_faster_host_counts_in_reference_cores(self):
        assert self.flat(vm("u", cpu=2.0, host="fast")) == pytest.approx(3.0)

    def test_a_vm_that_is_shut_off_asks_for_nothing(self):
        got = predict(snapshot(vm("u", cpu=None, memory=None, state=DomainState.SHUTOFF)))
        assert got.cpu_cores.max() == got.memory_bytes.max() == 0
        assert got.known.all()


class TestUnknown:
    """Unknown is a cautious stand-in, marked as such, never zero."""

    @pytest.mark.parametrize("value", [None, math.nan, math.inf, -1.0])
    def test_unknown_cpu_without_history_is_all_vcpus(self, value):
        got = predict(snapshot(vm("u", cpu=value)))
        assert (got.cpu_cores == 4.0).all()
        assert not got.known[0]

    def test_unknown_cpu_with_history_is_its_recorded_peak(self):
        got = predict(snapshot(vm("u", cpu=None)), series(u=[1.0, 2.5, math.nan, 1.0] * 10))
        assert (got.cpu_cores == 2.5).all()
        assert not got.known[0]

    def test_an_idle_past_is_no_proof_of_an_idle_present(self):
        got = predict(snapshot(vm("u", cpu=None)), series(u=[0.0] * 40))
        assert (got.cpu_cores == 1.0).all()

    @pytest.mark.parametrize("value", [None, 0])
    def test_unknown_memory_is_all_configured_memory(self, value):
        """A running VM that holds no memory at all is a fault of the telemetry."""
        got = predict(snapshot(vm("u", memory=value)))
        assert (got.memory_bytes == 4 * GIB).all()
        assert not got.known[0]

    def test_figures_of_a_host_that_is_not_usable_are_not_known(self):
        got = predict(snapshot(vm("u", cpu=0.1), unusable="stale for 90 s"))
        assert (got.cpu_cores == 4.0).all()
        assert not got.known[0]

    def test_known_load_without_history_is_spread_around_the_present(self):
        got = predict(snapshot(vm("u", cpu=2.0)))
        assert got.known[0]
        assert got.cpu_cores.min() < 2.0 < got.cpu_cores.max()
        assert float(np.median(got.cpu_cores)) == pytest.approx(2.0, abs=0.05)

    def test_gaps_in_the_history_are_filled_with_the_assumed_spread(self):
        gappy = series(u=[1.0] * 10 + [math.nan] * 10 + [1.0] * 10)
        got = predict(snapshot(vm("u", cpu=2.0)), gappy)
        assert (got.cpu_cores == 2.0).any()
        assert (got.cpu_cores != 2.0).any()

    def test_an_empty_cluster_has_empty_scenarios(self):
        assert predict(snapshot(), series(u=[1.0] * 40)).cpu_cores.shape == (0, 32 * STEPS)
