"""Artefacts: what is saved loads and predicts the same; whatever was done to the files is named, and the files stay."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Lasso, Ridge

from rebalancerd.predict import artefact, artefact_audit
from rebalancerd.predict.artefact import Artefact
from rebalancerd.predict.cost_kind import COST
from rebalancerd.predict.manifest import ArtefactError, Fault, Manifest, read_manifest
from rebalancerd.predict.settings import PredictSettings
from tests.unit.predict import learned_models as models

SETTINGS = PredictSettings()


def save(directory: Path, model: models.FakeLearned | None = None, **changes: Any) -> Manifest[Any]:
    values: dict[str, Any] = {
        "kind": models.KIND,
        "golden": models.golden(3),
        "settings": SETTINGS,
        "trained_at": 1000.0,
        "rows": 24,
        "data_sha256": "d" * 64,
        "errors": {"learned": {"total_time_gmre": 1.1}, "physics": {"total_time_gmre": None}},
    }
    return artefact.save(directory, model or models.model(), **{**values, **changes})


def load(directory: Path, manifest: Manifest[Any], **changes: Any) -> Artefact[Any]:
    values: dict[str, Any] = {"settings": SETTINGS, "kind": models.KIND}
    return artefact.load(directory / f"{manifest.id}.json", **{**values, **changes})


def fault(directory: Path, manifest: Manifest[Any], **changes: Any) -> tuple[Fault, str]:
    """How loading fails; the files are what they were."""
    before = {p: p.read_bytes() for p in directory.iterdir() if p.is_file()}
    with pytest.raises(ArtefactError) as told:
        load(directory, manifest, **changes)
    assert {p: p.read_bytes() for p in directory.iterdir() if p.is_file()} == before
    assert str(told.value.path) in str(told.value)
    return told.value.fault, told.value.detail


def rewritten(directory: Path, manifest: Manifest[Any], change: Callable[[dict[str, Any]], None]) -> None:
    """The manifest with something changed, as somebody who knows the format would."""
    path = directory / f"{manifest.id}.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def replaced(directory: Path, manifest: Manifest[Any], raw: bytes) -> None:
    """Another content, and a manifest that calls it the right one."""
    import hashlib

    (directory / f"{manifest.id}.skops").write_bytes(raw)
    rewritten(directory, manifest, lambda t: t.update(sha256=hashlib.sha256(raw).hexdigest(), bytes=len(raw)))


def test_what_was_saved_loads_and_predicts_the_same(tmp_path: Path) -> None:
    """Every kind of estimator a model may be made of, in one state."""
    made = models.model(everything=models.estimators(), table=np.arange(3.0), name="x", nothing=None)
    manifest = save(tmp_path, made)
    loaded = load(tmp_path, manifest)

    asked = [models.facts(i) for i in range(10)]
    want = made.predict_facts(asked, [900.0] * 10)
    got = loaded.model.predict_facts(asked, [900.0] * 10)
    assert [c.seconds for c in got] == [c.seconds for c in want]
    assert {c.basis for c in got} == {manifest.id} == {loaded.id}
    x = np.random.default_rng(1).random((50, 3)) * [1024, 120, 50]
    for name, estimator in made.state["everything"].items():
        column = x[:, 0] if name == "calibration" else x
        assert loaded.model.state["everything"][name].predict(column) == pytest.approx(estimator.predict(column))
    assert manifest.libraries["scikit-learn"] and manifest.rows == 24
    assert {p.name for p in tmp_path.iterdir()} == {f"{manifest.id}.json", f"{manifest.id}.skops"}


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    """Fitted twice from the same rows: the same id, so that what is shipped can be made again."""
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        part = HistGradientBoostingRegressor(max_iter=5, max_features=0.5, random_state=1)
        rows = models.inputs([models.facts(i) for i in range(40)])
        made.append(save(tmp_path / name, models.model(part=part.fit(rows, rows[:, 0]), shared=[rows, rows])))

    assert made[0] == made[1]
    again = load(tmp_path / "a", made[0]).model.state
    assert again["shared"][0] is again["shared"][1]
    assert again["part"].predict(rows) == pytest.approx(part.predict(rows))


def test_the_golden_check_does_not_depend_on_this_clusters_settings(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    other = replace(SETTINGS, overhead_seconds=9.0)

    loaded = load(tmp_path, manifest, settings=other)
    (first,) = loaded.model.predict_facts([models.facts()], [900.0])
    (was,) = models.model().predict_facts([models.facts()], [900.0])
    assert first.seconds.value == pytest.approx(was.seconds.value + 7.0)


@pytest.mark.parametrize("missing", ["json", "skops"])
def test_absent(tmp_path: Path, missing: str) -> None:
    manifest = save(tmp_path)
    (tmp_path / f"{manifest.id}.{missing}").unlink()

    assert fault(tmp_path, manifest)[0] is Fault.ABSENT


@pytest.mark.parametrize("kept", [0, 1, 200, -1])
def test_truncated(tmp_path: Path, kept: int) -> None:
    manifest = save(tmp_path)
    path = tmp_path / f"{manifest.id}.skops"
    path.write_bytes(path.read_bytes()[:kept])

    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT
    replaced(tmp_path, manifest, path.read_bytes() or b"\0")  # a manifest that agrees does not make it whole
    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT


def test_one_changed_byte(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    path = tmp_path / f"{manifest.id}.skops"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)

    assert fault(tmp_path, manifest) == (Fault.CORRUPT, "its content is not what the manifest was written for")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "kind": "cost"}', "\x00" * 50, "[" * 9999]
)
def test_a_manifest_that_is_none(tmp_path: Path, text: str) -> None:
    manifest = save(tmp_path)
    (tmp_path / f"{manifest.id}.json").write_text(text)

    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.update(format=2), Fault.OUTDATED),
        (lambda t: t.update(format=2, news=[]), Fault.OUTDATED),
        (lambda t: t.update(kind="demand"), Fault.FOREIGN),
        (lambda t: t.update(rows="many"), Fault.CORRUPT),
        (lambda t: t.update(trained_at=float("nan")), Fault.CORRUPT),
        (lambda t: t.update(id="cost-000000000000"), Fault.CORRUPT),
        (lambda t: t.update(id="../cost-000000000000"), Fault.CORRUPT),
        (lambda t: t["features"].append("moon"), Fault.CORRUPT),
        (lambda t: t.update(golden=[]), Fault.CORRUPT),
        (lambda t: t["libraries"].update(skops="99.0"), Fault.OUTDATED),
        (lambda t: t["libraries"].pop("numpy"), Fault.OUTDATED),
        (lambda t: t["golden"][1]["predicted"]["seconds"].__setitem__(0, 1.0), Fault.ABSURD),
        (lambda t: t["golden"][1]["predicted"].pop("seconds"), Fault.ABSURD),
        (lambda t: t["golden"][1]["facts"].update(memory_bytes=2**40), Fault.ABSURD),
    ],
)
def test_a_changed_manifest(tmp_path: Path, change: Callable[[dict[str, Any]], None], expected: Fault) -> None:
    manifest = save(tmp_path)
    rewritten(tmp_path, manifest, change)

    assert fault(tmp_path, manifest)[0] is expected


def test_other_features_are_named(tmp_path: Path) -> None:
    manifest = save(tmp_path)

    told = fault(tmp_path, manifest, kind=replace(models.KIND, features=(*models.FEATURES, "moon")))
    assert told == (Fault.OUTDATED, "other features than this version computes: moon")
    assert fault(tmp_path, manifest, kind=replace(models.KIND, features=models.FEATURES[::-1]))[0] is Fault.OUTDATED


def test_a_state_that_this_version_cannot_read(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    lacking = models.model()
    del lacking.state["spread"]
    replaced(tmp_path, manifest, skops.io.dumps(lacking.state))

    assert fault(tmp_path, manifest) == (
        Fault.OUTDATED,
        "its state is not what this version reads: the state lacks 'spread'",
    )


def test_another_minor_version_of_a_library_is_settled_by_the_golden_check(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    major = manifest.libraries["scikit-learn"].split(".")[0]
    rewritten(tmp_path, manifest, lambda t: t["libraries"].update({"scikit-learn": f"{major}.0.1"}))
    assert load(tmp_path, manifest).id == manifest.id

    rewritten(tmp_path, manifest, lambda t: t["golden"][0]["predicted"]["seconds"].__setitem__(0, 1.0))
    what, detail = fault(tmp_path, manifest)
    assert what is Fault.OUTDATED
    assert f"made with scikit-learn {major}.0.1" in detail


class Broken(models.FakeLearned):
    """Gives figures that are none."""

    value = float("nan")

    def predict_facts(self, rows: Any, deadline_seconds: Any) -> Any:
        found = models.cost(1.0)
        object.__setattr__(found.seconds, "value", self.value)
        return [found] * len(rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_predictions_that_are_none(tmp_path: Path, value: float) -> None:
    manifest = save(tmp_path)
    Broken.value = value

    assert fault(tmp_path, manifest, kind=replace(models.KIND, rebuild=Broken))[0] is Fault.ABSURD
    with pytest.raises(ValueError, match="cannot be noted"):
        save(tmp_path, Broken(models.model().state))


def test_a_model_that_fails_when_asked(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    other = models.model()
    other.state["line"] = Ridge().fit(np.ones((3, 7)), np.ones(3))  # seven inputs, not three
    replaced(tmp_path, manifest, skops.io.dumps(other.state))

    what, detail = fault(tmp_path, manifest)
    assert what is Fault.ABSURD
    assert "cannot predict" in detail


# what a file may hold


@pytest.mark.parametrize(
    "state",
    [
        {"x": Lasso().fit([[0.0], [1.0]], [0.0, 1.0])},  # an estimator of scikit-learn, but none of ours
        {"x": np.add},
        {"x": os.path.join},
        {"x": slice(3)},
        {"x": np.ma.masked_array([1.0], [True])},
        {1: 2.0},
        [1.0],
    ],
    ids=["lasso", "ufunc", "function", "slice", "masked", "keys", "list"],
)
def test_foreign_content(tmp_path: Path, state: Any) -> None:
    manifest = save(tmp_path)
    replaced(tmp_path, manifest, skops.io.dumps(state))

    assert fault(tmp_path, manifest)[0] is Fault.FOREIGN


def zipped(members: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_node(node: dict[str, Any], protocol: Any = 2) -> bytes:
    """A skops file that is a dict with one value made by hand."""
    state = {
        "__class__": "dict",
        "__module__": "builtins",
        "__loader__": "DictNode",
        "content": {"x": node},
        "key_types": {
            "__class__": "list",
            "__module__": "builtins",
            "__loader__": "ListNode",
            "content": [{"__class__": "str", "__module__": "builtins", "__loader__": "TypeNode"}],
        },
        "protocol": protocol,
    }
    return zipped({"schema.json": json.dumps(state).encode()})


@pytest.mark.parametrize(
    "node",
    [
        {"__loader__": "FunctionNode", "__module__": "os", "__class__": "system"},
        {"__loader__": "TypeNode", "__module__": "os", "__class__": "system"},
        {"__loader__": "ObjectNode", "__module__": "builtins", "__class__": "object"},
        {"__loader__": "JsonNode", "__module__": "os", "__class__": "system", "content": "1"},
        {"__loader__": ["ObjectNode"], "__module__": "builtins", "__class__": "dict"},
        {"__loader__": "NdArrayNode", "__module__": "subprocess", "__class__": "Popen", "type": "json", "content": []},
        {"__class__": "dict", "__module__": "builtins"},
    ],
)
def test_content_made_by_hand(tmp_path: Path, node: dict[str, Any]) -> None:
    """A reader of skops with a type that it was not meant for is not even looked up."""
    manifest = save(tmp_path)
    replaced(tmp_path, manifest, with_node(node))

    assert fault(tmp_path, manifest)[0] is Fault.FOREIGN


@pytest.mark.parametrize("protocol", [0, 1, 99, -1, True, None, "2"])
def test_another_protocol_of_skops(tmp_path: Path, protocol: Any) -> None:
    manifest = save(tmp_path)
    node = {"__loader__": "JsonNode", "__module__": "builtins", "__class__": "str", "content": "1"}
    replaced(tmp_path, manifest, with_node(node, protocol))

    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT


def array_header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": kind})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        {"schema.json": b"{}", "../../etc/passwd": b"x"},
        {"schema.json": b"{}", "/etc/passwd": b"x"},
        {"schema.json": b"{}", "1.npy/../../2.npy": b"x"},
        {"schema.json": b"{}", "1.bin": b"x"},
        {"1.npy": b"x"},
        {"schema.json": b"[" * 100_000},
        {"schema.json": b"\xff\xfe"},
        {"schema.json": b"{}", "1.npy": b"no array"},
        {"schema.json": b"{}", "1.npy": array_header((2**60,))},
        {"schema.json": b"{}", "1.npy": array_header((-1,))},
        {"schema.json": b"{}", "1.npy": array_header((1,), "|O") + b"\0" * 8},
    ],
)
def test_a_zip_that_is_no_model(tmp_path: Path, members: dict[str, bytes]) -> None:
    manifest = save(tmp_path)
    replaced(tmp_path, manifest, zipped(members))

    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = save(tmp_path)
    bomb = zipped({"schema.json": b"{}", "1.npy": b"\0" * 3_000_000}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10_000
    replaced(tmp_path, manifest, bomb)
    monkeypatch.setattr(artefact_audit, "MAX_UNPACKED_BYTES", 1_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))

    what, detail = fault(tmp_path, manifest)
    assert what is Fault.CORRUPT
    assert "would unpack to" in detail


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    with (tmp_path / f"{manifest.id}.skops").open("r+b") as stream:
        stream.truncate(artefact_audit.MAX_FILE_BYTES + 1)  # sparse

    with pytest.raises(ArtefactError, match=r"more than \d+ are not read") as told:
        load(tmp_path, manifest)
    assert told.value.fault is Fault.CORRUPT


def test_a_pipe_or_a_directory_in_its_place_does_not_hang(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    path = tmp_path / f"{manifest.id}.skops"
    path.unlink()
    os.mkfifo(path)
    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT
    path.unlink()
    path.mkdir()
    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT


def tampered(estimator: Any, change: Callable[[Any], None]) -> bytes:
    change(estimator)
    return skops.io.dumps({**models.model().state, "x": estimator})


def in_nodes(field: str, value: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        nodes = model._predictors[0][0].nodes
        nodes[field][nodes["is_leaf"] == 0] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        in_nodes("left", 10_000_000),
        in_nodes("right", 0),  # a walk that never ends
        in_nodes("feature_idx", 3),
        in_nodes("feature_idx", -1),
        in_nodes("is_categorical", 1),
        lambda m: setattr(m, "n_features_in_", None),
    ],
)
def test_trees_that_lead_outside_are_not_walked(tmp_path: Path, change: Callable[[Any], None]) -> None:
    """scikit-learn does not look at these bounds: such a file would end the process."""
    manifest = save(tmp_path)
    replaced(tmp_path, manifest, tampered(models.estimators()["histogram"], change))

    what, detail = fault(tmp_path, manifest)
    assert what is Fault.CORRUPT
    assert "tree" in detail


def test_a_forest_that_looks_at_more_inputs_than_it_is_given(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    replaced(tmp_path, manifest, tampered(models.estimators()["forest"], lambda m: setattr(m, "n_features_in_", 1)))
    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT
    replaced(
        tmp_path, manifest, tampered(models.estimators()["stages"], lambda m: setattr(m, "n_trees_per_iteration_", 2))
    )
    assert fault(tmp_path, manifest)[0] is Fault.CORRUPT


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "support_vectors_", m.support_vectors_[:3]),
        lambda m: setattr(m, "support_vectors_", np.zeros((0, 3))),
        lambda m: setattr(m, "support_", m.support_[:3]),
        lambda m: setattr(m, "_dual_coef_", m._dual_coef_[:, :3]),
        lambda m: setattr(m, "_intercept_", np.zeros(0)),
        lambda m: setattr(m, "_n_support", np.ones(9, dtype=np.int32)),
        lambda m: setattr(m, "n_features_in_", 7),
        lambda m: setattr(m, "kernel", "precomputed"),
        lambda m: setattr(m, "_sparse", True),
        lambda m: setattr(m, "_impl", "nu_svc"),
        lambda m: delattr(m, "_probA"),
    ],
)
def test_support_vectors_that_do_not_fit(tmp_path: Path, change: Callable[[Any], None]) -> None:
    manifest = save(tmp_path)
    replaced(tmp_path, manifest, tampered(models.estimators()["smooth"], lambda m: change(m[-1])))

    what, detail = fault(tmp_path, manifest)
    assert what is Fault.CORRUPT
    assert "support vectors" in detail


def test_the_same_tree_in_two_estimators_is_held_to_the_narrower_one() -> None:
    wide = models.estimators()["forest"]
    tree = wide.estimators_[0]
    narrow = models.estimators()["forest"]
    narrow.n_features_in_, narrow.estimators_ = 1, [tree]

    artefact_audit.check_bounds({"a": wide})
    with pytest.raises(artefact_audit.BrokenContentError):
        artefact_audit.check_bounds({"a": wide, "b": narrow})


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Lasso"):
        save(tmp_path, models.model(odd=Lasso().fit([[0.0], [1.0]], [0.0, 1.0])))
    assert list(tmp_path.iterdir()) == []


def test_reading_a_manifest_alone(tmp_path: Path) -> None:
    manifest = save(tmp_path)

    assert read_manifest(tmp_path / f"{manifest.id}.skops", "cost", COST.manifest) == manifest
