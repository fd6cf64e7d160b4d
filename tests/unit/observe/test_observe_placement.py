"""Where VMs stand, duplicates, migrations by any hand; sanity; dirty pool and the choice of the next probe."""

import math
from dataclasses import replace

import pytest
from observe_world import UUIDS

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.sample import DomainSample, HostSample
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.observe.dirty_pool import DirtyPool
from rebalancerd.observe.host_watch import HostWatch
from rebalancerd.observe.placement import Placement, Sighting, place
from rebalancerd.observe.rolling_probe import Probe, ProbeCandidate, RollingProbe
from rebalancerd.observe.sanity import duplicate_host_uuids, implausible, jumped, vanished
from rebalancerd.observe.settings import HostSettings, ObserveSettings

V = UUIDS[0]


def sight(host: str, state: DomainState, *, fresh: bool = True, job: str | None = None) -> Sighting:
    return Sighting(host, DomainSample(uuid=V, name="v", state=state, facts=None, job=job), fresh)


def record(state: MigrationState = MigrationState.RUNNING) -> MigrationRecord:
    return MigrationRecord(id="m", vm_uuid=V, vm_name="v", source="h1", destination="h2", state=state, intent_at=0.0)


def stands(found: Placement) -> str:
    return found.standings[V].sighting.host


def flight(found: Placement) -> tuple[str, str | None, bool] | None:
    return next(((f.source, f.destination, f.ours) for f in found.in_flight), None)


S = DomainState


def test_an_incoming_copy_is_a_migration_and_the_vm_stands_on_its_source() -> None:
    found = place([sight("h1", S.RUNNING), sight("h2", S.PAUSED_MIGRATION)], [], {V: "h1"})
    assert (stands(found), flight(found)) == ("h1", ("h1", "h2", False))
    assert found.standings[V].busy == "migration from h1 to h2"
    assert found.unknowns == ()


def test_after_the_switch_it_stands_on_the_destination_and_still_counts_on_both() -> None:
    found = place([sight("h1", S.PAUSED_MIGRATION), sight("h2", S.RUNNING)], [], {V: "h1"})
    assert (stands(found), flight(found)) == ("h2", ("h1", "h2", False))


def test_in_the_moment_of_the_switch_it_stands_where_it_stood() -> None:
    both = [sight("h2", S.PAUSED_MIGRATION), sight("h1", S.PAUSED_MIGRATION)]
    assert stands(place(both, [], {V: "h1"})) == "h1"
    assert stands(place(both, [], {V: "h2"})) == "h2"
    assert stands(place(both, [record()], {})) == "h1"


def test_post_copy_stands_on_the_destination() -> None:
    found = place([sight("h1", S.PAUSED_POSTCOPY), sight("h2", S.RUNNING_POSTCOPY)], [], {})
    assert (stands(found), flight(found)) == ("h2", ("h1", "h2", False))


def test_ours_are_known_as_ours_also_before_anything_is_seen() -> None:
    found = place([sight("h1", S.RUNNING)], [record(MigrationState.INTENT)], {})
    assert flight(found) == ("h1", "h2", True)
    assert found.standings[V].busy == "our migration to h2"
    assert place([sight("h1", S.RUNNING)], [record(MigrationState.SUCCEEDED)], {}).in_flight == ()


def test_an_outgoing_job_without_a_visible_destination_is_foreign() -> None:
    found = place([sight("h1", S.RUNNING, job="migration out")], [], {})
    assert flight(found) == ("h1", None, False)


def test_another_job_makes_it_busy_without_a_migration() -> None:
    found = place([sight("h1", S.RUNNING, job="backup")], [], {})
    assert found.in_flight == ()
    assert found.standings[V].busy == "job: backup"


def test_active_on_two_hosts_is_named_and_stands_once() -> None:
    found = place([sight("h2", S.RUNNING), sight("h1", S.RUNNING)], [], {})
    assert stands(found) == "h1"
    assert found.in_flight == ()
    assert "active on 2 hosts" in found.unknowns[0].reason
    assert found.standings[V].busy is not None
    assert found.doubled == {V: ("h1", "h2")}


def test_what_is_no_second_copy() -> None:
    moved = place([sight("h1", S.RUNNING), sight("h2", S.RUNNING)], [record()], {})
    silent = place([sight("h1", S.RUNNING, fresh=False), sight("h2", S.RUNNING)], [], {})
    both_silent = place([sight("h1", S.RUNNING, fresh=False), sight("h2", S.RUNNING, fresh=False)], [], {})
    arriving = place([sight("h1", S.RUNNING), sight("h2", S.PAUSED_MIGRATION)], [], {})
    assert [p.doubled for p in (moved, silent, both_silent, arriving)] == [{}, {}, {}, {}]


def test_paused_by_a_user_beside_a_running_one_is_no_migration() -> None:
    found = place([sight("h1", S.PAUSED), sight("h2", S.RUNNING)], [], {})
    assert stands(found) == "h2"
    assert "no migration explains" in found.unknowns[0].reason


def test_what_a_silent_host_said_gives_way_to_a_host_that_answers() -> None:
    found = place([sight("h1", S.RUNNING, fresh=False), sight("h2", S.RUNNING)], [], {V: "h1"})
    assert stands(found) == "h2"
    assert found.unknowns == ()
    alone = place([sight("h1", S.RUNNING, fresh=False)], [], {})
    assert stands(alone) == "h1"
    incoming = place([sight("h1", S.RUNNING, fresh=False), sight("h2", S.PAUSED_MIGRATION)], [], {})
    assert (stands(incoming), flight(incoming)) == ("h1", ("h1", "h2", False))


def test_an_incoming_copy_without_its_source_is_busy_and_unknown() -> None:
    found = place([sight("h2", S.PAUSED_MIGRATION)], [], {})
    assert stands(found) == "h2"
    assert found.standings[V].busy is not None
    assert "no other host" in found.unknowns[0].reason


GOOD = HostSample(
    host="h",
    taken_at=0.0,
    facts=HostFacts(uuid="u", cpus=4, memory_bytes=8 * GIB),
    cpu_busy_ns=0,
    memory_total_bytes=8 * GIB,
    memory_available_bytes=GIB,
    domains=(),
)


@pytest.mark.parametrize(
    ("sample", "word"),
    [
        (replace(GOOD, facts=HostFacts(uuid="u", cpus=0, memory_bytes=8 * GIB)), "0 CPUs"),
        (replace(GOOD, facts=HostFacts(uuid="u", cpus=4, memory_bytes=0)), "0 bytes"),
        (replace(GOOD, memory_total_bytes=8 * GIB * 1024), "statistics say"),
        (replace(GOOD, memory_available_bytes=80 * GIB), "available"),
    ],
)
def test_figures_that_cannot_be_true(sample: HostSample, word: str) -> None:
    assert word in (implausible(sample) or "")
    assert implausible(GOOD) is None


def test_equal_host_uuids_make_both_unusable() -> None:
    found = duplicate_host_uuids({"a": "X", "b": "x", "c": "y", "d": None, "e": None})
    assert set(found) == {"a", "b"}
    assert "also of b" in found["a"]


def test_many_jumps_to_or_from_zero_in_one_tick_are_not_believed() -> None:
    busy, idle = dict.fromkeys(UUIDS[:10], 0.5), dict.fromkeys(UUIDS[:10], 0.0)
    assert "10 of 10" in (jumped(busy, idle, 0.6) or "")
    assert jumped(idle, busy, 0.6) is not None
    assert jumped(busy, {**busy, **dict.fromkeys(UUIDS[:6], 0.0)}, 0.6) is None
    assert jumped(busy, dict.fromkeys(UUIDS[:10], None), 0.6) is None, "unknown is not zero"
    assert jumped(dict(list(busy.items())[:3]), idle, 0.6) is None, "three VMs prove nothing"


def test_a_host_that_loses_all_its_vms_at_once_is_doubted() -> None:
    assert vanished("abc", "", "") == set("abc")
    assert vanished("abc", "c", "") == set()
    assert vanished("abc", "", "abc") == set(), "they moved"
    assert vanished("abc", "d", "ab") == set("c")
    assert vanished("a", "", "") == set("a"), "the only one, too"


class TestHostWatch:
    OBSERVE = ObserveSettings()

    def at(self, now: float) -> HostSample:
        return replace(GOOD, taken_at=now)

    def reason(self, watch: HostWatch, now: float) -> str:
        return watch.unusable(now, self.OBSERVE, None) or ""

    def test_life_of_a_host(self) -> None:
        watch = HostWatch(HostSettings(name="h", uri="qemu:///system"))
        assert "never" in self.reason(watch, 0.0)
        watch.answered(self.at(10.0), 10.0, self.OBSERVE)
        assert self.reason(watch, 10.0) == ""
        assert "stale" in self.reason(watch, 71.0)
        assert "duplicate" in (watch.unusable(10.0, self.OBSERVE, "duplicate host UUID") or "")
        watch.failed("no route")
        assert self.reason(watch, 11.0) == "unreachable: no route"
        watch.answered(self.at(12.0), 12.0, self.OBSERVE)
        assert self.reason(watch, 12.0) == "", "one missed answer is no outage"

    def test_flapping_holds_double_and_are_forgiven(self) -> None:
        watch, now = HostWatch(HostSettings(name="h", uri="qemu:///system")), 0.0
        watch.answered(self.at(now), now, self.OBSERVE)
        for hold in (60.0, 120.0, 240.0):
            watch.failed("x")
            watch.failed("x")
            now += 10
            watch.answered(self.at(now), now, self.OBSERVE)
            assert "flapping" in self.reason(watch, now)
            now += hold - 1
            watch.answered(self.at(now), now, self.OBSERVE)
            assert "flapping" in self.reason(watch, now)
            now += 2
            watch.answered(self.at(now), now, self.OBSERVE)
            assert self.reason(watch, now) == ""
        now += 2500
        watch.answered(self.at(now), now, self.OBSERVE)
        assert watch.outages == 0


def reading(at: float, period: float, rate: float) -> DirtyReading:
    return DirtyReading(taken_at=at, period_seconds=period, rate_bytes_per_second=rate)


class TestDirtyPool:
    def test_readings_of_two_periods_make_a_curve_with_errors(self) -> None:
        pool = DirtyPool(1800.0)
        for at, period, rate in ((0, 1, 40 * MIB), (60, 1, 44 * MIB), (120, 4, 25 * MIB)):
            pool.add(V, reading(at, period, rate))
            pool.add(V, reading(at, period, rate))
        curve = pool.curve(V, 180.0, GIB)
        assert curve is not None
        assert [(p.period_seconds, p.unique_bytes, p.readings) for p in curve.points] == [
            (1, 42 * MIB, 2),
            (4, 100 * MIB, 1),
        ]
        assert curve.age_seconds == 60.0
        # 512 of a GiB's pages are looked at: p = 100/1024
        p = 100 / 1024
        assert curve.points[1].standard_error_bytes == pytest.approx(
            math.sqrt(p * (1 - p) / 512 * GIB**2 + (4 * MIB) ** 2 / 12)
        )

    def test_old_absurd_and_future_readings_count_for_nothing(self) -> None:
        pool = DirtyPool(100.0)
        for bad in (reading(0, 1, 5.0), reading(990, 1, math.nan), reading(990, 0, 5.0), reading(2000, 1, 5.0)):
            pool.add(V, bad)
        assert pool.curve(V, 1000.0, GIB) is None
        assert pool.curve("nobody", 1000.0, GIB) is None

    def test_no_reading_is_certain_and_none_exceeds_the_memory(self) -> None:
        pool = DirtyPool(100.0)
        pool.add(V, reading(0, 1, 0.0))
        pool.add(V, reading(0, 4, 2.0 * GIB))
        curve = pool.curve(V, 1.0, GIB)
        assert curve is not None
        assert curve.points[0].standard_error_bytes > 0
        assert curve.points[1].unique_bytes == GIB


def candidate(n: int, host: str = "h1", **changes: object) -> ProbeCandidate:
    base = ProbeCandidate(host=host, vm_uuid=UUIDS[n], memory_bytes=GIB, running=True, migrating=False, measuring=False)
    return replace(base, **changes)  # type: ignore[arg-type]


class TestRollingProbe:
    def test_every_vm_gets_every_period_in_turn_one_per_host_at_a_time(self) -> None:
        rolling, now, asked = RollingProbe((1, 4)), 0.0, []
        vms = [candidate(0), candidate(1), candidate(2, "h2")]
        for _ in range(4):
            chosen = rolling.choose(vms, {}, now)
            assert sorted(p.host for p in chosen) == ["h1", "h2"]
            for probe in chosen:
                rolling.started(probe, now)
            assert rolling.choose(vms, {}, now + 1) == (), "still measuring"
            asked += [(p.vm_uuid, p.period_seconds) for p in chosen if p.host == "h1"]
            now += 30
        assert asked == [(UUIDS[0], 1), (UUIDS[1], 1), (UUIDS[0], 4), (UUIDS[1], 4)]

    @pytest.mark.parametrize(
        "changes", [{"running": False}, {"migrating": True}, {"memory_bytes": 127 * MIB}, {"measuring": True}]
    )
    def test_who_is_left_alone(self, changes: dict[str, object]) -> None:
        assert RollingProbe((1,)).choose([candidate(0, **changes)], {}, 0.0) == ()

    def test_a_running_calculation_keeps_the_whole_host_occupied(self) -> None:
        assert RollingProbe((1,)).choose([candidate(0), candidate(1, measuring=True)], {}, 0.0) == ()

    def test_hot_hosts_first_and_the_refused_rest(self) -> None:
        rolling = RollingProbe((1,))
        vms = [candidate(0, "h1"), candidate(1, "h2")]
        chosen = rolling.choose(vms, {"h1": 0.1, "h2": 0.9}, 0.0)
        assert [p.host for p in chosen] == ["h2", "h1"]
        rolling.refused(Probe("h1", UUIDS[0], 1), 0.0)
        assert [p.host for p in rolling.choose(vms, {}, 100.0)] == ["h2"]
        assert len(rolling.choose(vms, {}, 301.0)) == 2

    @pytest.mark.parametrize("periods", [(), (0,), (61,)])
    def test_impossible_periods(self, periods: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="periods"):
            RollingProbe(periods)
