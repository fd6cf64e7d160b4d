"""PhysicsCost: values, bounds, and what happens to them when inputs are missing."""

import math

import pytest

from rebalancerd.cluster.cost import Candidate, MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.settings import PredictSettings


def curve(*unique, error=0.03, readings=5, age=60.0):
    points = tuple(
        DirtyPoint(period_seconds=p, unique_bytes=u, standard_error_bytes=error * u, readings=readings)
        for p, u in zip((1.0, 4.0, 15.0), unique, strict=False)
    )
    return DirtyCurve(points=points, age_seconds=age)


def vm(uuid="u", *, memory=GIB, held=512 * MIB, dirty=None):
    facts = VmFacts(uuid=uuid, name=uuid, vcpus=1, memory_bytes=memory)
    return Vm(facts=facts, host="a", state=DomainState.RUNNING, load=VmLoad(memory_bytes=held), dirty=dirty)


def snapshot(*vms, link=125e6):
    facts = HostFacts(uuid=None, cpus=4, memory_bytes=8 * GIB)
    hosts = tuple(Host(name=n, facts=facts, link_bytes_per_second=link) for n in ("a", "b", "c"))
    return Snapshot(taken_at=0.0, hosts=hosts, vms=vms)


def cost(guest, *, link=125e6, destination="b", share=1.0, **options):
    candidate = Candidate(
        vm_uuid="u", source="a", destination=destination, link_share=share, options=MigrationOptions(**options)
    )
    return PhysicsCost(PredictSettings()).costs(snapshot(guest, link=link), [candidate])[0]


def width(estimate):
    return estimate.upper / estimate.value


def test_a_quiet_guest_takes_one_copy_of_what_it_holds():
    """512 MiB at nine tenths of 1 Gbit/s and 2 s of handshakes; the empty half of its memory is only page headers."""
    got = cost(vm(dirty=curve(MIB, 2 * MIB)))
    assert got.seconds.value == pytest.approx(512 * MIB / 112.5e6 + 2.0, rel=0.02)
    assert got.bytes.value == pytest.approx(512 * MIB, rel=0.02)
    assert got.non_convergence.upper < 0.1
    assert got.basis == "physics"
    assert got.inputs_missing == ()


def test_a_guest_that_outruns_the_link_is_said_not_to_converge():
    got = cost(vm(memory=4 * GIB, held=4 * GIB, dirty=curve(400 * MIB, 1500 * MIB)))
    assert got.non_convergence.value == 1.0
    assert got.seconds.value == 902.0


def test_a_borderline_guest_is_uncertain():
    """About the working set that just fits the allowed downtime."""
    got = cost(vm(dirty=curve(33.5e6, 35e6)))
    assert 0.1 < got.non_convergence.value < 0.95
    assert got.non_convergence.upper > got.non_convergence.value


@pytest.mark.parametrize(
    "worse",
    [
        {"dirty": curve(8 * MIB, 14 * MIB, error=0.5)},
        {"dirty": curve(8 * MIB, 14 * MIB, readings=1)},
        {"dirty": curve(8 * MIB, 14 * MIB, age=7200.0)},
        {"dirty": curve(8 * MIB)},
        {"dirty": curve(8 * MIB, 14 * MIB, error=math.nan)},
    ],
    ids=["noisy", "single readings", "old", "one period", "no standard error"],
)
def test_worse_readings_widen_the_bounds(worse):
    good, bad = cost(vm(dirty=curve(8 * MIB, 14 * MIB, error=0.01))), cost(vm(**worse))
    assert width(bad.seconds) > width(good.seconds)
    assert bad.downtime_seconds.upper > good.downtime_seconds.upper


class TestMissing:
    """Missing inputs widen bounds and are named; they never fail."""

    def test_no_dirty_curve(self):
        got = cost(vm())
        assert got.inputs_missing == ("dirty",)
        assert (got.non_convergence.value, got.non_convergence.upper) == (0.1, 0.3)
        assert got.seconds.upper > 4 * 512 * MIB / 112.5e6
        assert got.bytes.upper >= 5 * 512 * MIB

    def test_no_dirty_curve_but_all_memory_fits_the_downtime(self):
        """32 MiB cross within the allowed downtime, whatever the guest writes."""
        got = cost(vm(memory=24 * MIB, held=24 * MIB))
        assert got.non_convergence.upper <= 0.02
        assert got.inputs_missing == ("dirty",)

    def test_unknown_memory_means_all_of_it(self):
        got = cost(vm(held=None, dirty=curve(MIB, 2 * MIB)))
        assert got.inputs_missing == ("memory",)
        assert got.bytes.value >= GIB

    def test_one_period_only(self):
        assert cost(vm(dirty=curve(MIB))).inputs_missing == ("dirty_second_period",)

    def test_absurd_readings_are_no_readings(self):
        assert cost(vm(dirty=curve(math.nan, 2 * MIB))).inputs_missing == ("dirty",)
        assert cost(vm(dirty=curve(-MIB, 2 * MIB))).inputs_missing == ("dirty",)

    def test_unknown_host(self):
        got = cost(vm(dirty=curve(MIB, 2 * MIB)), destination="nowhere")
        assert got.inputs_missing == ("link",)
        assert width(got.seconds) > 4

    def test_unknown_vm(self):
        snap = snapshot(vm(dirty=curve(MIB, 2 * MIB)))
        asked = [Candidate(vm_uuid=u, source="a", destination="b") for u in ("gone", "u")]
        gone, known = PhysicsCost(PredictSettings()).costs(snap, asked)
        assert gone.inputs_missing == ("vm",)
        assert gone.seconds.upper == math.inf
        assert gone.non_convergence.value == 1.0
        assert known.inputs_missing == ()

    def test_nothing_asked(self):
        assert tuple(PhysicsCost(PredictSettings()).costs(snapshot(), [])) == ()


def test_the_bound_of_the_downtime_covers_a_round_more_or_less():
    """A little more luck saves the last round and leaves the most that is allowed for the switch-over."""
    got = cost(vm(dirty=curve(30 * MIB, 60 * MIB)))
    assert got.downtime_seconds.upper >= 0.3


def test_a_share_of_the_link_and_a_cap_both_slow_down():
    guest = vm(dirty=curve(MIB, 2 * MIB))
    alone, shared, capped = cost(guest), cost(guest, share=0.5), cost(guest, bandwidth_bytes_per_second=20e6)
    assert shared.seconds.value - 2 == pytest.approx(2 * (alone.seconds.value - 2), rel=0.05)
    assert capped.seconds.value > shared.seconds.value
    assert capped.downtime_seconds.value <= shared.downtime_seconds.value


def test_auto_converge_trades_slowdown_for_convergence():
    guest = vm(dirty=curve(96e6, 100e6))
    assert cost(guest).non_convergence.value > 0.5
    got = cost(guest, auto_converge=True)
    assert got.non_convergence.value < 0.05
    assert got.slowdown.value > 0.1


def test_order_and_company_of_candidates_do_not_matter():
    guests = [
        vm(f"v{i}", held=(i + 1) * 100 * MIB, dirty=curve(i * MIB, 2 * i * MIB) if i % 2 else None) for i in range(6)
    ]
    snap, model = snapshot(*guests), PhysicsCost(PredictSettings())
    asked = [Candidate(vm_uuid=g.uuid, source="a", destination=d) for g in guests for d in "bc"]
    together = model.costs(snap, asked)
    assert tuple(together) == tuple(reversed(model.costs(snap, asked[::-1])))
    assert tuple(together) == tuple(model.costs(snap, [c])[0] for c in asked)


def test_levels_simulated_together_are_those_simulated_one_by_one(monkeypatch):
    from rebalancerd.predict import cost as module

    guests = [
        vm("u", dirty=curve(40 * MIB, 90 * MIB)),
        vm("v", dirty=curve(200 * MIB)),
        vm("w"),
        vm("x", memory=4 * GIB, held=3 * GIB, dirty=curve(300 * MIB, 900 * MIB, 2000 * MIB, age=7200.0)),
    ]
    asked = [
        Candidate(vm_uuid=g, source="a", destination=d, link_share=s, options=MigrationOptions(auto_converge=auto))
        for g in "uvwx"
        for d, s, auto in (("b", 1.0, False), ("c", 0.5, True))
    ]
    model = PhysicsCost(PredictSettings())
    together = list(model.costs(snapshot(*guests), asked))
    monkeypatch.setattr(module, "STACKED", 0)

    assert list(model.costs(snapshot(*guests), asked)) == together
