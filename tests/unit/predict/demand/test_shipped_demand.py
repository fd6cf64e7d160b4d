"""The demand model that is shipped: in order, small, better than the naive ways, and its card is its own."""

from pathlib import Path

from rebalancerd.predict.demand.kind import DEMAND
from rebalancerd.predict.demand.publish import CARD, card_table
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.predict.store import ModelStore, shipped_directory


def test_the_shipped_model_is_in_order_small_and_its_card_is_its_own() -> None:
    store = ModelStore(Path("/nonexistent"), kind=DEMAND)
    found = store.found()
    assert len(found) == 1, "make demand-model TRACES=DIR makes it"
    artefact = store.load(found[0].path, PredictSettings())
    assert artefact.manifest.bytes < 5 * 2**20
    assert card_table(artefact.manifest) in (shipped_directory() / CARD).read_text()
    for name in ("google", "azure"):
        ours = artefact.manifest.errors[f"{name}.learned"]
        for figure in ("rmse", "pinball95"):
            others = [
                v[figure] for k, v in artefact.manifest.errors.items() if k.startswith(name) and "learned" not in k
            ]
            assert ours[figure] is not None and all(o is not None and ours[figure] < o for o in others)
        assert ours["coverage90"] is not None and 0.87 < ours["coverage90"] < 0.93
