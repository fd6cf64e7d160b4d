"""The daemon and its demand model: it starts with whatever is there, judges it as time passes, and leaves load to trainings."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.daemon import Daemon
from rebalancerd.observe.history import VM_CPU
from rebalancerd.predict.demand.kind import DemandParts
from rebalancerd.predict.demand.own_load import read_load
from rebalancerd.predict.store import ModelStore
from rebalancerd.serve.control import Control, Surroundings
from tests.unit.predict.demand import demand_world as worlds
from tests.unit.predict.demand.demand_world import Cluster, model, promote
from tests.unit.test_daemon import World, drive, make_daemon, until, world  # noqa: F401 - fixtures

Store = ModelStore[DemandParts]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The daemon's models; none at first, and none shipped."""
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    opened: Any = functools.partial(ModelStore, shipped=shipped)
    monkeypatch.setattr("rebalancerd.daemon.DEMAND", worlds.KIND)
    monkeypatch.setattr("rebalancerd.daemon.ModelStore", opened)
    made: Store = opened(tmp_path / "state" / "models", kind=worlds.KIND)
    return made


def health(daemon: Daemon) -> list[str]:
    """What `status` would say of the model."""
    about = Surroundings(hosts=("h1", "h2"), controller="c", started_at=0.0, demand=daemon.demand.state)
    control = Control(loop=daemon.loop, ledger=daemon.ledger, clock=daemon.clock, about=about)
    return [c.message for c in control.checks() if c.code == "DEMAND_MODEL_UNTRUSTED"]


def test_without_any_model_persistence_forecasts_and_it_says_so(
    store: Store,
    make_daemon: Callable[..., Daemon],  # noqa: F811
) -> None:
    daemon = make_daemon("recommend")

    assert daemon.demand.state().basis == "persistence"
    (said,) = health(daemon)
    assert "persistence forecasts demand: there is no model in" in said


def test_a_configuration_that_wants_persistence_is_no_health_condition(
    store: Store,
    make_daemon: Callable[..., Daemon],  # noqa: F811
) -> None:
    promote(store, model())
    daemon = make_daemon("recommend", '[models]\ndemand = "persistence"\n')

    assert daemon.demand.state().basis == "persistence"
    assert health(daemon) == []


@pytest.mark.parametrize("damage", ["truncated", "foreign", "absent", "garbage"])
def test_it_runs_with_a_broken_artefact(
    store: Store,
    make_daemon: Callable[..., Daemon],  # noqa: F811
    damage: str,
) -> None:
    own = promote(store, model())
    path = store.own / f"{own}.skops"
    match damage:
        case "truncated":
            path.write_bytes(path.read_bytes()[:100])
        case "foreign":
            (store.own / f"{own}.json").write_text('{"format": 1, "kind": "cost"}')
        case "absent":
            path.unlink()
        case "garbage":
            (store.own / f"{own}.json").write_bytes(b"\xff\x00" * 1000)
    heard: list[CycleRecord] = []
    with capture_logs() as logs:
        daemon = make_daemon("recommend")
        daemon.on_cycle.append(heard.append)
        assert drive(daemon, lambda: until(lambda: len(heard) >= 2, "cycles")) == 0

    assert daemon.demand.state().basis == "persistence"
    assert [e["event"] for e in logs if e["event"] == "model_refused" and own in str(e["file"])] == ["model_refused"]
    assert not [e for e in logs if e.get("bug")]


class Recorded:
    """A loop's view and a history that show a simulated cluster instead of the daemon's own."""

    def __init__(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = Cluster()
        monkeypatch.setattr(daemon.observer, "series", self.series)
        monkeypatch.setattr(daemon.demand, "_now", lambda: self.cluster.end)
        self.daemon = daemon

    def series(self, resource: str, tier: int = 0) -> Any:
        assert resource == VM_CPU
        found = self.cluster.cpu
        if tier == 0:
            return found
        return type(found).empty(resource, 3600.0, self.cluster.end)

    @property
    def snapshot(self) -> Any:
        return self.cluster.snapshot

    def pass_hours(self, hours: float) -> None:
        for _ in range(round(hours * 3600 / worlds.STEP)):
            self.cluster.step()
            self.daemon.loop.view = self  # type: ignore[assignment]
            self.daemon.judge()


def test_a_day_below_zero_demotes_it_and_the_verdict_survives_a_restart(
    store: Store,
    make_daemon: Callable[..., Daemon],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = promote(store, model(bias=0.3))
    daemon = make_daemon("recommend", f"[models]\ndemand_trial_hours = {worlds.TRIAL_HOURS}\n")
    assert daemon.demand.state().basis == own
    with capture_logs() as logs:
        Recorded(daemon, monkeypatch).pass_hours(worlds.TRIAL_HOURS + 1.5)

    state = daemon.demand.state()
    assert not state.trusted and state.basis != own
    (demoted,) = [e for e in logs if e["event"] == "model_demoted"]
    assert demoted["model"] == own
    daemon.loop.view = None
    (said,) = health(daemon)
    assert f"{state.basis} forecasts demand, for {own} is not trusted: worse than " in said
    daemon.close()
    again = make_daemon("recommend", f"[models]\ndemand_trial_hours = {worlds.TRIAL_HOURS}\n")
    assert again.demand.state().basis == state.basis
    assert again.demand.state().reason == demoted["reason"]


def test_load_is_left_to_trainings(
    store: Store,
    make_daemon: Callable[..., Daemon],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = make_daemon("recommend")
    daemon.housekeep()
    assert not (store.own / "demand-load.npz").exists(), "no cycle has ended yet"
    recorded, begun = Recorded(daemon, monkeypatch), list[int]()
    daemon.loop.view = recorded  # type: ignore[assignment]
    monkeypatch.setattr(daemon.trainer, "begin", lambda: begun.append(1))
    daemon.train()

    assert begun == [1]
    assert read_load(store.own).values.shape == (6, 30)


def test_a_directory_that_cannot_be_written_does_not_stop_a_training(
    store: Store,
    make_daemon: Callable[..., Daemon],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon, begun = make_daemon("recommend"), list[int]()
    monkeypatch.setattr(daemon.trainer, "begin", lambda: begun.append(1))
    monkeypatch.setattr(daemon, "hand_over", lambda: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        daemon.train()
    assert begun == [1]


def test_a_training_that_ended_is_told_by_kind(
    store: Store,
    make_daemon: Callable[..., Daemon],  # noqa: F811
) -> None:
    from rebalancerd.predict.store import LastTraining

    daemon = make_daemon("recommend")
    store.note_training(LastTraining(at=1.0, outcome="kept", why="not better"))
    with capture_logs() as logs:
        daemon.trainer.look()
        daemon.trainer.look()
    assert [(e["event"], e["kind"], e["outcome"]) for e in logs] == [("training_ended", "demand", "kept")]
    assert json.loads((store.own / "demand-training.json").read_text())["why"] == "not better"
