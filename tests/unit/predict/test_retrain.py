"""A training: what it learns from, what it is tested on, and that only a better model takes the champion's place."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.predict.retrain import KEPT, NOT_TRAINED, PROMOTED, Training, retrain
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore
from tests.unit.predict import learned_models as models
from tests.unit.predict.test_keeper import promote

PREDICT, MODELS = PredictSettings(), ModelSettings(own_rows_min=30)


def rows(count: int, *, factor: float = 1.5, first: int = 0) -> list[LabelledMigration]:
    """Migrations of a cluster that takes ``factor`` times what shipped ones took."""
    made = [
        models.labelled(i, seconds=factor * models.true_seconds(models.facts(i)), at=float(i))
        for i in range(first, first + count)
    ]
    return [replace(r, bytes=None) for r in made]


SHIPPED = rows(20, factor=1.0, first=500)
OWN = rows(60)


class Trainer:
    """Learns one factor from the own rows, and notes what it was given."""

    def __init__(self, spread: float = 1.3) -> None:
        self.spread = spread
        self.seen: list[tuple[Sequence[LabelledMigration], Sequence[LabelledMigration]]] = []

    def __call__(
        self,
        shipped: Sequence[LabelledMigration],
        settings: PredictSettings,
        *,
        own: Sequence[LabelledMigration] = (),
        seed: int,
    ) -> models.FakeLearned:
        self.seen.append((shipped, own))
        ratios = sorted((r.seconds or 0.0) / models.true_seconds(r.facts) for r in own)
        return models.model(ratios[len(ratios) // 2], spread=self.spread)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore[Any]:
    (tmp_path / "shipped").mkdir()
    return ModelStore(tmp_path / "own", tmp_path / "shipped", kind=models.KIND)


def training(store: ModelStore[Any], own: Sequence[LabelledMigration] = OWN, **changes: Any) -> Training:
    values: dict[str, Any] = {"predict": PREDICT, "models": MODELS, "now": 5000.0, "train": Trainer()}
    return retrain(SHIPPED, own, store, **{**values, **changes})


def test_the_first_challenger_that_beats_physics_is_promoted(store: ModelStore[Any]) -> None:
    trainer = Trainer()
    found = training(store, train=trainer)

    assert (found.outcome, found.champion, found.problems) == (PROMOTED, None, ())
    assert set(found.scores) == {"challenger", "physics"}
    assert (found.shipped_rows, found.own_rows, found.test_rows) == (20, 60, 18)
    ((shipped, learned),) = trainer.seen
    assert list(shipped) == SHIPPED and list(learned) == OWN[:42], "the newest are for the test alone"
    champion = store.champion()
    assert champion is not None and champion.id == found.model and champion.why == found.why
    manifest = store.examine(store.own / f"{found.model}.json")
    assert (manifest.rows, manifest.own_rows, manifest.trained_at) == (62, 42, 5000.0)
    assert manifest.errors["physics"]["total_time_gmre"] == pytest.approx(found.scores["physics"].total_time_gmre)
    assert store.load(store.pick(found.model or ""), PREDICT).id == found.model


def test_a_challenger_that_is_not_better_is_not_promoted(store: ModelStore[Any]) -> None:
    champion = promote(store, models.model(1.5, spread=1.3))
    found = training(store)

    assert found.outcome == KEPT
    assert "of the champion" in found.why
    assert store.champion() is not None and store.champion().id == champion
    assert set(found.scores) == {"challenger", "champion", "physics"}
    assert len(store.found()) == 1, "nothing was written"


def test_a_challenger_that_beats_the_champion_but_not_physics_is_not_promoted(store: ModelStore[Any]) -> None:
    promote(store, models.model(9.0))
    found = training(store, train=lambda *_, **__: models.model(4.0))

    assert found.outcome == KEPT
    assert "of physics" in found.why


def test_a_better_challenger_succeeds_the_champion(store: ModelStore[Any]) -> None:
    old = promote(store, models.model(1.2, spread=1.3))
    found = training(store)

    assert (found.outcome, found.champion) == (PROMOTED, old)
    assert [f.id for f in store.found()] == [found.model, old]


def test_a_dry_run_changes_nothing(store: ModelStore[Any]) -> None:
    found = training(store, dry_run=True)

    assert found.outcome == KEPT
    assert found.why.startswith("it would be promoted: ")
    assert not store.own.exists()


def test_a_poisoned_ledger_leaves_the_champion_in_place(store: ModelStore[Any]) -> None:
    """Absurd rows are left out and named; where they are many nothing is learned at all."""
    champion = promote(store, models.model(1.5, spread=1.3))
    poison = [
        replace(row, id=f"p-{i}", **change)
        for i, (row, change) in enumerate(
            zip(
                OWN,
                [
                    {"seconds": -1.0},
                    {"seconds": 1e12},
                    {"seconds": float("nan")},
                    {"bytes": 1e30},
                    {"downtime_seconds": 1e9},
                    {"facts": replace(OWN[0].facts, memory_bytes=-5)},
                    {"facts": replace(OWN[0].facts, link_bytes_per_second=1.0)},
                ]
                * 8,
                strict=False,
            )
        )
    ]
    trainer = Trainer()
    few = training(store, [*OWN, *poison[:6]], train=trainer, absurd=[("m-x", "its downtime is negative")])
    assert few.outcome == KEPT
    assert [name for name, _ in few.absurd] == ["m-x", *(f"p-{i}" for i in range(6))]
    assert few.own_rows == 60 and not {r.id for r in trainer.seen[0][1]} & {r.id for r in poison}

    many = training(store, [*OWN, *poison], train=Trainer())
    assert many.outcome == NOT_TRAINED
    assert "are absurd" in many.why
    assert store.champion() is not None and store.champion().id == champion


def test_figures_that_are_wrong_but_possible_do_not_get_past_the_test(store: ModelStore[Any]) -> None:
    """Everything learned from is three times too slow; the newest migrations, as they were, refute it."""
    champion = promote(store, models.model(1.5, spread=1.3))
    lying = [replace(r, seconds=3 * (r.seconds or 0.0)) for r in OWN[:42]]
    found = training(store, [*lying, *OWN[42:]])

    assert found.outcome == KEPT
    assert store.champion() is not None and store.champion().id == champion


def test_too_few_migrations_of_its_own(store: ModelStore[Any]) -> None:
    found = training(store, OWN[:29])

    assert found.outcome == NOT_TRAINED
    assert found.why == "29 migrations of this cluster, 30 are needed (models.own_rows_min)"


def test_rows_that_do_not_suffice_to_learn_from(store: ModelStore[Any]) -> None:
    def refuses(*_: Any, **__: Any) -> models.FakeLearned:
        raise ValueError("2 rows that did not converge: 8 are needed")

    found = training(store, train=refuses)
    assert (found.outcome, found.why) == (NOT_TRAINED, "2 rows that did not converge: 8 are needed")


def test_the_same_rows_are_not_learned_twice(store: ModelStore[Any]) -> None:
    first = training(store)
    again = training(store, list(reversed(OWN)))

    assert again.outcome == NOT_TRAINED
    assert again.why == f"{first.model} was trained on these very migrations"
    assert training(store, [*OWN, *rows(20, first=60)]).outcome == KEPT


def test_a_champion_that_cannot_be_loaded_is_none(store: ModelStore[Any]) -> None:
    broken = promote(store, models.model(1.5, spread=1.3))
    (store.own / f"{broken}.json").write_text(json.dumps({"format": 2, "kind": "cost"}))
    found = training(store)

    assert (found.outcome, found.champion) == (PROMOTED, None)
    assert len(found.problems) == 1 and "outdated" in found.problems[0]


def test_a_model_that_cannot_be_saved_is_not_promoted(store: ModelStore[Any]) -> None:
    def odd(*_: Any, **__: Any) -> models.FakeLearned:
        return models.model(1.5, spread=1.3, odd=slice(3))

    found = training(store, train=odd)
    assert found.outcome == KEPT
    assert "cannot be saved" in found.why
    assert store.champion() is None
