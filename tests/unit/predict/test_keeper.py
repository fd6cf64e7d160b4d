"""The model in use: which one is seated, how it is swapped, judged, demoted and followed by the next one."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rebalancerd.cluster.cost import Candidate, MigrationCost
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict.keeper import ModelKeeper
from rebalancerd.predict.manifest import ArtefactError, Fault
from rebalancerd.predict.seating import Seat
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import LastTraining, ModelStore, shipped_directory
from tests.unit.predict import learned_models as models
from tests.unit.predict.test_artefact import save

PREDICT = PredictSettings()
ROWS = [(models.labelled(i, seconds=models.true_seconds(models.facts(i)), at=2000.0 + i), None) for i in range(30)]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore[Any]:
    return opened(tmp_path)


def opened(directory: Path) -> ModelStore[Any]:
    shipped = directory / "shipped"
    shipped.mkdir(exist_ok=True)
    return ModelStore(directory / "own", shipped, kind=models.KIND)


def keeper(store: ModelStore[Any], **settings: Any) -> ModelKeeper:
    ticking = itertools.count(5000.0)
    made = ModelKeeper(store, PREDICT, ModelSettings(**settings), lambda: next(ticking))
    made.refresh()
    return made


def promote(
    store: ModelStore[Any], model: models.FakeLearned | None = None, *, at: float = 1000.0, keep: int = 5
) -> str:
    manifest = store.promote(
        model or models.model(),
        at=at,
        why="better",
        scores={"challenger": {"total_time_gmre": 0.1}},
        keep=keep,
        golden=models.golden(),
        settings=PREDICT,
        rows=24,
        own_rows=10,
        data_sha256="d",
        seed=1,
    )
    return manifest.id


def snapshot() -> Snapshot:
    hosts = tuple(Host(name=n, facts=HostFacts(uuid=n, cpus=4, memory_bytes=8 * GIB)) for n in ("a", "b"))
    facts = VmFacts(uuid="u", name="u", vcpus=1, memory_bytes=GIB)
    vm = Vm(
        facts=facts,
        host="a",
        state=DomainState.RUNNING,
        load=VmLoad(memory_bytes=512 * MIB),
        dirty=models.facts().dirty,
    )
    return Snapshot(taken_at=0.0, hosts=hosts, vms=(vm,))


ASKED = [Candidate(vm_uuid="u", source="a", destination="b")]


def basis(made: ModelKeeper, seen: Snapshot | None = None) -> str:
    (found,) = made.costs.costs(seen or snapshot(), ASKED)
    return found.basis


# which one


def test_without_any_model_physics_answers_and_says_why(store: ModelStore[Any]) -> None:
    made = keeper(store)

    assert basis(made) == "physics" == made.state().basis
    assert not made.state().trusted and made.state().wanted
    assert "there is no model in" in made.state().problems[0]
    assert not store.own.exists(), "looking makes nothing"


def test_the_shipped_model_then_the_clusters_own(store: ModelStore[Any]) -> None:
    shipped = save(store.shipped, models.model(1.05)).id
    with capture_logs() as logs:
        made = keeper(store)
    assert (basis(made), made.state().source) == (shipped, "shipped")
    assert [e["event"] for e in logs] == ["model_loaded"]
    own = promote(store, models.model(1.1))

    with capture_logs() as logs:
        made.refresh()
        made.refresh()
    assert (basis(made), made.state().source, made.state().problems) == (own, "own", ())
    assert [(e["event"], e["before"]) for e in logs] == [("model_promoted", shipped)]


def test_the_configuration_may_ask_for_physics(store: ModelStore[Any]) -> None:
    save(store.shipped, models.model(1.05))
    made = keeper(store, cost="physics")

    assert basis(made) == "physics"
    assert (made.state().wanted, made.state().reason) == (False, "models.cost is physics")
    made.watch(ROWS)


def test_a_broken_champion_is_named_once_and_the_next_one_used(store: ModelStore[Any]) -> None:
    shipped, old = save(store.shipped, models.model(1.05)).id, promote(store, at=1000.0)
    broken = promote(store, models.model(1.1), at=2000.0)
    path = store.own / f"{broken}.skops"
    path.write_bytes(path.read_bytes()[:-7])
    with capture_logs() as logs:
        made = keeper(store)
        made.refresh()

    assert basis(made) == old
    (refused,) = [e for e in logs if e["event"] == "model_refused"]
    assert (refused["fault"], refused["file"]) == ("corrupt", str(path))
    assert made.state().refused == (("corrupt", 1),)
    assert len(made.state().problems) == 1 and str(path) in made.state().problems[0]
    (store.own / f"{old}.json").write_text("{}")
    assert basis(keeper(store)) == shipped
    assert path.exists() and (store.own / f"{old}.json").exists(), "nothing is deleted"


def test_a_refused_file_that_was_mended_is_read_again(store: ModelStore[Any]) -> None:
    own = promote(store)
    path = store.own / f"{own}.skops"
    whole = path.read_bytes()
    path.write_bytes(b"")
    made = keeper(store)
    assert basis(made) == "physics"

    path.write_bytes(whole)
    made.refresh()
    assert (basis(made), made.state().problems) == (own, ())


@pytest.mark.parametrize("text", ["", "{", '{"format": 1, "id": "../../etc/passwd", "since": 1}', '{"format": 9}'])
def test_a_broken_champion_file_costs_the_order_only(store: ModelStore[Any], text: str) -> None:
    own = promote(store)
    (store.own / "cost-champion.json").write_text(text)
    made = keeper(store)

    assert basis(made) == own
    assert len(made.state().refused) == 1


def test_a_champion_whose_files_are_gone_is_named(store: ModelStore[Any]) -> None:
    own, shipped = promote(store), save(store.shipped, models.model(1.2)).id
    for path in store.own.glob(f"{own}.*"):
        path.unlink()
    made = keeper(store)

    assert basis(made) == shipped
    assert made.state().refused == (("absent", 1),)


def test_a_model_in_use_outlives_its_files(store: ModelStore[Any]) -> None:
    own = promote(store)
    made = keeper(store)
    for path in store.own.glob("*"):
        path.unlink()
    made.refresh()

    assert basis(made) == own


# in use


def test_one_snapshot_is_answered_by_one_model(store: ModelStore[Any]) -> None:
    """A plan asks several times about its snapshot; a swap in between is for the next one."""
    first = promote(store, models.model(1.0))
    made, seen = keeper(store), snapshot()
    assert basis(made, seen) == first
    second = promote(store, models.model(1.3), at=2000.0)
    made.refresh()

    assert basis(made, seen) == first
    assert basis(made, snapshot()) == second


def test_swapping_while_it_is_asked(store: ModelStore[Any]) -> None:
    """Every answer is wholly one model's, and none fails."""
    ids = [promote(store, models.model(f), at=1000.0 + f) for f in (1.0, 3.0)]
    loaded = [store.load(store.own / f"{i}.json", PREDICT) for i in ids]
    want = {a.id: a.model.costs(snapshot(), ASKED)[0] for a in loaded}
    made, wrong, stop = keeper(store), list[object](), threading.Event()
    answered: set[str] = set()

    def ask() -> None:
        while not stop.is_set():
            found = made.costs.costs(snapshot(), ASKED * 3)
            answered.update(c.basis for c in found)
            expected = want.get(found[0].basis, found[0])
            wrong.extend(c for c in found if c != expected)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20.0
    seats = itertools.cycle([Seat(a, replace(made.costs.seat.trust, trusted=t)) for a in loaded for t in (True, False)])
    while len(answered) < 3 and time.monotonic() < deadline:
        made.costs.swap(next(seats))
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert answered == {*ids, "physics"}


def test_a_model_that_fails_loses_the_snapshot_and_its_trust(
    store: ModelStore[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = promote(store)
    made, seen = keeper(store), snapshot()
    monkeypatch.setattr(models.FakeLearned, "costs", lambda *_: [])
    with capture_logs() as logs:
        assert basis(made, seen) == basis(made, seen) == basis(made) == "physics"

    assert [e["event"] for e in logs] == ["model_failed"]
    assert "0 costs for 1 candidates" in made.state().reason
    made.watch([])
    assert store.trust(own) == made.costs.seat.trust


# judged


def drifted(rows: list[tuple[LabelledMigration, MigrationCost | None]], factor: float) -> Iterator[Any]:
    """The same migrations on a cluster that takes that much longer or shorter."""
    for row, told in rows:
        assert row.seconds is not None
        yield replace(row, seconds=row.seconds * factor, bytes=None), told


def test_a_drifted_cluster_demotes_and_physics_takes_over_across_a_restart(store: ModelStore[Any]) -> None:
    """The model says six times what these migrations take; physics is nearly right."""
    own = promote(store, models.model(6.0))
    made = keeper(store)
    made.watch(ROWS[:11])
    assert basis(made) == own, "too few to judge by"
    with capture_logs() as logs:
        made.watch(ROWS)
        made.watch(ROWS)

    assert basis(made) == "physics"
    state = made.state()
    assert (state.basis, state.id, state.trusted) == ("physics", own, False)
    assert "clearly worse than physics over 30 migrations" in state.reason
    (demoted,) = logs
    assert (demoted["event"], demoted["model"], demoted["reason"]) == ("model_demoted", own, state.reason)
    again = keeper(store)
    assert basis(again) == "physics"
    assert again.state().reason == state.reason

    again.watch(ROWS)
    assert basis(again) == "physics", "the migrations that demoted it are not judged twice"


def test_a_new_champion_is_trusted_where_the_old_one_was_not(store: ModelStore[Any]) -> None:
    promote(store, models.model(6.0))
    made = keeper(store)
    made.watch(ROWS)
    assert basis(made) == "physics"
    better = promote(store, models.model(1.0), at=2500.0)
    made.refresh()

    assert basis(made) == better
    made.watch(ROWS)
    assert basis(made) == better


def test_it_is_trusted_again_when_it_is_right_again(store: ModelStore[Any]) -> None:
    own = promote(store, models.model(3.0))
    made = keeper(store)
    made.watch(ROWS)
    assert basis(made) == "physics"
    slower = [(replace(r, at=9000.0 + r.at), p) for r, p in drifted(ROWS, 3.5)]
    with capture_logs() as logs:
        made.watch([*ROWS, *slower])

    assert [e["event"] for e in logs] == ["model_trusted_again"]
    assert basis(made) == own
    assert basis(keeper(store)) == own


def test_what_it_said_then_counts_not_what_it_would_say_now(store: ModelStore[Any]) -> None:
    own = promote(store)
    made = keeper(store)
    wrong = [(row, models.cost(900.0, basis=own)) for row, _ in ROWS]
    others = [(row, models.cost(900.0, basis="cost-000000000000")) for row, _ in ROWS]
    made.watch(others)
    assert basis(made) == own
    made.watch(wrong)
    assert basis(made) == "physics"


def test_rows_it_was_trained_on_doubtful_and_absurd_ones_do_not_count(store: ModelStore[Any]) -> None:
    own = promote(store, models.model(6.0), at=2025.0)
    made = keeper(store)
    made.watch(ROWS)
    assert made.state().drift.rows == 4
    poisoned = [(replace(r, at=3000.0 + i, seconds=-5.0), p) for i, (r, p) in enumerate(ROWS)]
    doubtful = [(replace(r, at=3000.0 + i, disturbed=True), p) for i, (r, p) in enumerate(ROWS)]
    made.watch([*ROWS, *poisoned, *doubtful])

    assert made.state().drift.rows == 4
    assert basis(made) == own


def test_a_model_that_fails_when_it_is_judged_is_demoted(
    store: ModelStore[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store)
    made = keeper(store)
    monkeypatch.setattr(models.FakeLearned, "predict_facts", lambda *_: 1 / 0)
    made.watch(ROWS)

    assert basis(made) == "physics"
    assert "division by zero" in made.state().reason


@pytest.mark.parametrize("text", ["{", '{"format": 7, "models": {}}', '{"format": 1, "models": {"x": 5}}'])
def test_verdicts_that_cannot_be_read_are_no_acquittal(store: ModelStore[Any], text: str) -> None:
    promote(store)
    (store.own / "cost-trust.json").write_text(text)
    made = keeper(store)

    assert basis(made) == "physics"
    assert "file of verdicts cannot be read" in made.state().reason
    later = [(replace(r, at=9000.0 + r.at), p) for r, p in ROWS]
    made.watch(later)
    assert made.state().trusted
    assert json.loads((store.own / "cost-trust.json").read_text())["format"] == 1


def test_a_state_directory_that_cannot_be_written_costs_the_note_only(
    store: ModelStore[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, models.model(6.0))
    made = keeper(store)
    monkeypatch.setattr("rebalancerd.predict.store.write_durably", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with capture_logs() as logs:
        made.watch(ROWS)

    assert basis(made) == "physics"
    assert [e["event"] for e in logs] == ["model_demoted", "model_verdict_not_written"]


# the store


def test_superseded_models_go_but_not_the_broken_ones(store: ModelStore[Any]) -> None:
    ids = [promote(store, models.model(1.0 + i / 10), at=1000.0 + i) for i in range(3)]
    (store.own / f"{ids[0]}.skops").write_bytes(b"x")
    (store.own / f"{ids[1]}.json").write_text("{}")
    ids += [promote(store, models.model(2.0 + i / 10), at=2000.0 + i, keep=2) for i in range(3)]

    left = {f.id for f in store.found()}
    assert left == {ids[1], *ids[3:]}
    assert next(f.id for f in store.found()) == ids[-1]


def test_a_model_is_picked_by_id_or_file(store: ModelStore[Any]) -> None:
    own = promote(store)

    assert store.pick(own) == store.pick(str(store.own / f"{own}.skops")) == store.own / f"{own}.json"
    with pytest.raises(ArtefactError) as told:
        store.pick("cost-ffffffffffff")
    assert told.value.fault is Fault.ABSENT


def test_requests_and_outcomes_of_trainings(store: ModelStore[Any]) -> None:
    assert store.request_training() is None
    assert store.request_training() == pytest.approx(time.time(), abs=60.0)
    store.take_request()
    store.take_request()
    assert store.request_training() is None
    assert store.last_training() is None
    store.note_training(LastTraining(at=1.0, outcome="kept", why="worse"))
    assert store.last_training() == LastTraining(at=1.0, outcome="kept", why="worse")


def test_the_shipped_directory_is_the_checkouts() -> None:
    assert (shipped_directory() / "README.md").exists()
