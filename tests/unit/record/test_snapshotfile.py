"""Snapshot files: what was written is read, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rebalancerd.cluster.host import HugePages
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.units import MIB
from rebalancerd.offline import keep
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.record.snapshotfile import (
    KeptInputs,
    SnapshotFileError,
    document,
    parse_document,
    read_snapshot,
    write_snapshot,
)
from tests.unit.plan.plan_cluster import host, inputs_of, vm


def make_kept(name: str = "a") -> KeptInputs:
    inputs = inputs_of((host("h1"), host("h2")), (vm("a", "h1", facts={"name": name}), vm("b", "h2", cores=None)))
    return keep(inputs, PredictSettings(), "physics")


def test_a_snapshot_goes_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "s.json"

    write_snapshot(file, document(make_kept()))

    assert read_snapshot(file) == make_kept()
    assert not (tmp_path / "s.json.part").exists()
    assert file.stat().st_mode & 0o077 == 0, "it names every guest"
    assert json.loads(file.read_text())["format"] == 1


def test_what_a_vm_needs_of_its_host_and_wishes_goes_through() -> None:
    pool = HugePages(size_bytes=2 * MIB, total=9, free=3)
    there = host("h1", hugepages=(pool,), memory_overcommit=1.5)
    assert there.facts is not None
    there = replace(there, facts=replace(there.facts, hugepages=(pool,), topology="t1"))
    guest = vm(
        "a",
        "h1",
        facts={"hugepage_bytes": 2 * MIB, "host_topology": ("numatune",), "pinned_cpus": frozenset({1, 2})},
        policy=VmPolicy(prefer=frozenset({"h1"}), soft_affinity=frozenset({"g"})),
    )
    kept = keep(inputs_of((there,), (guest,)), PredictSettings(), "physics")

    again = parse_document(json.loads(json.dumps(document(kept))))
    assert again == kept
    assert again.snapshot.digest == kept.snapshot.digest


def test_figures_that_are_not_finite_go_through(tmp_path: Path) -> None:
    kept = make_kept()
    odd = replace(kept.snapshot.vms[0], load=replace(kept.snapshot.vms[0].load, cpu_cores=float("inf")))
    kept = replace(kept, snapshot=replace(kept.snapshot, vms=(odd, kept.snapshot.vms[1])))

    assert parse_document(json.loads(json.dumps(document(kept)))) == kept


def test_a_name_that_is_no_text_does_not_spoil_the_file() -> None:
    kept = parse_document(document(make_kept("evil\x1b\udc80")))

    assert kept.snapshot.vms[0].name == "evil\x1b?"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"host":"h1"', '"host":"h2"'),
        ('"max_moves":8', '"max_moves":9'),
        ('"costs":"physics"', '"costs":"learned"'),
        ('"cpu_headroom":0.8', '"cpu_headroom":0.9'),
    ],
)
def test_an_edited_file_is_found_out_and_named(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "s.json"
    write_snapshot(file, document(make_kept()))
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))

    with pytest.raises(SnapshotFileError, match=r"s\.json: was changed after it was written"):
        read_snapshot(file)


def test_a_file_cut_short_anywhere_is_told(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    write_snapshot(file, document(make_kept()))
    whole = file.read_bytes()

    for length in range(0, len(whole) - 2, 211):
        file.write_bytes(whole[:length])
        with pytest.raises(SnapshotFileError, match=r"s\.json: is not JSON, or was cut short"):
            read_snapshot(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "has format 2; this version reads format 1"),
        ({"format": True}, "has format True"),
        ({"kind": "rebalancerd plan"}, "is not a snapshot file"),
        ({"digest": "0" * 16}, "was changed"),
        ({"extra": 1}, "holds something unknown: 'extra'"),
        ({"inputs": None}, "does not hold a snapshot"),
        ({"inputs": {"hosts": []}}, "does not hold a snapshot"),
        ({"inputs": {1, 2}}, "does not hold a snapshot"),
    ],
)
def test_what_is_no_snapshot_is_told(change: dict[str, object], told: str) -> None:
    with pytest.raises(SnapshotFileError, match=told):
        parse_document({**document(make_kept()), **change})


def test_a_snapshot_that_contradicts_itself_is_told() -> None:
    tree = document(make_kept())
    tree["inputs"]["snapshot"]["vms"][0]["host"] = "h7"

    with pytest.raises(SnapshotFileError, match="VMs on hosts that are not in the snapshot"):
        parse_document(tree)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"7", b"[" * 100_000, b""])
def test_other_files_are_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)

    with pytest.raises(SnapshotFileError, match=r"x\.json"):
        read_snapshot(file)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnapshotFileError, match="No such file"):
        read_snapshot(tmp_path / "none.json")
