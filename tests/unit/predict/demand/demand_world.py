"""A cluster on virtual time whose load is a wave, and small demand models that know the wave, or do not."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.demand.forecast import Forecast
from rebalancerd.predict.demand.keeper import DemandKeeper
from rebalancerd.predict.demand.kind import DEMAND, DemandParts, golden_of
from rebalancerd.predict.demand.naive import LEVELS
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.kind import Kind
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore

STEP, START = 300.0, 1_700_000_100.0
PERIOD, SWING, NOISE = 4 * 3600.0, 0.3, 0.03
FEATURES = ("time",)
TRIAL_HOURS = 6.0  # a day of the tests
NORMAL = np.array([-1.6449, -0.6745, 0.0, 0.6745, 1.6449], dtype=np.float32)


def wave(time: float | np.ndarray) -> Any:
    """Share of its size that every VM asks for, but for noise."""
    return 0.5 + SWING * np.sin(2 * np.pi * (np.asarray(time) - START) / PERIOD)


@dataclass
class FakeForecaster:
    """Forecasts the wave plus ``bias``; its quantiles are those of a normal distribution of ``spread``."""

    state: dict[str, Any]
    basis: str = "fake"
    low: float = 1.0
    high: float = 1.0
    asked: list[int] = field(default_factory=list)

    def recalibrated(self, factor_low: float, factor_high: float) -> "FakeForecaster":
        return replace(self, low=factor_low, high=factor_high)

    def forecast(self, panel: Panel, steps: Sequence[int]) -> Forecast:
        self.asked.append(len(panel.values))
        if self.state.get("broken"):
            raise ZeroDivisionError("broken model")
        rows = len(panel.values)
        at = panel.end + panel.step_seconds * np.array(steps)
        mean = np.tile(np.clip(wave(at) + self.state["bias"], 0, None), (rows, 1)).astype(np.float32)
        factor = np.where(NORMAL < 0, self.low, self.high).astype(np.float32)
        quantiles = mean[..., None] + np.float32(self.state["spread"]) * NORMAL * factor
        return Forecast(
            steps=tuple(steps), mean=mean, levels=LEVELS, quantiles=np.clip(quantiles, 0, None), basis=self.basis
        )


def rebuild(state: dict[str, Any], model_id: str, _settings: PredictSettings) -> DemandParts:
    """What DemandParts.of_state does."""
    if not isinstance(state.get("forecaster"), Mapping) or "bias" not in state["forecaster"]:
        raise ValueError("the state has no bias")
    return parts(FakeForecaster(dict(state["forecaster"]), model_id))


def parts(forecaster: FakeForecaster) -> DemandParts:
    return DemandParts(forecaster)  # type: ignore[arg-type]


def model(bias: float = 0.0, spread: float = NOISE, **extra: Any) -> DemandParts:
    """A model that is off by ``bias``, and believes in an error of ``spread``."""
    return parts(FakeForecaster({"features": list(FEATURES), "bias": bias, "spread": spread, **extra}))


KIND: Kind[DemandParts, Any] = replace(DEMAND, rebuild=rebuild, features=FEATURES)


def opened(directory: Path) -> ModelStore[DemandParts]:
    shipped = directory / "shipped"
    shipped.mkdir(exist_ok=True)
    return ModelStore(directory / "own", shipped, kind=KIND)


def promote(store: ModelStore[DemandParts], made: DemandParts, *, at: float = 1000.0) -> str:
    manifest = store.promote(
        made,
        at=at,
        why="better",
        scores={"challenger": {"rmse": 0.1, "rows": 10.0}},
        keep=5,
        golden=golden_of(1)[:2],
        settings=PredictSettings(),
        rows=24,
        own_rows=10,
        data_sha256="d",
        seed=1,
    )
    return manifest.id


class Cluster:
    """VMs on two hosts and the history of their CPU, step by step."""

    def __init__(self, vms: int = 6, past_steps: int = 30, noise: float = NOISE, seed: int = 1) -> None:
        self.rng, self.noise = np.random.default_rng(seed), noise
        self.cores, self.place = [2] * vms, ["a" if i % 2 else "b" for i in range(vms)]
        self.end, self.rows = START, np.empty((0, vms), dtype=np.float32)
        self.silent: set[int] = set()
        for _ in range(past_steps):
            self.step()

    def step(self, seconds: float = STEP) -> None:
        """One more row of history."""
        self.end += seconds
        shares = np.clip(wave(self.end) + self.noise * self.rng.normal(size=len(self.cores)), 0, 1)
        row = shares * self.cores
        row[list(self.silent)] = np.nan
        self.rows = np.concatenate([self.rows, row[None, :].astype(np.float32)])[-576:]

    @property
    def cpu(self) -> Series:
        ids = tuple(f"vm-{i}" for i in range(len(self.cores)))
        return Series(resource="vm_cpu_cores", ids=ids, values=self.rows.copy(), step_seconds=STEP, end=self.end)

    @property
    def snapshot(self) -> Snapshot:
        hosts = tuple(Host(name=n, facts=HostFacts(uuid=n, cpus=16, memory_bytes=8 * GIB)) for n in ("a", "b"))
        vms = tuple(
            Vm(
                facts=VmFacts(uuid=f"vm-{i}", name=f"vm-{i}", vcpus=cores, memory_bytes=GIB),
                host=host,
                state=DomainState.RUNNING,
                load=VmLoad(cpu_cores=float(np.nan_to_num(self.rows[-1, i])), memory_bytes=GIB // 2),
            )
            for i, (cores, host) in enumerate(zip(self.cores, self.place, strict=True))
        )
        return Snapshot(taken_at=self.end, hosts=hosts, vms=vms)

    def keeper(self, store: ModelStore[DemandParts], **settings: Any) -> DemandKeeper:
        """A keeper whose clock is this cluster's, as the daemon builds it."""
        settings = {"demand_trial_hours": TRIAL_HOURS, **settings}
        made = DemandKeeper(store, PredictSettings(), ModelSettings(**settings), lambda: self.end)
        made.refresh()
        return made

    def run(self, keeper: DemandKeeper, hours: float) -> None:
        """Let so many hours pass, with the keeper's ticks in them."""
        for _ in range(round(hours * 3600 / STEP)):
            self.step()
            keeper.watch(self.snapshot, self.cpu)

    def panel(self) -> Panel:
        return Panel(values=copy.deepcopy(self.rows.T) / 2, step_seconds=STEP, end=self.end)
