"""``snapshot save``, ``plan --from`` and ``plan --what-if`` against a daemon's API, and where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.units import MIB
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.keeper import ModelState
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.record.snapshotfile import read_snapshot
from tests.unit.plan.plan_cluster import host, inputs_of, vm
from tests.unit.serve import serve_world as build

POINTS = tuple(
    DirtyPoint(period_seconds=seconds, unique_bytes=MIB * seconds, standard_error_bytes=0.0, readings=9)
    for seconds in (1.0, 4.0)
)
CALM = DirtyCurve(points=POINTS, age_seconds=1.0)


@pytest.fixture
def inputs(world: build.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanInputs:
    """What the daemon's loop looks at: h1 is hot. No cluster is configured on this machine."""
    made = inputs_of(
        (host("h1", 8.0), host("h2", 8.0), host("h3", 8.0)),
        (*(vm(f"v{n}", "h1", 1.9, dirty=CALM) for n in range(4)), vm("calm", "h2", 0.5, dirty=CALM)),
        costs=PhysicsCost(PredictSettings()),
    )
    world.loop.inputs = made
    monkeypatch.delenv("REBALANCERD_CONFIG", raising=False)
    monkeypatch.setattr("rebalancerd.cli.offline.DEFAULT_CONFIG", tmp_path / "none.toml")
    monkeypatch.setenv("REBALANCERD_CONFIG", str(tmp_path / "none.toml"))
    return made


@pytest.fixture
def file(run: Any, inputs: PlanInputs, tmp_path: Path) -> Path:
    path = tmp_path / "s.json"
    assert run("snapshot", "save", str(path)).code == 0
    return path


def test_a_snapshot_is_saved(run: Any, inputs: PlanInputs, tmp_path: Path) -> None:
    file = tmp_path / "s.json"

    done = run("snapshot", "save", str(file))

    assert done.code == 0
    assert "3 hosts and 5 VMs written to" in done.out
    assert "costs by physics" in done.out
    assert read_snapshot(file).snapshot == inputs.snapshot
    told = json.loads(run("snapshot", "save", str(file), "--output", "json").out)
    assert (told["hosts"], told["vms"], told["costs"]) == (3, 5, "physics")


def test_a_plan_from_a_file_is_the_daemons_plan(
    run: Any, file: Path, inputs: PlanInputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REBALANCERD_SOCKET", str(tmp_path / "nobody"))

    done = run("plan", "--from", str(file), "--output", "json")

    assert done.code == 0
    assert json.loads(done.out)["digest"] == decide(inputs).digest
    shown = run("plan", "--from", str(file), "--detailed-exitcode")
    assert shown.code == 10
    assert f"digest {decide(inputs).digest}" in shown.out
    assert "FROM → TO" in shown.out


def test_what_if_changes_the_plan_and_is_told(run: Any, file: Path) -> None:
    done = run("plan", "--from", str(file), "--what-if", "vm v0 gone", "--what-if", "vm v1 gone")
    assert "nothing to do" in done.out
    assert "supposed: vm v0 gone" in done.err
    assert "supposed: vm v1 gone" in done.err

    done = run("plan", "--from", str(file), "--what-if", "host h2 down")
    assert "(drain," in done.out
    assert "h2 → h3" in done.out


def test_what_if_with_what_the_daemon_sees_now(run: Any, inputs: PlanInputs) -> None:
    done = run("plan", "--what-if", "add host h9 cores=64 memory=1TiB like h2", "--what-if", "vm calm on h1")

    assert done.code == 0
    assert "h1 → h9" in done.out


def test_a_plan_of_what_is_supposed_is_not_written(run: Any, file: Path, tmp_path: Path) -> None:
    done = run("plan", "--from", str(file), "--what-if", "vm v0 gone", "-o", str(tmp_path / "p.json"))

    assert done.code == 2
    assert "is not to be applied" in done.err
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("host h1 up", 2, "“host h1 up” is not understood"),
        ("host h7 down", 1, "there is no host “h7”"),
        ("vm x gone", 1, "known are: calm, v0, v1, v2, v3"),
    ],
)
def test_a_what_if_that_makes_no_sense_is_told(run: Any, file: Path, text: str, code: int, words: str) -> None:
    done = run("plan", "--from", str(file), "--what-if", text)

    assert done.code == code
    assert words in done.err


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "cut short"), ("[]", "not a snapshot file"), ('{"kind": "x"}', "not a snapshot file"), (None, "No such")],
)
def test_what_is_no_snapshot_file_is_named(run: Any, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "x.json"
    if content is not None:
        file.write_text(content)

    done = run("plan", "--from", str(file))

    assert done.code == 1
    assert words in done.err
    assert str(file) in done.err


def test_an_edited_snapshot_is_found_out(run: Any, file: Path) -> None:
    file.write_text(file.read_text().replace('"max_moves":8', '"max_moves":80'))

    done = run("plan", "--from", str(file))

    assert done.code == 1
    assert "changed after it was written" in done.err


def test_another_cost_model_than_the_daemons_is_told(
    run: Any, world: build.World, inputs: PlanInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rebalancerd.predict.store.shipped_directory", lambda: tmp_path)
    world.model = ModelState(basis="cost-elsewhere", id="cost-elsewhere", trusted=True)
    file = tmp_path / "s.json"
    run("snapshot", "save", str(file))

    done = run("plan", "--from", str(file))

    assert done.code == 0
    assert "costs were predicted by cost-elsewhere, which is not to be had here: physics answers" in done.err


@pytest.mark.parametrize(
    ("error", "words"),
    [(ValueError("warming_up: too little"), "too little"), (LedgerUnavailableError("disk full"), "disk full")],
)
def test_a_daemon_that_cannot_plan_says_why(
    run: Any, world: build.World, tmp_path: Path, error: Exception, words: str
) -> None:
    world.loop.inputs = error

    for command in (("snapshot", "save", str(tmp_path / "s.json")), ("plan", "--what-if", "vm a gone")):
        done = run(*command)
        assert done.code == 1
        assert words in done.err
    assert not (tmp_path / "s.json").exists()


def test_a_snapshot_cannot_be_written_where_there_is_no_directory(run: Any, inputs: PlanInputs, tmp_path: Path) -> None:
    done = run("snapshot", "save", str(tmp_path / "no" / "s.json"))

    assert done.code == 1
    assert "cannot write" in done.err


def test_without_a_daemon_the_hosts_are_looked_at(
    run: Any, inputs: PlanInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rebalancerd.offline import keep

    config = tmp_path / "c.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n[[hosts]]\nname = "h1"\nuri = "qemu+tcp://10.9.9.1/system"\n')
    monkeypatch.setattr("rebalancerd.daemon.standalone_inputs", lambda *_: keep(inputs, PredictSettings(), "physics"))
    alone = ("--socket", str(tmp_path / "nobody"), "--config", str(config))

    done = run("snapshot", "save", str(tmp_path / "s.json"), *alone)
    assert done.code == 0
    assert "no daemon answers" in done.err
    assert read_snapshot(tmp_path / "s.json").snapshot == inputs.snapshot

    done = run("plan", "--what-if", "vm v0 gone", "--what-if", "vm v1 gone", *alone)
    assert done.code == 0
    assert "looking at 1 hosts read-only" in done.err
    assert "nothing to do" in done.out


def test_another_policy_is_planned_for_and_its_worth_is_told(run: Any, file: Path) -> None:
    calm = ("--what-if", "vm v0 gone", "--what-if", "vm v1 gone")
    done = run("plan", "--from", str(file), *calm, "--policy", "consolidate", "--window", "8h")

    assert done.code == 0
    assert "(consolidate," in done.out
    assert "hosts with VMs 2 → 1; aggressiveness" in done.out
    assert "8.0 h that are left of the window (the forecast covers 30 min of it)" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--policy", "fold"), "'fold' is none"),
        (("--window", "soon"), "--window"),
        (("--window", "0s"), "a window has a length"),
    ],
)
def test_a_policy_or_window_that_is_none_is_told(run: Any, file: Path, arguments: tuple[str, str], words: str) -> None:
    done = run("plan", "--from", str(file), *arguments)

    assert done.code == 2
    assert words in done.err


def test_what_a_plan_brings_and_costs_is_told(run: Any, file: Path) -> None:
    told = " ".join(run("plan", "--from", str(file)).out.split())

    assert "h1 is hot now; costs" in told
    assert "core-seconds, at most" in told
    assert "pays back within" in told
