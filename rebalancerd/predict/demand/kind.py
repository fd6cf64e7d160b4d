"""DEMAND: models of what VMs will ask for, as files: what is saved of one, and the histories it is proven with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rebalancerd.predict.demand.features import FEATURES
from rebalancerd.predict.demand.host_chance import HostChance
from rebalancerd.predict.demand.learned import LearnedDemand
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.skill import HIGH, SCORED_STEPS
from rebalancerd.predict.demand.synthetic import synthetic_series
from rebalancerd.predict.kind import Kind
from rebalancerd.predict.manifest import Figures, Golden, Manifest
from rebalancerd.predict.settings import PredictSettings

GOLDEN_VMS, GOLDEN_STEPS, GOLDEN_STEP_SECONDS = 7, 300, 300.0
# shares below this are noted as this: what counts is the difference in shares of a VM, not in digits
LEAST_FIGURE = 0.01


@dataclass(frozen=True, slots=True)
class DemandParts:
    """A demand model as it is saved: the forecaster of VMs, and the model of hosts if one could be learned."""

    forecaster: LearnedDemand
    host_chance: HostChance | None = None

    @property
    def state(self) -> dict[str, Any]:
        """Of every part, by its name."""
        hosts = {} if self.host_chance is None else {"host_chance": self.host_chance.state}
        return {"forecaster": dict(self.forecaster.state), **hosts}

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the forecaster."""
        return tuple(self.forecaster.state["features"])

    @classmethod
    def of_state(cls, state: dict[str, Any], model_id: str, _settings: PredictSettings) -> "DemandParts":
        """A model from what was read from a file. Raises ValueError naming what is wrong with it."""
        if "forecaster" not in state:
            raise ValueError("the demand model has no forecaster")
        hosts = state.get("host_chance")
        return cls(
            LearnedDemand.of_state(state["forecaster"], model_id), None if hosts is None else HostChance.of_state(hosts)
        )


class DemandGolden(Golden):
    """The recorded history of one VM in shares of its size (None: unknown), and what the model forecast then."""

    values: tuple[float | None, ...]
    step_seconds: float
    end: float


def golden_of(seed: int) -> list[DemandGolden]:
    """Seeded synthetic histories of every kind, one with a gap, as questions whose answers are noted."""
    series = synthetic_series(GOLDEN_VMS, GOLDEN_STEPS, step_seconds=GOLDEN_STEP_SECONDS, seed=seed)
    values = np.round(series.values.astype(np.float64), 4)
    values[-1, GOLDEN_STEPS // 2 : GOLDEN_STEPS // 2 + 30] = np.nan
    end = series.start + (GOLDEN_STEPS - 1) * GOLDEN_STEP_SECONDS
    return [
        DemandGolden(
            values=tuple(None if np.isnan(v) else float(v) for v in row), step_seconds=GOLDEN_STEP_SECONDS, end=end
        )
        for row in values
    ]


def ask(model: DemandParts, golden: Sequence[DemandGolden]) -> list[Figures]:
    """Median and 95 % quantile, and the mean, of each history at each scored step."""
    return [_figures(model, item) for item in golden]


def _figures(model: DemandParts, item: DemandGolden) -> Figures:
    values = np.array([[np.nan if v is None else v for v in item.values]], dtype=np.float32)
    panel = Panel(values=values, step_seconds=item.step_seconds, end=item.end)
    told = model.forecaster.forecast(panel, SCORED_STEPS)
    middle, high = told.at(0.5)[0], told.at(HIGH)[0]
    figures: Figures = {}
    for column, step in enumerate(SCORED_STEPS):
        figures[f"quantiles_{step}"] = (_noted(middle[column]), _noted(high[column]))
        figures[f"mean_{step}"] = (_noted(told.mean[0, column]), None)
    return figures


def _noted(value: np.float32) -> float:
    return max(LEAST_FIGURE, float(value)) if value >= 0 else float(value)


DEMAND: Kind[DemandParts, DemandGolden] = Kind(
    name="demand", manifest=Manifest[DemandGolden], features=FEATURES, rebuild=DemandParts.of_state, ask=ask
)
