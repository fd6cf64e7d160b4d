"""The history that a simulated run begins with: what was dirtied before it, by hour of day."""

from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cluster.units import MIB
from rebalancerd.observe.history import VM_DIRTY, History
from rebalancerd.sim.past import record_past
from rebalancerd.sim.scenario import ScenarioError, WorldSpec, parse_world

START = 20_000 * 86_400.0 + 1.75 * 3600  # 01:45 UTC
HOST = {"name": "a"}


def world(**vm: object) -> WorldSpec:
    table = {"past_days": 2, "host": [HOST], "vm": [{"name": "v", "host": "a", **vm}, {"name": "w", "host": "a"}]}
    return parse_world(table)


def test_every_hour_before_the_start_holds_the_figure_of_its_hour_of_day(tmp_path: Path) -> None:
    """Two days until 01:00, the last whole hour before 01:45; a guest without a past has no column."""
    spec = world(past_dirty_mib_s=list(range(24)))
    history = History(tmp_path)
    record_past(spec, history, START)
    history.append(START, {VM_DIRTY: {}})  # time goes on: the last step is complete
    series = history.series(VM_DIRTY, 1)

    assert series.ids == (spec.cluster.vms[0].key,)
    assert series.end == 20_000 * 86_400.0 + 3600
    np.testing.assert_allclose(series.values[:, 0] / MIB, [*range(1, 24), *range(24), 0])
    history.close()


def test_without_a_past_nothing_is_recorded(tmp_path: Path) -> None:
    history = History(tmp_path)
    record_past(world(), history, START)

    assert history.series(VM_DIRTY, 1).ids == ()
    history.close()


def test_a_day_that_has_not_24_hours_is_refused() -> None:
    with pytest.raises(ScenarioError, match="needs 24 figures, not 3"):
        world(past_dirty_mib_s=[1, 2, 3])
