"""Levels of aggressiveness: what they give, that they are ordered, and that what is set singly wins."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from rebalancerd.config import effective, parse
from rebalancerd.config_units import parsed
from rebalancerd.plan.aggressiveness import COLUMNS, DEFAULT, MEANINGS, NAMES, at_level, overrides, told, values
from rebalancerd.plan.balance import balance
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.record.explain_text import worth
from rebalancerd.serve.rows import plan_brief
from tests.unit.plan.plan_cluster import host, inputs_of, vm

HOST = '[[hosts]]\nname = "h1"\nuri = "qemu:///system"\n'


def test_the_default_level_is_the_defaults():
    assert at_level(DEFAULT) == PlanSettings()
    assert overrides(PlanSettings()) == {}
    assert told(PlanSettings()) == DEFAULT


def test_there_are_five_levels_each_with_its_meaning():
    assert len(NAMES) == 5
    assert set(MEANINGS) == set(NAMES)
    assert all(len(values(name)) == len(COLUMNS) for name in NAMES)


@pytest.mark.parametrize(("calmer", "bolder"), list(pairwise(NAMES)))
def test_a_more_aggressive_level_asks_for_less_and_does_more(calmer, bolder):
    less, more = values(calmer), values(bolder)

    for name in ("weight_cost", "min_gain", "hot_probability"):
        assert more[name] < less[name], name
    for name in ("payback_max_seconds", "max_moves", "consolidate_cpu_headroom", "consolidate_memory_headroom"):
        assert more[name] > less[name], name
    limits = PlanSettings()
    assert more["consolidate_cpu_headroom"] <= limits.cpu_headroom
    assert more["consolidate_memory_headroom"] <= limits.memory_headroom


@pytest.mark.parametrize(("calmer", "bolder"), list(pairwise(NAMES)))
def test_what_a_calm_level_moves_a_bolder_one_moves_too(calmer, bolder):
    """The relief of one move, ever smaller: the bolder level goes on at least as far."""
    for cores in (3.4, 2.6, 2.2, 2.05, 2.02):
        guests = [vm(f"v{i}", "h1", cores / 4 * 1.62) for i in range(4)]
        plans = [
            balance(inputs_of([host("h1", 4), host("h2", 4)], guests, settings=at_level(level)))
            for level in (calmer, bolder)
        ]

        assert bool(plans[1].steps) >= bool(plans[0].steps)


def test_a_level_fills_what_is_not_set_and_no_more():
    cfg = parse(f'{HOST}[plan]\naggressiveness = "eager"\nmax_moves = 5\n[guard]\nmin_gain = 0.4\n')
    settings = cfg.plan_settings()

    assert settings == at_level("eager", max_moves=5, min_gain=0.4)
    assert cfg.guard_settings().payback_max_seconds == values("eager")["payback_max_seconds"]
    assert told(settings) == "eager, but min_gain 0.4, max_moves 5"


def test_the_configuration_shown_says_what_came_by_the_level():
    cfg = parse(f'{HOST}[plan]\naggressiveness = "calm"\nweight_cost = 1.0\n')
    shown = effective(cfg)

    assert "weight_cost = 1.0\n" in shown
    assert "max_moves = 4  # by aggressiveness" in shown
    assert "quantile = 0.95  # default" in shown
    assert parse(shown).plan_settings() == cfg.plan_settings()


def test_an_unknown_level_is_told():
    with pytest.raises(ValueError, match="'wild' is no level of aggressiveness: cautious, calm"):
        at_level("wild")
    with pytest.raises(Exception, match="aggressiveness"):
        parse(f'{HOST}[plan]\naggressiveness = "wild"\n')


def test_a_plan_says_its_level_and_when_it_pays_back():
    guests = [vm(f"v{i}", "h1", 2.0) for i in range(4)]
    plan = balance(inputs_of([host("h1", 8), host("h2", 8)], guests, settings=at_level("eager", max_moves=1)))
    (step,) = plan.steps

    assert plan.level == "eager, but max_moves 1"
    assert plan.benefit == pytest.approx(plan.before.total - plan.after.total + 0.5 * plan.after.cost)
    assert plan.payback_seconds is not None
    assert step.move.cost.seconds.upper < plan.payback_seconds < 3600
    assert step.move.hot_in_seconds == 0
    assert step.move.price is not None
    assert step.move.price.upper == pytest.approx(plan.after.cost)


def test_the_guide_holds_the_table_as_it_is():
    guide = (Path(__file__).parents[3] / "docs" / "operator-guide.md").read_text("utf-8")
    for name in NAMES:
        (row,) = (line for line in guide.splitlines() if line.startswith(f"| `{name}` |"))
        told = [cell.strip() for cell in row.strip("|").split("|")][1:]

        assert [parsed("duration", c) if c[-1].isalpha() else float(c) for c in told] == list(values(name).values())
        assert f"* `{name}`: {MEANINGS[name]}." in guide


def test_what_a_plan_is_worth_in_words_and_in_the_api():
    guests = [vm(f"v{i}", "h1", 2.0) for i in range(4)]
    plan = balance(inputs_of([host("h1", 8), host("h2", 8)], guests))
    brief = plan_brief(plan, awaits_approval=True)

    assert f"brings {plan.benefit:.0f} core-seconds, costs {plan.after.cost:.0f}, pays back within" in worth(plan)
    assert worth(plan).endswith("aggressiveness moderate")
    assert (brief.benefit, brief.payback_seconds, brief.level) == (plan.benefit, plan.payback_seconds, "moderate")
    assert worth(replace(plan, payback_seconds=None, level=None)).endswith("pays back never")
