"""``rebalancerd train demand`` and ``train all``: from the load the daemon handed over to a promoted model and word of it."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rebalancerd.cli.app import app
from rebalancerd.predict.demand import retrain as retraining
from rebalancerd.predict.demand.kind import DemandParts
from rebalancerd.predict.demand.own_load import NAME, write_load
from rebalancerd.predict.store import ModelStore
from tests.unit.predict import learned_models
from tests.unit.predict.demand import demand_world as worlds
from tests.unit.predict.demand.demand_world import Cluster, model, promote


class Place:
    """A configuration with a state directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.config, self.shipped = directory / "rebalancerd.toml", directory / "shipped"
        (self.shipped / "data").mkdir(parents=True)
        self.state = directory / "state"
        self.state.mkdir()
        self.write("")
        self.store: ModelStore[DemandParts] = ModelStore(self.state / "models", self.shipped, kind=worlds.KIND)

    def write(self, models: str) -> None:
        self.config.write_text(
            f'state_dir = "{self.state}"\n[models]\n{models}\n'
            '[[hosts]]\nname = "h1"\nuri = "qemu+ssh://h1/system"\n[[hosts]]\nname = "h2"\nuri = "qemu+ssh://h2/system"\n'
        )

    def run(self, *arguments: str) -> SimpleNamespace:
        done = CliRunner().invoke(app, [*arguments, "--config", str(self.config)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--output", "json").out)

    def hand_over(self, vms: int = 8, hours: int = 36, poison: float | None = None) -> None:
        cluster = Cluster(vms=vms, past_steps=12 * hours)
        if poison is not None:
            cluster.rows[::3] = poison
        write_load(self.store.own, cluster.panel())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setattr("rebalancerd.predict.store.ModelStore", functools.partial(ModelStore, shipped=made.shipped))
    monkeypatch.setattr("rebalancerd.predict.demand.kind.DEMAND", worlds.KIND)
    monkeypatch.setattr("rebalancerd.predict.kinds.KINDS", (learned_models.KIND, worlds.KIND))
    train = functools.partial(retraining.retrain_demand, train=lambda *_: model())
    monkeypatch.setattr(retraining, "retrain_demand", train)
    monkeypatch.setattr("rebalancerd.cli.train.log_to_stderr", lambda: None)  # it is for a process of its own
    monkeypatch.delenv("REBALANCERD_OUTPUT", raising=False)
    return made


def last(place: Place) -> tuple[str, str]:
    found = place.store.last_training()
    assert found is not None
    return found.outcome, found.why


def test_without_load_nothing_is_trained_and_the_reason_stays(place: Place) -> None:
    done = place.run("train", "demand")

    assert done.code == 0
    assert "not trained: no load of this cluster yet" in done.out
    assert last(place)[0] == "not_trained"


def test_a_promoted_model_is_listed_shown_and_verified(place: Place) -> None:
    place.hand_over()
    place.store.request_training()
    done = place.run("train", "demand")

    assert done.code == 0, done.err
    champion = place.store.champion()
    assert champion is not None and f"promoted {champion.id}" in done.out
    assert "load of 8 VMs over" in done.err
    assert not (place.store.own / "train.request").exists()
    (row,) = place.json("models", "list")["models"]
    assert (row["id"], row["kind"], row["champion"], row["source"]) == (champion.id, "demand", True, "own")
    assert 0 < row["error"] < 1
    listed = place.run("models", "list").out
    assert champion.id in listed and "last training of a demand model" in listed
    shown = place.run("models", "show", champion.id).out
    assert "forecasts" in shown and "mean_2h" in shown and "WITHIN 90 %" in shown
    assert place.json("models", "show", champion.id)["manifest"]["kind"] == "demand"
    assert place.run("models", "verify").code == 0
    (place.store.own / f"{champion.id}.skops").write_bytes(b"x")
    done = place.run("models", "verify", champion.id)
    assert done.code == 1 and "corrupt" in done.out


def test_a_dry_run_leaves_nothing_behind(place: Place) -> None:
    place.hand_over()
    told = place.json("train", "demand", "--dry-run")

    assert (told["outcome"], told["model"], told["dry_run"]) == ("kept", None, True)
    assert told["scores"]["challenger"]["rows"] > 300 and told["vms"] == 8
    assert place.store.champion() is None and place.store.last_training() is None


def test_a_poisoned_history_leaves_the_champion(place: Place) -> None:
    champion = promote(place.store, model())
    place.hand_over(poison=1e30)
    told = place.json("train", "demand")

    assert told["outcome"] == "not_trained" and "absurd" in told["why"]
    assert place.store.champion() is not None and place.store.champion().id == champion


def test_load_that_is_damaged_ends_with_an_error_and_word_of_it(place: Place) -> None:
    place.hand_over()
    (place.store.own / NAME).write_bytes(b"PK")
    done = place.run("train", "demand")

    assert done.code == 1 and "cannot be read" in done.err and "nothing was trained" in done.err
    assert last(place)[0] == "failed"


def test_every_wanted_model_is_trained_and_a_failure_stops_none(place: Place) -> None:
    place.hand_over()
    (place.shipped / "data" / "cost-train.csv").write_text("no,such,columns\n1,2,3\n")
    done = place.run("train", "all")

    assert done.code == 1 and "cost-train.csv" in done.err
    assert last(place)[0] == "promoted"
    noted = json.loads((place.store.own / "cost-training.json").read_text())
    assert noted["outcome"] == "failed"


def test_what_is_not_wanted_is_not_trained(place: Place) -> None:
    """The request is taken away all the same: while it is there systemd starts one training after the other."""
    place.write('cost = "physics"\ndemand = "persistence"')
    place.hand_over()
    place.store.request_training()

    assert place.run("train", "all").code == 0
    assert not (place.store.own / "train.request").exists()
    assert place.store.last_training() is None and not (place.store.own / "cost-training.json").exists()


def test_another_training_that_runs(place: Place) -> None:
    from rebalancerd.record.file_lease import FileLease

    place.hand_over()
    lock = FileLease(place.store.own / "train.lock")
    try:
        done = place.run("train", "demand")
    finally:
        lock.release()
    assert done.code == 75 and "another training runs" in done.err


def test_the_numbers_of_a_load_without_values(place: Place) -> None:
    cluster = Cluster(vms=4, past_steps=400)
    cluster.rows[:] = np.nan
    write_load(place.store.own, cluster.panel())

    assert place.json("train", "demand")["outcome"] == "not_trained"
