"""``backtest``: what it prints, what it writes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import structlog
from typer.testing import CliRunner

from rebalancerd.cli.app import app

RUN = CliRunner()


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """The command turns the log down for its own process, which this one is not."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="module")
def traces(tmp_path_factory) -> Path:
    """A day of 60 made-up VMs in the form of a public set."""
    directory = tmp_path_factory.mktemp("traces")
    rng = np.random.default_rng(1)
    load = np.clip(rng.gamma(2.0, 18.0, (60, 1)) + rng.normal(0, 4, (60, 288)), 0, 99).astype(np.uint8)
    names = np.array([f"vm{i}" for i in range(60)])
    np.savez(directory / "planetlab_made.npz", cpu_20110303=load, name_20110303=names)
    return directory


def run(*words: object):
    return RUN.invoke(app, ["backtest", *map(str, words)])


def test_a_table_of_doing_nothing_and_of_the_defaults(traces):
    result = run("--traces", traces, "--hosts", 3, "--hours", 0.2)
    assert result.exit_code == 0, result.output
    assert "do nothing" in result.output
    assert "defaults" in result.output
    assert "hot host min" in result.output
    assert "of planetlab" in result.output


def test_json_and_picture_and_the_same_again(traces, tmp_path):
    picture = tmp_path / "map.svg"
    words = ("--traces", traces, "--hosts", 3, "--hours", 0.2, "--output", "json", "--picture", picture)
    first, second = run(*words), run(*words)
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert [r["name"] for r in told["runs"]] == ["do nothing", "defaults"]
    assert told["runs"][0]["migrations"] == 0
    assert told["runs"][0]["asked_core_hours"] == pytest.approx(told["runs"][1]["asked_core_hours"], rel=0.02)
    assert json.loads(second.stdout) == told
    assert picture.read_text().startswith("<svg")


def test_two_configurations_side_by_side(traces, tmp_path):
    hosts = '[[hosts]]\nname = "h1"\nuri = "qemu+ssh://h1/system"\n'
    for name, headroom in (("calm", 0.95), ("eager", 0.6)):
        (tmp_path / f"{name}.toml").write_text(
            f'state_dir = "{tmp_path}/state"\n[plan]\ncpu_headroom = {headroom}\n{hosts}'
        )
    result = run(
        "--traces", traces, "--hosts", 3, "--hours", 0.2, "-c", tmp_path / "calm.toml", "-c", tmp_path / "eager.toml"
    )
    assert result.exit_code == 0, result.output
    assert "calm" in result.output
    assert "eager" in result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "either --record or --traces"),
        (("--traces", "{empty}"), "nothing was replayed"),
        (("--traces", "{missing}"), "nothing was replayed"),
        (("--record", "{empty}"), "nothing was replayed"),
        (("--traces", "{traces}", "--picture", "map.png"), "pictures are SVG"),
        (("--traces", "{traces}", "--picture", "/nowhere/at/all/map.svg"), "there is no directory"),
    ],
)
def test_what_is_wrong_is_said_and_ends_the_command(traces, tmp_path, words, told):
    places = {"empty": tmp_path, "missing": tmp_path / "missing", "traces": traces}
    result = run(*(word.format(**places) for word in words))
    assert result.exit_code != 0
    assert told in " ".join(result.output.split())


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "planetlab_bad.npz").write_bytes(b"not a zip")
    result = run("--traces", tmp_path)
    assert result.exit_code != 0
    assert "planetlab_bad.npz" in "".join(result.output.split())
