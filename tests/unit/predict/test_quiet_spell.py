"""The quiet spell: what within the hour reads as quiet in a forecast of the dirty rate, and what history is no ground for one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cluster.quiet import QuietSpell
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.units import MIB
from rebalancerd.predict.demand.forecast import Forecast
from rebalancerd.predict.demand.kind import DEMAND
from rebalancerd.predict.demand.naive import LEVELS, NAIVE
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.quiet_spell import LEAST_LATELY, LEAST_STEPS, quiet_spells
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.predict.store import ModelStore

NOON = 100 * 86_400.0 + 12 * 3600.0
BUSY, QUIET = 80 * MIB, 3 * MIB
NAN = float("nan")
EMPTY = Series.empty("dirty", 3600.0, NOON)


def fine(*columns: Sequence[float], end: float = NOON, step: float = 300.0) -> Series:
    """One column per VM, named v0, v1 …"""
    values = np.array(columns, dtype=np.float32).T
    ids = tuple(f"v{i}" for i in range(len(columns)))
    return Series(resource="dirty", ids=ids, values=values, step_seconds=step, end=end)


class Script:
    """Forecasts, for every VM, these bytes per second as p75 at each step; the other quantiles are 0 and all of the size."""

    basis = "script"

    def __init__(self, rates: Sequence[float], size: float = BUSY) -> None:
        self.rates, self.size = rates, size
        self.panel: Panel | None = None

    def forecast(self, panel: Panel, steps: Sequence[int]) -> Forecast:
        self.panel = panel
        upper = np.array([self.rates[h - 1] for h in steps], dtype=np.float32) / self.size
        quantiles = np.zeros((len(panel.values), len(steps), len(LEVELS)), dtype=np.float32)
        quantiles[..., LEVELS.index(0.75)] = upper
        quantiles[..., LEVELS.index(0.95)] = 1.0
        mean = quantiles.mean(axis=2)
        return Forecast(steps=tuple(steps), mean=mean, levels=LEVELS, quantiles=quantiles, basis=self.basis)


def spell(
    script: Sequence[float], series: Series | None = None, now: float | None = BUSY, at: float = NOON
) -> QuietSpell | None:
    series = fine([float(BUSY)] * 48) if series is None else series
    return quiet_spells(Script(script), series, EMPTY, {"v0": now}, at).get("v0")


FALLS = [BUSY] * 3 + [QUIET] * 3 + [BUSY] * 6


def test_the_first_step_at_which_the_upper_quantile_is_half_of_now() -> None:
    assert spell(FALLS) == QuietSpell(
        vm_uuid="v0", starts_in_seconds=1200.0, rate_bytes_per_second=pytest.approx(QUIET), basis="script"
    )
    assert spell([BUSY] * 11 + [0.5 * BUSY]) == QuietSpell(
        vm_uuid="v0", starts_in_seconds=3600.0, rate_bytes_per_second=0.5 * BUSY, basis="script"
    )
    assert spell([0.51 * BUSY] * 12) is None


def test_a_spell_is_counted_from_the_snapshot_and_lies_ahead_of_it() -> None:
    """The history ended 400 s ago: its first step is past, its fourth is 800 s away."""
    found = spell([QUIET, *FALLS[1:]], at=NOON + 400.0)

    assert found is not None
    assert found.starts_in_seconds == 800.0


@pytest.mark.parametrize("late", [-301.0, 901.0, NAN])
def test_a_stale_history_and_one_dated_ahead_tell_nothing(late: float) -> None:
    assert spell([QUIET] * 12, at=NOON + late) is None


def test_steps_beyond_the_hour_are_not_asked_for() -> None:
    script = Script([QUIET] * 12)
    slow = fine([float(BUSY)] * 48, step=1800.0)

    found = quiet_spells(script, slow, EMPTY, {"v0": BUSY}, NOON)

    assert found["v0"].starts_in_seconds == 1800.0
    assert quiet_spells(script, fine([float(BUSY)] * 48, step=7200.0), EMPTY, {"v0": BUSY}, NOON) == {}


@pytest.mark.parametrize("odd", [NAN, -1.0, float("inf"), 1e20])
def test_what_is_no_figure_is_no_history(odd: float) -> None:
    """Two hours must be known, and half of the last two; gaps, negative and absurd rates do not count."""
    few = [odd] * 100 + [float(BUSY)] * (LEAST_STEPS - 1)
    old = [float(BUSY)] * 100 + [odd] * (24 - LEAST_LATELY + 1) + [float(BUSY)] * (LEAST_LATELY - 1)

    assert spell(FALLS, fine(few)) is None
    assert spell(FALLS, fine([odd, *few[1:], float(BUSY)])) is not None
    assert spell(FALLS, fine(old)) is None
    assert spell(FALLS, fine([*old[1:], float(BUSY)])) is not None


@pytest.mark.parametrize("now", [None, 0.0, -1.0, NAN, float("inf"), 1e20])
def test_a_present_that_is_no_figure_has_no_spell(now: float | None) -> None:
    assert spell([0.0] * 12, now=now) is None


def test_the_panel_is_in_shares_of_each_vms_own_size_and_ends_with_the_present() -> None:
    """v0 has one spike in a hundred, which counts as its size; v1 was never as loud as now; v2 never dirtied before."""
    spiky = [20.0 * MIB] * 150 + [900.0 * MIB] + [40.0 * MIB] * 2
    calm = [-1.0, NAN] + [10.0 * MIB] * 151
    script = Script([BUSY] * 12)
    now = {"v1": 40.0 * MIB, "v0": 10.0 * MIB, "stranger": 5.0, "v2": 1.0 * MIB}

    quiet_spells(script, fine(spiky, calm, [0.0] * 153), EMPTY, now, NOON)

    assert script.panel is not None
    values = script.panel.values
    assert values.shape == (3, 153)
    assert values[1, 148:] == pytest.approx([0.5, 0.5, 1.0, 1.0, 0.25])
    assert values[0, :3] == pytest.approx([NAN, NAN, 0.25], nan_ok=True)
    assert values[0, -1] == 1.0
    assert values[2] == pytest.approx([0.0] * 152 + [1.0])
    assert np.nanmin(values) >= 0
    assert np.nanmax(values) <= 1


@pytest.mark.parametrize(("end", "told"), [(NOON, True), (NOON - 3600.0, False)])
def test_hours_are_given_where_they_end_with_the_last_complete_one(end: float, told: bool) -> None:
    script = Script([BUSY] * 12)
    quiet_spells(script, fine([float(BUSY)] * 48), fine([0.5 * BUSY] * 30, end=end, step=3600.0), {"v0": BUSY}, NOON)

    assert script.panel is not None
    assert (script.panel.hourly is not None) == told
    if script.panel.hourly is not None:
        assert script.panel.hourly == pytest.approx(np.full((1, 30), 0.5))


def sawtooth(rows: int, busy: int) -> list[float]:
    """An hour's cycle in steps of five minutes that ends ``busy`` steps into its loud part of six."""
    noise = np.random.default_rng(4).uniform(0.95, 1.05, rows)
    return [float(n * (BUSY if (i - rows + busy) % 12 < 6 else QUIET)) for i, n in enumerate(noise)]


def test_the_shipped_model_foresees_what_comes_again_and_does_not_what_never_fell() -> None:
    """Half an hour loud, half an hour quiet: near the end of the loud part the next quiet one is told. A steady VM has none."""
    store = ModelStore(Path("/nonexistent"), kind=DEMAND)
    model = store.load(store.found()[0].path, PredictSettings()).model.forecaster
    steady = [float(n * BUSY) for n in np.random.default_rng(5).uniform(0.95, 1.05, 576)]
    now = {"v0": float(BUSY), "v1": float(BUSY)}

    found = quiet_spells(model, fine(sawtooth(576, 5), steady), EMPTY, now, NOON)

    assert list(found) == ["v0"]
    assert found["v0"].basis.startswith("demand-")
    assert 300.0 <= found["v0"].starts_in_seconds <= 2100.0


def test_persistence_never_expects_less_than_now() -> None:
    assert quiet_spells(NAIVE["persistence"], fine(sawtooth(576, 5)), EMPTY, {"v0": BUSY}, NOON) == {}
