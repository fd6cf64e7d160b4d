"""Makes the cost model that is shipped: ``python -m rebalancerd.predict.publish`` (``make model``).

It is trained on ``models/data/cost-train.csv`` alone; the other files there are what it is measured on. The same rows
give the same model.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from rebalancerd.predict.artefact import save
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.cost_kind import COST, CostGolden
from rebalancerd.predict.dataset import read_both_views, read_migrations
from rebalancerd.predict.manifest import Manifest, digest_of
from rebalancerd.predict.retrain import golden_of
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.predict.store import shipped_directory
from rebalancerd.predict.training import score_cost, train_cost

TRAINED_ON = "cost-train.csv"
SEED = 1


def publish(directory: Path) -> Manifest[CostGolden]:
    """Train on the directory's data, replace its cost models, and return the new one's manifest.

    Raises ValueError for data that cannot be used, OSError.
    """
    data = directory / "data"
    rows = read_both_views(data / TRAINED_ON)
    settings = PredictSettings()
    model = train_cost(rows, settings, seed=SEED)
    kept_back = {p.stem: read_migrations(p) for p in sorted(data.glob("*.csv")) if p.name != TRAINED_ON}
    predictors = {"learned": model.predict_facts, "physics": PhysicsCost(settings).predict_facts}
    every = [row for part in kept_back.values() for row in part]
    errors = {name: dict(asdict(score_cost(predict, every))) for name, predict in predictors.items()}
    for stem, part in kept_back.items():
        for name, predict in predictors.items():
            errors[f"{stem}.{name}"] = dict(asdict(score_cost(predict, part)))
    old = [*directory.glob("cost-*.skops"), *directory.glob("cost-*.json")]
    manifest = save(
        directory,
        model,
        kind=COST,
        golden=golden_of(rows),
        settings=settings,
        trained_at=max(r.at for r in rows),
        rows=len(rows),
        data_sha256=digest_of([repr(r) for r in rows]),
        errors=errors,
        seed=SEED,
    )
    for path in old:
        if path.stem != manifest.id:
            path.unlink()
    return manifest


def main() -> int:
    """Make it in the package's own models directory and say what came of it."""
    manifest = publish(shipped_directory())
    print(f"{manifest.id}: {manifest.rows} rows, {manifest.bytes} bytes")
    for name, figures in manifest.errors.items():
        told = ", ".join(f"{key} {value:.3g}" for key, value in figures.items() if value is not None)
        print(f"  {name}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
