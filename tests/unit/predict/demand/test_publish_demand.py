"""The shipped demand model: what it may be trained on, what is kept back, what its card says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cli import publish_demand as command
from rebalancerd.cluster.trace import Trace
from rebalancerd.predict.demand.kind import DEMAND, DemandParts
from rebalancerd.predict.demand.publish import CARD, learned_from, measured_on, publish_demand, write_card
from rebalancerd.predict.demand.synthetic import synthetic_series
from rebalancerd.predict.demand.training import train_demand
from rebalancerd.predict.demand.windows import TrainingSeries
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.predict.store import ModelStore

MARKS = "# Card\n<!-- measured -->\nold figures\n<!-- /measured -->\nlimits\n"


def trace(name: str, vms: int, steps: int, *, memory: bool = False) -> Trace:
    values = synthetic_series(vms, steps, seed=vms).values.T.copy()
    ids = tuple(f"vm{i}" for i in range(vms))
    return Trace(
        set=name, part="x", ids=ids, step_seconds=300.0, start=0.0, cpu=values, memory=values if memory else None
    )


GOOGLE, AZURE = trace("google", 20, 288, memory=True), trace("azure", 10, 1000)


def small(series: Sequence[TrainingSeries], seed: int) -> DemandParts:
    return DemandParts(train_demand(series, seed=seed, windows=3500))


def test_what_is_measured_on_was_not_learned_from() -> None:
    cpu, memory = learned_from(GOOGLE)
    assert cpu.values.shape == memory.values.shape == (15, 288) and cpu.clock is False
    assert np.array_equal(measured_on(GOOGLE).values, GOOGLE.cpu[:, 15:].T)
    (azure,) = learned_from(AZURE)
    assert azure.values.shape == (10, 700)
    panel = measured_on(AZURE)
    assert np.array_equal(panel.values, AZURE.cpu[600:].T)
    assert panel.values.shape[1] * 2 / 3 > 100, "the newest third lies behind the 700th step"


def test_sets_without_a_licence_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no trace of azure or google"):
        publish_demand(tmp_path, [trace("planetlab", 10, 288), trace("bitbrains", 10, 288)], now=1.0)
    seen: list[str] = []

    def train(series: Sequence[TrainingSeries], seed: int) -> DemandParts:
        seen.extend(s.name for s in series)
        raise ValueError("enough was seen")

    with pytest.raises(ValueError, match="enough"):
        publish_demand(tmp_path, [trace("planetlab", 10, 288), GOOGLE, AZURE], now=1.0, train=train)
    assert seen == ["google x cpu", "google x memory", "azure x cpu", "synthetic"]


def test_a_published_model_replaces_the_old_one_loads_and_fills_its_card(tmp_path: Path) -> None:
    (tmp_path / "demand-aaaaaaaaaaaa.json").write_text("{}")
    (tmp_path / CARD).write_text(MARKS)
    manifest = publish_demand(tmp_path, [GOOGLE, AZURE], now=5.0, train=small)
    write_card(tmp_path / CARD, manifest)

    store = ModelStore(tmp_path / "own", tmp_path, kind=DEMAND)
    (found,) = store.found()
    assert found.id == manifest.id == store.load(found.path, PredictSettings()).id
    assert {name.partition(".")[0] for name in manifest.errors} == {"google", "azure"}
    text = (tmp_path / CARD).read_text()
    assert "old figures" not in text and text.startswith("# Card\n") and text.endswith("<!-- /measured -->\nlimits\n")
    assert text.count("| ours |") == 2 and manifest.id in text
    (tmp_path / CARD).write_text("no marks")
    with pytest.raises(ValueError, match="has no marks"):
        write_card(tmp_path / CARD, manifest)


def test_a_directory_without_traces_ends_with_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--traces", str(tmp_path), "--into", str(tmp_path)]) == 1
    assert "no model was made" in capsys.readouterr().err
