"""The demand model as operators see it: health, metrics, the API's answer and the line in ``status``."""

import re
from dataclasses import replace

import pytest

from rebalancerd.cli.status import demand_words
from rebalancerd.predict.demand.keeper import DemandModelState
from rebalancerd.predict.demand.skill import REFERENCES, Skill
from rebalancerd.serve.health import Facts, checks
from rebalancerd.serve.metrics import Metrics
from rebalancerd.serve.rows import demand_row
from rebalancerd.serve.schemas import Status
from tests.unit.serve import serve_world as build

NAN = float("nan")
BY = dict.fromkeys(REFERENCES, 0.25)
SKILL = Skill(
    count=900,
    by_step=(BY, {**BY, "ewma": -0.5}, dict.fromkeys(REFERENCES, NAN)),
    errors={},
    best="ewma",
    overall=0.125,
    coverage=(0.9, 0.88, NAN),
    pinball=(0.8, 0.9, NAN),
    judged=True,
)
SEATED = DemandModelState(
    basis="demand-1",
    id="demand-1",
    source="own",
    trusted=True,
    reason="not judged yet",
    skill=SKILL,
    step_seconds=300.0,
)
DEMOTED = replace(SEATED, basis="ewma", trusted=False, reason="worse than ewma over a day")


@pytest.mark.parametrize(
    ("state", "part"),
    [
        (None, None),
        (SEATED, None),
        (DemandModelState(reason="models.demand is persistence", wanted=False), None),
        (DemandModelState(problems=("a.json: absent",)), "persistence forecasts demand: a.json: absent"),
        (DEMOTED, "ewma forecasts demand, for demand-1 is not trusted: worse than ewma over a day"),
        (replace(SEATED, problems=("b.skops: corrupt",)), "a demand model was refused: b.skops: corrupt"),
    ],
)
def test_health(state: DemandModelState | None, part: str | None) -> None:
    found = [c for c in checks(Facts(now=build.NOW, started_at=build.NOW, demand=state)) if "DEMAND" in c.code]

    if part is None:
        assert found == []
    else:
        (check,) = found
        assert (check.code, check.severity) == ("DEMAND_MODEL_UNTRUSTED", "warn") and check.hint
        assert re.search(part, check.message)


def test_metrics() -> None:
    """Who forecasts and how it fares; a model that is gone leaves no series, refusals only grow."""
    metrics = Metrics()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"rebalancerd_demand_{name}", labels)

    for _ in range(2):
        metrics.observe_demand(replace(SEATED, refused=(("corrupt", 2),), low=0.8, high=1.5))
    assert value("model_trusted") == 1
    assert value("model_info", model="demand-1", source="own") == 1
    assert value("basis_info", basis="demand-1") == 1
    assert value("skill_score", reference="ewma", ahead_seconds="300") == 0.25
    assert value("skill_score", reference="ewma", ahead_seconds="1800") == -0.5
    assert value("skill_score", reference="ewma", ahead_seconds="3600") is None, "nothing scored there"
    assert value("coverage_ratio", ahead_seconds="1800") == 0.88
    assert value("pinball_ratio", ahead_seconds="300") == 0.8
    assert (value("width_factor", side="low"), value("width_factor", side="high")) == (0.8, 1.5)
    assert value("forecasts_scored") == 900
    assert value("model_refusals_total", fault="corrupt") == 2

    metrics.observe_demand(DemandModelState(refused=(("corrupt", 3),)))
    assert value("model_trusted") == 0
    assert value("basis_info", basis="persistence") == 1
    assert value("model_info", model="demand-1", source="own") is None
    assert value("skill_score", reference="ewma", ahead_seconds="300") is None
    assert value("model_refusals_total", fault="corrupt") == 3


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            DemandModelState(reason="models.demand is persistence", wanted=False),
            "persistence: models.demand is persistence",
        ),
        (replace(SEATED, skill=Skill()), "demand-1 (own), nothing scored yet"),
        (
            SEATED,
            "demand-1 (own), skill +0.12 against ewma over 900 forecasts; central 90 % held 90 % at 5 min, 88 % at 30 min",
        ),
        (
            replace(SEATED, skill=replace(SKILL, judged=False)),
            "demand-1 (own), skill +0.12 against ewma over 900 forecasts, not judged yet; central 90 % held 90 % at 5 min, 88 % at 30 min",
        ),
        (DEMOTED, "ewma; demand-1 (own) is not trusted: worse than ewma over a day"),
    ],
)
def test_the_line_in_status(state: DemandModelState, words: str) -> None:
    assert demand_words(demand_row(state)) == words


def test_the_answer_to_status_tells_it(world: build.World) -> None:
    assert world.control.status().demand is None
    world.demand = DEMOTED

    told = Status.model_validate(world.control.status().model_dump(mode="json")).demand
    assert told is not None
    assert (told.basis, told.id, told.trusted, told.judged, told.best) == ("ewma", "demand-1", False, True, "ewma")
    assert [(h.ahead_seconds, h.coverage) for h in told.horizons] == [(300.0, 0.9), (1800.0, 0.88)]
    assert [c.code for c in world.control.checks() if "DEMAND" in c.code] == ["DEMAND_MODEL_UNTRUSTED"]
