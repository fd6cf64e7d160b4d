"""The shared words refuse what they cannot mean, and say what they are asked."""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from rebalancerd.cluster.cost import Estimate
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint, DirtyReading
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.migration import CRITICAL_STATES, OPEN_STATES, MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Plan, Score
from rebalancerd.cluster.policy import Mode, stricter
from rebalancerd.cluster.refusal import Code, SubjectKind, about_cluster, about_host, about_plan, about_vm
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import InFlight, Snapshot
from rebalancerd.cluster.units import gib, mbit_per_second, mib
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad


def vm(uuid, host="a", **kw):
    facts = VmFacts(uuid=uuid, name=f"name-{uuid}", vcpus=1, memory_bytes=gib(1))
    return Vm(facts=facts, host=host, state=DomainState.RUNNING, **kw)


def host(name, **kw):
    return Host(name=name, facts=HostFacts(uuid=name, cpus=4, memory_bytes=gib(8)), **kw)


def test_units():
    assert (mib(2), gib(1), mbit_per_second(1000)) == (2 * 1024**2, 1024**3, 125e6)


class TestSnapshot:
    """One canonical picture of the cluster."""

    def test_order_of_hosts_and_vms_does_not_matter(self):
        one = Snapshot(taken_at=1.0, hosts=(host("b"), host("a")), vms=(vm("v"), vm("u", "b")))
        two = Snapshot(taken_at=1.0, hosts=(host("a"), host("b")), vms=(vm("u", "b"), vm("v")))
        assert one == two
        assert one.digest == two.digest
        assert [h.name for h in one.hosts] == ["a", "b"]
        assert [v.uuid for v in one.vms] == ["u", "v"]

    def test_digest_sees_every_change(self):
        base = Snapshot(taken_at=1.0, hosts=(host("a"), host("b")), vms=(vm("u"),))
        changed = [
            replace(base, taken_at=2.0),
            replace(base, vms=(vm("u", "b"),)),
            replace(base, vms=(vm("u", load=VmLoad(cpu_cores=0.1)),)),
            replace(base, hosts=(host("a", unusable="stale"), host("b"))),
            replace(base, warming_up=True),
            replace(base, frozen="jump"),
            replace(base, in_flight=(InFlight(vm_uuid="u", source="a", destination=None, ours=False),)),
        ]
        assert len({base.digest, *(s.digest for s in changed)}) == len(changed) + 1

    def test_unknown_is_not_zero(self):
        known, unknown = (
            Snapshot(taken_at=1.0, hosts=(host("a"),), vms=(vm("u", load=VmLoad(cpu_cores=c)),)) for c in (0.0, None)
        )
        assert known.digest != unknown.digest

    @pytest.mark.parametrize(
        ("hosts", "vms", "message"),
        [
            (("a", "a"), (), "host named twice"),
            (("a",), (("u", "a"), ("u", "a")), "stands twice"),
            (("a",), (("u", "z"),), "not in the snapshot"),
        ],
    )
    def test_refuses(self, hosts, vms, message):
        with pytest.raises(ValueError, match=message):
            Snapshot(taken_at=0.0, hosts=tuple(map(host, hosts)), vms=tuple(vm(*v) for v in vms))

    def test_lookups(self):
        s = Snapshot(taken_at=0.0, hosts=(host("a"), host("b")), vms=(vm("u"),))
        assert s.vms_on == {"a": s.vms, "b": ()}
        assert s.host("b").name == "b"
        assert s.vm("u").name == "name-u"
        with pytest.raises(KeyError):
            s.vm("name-u")

    def test_is_frozen(self):
        with pytest.raises(FrozenInstanceError):
            Snapshot(taken_at=0.0, hosts=(), vms=()).taken_at = 1.0


class TestHost:
    """Capacity is what is left after the reservation, in reference cores; unknown stays unknown."""

    def test_capacity(self):
        h = host("a", cores=10.0, reserved_cores=2.0, speed_factor=1.5, memory_bytes=100, reserved_memory_bytes=30)
        assert (h.capacity_cores, h.capacity_memory_bytes) == (12.0, 70)

    def test_a_reservation_larger_than_the_host_leaves_nothing(self):
        h = host("a", cores=1.0, reserved_cores=2.0, memory_bytes=1, reserved_memory_bytes=2)
        assert (h.capacity_cores, h.capacity_memory_bytes) == (0.0, 0)

    def test_unknown(self):
        assert host("a").capacity_cores is None
        assert host("a").capacity_memory_bytes is None

    def test_usable(self):
        assert host("a").usable
        assert not host("a", unusable="stale").usable
        assert not Host(name="a", facts=None).usable


class TestScenarios:
    """Shapes agree, values are sane, sums and peaks mean what they say."""

    def build(self, cpu, memory=None, uuids=("u", "v"), paths=2, steps=2):
        cpu = np.array(cpu, dtype=np.float32)
        memory = np.zeros_like(cpu) if memory is None else np.array(memory, dtype=np.float32)
        return Scenarios(
            vm_uuids=uuids,
            paths=paths,
            steps=steps,
            step_seconds=300.0,
            cpu_cores=cpu,
            memory_bytes=memory,
            known=np.ones(len(uuids), dtype=np.bool_),
            basis="test",
        )

    def test_a_sum_of_peaks_is_not_the_peak_of_a_sum(self):
        s = self.build([[1, 5, 2, 2], [5, 1, 2, 2]])
        assert s.peaks(s.cpu_cores.sum(axis=0)).tolist() == [6.0, 4.0]
        assert s.peaks(s.cpu_cores).sum(axis=0).tolist() == [10.0, 4.0]

    def test_rows_and_horizon(self):
        s = self.build([[1] * 4] * 2)
        assert s.row == {"u": 0, "v": 1}
        assert s.horizon_seconds == 600.0

    @pytest.mark.parametrize(
        ("cpu", "message"),
        [
            ([[1.0] * 4], "shape"),
            ([[1.0] * 3] * 2, "shape"),
            ([[1.0] * 4, [math.nan] * 4], "NaN"),
            ([[1.0] * 4, [math.inf] * 4], "NaN"),
            ([[1.0] * 4, [-1.0] * 4], "negative"),
        ],
    )
    def test_refuses(self, cpu, message):
        with pytest.raises(ValueError, match=message):
            self.build(cpu, memory=np.zeros((2, 4)))
        if np.shape(cpu) == (2, 4):
            with pytest.raises(ValueError, match="memory_bytes"):
                self.build(np.zeros((2, 4)), memory=cpu)

    def test_cannot_be_written(self):
        with pytest.raises(ValueError, match="read-only"):
            self.build([[1.0] * 4] * 2).cpu_cores[0, 0] = 9.0

    def test_no_vms(self):
        assert self.build(np.zeros((0, 4)), uuids=()).row == {}


class TestPlan:
    """A plan's digest covers everything but its id."""

    base = Plan(
        id="p1",
        policy="balance",
        created_at=1.0,
        expires_at=2.0,
        snapshot_digest="d",
        steps=(),
        before=Score(total=1.0, unmet=1.0, imbalance=0.0),
        after=Score(total=0.5, unmet=0.5, imbalance=0.0),
        why="",
    )

    def test_the_id_is_no_content(self):
        assert replace(self.base, id="p2").digest == self.base.digest

    def test_any_other_field_is(self):
        changes = {
            "policy": "drain",
            "created_at": 1.5,
            "expires_at": 3.0,
            "snapshot_digest": "e",
            "before": Score(total=2.0, unmet=1.0, imbalance=0.0),
            "after": Score(total=0.4, unmet=0.5, imbalance=0.0),
            "why": "x",
            "hot_hosts": ("a",),
            "refusals": (about_cluster(Code.BALANCED, ""),),
            "basis": "model",
            "format": 2,
            "benefit": 2.0,
            "payback_seconds": 2.0,
            "level": "calm",
        }
        assert set(changes) | {"id", "steps"} == set(Plan.__dataclass_fields__)
        digests = {replace(self.base, **{name: value}).digest for name, value in changes.items()}
        assert len(digests | {self.base.digest}) == len(changes) + 1

    def test_steps(self):
        assert self.base.is_empty
        with pytest.raises(KeyError):
            self.base.step(1)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ((Mode.AUTO, Mode.OBSERVE), Mode.OBSERVE),
        ((Mode.GUARDED, None), Mode.GUARDED),
        ((Mode.RECOMMEND, Mode.GUARDED, Mode.AUTO), Mode.RECOMMEND),
        ((None,), Mode.AUTO),
        ((), Mode.AUTO),
    ],
)
def test_the_stricter_mode_wins(modes, expected):
    assert stricter(*modes) is expected


def test_only_two_modes_act():
    assert [m.may_act for m in Mode] == [False, False, True, True]


@pytest.mark.parametrize(("value", "upper"), [(-1, 1), (2, 1), (math.nan, 1), (1, math.nan)])
def test_what_is_no_estimate(value, upper):
    with pytest.raises(ValueError, match="not an estimate"):
        Estimate(value=value, upper=upper)


def test_dirty_readings():
    assert DirtyReading(taken_at=0.0, period_seconds=4.0, rate_bytes_per_second=10.0).unique_bytes == 40.0


@pytest.mark.parametrize("periods", [(), (0.0,), (-1.0, 2.0), (2.0, 1.0), (1.0, 1.0)])
def test_what_is_no_dirty_curve(periods):
    points = tuple(
        DirtyPoint(period_seconds=p, unique_bytes=1.0, standard_error_bytes=0.0, readings=1) for p in periods
    )
    with pytest.raises(ValueError, match="periods"):
        DirtyCurve(points=points, age_seconds=0.0)


def test_series_checks_its_shape_and_cannot_be_written():
    with pytest.raises(ValueError, match="does not match"):
        Series(resource="cpu", ids=("u",), values=np.zeros((3, 2), dtype=np.float32), step_seconds=1.0, end=0.0)
    series = Series(resource="cpu", ids=("u",), values=np.zeros((3, 1), dtype=np.float32), step_seconds=1.0, end=0.0)
    with pytest.raises(ValueError, match="read-only"):
        series.values[0, 0] = 1.0
    assert Series.empty("cpu", 300.0, 0.0).values.shape == (0, 0)


def test_migration_states():
    assert not OPEN_STATES & CRITICAL_STATES
    assert MigrationState.STUCK.is_open
    assert not MigrationState.SUCCEEDED.is_open
    record = MigrationRecord(
        id="m", vm_uuid="u", vm_name="n", source="a", destination="b", state=MigrationState.RUNNING, intent_at=1.0
    )
    assert record.seconds is None
    assert replace(record, started_at=2.0, ended_at=5.0).seconds == 3.0


def test_domain_states():
    assert DomainState.RUNNING.is_running
    assert DomainState.PAUSED_POSTCOPY.is_active
    assert not DomainState.PAUSED.is_running
    for state in (DomainState.SHUTOFF, DomainState.ABSENT, DomainState.UNKNOWN, DomainState.CRASHED):
        assert not state.is_active


def test_refusals_name_their_subject():
    kinds = [
        about_vm(Code.PINNED, "u", "d", "b").kind,
        about_host(Code.HOST_STALE, "a", "d").kind,
        about_cluster(Code.PAUSED, "d").kind,
        about_plan(Code.PLAN_STALE, "p", "d").kind,
    ]
    assert kinds == [SubjectKind.VM, SubjectKind.HOST, SubjectKind.CLUSTER, SubjectKind.PLAN]
    assert str(about_cluster(Code.PAUSED, "by file")) == "paused: by file"
    assert len({code.value for code in Code}) == len(Code)
