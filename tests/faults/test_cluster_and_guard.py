"""Rows 32 to 51, 56, 57, 60 and 61: telemetry, clocks, limits, rights, names and what operators do."""

from dataclasses import replace
from itertools import pairwise
from xml.sax.saxutils import quoteattr

import pytest

from rebalancerd.cluster.decision import OperatorState, Outcome
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.sample import DomainSample
from rebalancerd.guard.checks import may_start
from rebalancerd.guard.memory import recall
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.observe.domain_xml import DomainXmlError, parse_domain
from rebalancerd.observe.host_watch import HostWatch
from rebalancerd.observe.libvirt_events import HostEvents
from rebalancerd.observe.rates import Rates
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.serve.metrics import Metrics
from rebalancerd.sim.world import build_world
from tests.faults.play import kept, scripted, spec_of
from tests.unit.guard.conftest import make_context, make_plan, make_record

S = MigrationState


def test_fault_32_the_lease_is_lost_while_a_job_runs() -> None:
    played = scripted("00:03:10 lease lost", "8m")

    assert played.record("hot-1").state is S.SUCCEEDED, "what runs is watched to its end"
    assert len(played.begun()) == 1
    assert played.told("LEASE_LOST")
    assert len(played.cycles) == 8, "sampled and recorded all the same"


def test_fault_33_a_leader_that_was_frozen_between_intent_and_call() -> None:
    with build_world(spec_of(script="")) as world:
        told = world.ledger.on_migration

        def frozen(record):  # type: ignore[no-untyped-def]
            told(record)
            if record.state is S.INTENT:
                world.clock.sleep(3600.0)

        world.ledger.on_migration = frozen
        world.run(181.0)
        assert [c for c in world.write.calls if c.kind == "migrate"] == []
        assert [r.state for r in world.ledger.records.values()] == [S.ABANDONED]


def test_fault_34_the_clock_steps_back() -> None:
    played = kept("clock-steps-back")

    vms = [c.vm_uuid for c in played.begun()]
    assert len(vms) == len(set(vms)), "a cooldown is not shortened by a clock that stepped"
    assert not [r for r in played.records if r.state.is_open]


def test_fault_35_the_controller_sleeps_for_hours() -> None:
    played = scripted("00:02:30 suspended 3h", "3h10m")

    after = [c for c in played.cycles if c.refusals and c.refusals[0].code is Code.WARMING_UP]
    assert after, "it warms up anew"
    assert all(c.at >= 3 * 3600 + 150 for c in played.begun()), "nothing is begun on what was known before"


def test_fault_36_a_host_that_hangs() -> None:
    played = kept("hanging-host")

    assert all(c.outcome is not Outcome.FAILED for c in played.cycles)
    assert len(played.cycles) >= played.world.clock.monotonic() / 60 - 2, "every cycle ends"
    assert played.told("HOST_UNREACHABLE")


def test_fault_37_changes_without_events_are_found_and_counted() -> None:
    events, metrics = HostEvents(), Metrics()
    events.listed(frozenset({"u-1", "u-2"}))
    events.listed(frozenset({"u-2", "u-3"}))
    assert events.missed == 0, "an event may come a moment later than the poll"
    events.listed(frozenset({"u-2", "u-3"}))
    assert events.missed == 2
    metrics.observe_events({"a": events.missed})
    metrics.observe_events({"a": events.missed})
    assert metrics.registry.get_sample_value("rebalancerd_events_missed_total", {"host": "a"}) == 2.0


def test_fault_37_a_change_that_an_event_told_is_not_missed() -> None:
    class Domain:
        def UUIDString(self) -> str:
            return "u-1"

    events = HostEvents()
    events.listed(frozenset({"u-1"}))
    events._on_change(None, Domain())
    for _ in range(3):
        events.listed(frozenset())
    assert events.missed == 0


def test_fault_38_bugs_in_a_row_disarm_it() -> None:
    with build_world(spec_of(script="")) as world:
        world.run(150.0)
        loop = world.loop
        assert loop is not None
        demand, loop._demand = loop._demand, None  # type: ignore[assignment]
        assert [loop.iterate().outcome for _ in range(3)] == [Outcome.FAILED] * 3
        loop._demand = demand
        for _ in range(4):
            record = loop.iterate()
            assert Code.PAUSED in {r.code for r in record.refusals} | {
                d.refusal.code for d in record.decisions if d.refusal
            }
        assert [c for c in world.write.calls if c.kind == "migrate"] == []


@pytest.mark.parametrize(("scenario", "host"), [("stale-destination", "b"), ("stale-source", "a")])
def test_fault_39_stale_figures_of_one_host(scenario: str, host: str) -> None:
    """Every call is held against the age of the destination's figures by the invariants of the simulator."""
    played = kept(scenario)

    assert played.told("HOST_STALE") or played.told("HOST_UNREACHABLE")
    assert not [c for c in played.begun() if host in (c.host, c.detail) and c.at > 180.0]


@pytest.mark.parametrize("counter", [-1, 0, 2**63, 10**18])
def test_fault_40_absurd_counters_are_dropped_with_a_reason(counter: int) -> None:
    played = kept("balanced")
    true = played.world.read.sample("a")
    rates = Rates(longest_seconds=60.0)
    rates.update(true)

    def odd(domain: DomainSample) -> DomainSample:
        return replace(domain, cpu_time_ns=counter)

    found = rates.update(replace(true, taken_at=true.taken_at + 10, domains=tuple(map(odd, true.domains))))

    for domain in true.domains:
        assert found.vms[domain.uuid].cpu_cores is None, "never read as 0"
    assert {d.subject for d in found.dropped} >= {d.uuid for d in true.domains}


def test_fault_41_part_of_the_cluster_is_invisible() -> None:
    played = kept("cluster-mostly-unknown")

    assert played.refused(Code.CLUSTER_PARTLY_UNKNOWN) and played.told("CLUSTER_PARTLY_UNKNOWN")
    assert played.begun() == []


@pytest.mark.parametrize("scenario", ["telemetry-zero-cpus", "telemetry-silent", "telemetry-frozen"])
def test_fault_42_figures_of_a_wrong_scale(scenario: str) -> None:
    played = kept(scenario)

    assert played.untouched()
    assert {c.code for c in played.alerts.values()} & {"HOST_UNUSABLE", "TELEMETRY_FROZEN", "HOST_STALE", "HOST_HOT"}


def test_fault_42_a_thousandfold_is_no_load() -> None:
    played = kept("telemetry-jump")

    assert played.begun() == []
    assert played.told("HOST_HOT") == [], "what is more than can be is not read as a hot host"


def test_fault_43_a_flapping_host_receives_nothing() -> None:
    played = kept("flapping-destination")
    watch, observe = HostWatch(HostSettings(name="b", uri="qemu:///system")), ObserveSettings()
    holds = []
    for outages in range(1, 5):
        watch.outages = outages
        holds.append(watch.hold_seconds(observe))

    assert all(b == 2 * a for a, b in pairwise(holds)), "the time to be stable doubles"
    assert [c for c in played.begun() if c.detail == "b" and c.at < 1080.0] == []


def test_fault_44_a_short_spike() -> None:
    assert kept("spike-shorter-than-hold").begun() == []


def test_fault_45_ping_pong() -> None:
    played = kept("ping-pong")

    left: dict[tuple[str, str], float] = {}
    for call in played.begun():
        back = left.get((call.vm_uuid, call.detail))
        assert back is None or call.at - back >= played.world.spec.guard.reverse_tabu_seconds
        left[call.vm_uuid, call.host] = call.at


def test_fault_46_herd_onto_a_fresh_host() -> None:
    """How many come in at once is asserted at every call by the invariants; here, that they do come, one after the other."""
    played = kept("herd-onto-empty-host")

    arrived = [r for r in played.records if r.destination == "fresh" and r.state is S.SUCCEEDED]
    spans = sorted((r.started_at or 0.0, r.ended_at or 0.0) for r in arrived)
    assert len(spans) >= 2
    assert all(b[0] >= a[1] for a, b in pairwise(spans))


def test_fault_47_all_hosts_hot() -> None:
    played = kept("all-hot")

    assert played.begun() == []
    assert played.told("NO_ROOM")


def test_fault_50_a_day_has_only_so_many_moves_of_one_vm() -> None:
    guard = GuardSettings(cooldown_growth=1.0, cooldown_seconds=60.0)
    moves = [make_record(id=f"m{i}", ago=3600.0 * (i + 1)) for i in range(guard.per_vm_per_day)]
    now = (moves[0].ended_at or 0.0) + 3600.0

    assert recall(moves[1:], operator=OperatorState(), now=now, settings=guard).resting == {}
    assert "within a day" in recall(moves, operator=OperatorState(), now=now, settings=guard).resting["u"].detail


def test_fault_51_the_disk_is_full() -> None:
    played = kept("ledger-full")

    assert played.refused(Code.LEDGER_UNAVAILABLE)
    assert all(c.at >= 900.0 for c in played.begun()), "no ledger, no action"
    assert played.records[0].state is S.SUCCEEDED, "it recovers alone"


def test_fault_56_the_right_to_migrate_is_gone() -> None:
    played = scripted("00:00:01 right a off", "20m")

    assert played.begun() == []
    assert {r.state for r in played.records} == {S.ABANDONED}
    assert len({r.vm_uuid for r in played.records}) == 2, "two VMs tell that it is the host; then it is left alone"
    assert len(played.records) <= 4
    assert [c.subject for c in played.told("HOST_READ_ONLY")] == ["a"]
    assert played.told("HOST_QUARANTINED") == [] and played.told("BREAKER_OPEN") == []


def test_fault_57_hostile_names() -> None:
    played = kept("hostile-name")

    text = played.world.story.text()
    assert "\x1b" not in text and "\r" not in text
    record = next(iter(played.records), None)
    metrics = Metrics()
    if record is not None:
        metrics.observe_migration(record)
    labels = {k for m in metrics.registry.collect() for s in m.samples for k in s.labels}
    assert not labels & {"vm", "vm_name", "uuid"}


def test_fault_57_xml_that_wants_to_grow() -> None:
    bomb = "".join(f"<!ENTITY e{i} {quoteattr('&e' + str(i - 1) + ';' * 10)}>" for i in range(1, 9))
    with pytest.raises(DomainXmlError):
        parse_domain(f"<!DOCTYPE d [{bomb}]><domain/>", persistent=True, autostart=None, has_managed_save=None)


def test_fault_60_drain_without_room() -> None:
    played = kept("drain-without-room")

    assert played.told("NO_ROOM")
    stays = [r for r in played.refused(Code.MEMORY_CAPACITY) if r.subject == played.uuid("giant")]
    assert stays and all(r.detail for r in stays), "each VM with what holds it"
    assert played.runs_on("giant") == "a"


def test_fault_61_an_operator_migrates_too() -> None:
    played = kept("foreign-migration-counted")

    assert played.told("FOREIGN_MIGRATION")
    assert "abort" not in {c.kind for c in played.calls}, "nobody fights it"
    extra = played.uuid("extra")
    assert extra not in [c.vm_uuid for c in played.begun() if 150.0 <= c.at < 240.0]


def test_fault_54_caps_that_are_lowered_hold_for_new_starts() -> None:
    plan = make_plan()
    refusal = may_start(make_context(settings=GuardSettings(per_cluster=0)), plan, plan.steps[0])

    assert refusal is not None and refusal.code is Code.CLUSTER_CAP
