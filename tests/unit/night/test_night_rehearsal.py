"""A night rehearsed: who folds, sleeps and wakes when, on a forecast that is made by hand."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from rebalancerd.cluster.power import PowerLimits, PowerPhase, PowerRecord
from rebalancerd.cluster.units import GIB
from rebalancerd.guard.settings import GuardSettings, PolicyWindow, Window
from rebalancerd.night.plan import NightPlan
from rebalancerd.night.rehearsal import rehearse
from rebalancerd.night.stage import NightStage
from rebalancerd.night.terms import TERMS, NightTerms, given_night, next_night
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from tests.unit.plan.plan_cluster import host, inputs_of, vm

EVENING = datetime(2026, 1, 5, 19, 30, tzinfo=UTC).timestamp()
MINUTE, HOUR = 60.0, 3600.0
BEGINS, UNFOLDS, ENDS = EVENING + 0.5 * HOUR, EVENING + 6.5 * HOUR, EVENING + 7.5 * HOUR
LIMITS = PowerLimits(
    boot_seconds=300.0, min_up_seconds=600.0, hosts_on_min=1, spare_hosts=0, unfold_seconds=300.0, margin_seconds=0.0
)
STEPS = 18  # of half an hour
MORNING = 14  # the step that begins half an hour before the window ends


def inputs(morning: float = 1.0, **changes: object) -> PlanInputs:
    """h1, h2 and h3 with two VMs each, which ask for ``morning`` times as much half an hour before the window ends."""
    hosts = [host(f"h{n}", 8.0, idle_watts=100.0, max_watts=180.0) for n in (1, 2, 3)]
    vms = [vm(f"v{n}{i}", f"h{n}", 0.75, facts={"vcpus": 4}) for n in (1, 2, 3) for i in (1, 2)]
    made = inputs_of(hosts, vms, settings=PlanSettings(watts_per_core=10.0), **changes)
    shape = (len(vms), 4, STEPS)
    cores = np.full(shape, 0.75, dtype=np.float32)
    cores[:, :, MORNING:] *= morning
    forecast = replace(
        made.scenarios,
        steps=STEPS,
        step_seconds=1800.0,
        cpu_cores=cores.reshape(len(vms), -1),
        memory_bytes=np.full((len(vms), 4 * STEPS), 2 * GIB, dtype=np.float32),
    )
    return replace(made, snapshot=replace(made.snapshot, taken_at=EVENING), scenarios=forecast)


def terms(**changes: object) -> NightTerms:
    made = NightTerms(
        window="night",
        begins_at=BEGINS,
        unfolds_at=UNFOLDS,
        ends_at=ENDS,
        controlled=("h1", "h2", "h3"),
        records=tuple(PowerRecord(host=h, tested_at=1.0, boots=(120.0,)) for h in ("h1", "h2", "h3")),
        limits=LIMITS,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def asleep(made: NightPlan) -> dict[str, float]:
    return dict(made.predicted.asleep_seconds)


def test_the_night_folds_onto_one_host_and_saves_the_idle_power_of_the_others() -> None:
    made = rehearse(inputs(), terms())
    folds, back = ([m for m in made.moves if m.unfolding is way] for way in (False, True))
    assert len(folds) == 4 and min(m.at for m in back) >= UNFOLDS
    assert {(m.vm_uuid, m.destination, m.source) for m in back} == {(m.vm_uuid, m.source, m.destination) for m in folds}
    assert [m.at for m in made.moves] == sorted(m.at for m in made.moves)
    assert made.moves[0].at == BEGINS
    gone = {m.source for m in folds}
    assert {s.host for s in made.sleeps} == gone == {w.host for w in made.wakes}
    assert made.still_asleep == ()
    assert {(w.at, w.why) for w in made.wakes} == {(UNFOLDS, "the window is over")}  # nobody needs them yet
    slept = sum(asleep(made).values())
    assert 11 * HOUR < slept < 13 * HOUR
    expected = (slept * 100.0 - made.predicted.moves_joules) / 3.6e6
    assert made.predicted.saved_kwh == pytest.approx(expected, rel=1e-6)
    ((stays, code, _),) = made.stays_on
    assert stays not in gone and code == "hosts_min"
    assert made.notes == () and made.unfolded_at == max(m.at + m.seconds for m in back)


def test_a_host_goes_down_within_what_the_power_cycle_leaves_beside_its_boot() -> None:
    made = rehearse(inputs(), terms())
    assert {s.off_at - s.at for s in made.sleeps} == {600.0 - 120.0}
    one, other = made.sleeps
    assert other.at >= one.off_at  # one after the other


def test_hosts_are_back_before_the_morning_needs_them_and_it_unfolds() -> None:
    made = rehearse(inputs(morning=3.5), terms(ends_at=UNFOLDS + 0.5 * HOUR))
    ramp = EVENING + MORNING * 1800.0
    assert {w.host for w in made.wakes} == {s.host for s in made.sleeps}
    for wake in made.wakes:
        assert wake.up_at - wake.at == 120.0
        assert wake.at >= UNFOLDS and wake.unfolded_by == wake.up_at + 300.0 <= ramp + MINUTE
        assert "CPU demand may reach" in wake.why or wake.why == "the window is over"
    assert made.still_asleep == ()
    back = [m for m in made.moves if m.unfolding]
    assert back and made.unfolded_at == max(m.at + m.seconds for m in back)
    assert all(m.at >= UNFOLDS for m in back)


def test_what_is_asked_for_within_the_window_is_not_folded_away() -> None:
    made = rehearse(inputs(morning=3.5), terms(unfolds_at=ENDS - 60.0))
    assert made.sleeps == ()
    assert made.predicted.saved_kwh <= 0.0


def test_a_host_that_never_woke_by_order_begins_with_its_test() -> None:
    made = rehearse(inputs(), terms(records=()))
    tests = [s for s in made.sleeps if s.test]
    woken = [w for w in made.wakes if w.test]
    assert {s.host for s in tests} == {w.host for w in woken} == {s.host for s in made.sleeps if not s.test}
    for sleep in made.sleeps:
        if not sleep.test:
            up = next(w.up_at for w in woken if w.host == sleep.host)
            assert sleep.at >= up + LIMITS.min_up_seconds


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"controlled": ()}, "no_power_control"),
        ({"limits": replace(LIMITS, hosts_on_min=3)}, "hosts_on_min"),
        ({"limits": replace(LIMITS, spare_hosts=2)}, "needed_for_demand"),
        (
            {"records": tuple(PowerRecord(host=h, disabled="did not wake") for h in ("h1", "h2", "h3"))},
            "power_disabled",
        ),
    ],
)
def test_who_may_not_sleep_is_named_with_the_reason(changes: dict[str, object], code: str) -> None:
    made = rehearse(inputs(), terms(**changes))
    assert not [s for s in made.sleeps if not s.test]
    assert code in {told for _, told, _ in made.stays_on}
    assert {h for h, _, _ in made.stays_on} == {"h1", "h2", "h3"}
    assert made.predicted.saved_kwh <= 0.0


def test_a_blackout_holds_moves_and_sleep_back() -> None:
    blackout = Window(start="20:00", end="22:00")
    made = rehearse(inputs(), terms(guard=GuardSettings(blackouts=(blackout,))))
    assert min(m.at for m in made.moves) >= BEGINS + 2 * HOUR
    assert "blackout" in {code for code, _, _ in made.held_back}


def test_the_cap_of_an_hour_holds() -> None:
    made = rehearse(inputs(), terms(guard=GuardSettings(per_hour=2)))
    starts = [m.at for m in made.moves if not m.unfolding]
    assert len(starts) == 4
    assert all(sum(at - HOUR < other <= at for other in starts) <= 2 for at in starts)


def test_a_host_that_sleeps_already_is_counted_and_woken() -> None:
    given = inputs(morning=3.5)
    hosts = tuple(
        replace(h, facts=None, cores=None, memory_bytes=None, unusable="unreachable") if h.name == "h3" else h
        for h in given.snapshot.hosts
    )
    vms = tuple(replace(v, host="h2") if v.host == "h3" else v for v in given.snapshot.vms)
    given = replace(given, snapshot=replace(given.snapshot, hosts=hosts, vms=vms))
    sleeper = PowerRecord(
        host="h3", phase=PowerPhase.ASLEEP, since=1.0, tested_at=1.0, boots=(120.0,), cpus=8, memory_bytes=64 * GIB
    )
    records = (*(r for r in terms().records if r.host != "h3"), sleeper)
    made = rehearse(given, terms(records=records, begins_at=EVENING, ends_at=UNFOLDS + 0.5 * HOUR))
    assert asleep(made)["h3"] >= 5 * HOUR
    assert "h3" in {w.host for w in made.wakes}
    assert "h3" in {m.destination for m in made.moves if m.unfolding}


def test_the_reader_is_told_what_it_does_not_rest_on() -> None:
    made = rehearse(inputs(), terms(mode="recommend", ends_at=ENDS + 4 * HOUR, unfolds_at=UNFOLDS + 4 * HOUR))
    assert any("mode recommend" in note for note in made.notes)
    assert any("the forecast ends 2.5 h before the window does" in note for note in made.notes)


def test_same_inputs_same_night() -> None:
    assert rehearse(inputs(morning=3.0), terms()) == rehearse(inputs(morning=3.0), terms())


def test_a_forecast_of_other_vms_is_refused() -> None:
    given = inputs()
    stranger = vm("stranger", "h1", 0.5)
    with pytest.raises(ValueError, match="lacks VMs of the snapshot: stranger"):
        NightStage(replace(given.snapshot, vms=(*given.snapshot.vms, stranger)), given.scenarios)


def test_the_stage_shows_what_is_forecast_where_the_vms_are() -> None:
    given = inputs(morning=2.0)
    stage = NightStage(given.snapshot, given.scenarios)
    places = {v.uuid: "h1" for v in given.snapshot.vms}
    later = stage.at(EVENING + 7.25 * HOUR, places, {"h2": "asleep"})
    assert later.host("h1").load.cpu_cores == pytest.approx(6 * 1.5)
    assert later.host("h2").unusable == "asleep"
    ahead = stage.ahead(EVENING + 6.9 * HOUR, EVENING + 7.5 * HOUR)
    assert ahead.horizon_seconds == pytest.approx(0.6 * HOUR)
    assert ahead.cpu_cores[0].reshape(4, -1)[0].tolist() == [0.75] + [1.5] * 7


def test_terms_survive_the_wire() -> None:
    given = terms(guard=GuardSettings(policy_windows=(PolicyWindow(start="0 20 * * *", end="0 3 * * *"),)))
    assert TERMS.read(TERMS.write(given)) == given


NIGHT = PolicyWindow(start="0 20 * * *", end="0 6 * * *", unfold_seconds=1800.0, name="night")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "begins", "ends"),
    [
        ("2026-06-10 12:00", "2026-06-10 20:00", "2026-06-11 06:00"),
        ("2026-06-10 23:15", "2026-06-10 23:15", "2026-06-11 06:00"),
        ("2026-06-11 05:45", "2026-06-11 20:00", "2026-06-12 06:00"),  # unfolding: the next one
    ],
)
def test_the_next_night_is_the_open_window_or_the_one_that_comes(now: str, begins: str, ends: str) -> None:
    day = PolicyWindow(start="0 13 * * *", end="0 14 * * *", policy="balance")
    found = next_night(GuardSettings(policy_windows=(day, NIGHT)), at(now))
    assert found is not None
    assert (found.begins_at, found.ends_at, found.unfolds_at) == (at(begins), at(ends), at(ends) - 1800.0)


def test_the_first_of_several_and_none_without_any() -> None:
    noon = PolicyWindow(start="0 13 * * *", end="0 14 * * *", unfold_seconds=60.0, name="noon")
    found = next_night(GuardSettings(policy_windows=(NIGHT, noon)), at("2026-06-10 12:00"))
    assert found is not None and found.window.startswith("noon")
    assert next_night(GuardSettings(), 0.0) is None
    given = given_night(0.0, 1800.0, 1800.0)
    assert (given.begins_at, given.unfolds_at, given.ends_at) == (0.0, 900.0, 1800.0)
