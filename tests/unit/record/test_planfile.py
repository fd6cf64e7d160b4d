"""Plan files: what was written is read, and nothing else."""

import json
from pathlib import Path

import pytest

from rebalancerd.record.planfile import PlanFileError, document, parse_document, read_plan, write_plan
from tests.unit.record.record_values import knowing, make_plan


def test_a_plan_goes_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"

    write_plan(file, make_plan())

    assert read_plan(file) == make_plan()
    assert not (tmp_path / "plan.json.part").exists()
    assert json.loads(file.read_text())["format"] == 1
    assert '"upper": "Infinity"' in file.read_text(), "no figure is written that JSON has no word for"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"destination": "h2"', '"destination": "h3"'),
        ('"expires_at": 1800000300.0', '"expires_at": 1900000300.0'),
        ('"upper": "Infinity"', '"upper": 2000000000.0'),
        ('"why": "relieves h1"', '"why": "relieves h2"'),
    ],
)
def test_an_edited_file_is_found_out_and_named(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "plan.json"
    write_plan(file, make_plan())
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))

    with pytest.raises(PlanFileError, match=r"plan\.json: was changed after it was written"):
        read_plan(file)


def test_a_file_of_a_version_that_kept_no_facts_still_holds() -> None:
    """Its digest does too: an approval was given for it."""
    file = Path(__file__).parent / "data" / "plan-0.1.json"

    plan = read_plan(file)

    assert plan.digest == "43877f8ace0629d2"
    assert plan.steps[0].move.known is None


def test_what_was_known_is_part_of_the_file_and_of_the_digest(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan = knowing(make_plan())
    write_plan(file, plan)

    assert read_plan(file) == plan
    assert plan.digest != make_plan().digest
    text = file.read_text()
    assert '"resident_bytes": 805306368' in text
    file.write_text(text.replace('"resident_bytes": 805306368', '"resident_bytes": null'))
    with pytest.raises(PlanFileError, match="was changed after it was written"):
        read_plan(file)
    tree = document(plan)
    tree["plan"]["steps"][0]["move"]["known"] = None
    with pytest.raises(PlanFileError, match="was changed after it was written"):
        parse_document(tree)


def test_a_file_cut_short_anywhere_is_told(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(file, make_plan())
    whole = file.read_bytes()

    for length in range(0, len(whole) - 2, 97):
        file.write_bytes(whole[:length])
        with pytest.raises(PlanFileError, match=r"plan\.json: is not JSON, or was cut short"):
            read_plan(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "has format 2; this version reads format 1"),
        ({"format": True}, "has format True"),
        ({"kind": "shopping list"}, "is not a plan file"),
        ({"digest": "0" * 16}, "was changed"),
        ({"digest": None}, "was changed"),
        ({"extra": 1}, "holds something unknown: 'extra'"),
        ({"plan": None}, "does not hold a plan"),
        ({"plan": {"steps": []}}, "does not hold a plan"),
        ({"plan": float("nan")}, "does not hold a plan"),
        ({"plan": {1, 2}}, "does not hold a plan"),
    ],
)
def test_what_is_no_plan_is_told(change: dict[str, object], told: str) -> None:
    with pytest.raises(PlanFileError, match=told):
        parse_document({**document(make_plan()), **change})


def test_an_unknown_field_inside_is_told() -> None:
    tree = document(make_plan())
    tree["plan"]["steps"][0]["move"]["force"] = True

    with pytest.raises(PlanFileError, match=r"steps\.0\.move\.force"):
        parse_document(tree)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"7", b"[" * 100_000, b""])
def test_other_files_are_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)

    with pytest.raises(PlanFileError, match=r"x\.json"):
        read_plan(file)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(PlanFileError, match="No such file"):
        read_plan(tmp_path / "none.json")
    with pytest.raises(PlanFileError, match="directory"):
        read_plan(tmp_path)
