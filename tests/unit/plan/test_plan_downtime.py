"""What pre-copy is allowed of the downtime a VM accepts, against the bound that the veto reads."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.units import MIB
from rebalancerd.plan.balance import balance
from rebalancerd.plan.options import PRECOPY_SHARE, downtime_limit, options
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.why_not import why_not
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.settings import PredictSettings
from tests.unit.plan.plan_cluster import host, inputs_of, vm


def curve(mib: float) -> DirtyCurve:
    """A guest that goes on rewriting about that much."""
    points = tuple(
        DirtyPoint(period_seconds=p, unique_bytes=u * MIB, standard_error_bytes=0.03 * u * MIB, readings=5)
        for p, u in ((1.0, mib), (4.0, 1.05 * mib))
    )
    return DirtyCurve(points=points, age_seconds=60.0)


def world(*, dirty: DirtyCurve | None, policy: VmPolicy | None = None):
    """A hot h1; the costs of moving its guests are those of the physics on links of 1 Gbit/s."""
    hosts = [host(name, link_bytes_per_second=125e6) for name in ("h1", "h2")]
    guests = [vm(f"a{i}", "h1", 5.0, 1.0, dirty=dirty, policy=policy) for i in range(3)]
    return replace(inputs_of(hosts, guests), costs=PhysicsCost(PredictSettings()))


def test_qemu_is_allowed_less_than_the_vm_accepts() -> None:
    """Its own limit, else the cluster's; the same share of both."""
    own = vm("a", "h1", policy=VmPolicy(max_downtime_seconds=0.2))

    assert PRECOPY_SHARE < 1
    assert options(vm("a", "h1"), PlanSettings()).max_downtime_seconds == pytest.approx(PRECOPY_SHARE * 0.5)
    assert options(own, PlanSettings()).max_downtime_seconds == pytest.approx(PRECOPY_SHARE * 0.2)
    assert downtime_limit(own, PlanSettings()) == 0.2


@pytest.mark.parametrize("mib", [2, 16, 24, None])
def test_a_guest_whose_last_pages_fill_what_is_allowed_still_moves(mib: float | None) -> None:
    """Working sets up to what just converges (24 MiB), and one that was never measured: the bound fits the limit."""
    inputs = world(dirty=None if mib is None else curve(mib))

    assert not balance(inputs).is_empty
    assert Code.COST_TOO_HIGH not in {r.code for r in balance(inputs).refusals}


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_a_larger_share_would_leave_no_room_for_the_switch_over(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the share is what it is: with more, no guest without a measured curve would ever move."""
    monkeypatch.setattr("rebalancerd.plan.options.PRECOPY_SHARE", share)
    inputs = world(dirty=None)
    refused = why_not(inputs, "u-a0")

    assert balance(inputs).is_empty
    assert [r.code for r in refused] == [Code.COST_TOO_HIGH]
    assert "downtime may be" in refused[0].detail


def test_a_guest_that_dirties_more_than_that_is_refused_still() -> None:
    inputs = world(dirty=curve(600))
    inputs = replace(inputs, settings=replace(inputs.settings, max_migration_seconds=1e6))

    assert balance(inputs).is_empty
    assert {r.code for r in why_not(inputs, "u-a0")} == {Code.WILL_NOT_CONVERGE}
