"""Small fitted models with the outer shape of the learned cost model, and migrations to ask them about."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from rebalancerd.cluster.cost import Candidate, Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.known import MigrationFacts, migration_facts
from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import MIB
from rebalancerd.predict.cost_kind import COST, CostGolden, Learned
from rebalancerd.predict.kind import Kind
from rebalancerd.predict.settings import PredictSettings

FEATURES = ("memory_mib", "link_mib_per_second", "dirty_mib_per_second")
LINK = 125e6


def facts(index: int = 0, *, memory_mib: int = 512, dirty_mib: float = 4.0) -> MigrationFacts:
    """A VM that differs from the others by its index."""
    memory = (memory_mib + 16 * index) * MIB
    points = tuple(
        DirtyPoint(period_seconds=p, unique_bytes=u * MIB, standard_error_bytes=0.1 * MIB, readings=5)
        for p, u in ((1.0, dirty_mib), (4.0, 2 * dirty_mib))
    )
    return MigrationFacts(
        memory_bytes=memory,
        resident_bytes=memory // 2,
        dirty=DirtyCurve(points=points, age_seconds=30.0),
        link_bytes_per_second=LINK,
        options=MigrationOptions(max_downtime_seconds=0.3),
    )


def labelled(
    index: int, *, seconds: float, at: float | None = None, succeeded: bool = True, **changes: Any
) -> LabelledMigration:
    """A migration of that VM that took ``seconds``."""
    known = facts(index)
    return LabelledMigration(
        id=f"m-{index}",
        at=float(index) if at is None else at,
        facts=known,
        succeeded=succeeded,
        deadline_seconds=900.0,
        seconds=seconds,
        downtime_seconds=0.1 if succeeded else None,
        bytes=float(known.resident_bytes or 0) * 1.1 if succeeded else None,
        **changes,
    )


def inputs(rows: Sequence[MigrationFacts]) -> np.ndarray:
    """Shape (N, len(FEATURES))."""
    return np.array(
        [
            (
                f.memory_bytes / MIB,
                (f.link_bytes_per_second or 0.0) / MIB,
                f.dirty.points[0].unique_bytes / MIB if f.dirty else np.nan,
            )
            for f in rows
        ]
    )


def estimators() -> dict[str, Any]:
    """One fitted estimator of every kind that a cost model may be made of, the caller's own."""
    return copy.deepcopy(_fitted())


@functools.cache
def _fitted() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.random((240, 3)) * [1024, 120, 50]
    y, c = x[:, 0] / 64 + x[:, 2], (x[:, 2] > 25).astype(int)
    return {
        "histogram": HistGradientBoostingRegressor(max_iter=8).fit(x, y),
        "upper": HistGradientBoostingRegressor(max_iter=8, loss="quantile", quantile=0.9).fit(x, y),
        "absolute": HistGradientBoostingRegressor(
            max_iter=8, loss="absolute_error", monotonic_cst=[1, 0, 0], early_stopping=True, random_state=1
        ).fit(x, y),
        "gamma": HistGradientBoostingRegressor(max_iter=8, loss="gamma").fit(x, y + 1),
        "ends": HistGradientBoostingClassifier(max_iter=8).fit(x, c),
        "stages": GradientBoostingRegressor(n_estimators=5, loss="quantile", alpha=0.9).fit(x, y),
        "huber": GradientBoostingRegressor(n_estimators=5, loss="huber").fit(x, y),
        "forest": RandomForestRegressor(n_estimators=5, max_depth=6).fit(x, y),
        "extra": ExtraTreesRegressor(n_estimators=5, max_depth=6).fit(x, y),
        "line": Ridge().fit(x, y),
        "smooth": make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), SVR(C=0.5)).fit(x, y),
        "odds": make_pipeline(StandardScaler(), LogisticRegression()).fit(x, c),
        "calibration": IsotonicRegression(y_min=0, out_of_bounds="clip").fit(x[:, 0], y),
    }


@dataclass
class FakeLearned:
    """A model whose time comes from its Ridge and whose bounds are ``spread`` times its values."""

    state: dict[str, Any]
    model_id: str = "challenger"
    settings: PredictSettings = field(default_factory=PredictSettings)

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self.state["features"])

    def predict_facts(
        self, rows: Sequence[MigrationFacts], deadline_seconds: Sequence[float]
    ) -> Sequence[MigrationCost]:
        seconds = np.asarray(self.state["line"].predict(inputs(rows))) + self.settings.overhead_seconds
        return [
            cost(float(s), basis=self.model_id, spread=float(self.state["spread"]))
            for s, _ in zip(seconds, deadline_seconds, strict=True)
        ]

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> Sequence[MigrationCost]:
        known = [migration_facts(snapshot, c) for c in candidates]
        asked = [f for f in known if f is not None]
        return self.predict_facts(asked, [self.settings.deadline_seconds] * len(asked))


def rebuild(state: dict[str, Any], model_id: str, settings: PredictSettings) -> FakeLearned:
    """What LearnedCost.of_state does. Raises ValueError."""
    for key in ("features", "line", "spread"):
        if key not in state:
            raise ValueError(f"the state lacks {key!r}")
    return FakeLearned(state, model_id, settings)


KIND: Kind[Learned, CostGolden] = replace(COST, rebuild=rebuild, features=FEATURES)


def golden(count: int = 1) -> list[CostGolden]:
    """Questions whose answers are noted."""
    return [CostGolden(facts=facts(i), deadline_seconds=900.0) for i in range(count)]


def cost(seconds: float, *, upper: float | None = None, spread: float = 1.5, basis: str = "x") -> MigrationCost:
    """A cost of that many seconds."""
    return MigrationCost(
        seconds=Estimate(value=seconds, upper=seconds * spread if upper is None else upper),
        downtime_seconds=Estimate(value=0.1, upper=0.2),
        bytes=Estimate(value=1e8, upper=2e8),
        slowdown=Estimate(value=0.02, upper=0.1),
        non_convergence=Estimate(value=0.01, upper=0.02),
        basis=basis,
    )


def model(factor: float = 1.0, *, spread: float = 1.5, features: Sequence[str] = FEATURES, **extra: Any) -> FakeLearned:
    """A fitted model whose time is ``factor`` times memory over link."""
    rows = [facts(i) for i in range(24)]
    overhead = PredictSettings().overhead_seconds
    line = Ridge(alpha=1e-9).fit(inputs(rows), [factor * true_seconds(f) - overhead for f in rows])
    return FakeLearned({"features": list(features), "line": line, "spread": spread, **extra})


def true_seconds(known: MigrationFacts) -> float:
    """What these VMs take: half the memory over the link, twice."""
    return 2 * (known.resident_bytes or 0) / LINK
