"""The settings of a replay from a configuration: the daemon's, with what predicts under it."""

import time
from collections.abc import Callable
from pathlib import Path

from rebalancerd.config import Config
from rebalancerd.predict.cost_kind import COST
from rebalancerd.predict.demand.keeper import DemandKeeper
from rebalancerd.predict.demand.kind import DEMAND
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.demand.scenario_model import ScenarioDemand
from rebalancerd.predict.interface import CostModel, DemandModel
from rebalancerd.predict.keeper import ModelKeeper
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore
from rebalancerd.sim.replay import ReplaySettings

NOWHERE = Path("/nonexistent")  # no cluster's own models: the shipped ones


def defaults(name: str) -> ReplaySettings:
    """What a daemon with no settings of its own does, with the shipped models."""
    predict, models = PredictSettings(), ModelSettings()
    return ReplaySettings(
        name=name, demand=demand_of(NOWHERE, predict, models), costs=costs_of(NOWHERE, predict, models)
    )


def settings_of(name: str, config: Config) -> ReplaySettings:
    """Everything of a configuration that a replay uses; its hosts, mode, ports and files play no part."""
    predict, models = config.predict_settings(), config.model_settings()
    return ReplaySettings(
        name=name,
        decide_seconds=config.ticks.decide,
        observe=config.observe_settings(),
        predict=predict,
        plan=config.plan_settings(),
        guard=config.guard_settings(),
        act=config.act_settings(),
        demand=demand_of(config.models_dir, predict, models),
        costs=costs_of(config.models_dir, predict, models),
    )


def demand_of(directory: Path, predict: PredictSettings, models: ModelSettings) -> Callable[[], DemandModel]:
    """What makes the demand scenarios: the best model that loads, or persistence where there is none or it is asked for."""

    def made() -> DemandModel:
        keeper = DemandKeeper(ModelStore(directory, kind=DEMAND), predict, models, time.time)
        keeper.refresh()
        if keeper.state().id is None:
            return PersistenceDemand(predict)
        return ScenarioDemand(keeper.forecaster, predict)

    return made


def costs_of(directory: Path, predict: PredictSettings, models: ModelSettings) -> Callable[[], CostModel]:
    """The model of costs: the best one that loads, else physics."""

    def made() -> CostModel:
        keeper = ModelKeeper(ModelStore(directory, kind=COST), predict, models, time.time)
        keeper.refresh()
        return keeper.costs

    return made
