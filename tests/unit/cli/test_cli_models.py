"""``models`` and ``train``: offline commands on a state directory, a ledger and data files."""

import fcntl
import functools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from rebalancerd.cli.app import app
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.migration import Completion, MigrationRecord, MigrationState
from rebalancerd.predict import retrain as retraining
from rebalancerd.predict import store as stores
from rebalancerd.predict.store import LastTraining, ModelStore
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.predict import learned_models as models
from tests.unit.predict.test_artefact import save
from tests.unit.predict.test_keeper import promote
from tests.unit.predict.test_retrain import Trainer

SHIPPED_HEADER = (
    "id,started_at,memory_bytes,resident_bytes,dirty_periods_seconds,dirty_unique_bytes,"
    "max_downtime_seconds,deadline_seconds,link_bytes_per_second,outcome,seconds\n"
)


class Place:
    """A configuration, its state directory, and shipped models beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.config = directory, directory / "rebalancerd.toml"
        self.shipped = directory / "shipped"
        (self.shipped / "data").mkdir(parents=True)
        (directory / "state").mkdir()
        self.config.write_text(
            f'state_dir = "{directory}/state"\n[models]\nown_rows_min = 30\n'
            '[[hosts]]\nname = "h1"\nuri = "qemu+ssh://h1/system"\n[[hosts]]\nname = "h2"\nuri = "qemu+ssh://h2/system"\n'
        )
        self.store = ModelStore(directory / "state" / "models", self.shipped, kind=models.KIND)

    def run(self, *arguments: str) -> SimpleNamespace:
        done = CliRunner().invoke(app, [*arguments, "--config", str(self.config)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--output", "json").out)

    def data(self, text: str, name: str = "cost-train.csv") -> Path:
        path = self.shipped / "data" / name
        path.write_text(text)
        return path

    def record(self, count: int, *, factor: float = 1.5, first: int = 0, **changes: Any) -> None:
        """Migrations of this cluster in its ledger."""
        ledger = SqlLedger(f"sqlite:///{self.directory}/state/ledger.sqlite", SystemClock())
        for index in range(first, first + count):
            known = models.facts(index)
            began = 1_700_000_000.0 + 100 * index
            seconds = factor * models.true_seconds(known)
            made = MigrationRecord(
                id=f"m-{index}",
                vm_uuid=f"00000000-0000-4000-8000-{index:012d}",
                vm_name=f"vm{index}",
                source="h1",
                destination="h2",
                state=MigrationState.SUCCEEDED,
                intent_at=began - 1,
                started_at=began,
                ended_at=began + seconds,
                known=known,
                completion=Completion(total_seconds=seconds, downtime_seconds=0.1),
            )
            ledger.update_migration(replace(made, **changes))
        ledger.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    opened = functools.partial(ModelStore, shipped=made.shipped)
    monkeypatch.setattr("rebalancerd.predict.cost_kind.COST", models.KIND)
    monkeypatch.setattr("rebalancerd.predict.kinds.KINDS", (models.KIND,))
    monkeypatch.setattr(stores, "ModelStore", opened)
    monkeypatch.setattr(retraining, "retrain", functools.partial(retraining.retrain, train=Trainer()))
    monkeypatch.setattr("rebalancerd.cli.train.log_to_stderr", lambda: None)  # it is for a process of its own
    monkeypatch.delenv("REBALANCERD_OUTPUT", raising=False)
    return made


def shipped_line(index: int, **changes: object) -> str:
    known = models.facts(index)
    cells = {
        "id": f"s-{index}",
        "started_at": 1.0,
        "memory_bytes": known.memory_bytes,
        "resident_bytes": known.resident_bytes,
        "dirty_periods_seconds": "1;4",
        "dirty_unique_bytes": "4000000;8000000",
        "max_downtime_seconds": 0.3,
        "deadline_seconds": 900,
        "link_bytes_per_second": models.LINK,
        "outcome": "succeeded",
        "seconds": models.true_seconds(known),
    }
    return ",".join(str(v) for v in (cells | changes).values()) + "\n"


# models


def test_without_models(place: Place) -> None:
    done = place.run("models", "list")

    assert done.code == 0
    assert "there is no model in" in done.out and "physics is used" in done.out
    assert place.json("models", "list")["models"] == []
    assert place.run("models", "verify").code == 0
    assert not place.store.own.exists()


def test_list_names_own_and_shipped_ones_and_what_is_wrong(place: Place) -> None:
    shipped, broken = save(place.shipped, models.model(1.05)).id, promote(place.store, at=1000.0)
    champion = promote(place.store, models.model(1.1), at=2000.0)
    (place.store.own / f"{broken}.skops").write_bytes(b"PK")
    place.store.note_training(LastTraining(at=3000.0, outcome="not_trained", why="7 migrations of this cluster"))
    done, told = place.run("models", "list"), place.json("models", "list")

    assert done.code == 0
    assert [(m["id"], m["source"], m["champion"], m["fault"]) for m in told["models"]] == [
        (champion, "own", True, None),
        (broken, "own", False, "corrupt"),
        (shipped, "shipped", False, None),
    ]
    assert told["format"] == 1 and told["last_training"]["cost"]["outcome"] == "not_trained"
    for word in (
        champion,
        "own, champion",
        "corrupt: has 2 bytes",
        "1970-01-01 00:33:20 UTC",
        "not trained: 7 migrations",
    ):
        assert word in done.out


def test_show_says_what_a_model_is(place: Place) -> None:
    own = promote(place.store)
    done = place.run("models", "show", own)

    assert done.code == 0
    for word in (own, "24 migrations, 10 of them own", "scikit-learn", "memory_mib", "challenger", "10 %"):
        assert word in done.out
    assert place.json("models", "show", str(place.store.own / f"{own}.skops"))["manifest"]["id"] == own


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_model_that_is_not_there(place: Place, command: str) -> None:
    done = place.run("models", command, "cost-000000000000")

    assert done.code == 1
    assert "neither a model's id nor one of its files" in done.err
    assert done.out == ""


def test_verify_loads_and_names_file_and_fault(place: Place) -> None:
    own, good = promote(place.store), save(place.shipped, models.model(1.05)).id
    path = place.store.own / f"{own}.skops"
    assert place.run("models", "verify").code == 0
    path.write_bytes(path.read_bytes()[:-1])
    done, told = place.run("models", "verify"), place.json("models", "verify", own)

    assert done.code == 1
    assert f"{path}: corrupt: has " in done.out
    assert f"{good}.json: in order" in done.out
    assert [(m["ok"], m["fault"]) for m in told["models"]] == [(False, "corrupt")]
    assert place.run("models", "verify", good).code == 0


# train


def test_training_promotes_and_says_so(place: Place) -> None:
    place.data(SHIPPED_HEADER + "".join(shipped_line(i) for i in range(20)))
    place.data("what models are measured on is not learned from", "cost-test.csv")
    place.record(40)
    place.store.request_training()
    done = place.run("train", "cost")

    assert done.code == 0, done.err
    champion = place.store.champion()
    assert champion is not None
    assert f"promoted {champion.id}: its error of" in done.out
    for word in ("challenger", "physics", "on the 12 newest of 40 own migrations", "20 shipped ones"):
        assert word in done.out
    assert "20 shipped migrations, 40 of this cluster" in done.err
    last = place.store.last_training()
    assert last is not None and (last.outcome, last.model) == ("promoted", champion.id)
    assert place.store.request_training() is None, "the request was taken"


def test_a_dry_run_writes_nothing_but_its_lock(place: Place) -> None:
    place.record(40)
    told = place.json("train", "cost", "--dry-run")

    assert (told["outcome"], told["dry_run"], told["model"], told["own_rows"]) == ("kept", True, None, 40)
    assert told["why"].startswith("it would be promoted")
    assert [p.name for p in place.store.own.iterdir()] == ["train.lock"]


def test_why_nothing_was_trained(place: Place) -> None:
    place.record(7)
    place.record(2, first=50, state=MigrationState.FAILED)
    done = place.run("train", "cost")

    assert done.code == 0
    assert "not trained: 7 migrations of this cluster, 30 are needed" in done.out
    assert "not learned from: 2 other verdict" in done.out
    last = place.store.last_training()
    assert last is not None and last.outcome == "not_trained"


def test_a_poisoned_ledger_leaves_the_champion(place: Place) -> None:
    champion = promote(place.store, models.model(1.5, spread=1.3))
    place.record(40)
    place.record(30, first=100, completion=Completion(total_seconds=-5.0, downtime_seconds=float("nan")))
    done = place.run("train", "cost")

    assert done.code == 0
    assert "30 of 70 migrations are absurd" in done.out
    assert "and 25 more absurd ones" in done.out
    assert place.store.champion() is not None and place.store.champion().id == champion


def test_two_trainings_never_run_at_once(place: Place) -> None:
    place.record(40)
    place.store.own.mkdir()
    with (place.store.own / "train.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = place.run("train", "cost")

    assert done.code == 75
    assert "another training runs" in done.err
    assert place.store.last_training() is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no column"),
        ("id,seconds\n", "no column"),
        (SHIPPED_HEADER + shipped_line(1)[:-9], "line 2: the file is cut off in this line"),
        (
            SHIPPED_HEADER + shipped_line(1) + shipped_line(2, seconds="fast"),
            "line 3: column seconds: 'fast' is no number",
        ),
        (SHIPPED_HEADER + shipped_line(1, memory_bytes=512), "line 2: "),  # MiB for bytes
        (SHIPPED_HEADER + shipped_line(1, outcome="fine"), "line 2: column outcome: 'fine'"),
    ],
)
def test_data_that_cannot_be_learned_from(place: Place, text: str, part: str) -> None:
    """The file, the line and what is wrong with it; and word of it is left for the daemon."""
    place.record(40)
    path = place.data(text, "cost-train-odd.csv")
    done = place.run("train", "cost")

    assert done.code == 1
    assert f"{path}: " in done.err and part in done.err
    assert done.out == ""
    last = place.store.last_training()
    assert last is not None and last.outcome == "failed" and str(path) in last.why
    assert place.store.champion() is None


def test_other_data_than_the_shipped(place: Place, tmp_path: Path) -> None:
    place.data("broken")
    mine = tmp_path / "mine.csv"
    mine.write_text(SHIPPED_HEADER + shipped_line(1))
    place.record(40)

    assert place.json("train", "cost", "--data", str(mine))["shipped_rows"] == 1
    missing = place.run("train", "cost", "--data", str(tmp_path / "none.csv"))
    assert missing.code == 1
    assert f"{tmp_path}/none.csv: No such file" in missing.err


def test_without_a_ledger(place: Place) -> None:
    done = place.run("train", "cost")

    assert done.code == 1
    assert "ledger" in done.err and "nothing was trained" in done.err
    assert not (place.directory / "state" / "ledger.sqlite").exists(), "reading makes nothing"


def test_a_training_reads_a_ledger_that_the_daemon_has_open(place: Place) -> None:
    place.record(40)
    ledger = SqlLedger(f"sqlite:///{place.directory}/state/ledger.sqlite", SystemClock())
    before = [r.id for r in ledger.migrations()]

    assert place.run("train", "cost").code == 0
    assert [r.id for r in ledger.migrations()] == before
    ledger.close()


def test_bad_models_do_not_stop_a_training(place: Place) -> None:
    broken = promote(place.store)
    (place.store.own / f"{broken}.json").write_text("{}")
    place.record(40)
    done = place.run("train", "cost")

    assert done.code == 0
    assert f"refused: {place.store.own}/{broken}.json: corrupt" in done.out
    assert "promoted" in done.out
