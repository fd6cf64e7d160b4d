"""The demand model in use: seated, judged by what comes of its forecasts, demoted, promoted, recalibrated."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from rebalancerd.predict.demand.keeper import DemandKeeper
from rebalancerd.predict.demand.kind import DemandParts
from rebalancerd.predict.store import ModelStore
from tests.unit.predict.demand import demand_world as worlds
from tests.unit.predict.demand.demand_world import Cluster, FakeForecaster, model, promote

Store = ModelStore[DemandParts]
DAY = worlds.TRIAL_HOURS + 1.5  # in which a trial is whole, whatever part of an hour it began in


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return worlds.opened(tmp_path)


def basis(keeper: DemandKeeper, cluster: Cluster) -> str:
    told = keeper.forecaster.forecast(cluster.panel(), (1, 6, 12))
    assert told.basis == keeper.forecaster.basis == keeper.state().basis
    return told.basis


# which one


def test_without_any_model_persistence_answers_and_says_why(store: Store) -> None:
    cluster = Cluster()
    keeper = cluster.keeper(store)
    cluster.run(keeper, 1)

    assert basis(keeper, cluster) == "persistence"
    assert not keeper.state().trusted and keeper.state().wanted
    assert "there is no model in" in keeper.state().problems[0]
    assert not store.own.exists(), "looking makes nothing"


def test_the_configuration_may_ask_for_persistence(store: Store) -> None:
    promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store, demand="persistence")
    cluster.run(keeper, 1)

    assert basis(keeper, cluster) == "persistence"
    assert (keeper.state().wanted, keeper.state().reason) == (False, "models.demand is persistence")


def test_a_promoted_model_is_taken_over(store: Store) -> None:
    first = promote(store, model(0.01))
    cluster = Cluster()
    keeper = cluster.keeper(store)
    assert basis(keeper, cluster) == first
    second = promote(store, model(0.02), at=2000.0)
    keeper.refresh()

    assert basis(keeper, cluster) == second
    assert (keeper.state().source, keeper.state().reason) == ("own", "not judged yet")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("truncated", "corrupt"),
        ("changed", "corrupt"),
        ("foreign", "foreign"),
        ("outdated", "outdated"),
        ("absurd", "absurd"),
        ("absent", "absent"),
    ],
)
def test_a_model_that_is_not_in_order_is_refused_and_left_in_place(store: Store, damage: str, fault: str) -> None:
    own = promote(store, model())
    skops, manifest = store.own / f"{own}.skops", store.own / f"{own}.json"
    tree = json.loads(manifest.read_text())
    match damage:
        case "truncated":
            skops.write_bytes(skops.read_bytes()[:50])
        case "changed":
            raw = bytearray(skops.read_bytes())
            raw[len(raw) // 2] ^= 1
            skops.write_bytes(bytes(raw))
        case "foreign":
            manifest.write_text(json.dumps(tree | {"kind": "cost"}))
        case "outdated":
            manifest.write_text(json.dumps(tree | {"format": 9}))
        case "absurd":
            tree["golden"][0]["predicted"]["mean_6"][0] += 0.1
            manifest.write_text(json.dumps(tree))
        case "absent":
            skops.unlink()
    before = {p: p.read_bytes() for p in store.own.iterdir()}
    cluster = Cluster()
    with capture_logs() as logs:
        keeper = cluster.keeper(store)
        keeper.refresh()

    assert basis(keeper, cluster) == "persistence"
    assert keeper.state().refused == ((fault, 1),)
    assert [(e["event"], e["fault"]) for e in logs] == [("model_refused", fault)]
    assert {p: p.read_bytes() for p in store.own.iterdir()} == before


def test_a_model_that_fails_loses_its_trust_and_the_question(store: Store) -> None:
    promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    seated = keeper.forecaster.model
    assert isinstance(seated, FakeForecaster)
    seated.state["broken"] = True
    with capture_logs() as logs:
        assert basis(keeper, cluster) == basis(keeper, cluster) == "persistence"

    assert [e["event"] for e in logs] == ["model_failed"]
    assert "broken model" in keeper.state().reason


@pytest.mark.parametrize("value", [float("nan"), -0.5, float("inf")])
def test_an_answer_that_is_no_demand_loses_the_trust(
    store: Store, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    real = FakeForecaster.forecast

    def odd(*arguments: Any) -> Any:
        told = real(*arguments)
        told.mean[0, 0] = value
        return told

    monkeypatch.setattr(FakeForecaster, "forecast", odd)
    assert basis(keeper, cluster) == "persistence"
    assert "NaN, infinite or negative" in keeper.state().reason


# judged


def test_a_day_below_zero_demotes_to_the_best_naive_way_across_a_restart(store: Store) -> None:
    own = promote(store, model(bias=0.3))
    cluster = Cluster()
    keeper = cluster.keeper(store)
    with capture_logs() as logs:
        cluster.run(keeper, worlds.TRIAL_HOURS - 1)
        assert basis(keeper, cluster) == own and not keeper.state().skill.judged
        cluster.run(keeper, 2.5)

    found = basis(keeper, cluster)
    state = keeper.state()
    assert found in {"persistence", "ewma", "ar"} and found == state.basis
    assert (state.id, state.trusted) == (own, False)
    assert f"worse than {found} over 6 hours" in state.reason
    (demoted,) = [e for e in logs if e["event"] == "model_demoted"]
    assert (demoted["kind"], demoted["model"], demoted["reason"]) == ("demand", own, state.reason)

    again = cluster.keeper(store)
    assert basis(again, cluster) == found and again.state().reason == state.reason
    cluster.run(again, 2)
    assert basis(again, cluster) != own, "what demoted it is not judged twice"


def test_it_is_promoted_again_when_it_wins_for_a_day(store: Store) -> None:
    """The wave it expects comes a while after it lost its trust over another one."""
    own = promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    seated = keeper.forecaster.model
    assert isinstance(seated, FakeForecaster)
    seated.state["bias"] = 0.3
    cluster.run(keeper, DAY)
    assert not keeper.state().trusted
    seated.state["bias"] = 0.0
    with capture_logs() as logs:
        cluster.run(keeper, worlds.TRIAL_HOURS - 1)
        assert not keeper.state().trusted
        cluster.run(keeper, 4)

    assert basis(keeper, cluster) == own
    assert [e["event"] for e in logs if e["event"].startswith("model")] == ["model_trusted_again"]
    assert keeper.state().skill.overall is not None and keeper.state().skill.overall > 0
    assert basis(cluster.keeper(store), cluster) == own


def test_a_good_model_stays_and_its_skill_is_told(store: Store) -> None:
    own = promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    cluster.run(keeper, 2 * DAY)

    state = keeper.state()
    assert basis(keeper, cluster) == own and state.skill.judged
    assert all(by[way] > 0 for by in state.skill.by_step for way in by)
    assert state.skill.by_step[2]["persistence"] > state.skill.by_step[0]["persistence"], (
        "an hour ahead there is more to win"
    )
    assert all(0.8 < share < 1.0 for share in state.skill.coverage)


def test_what_is_scored_was_forecast_before(store: Store) -> None:
    """Each step is forecast once, and scored once its time has come."""
    promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    for _ in range(3):
        cluster.step()
        keeper.watch(cluster.snapshot, cluster.cpu)
        keeper.watch(cluster.snapshot, cluster.cpu)

    seated = keeper.forecaster.model
    assert isinstance(seated, FakeForecaster)
    asked = [vms for vms in seated.asked if vms > 1]  # its golden questions, as it is loaded, are of one
    assert asked == [6, 6, 6]
    assert keeper.state().skill.count == 2 * 6, "only those of one step ahead are due"


def test_moved_resized_and_silent_vms_score_from_then_on(store: Store) -> None:
    promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    cluster.run(keeper, 2)
    before = keeper.state().skill.count
    cluster.place[0], cluster.cores[1] = "a", 4
    cluster.silent.add(2)
    cluster.run(keeper, STEPS_1)
    assert keeper.state().skill.count == before + 3 * 3, "three of six VMs are as they were"
    cluster.run(keeper, STEPS_1)
    assert keeper.state().skill.count == before + 9 + 9 + 2, "those two are scored one step ahead by now"


STEPS_1 = worlds.STEP / 3600


def test_a_gap_and_clock_steps_lead_to_nothing_absurd(store: Store) -> None:
    own = promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    cluster.run(keeper, 3)
    cluster.rows[-5:] = np.nan
    cluster.run(keeper, 1)
    cluster.end += 5 * 86400.0  # the clock jumps ahead; rows of the time between were never taken
    cluster.run(keeper, 1)
    cluster.end -= 30 * 86400.0
    cluster.run(keeper, 2)

    state = keeper.state()
    assert basis(keeper, cluster) == own and not state.skill.judged
    figures = [v for by in state.skill.by_step for v in by.values()] + list(state.skill.coverage)
    assert figures and all(math.isfinite(v) for v in figures)
    assert keeper.forecaster.model is not None
    text = json.loads((store.own / "demand-watch.json").read_text())
    assert len(text["parts"]) <= 49


@pytest.mark.parametrize("text", ["", "{", '{"format": 9}', '{"format":1,"model":"x","best":"moon","part_seconds":1}'])
def test_scores_that_cannot_be_read_begin_anew(store: Store, text: str) -> None:
    own = promote(store, model())
    (store.own / "demand-watch.json").write_text(text)
    cluster = Cluster()
    keeper = cluster.keeper(store)

    assert basis(keeper, cluster) == own and not keeper.state().skill.judged
    cluster.run(keeper, 1)
    assert json.loads((store.own / "demand-watch.json").read_text())["model"] == own


def test_scores_of_another_model_or_another_length_of_trial_are_not_taken_up(store: Store) -> None:
    promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    cluster.run(keeper, DAY)
    assert keeper.state().skill.judged
    assert cluster.keeper(store).state().skill == keeper.state().skill
    assert cluster.keeper(store, demand_trial_hours=24.0).state().skill.count == 0
    promote(store, model(0.001), at=2000.0)
    assert cluster.keeper(store).state().skill.count == 0


def test_a_directory_that_cannot_be_written_costs_the_note_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    own = promote(store, model())
    cluster = Cluster()
    keeper = cluster.keeper(store)
    monkeypatch.setattr("rebalancerd.predict.store.write_durably", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with capture_logs() as logs:
        cluster.run(keeper, 0.5)

    assert basis(keeper, cluster) == own
    assert {e["event"] for e in logs} == {"model_scores_not_written"}


# widths


@pytest.mark.parametrize("believed", [NOISE / 2.5 for NOISE in (worlds.NOISE,)] + [worlds.NOISE * 1.6])
def test_widths_that_are_wrong_converge_to_the_promised_coverage(store: Store, believed: float) -> None:
    """The model believes in errors that are too small, or too large; after a day its central 90 % holds about 90 %."""
    promote(store, model(spread=believed))
    cluster = Cluster(vms=40)
    keeper = cluster.keeper(store)
    cluster.run(keeper, 12)
    state = keeper.state()

    assert state.low == pytest.approx(worlds.NOISE / believed, rel=0.15)
    assert state.high == pytest.approx(worlds.NOISE / believed, rel=0.15)
    told = keeper.forecaster.forecast(cluster.panel(), (1,))
    assert float(told.at(0.95)[0, 0] - told.at(0.5)[0, 0]) == pytest.approx(1.6449 * worlds.NOISE, rel=0.15)
    cluster.run(keeper, worlds.TRIAL_HOURS)
    assert all(0.87 < share < 0.93 for share in keeper.state().skill.coverage)
    again = cluster.keeper(store)
    assert (again.state().low, again.state().high) == (keeper.state().low, keeper.state().high)
