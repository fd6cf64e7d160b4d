"""`power report`: what nights saved, from a daemon and from its ledger, as a person and as a program reads it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest
from typer.testing import CliRunner

from rebalancerd.cli.app import app
from rebalancerd.cluster.night import Night, NightsTotal
from rebalancerd.night.book import NightsTold
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.serve.metrics import Metrics
from rebalancerd.sim.clock import SimClock
from tests.unit.cli.conftest import Run
from tests.unit.record.record_values import NOW
from tests.unit.serve.serve_world import World

HOUR, KWH = 3600.0, 3.6e6
FIRST = Night(
    window="night (0 20 * * * to 0 6 * * *)",
    began_at=NOW,
    ends_at=NOW + 10 * HOUR,
    noted_at=NOW + 10.5 * HOUR,
    ended_at=NOW + 10.5 * HOUR,
    mode="auto",
    actual_joules=3.5 * KWH,
    unfolded_joules=5.75 * KWH,
    moves=24,
    moves_joules=0.01 * KWH,
    asleep_seconds=(("h2", 7.5 * HOUR), ("h3", 1500.0)),
    hot_seconds=300.0,
    caused_seconds=120.0,
    accounted_seconds=10 * HOUR,
    missed_seconds=1800.0,
)
SECOND = replace(
    FIRST,
    began_at=NOW + 24 * HOUR,
    ends_at=NOW + 34 * HOUR,
    noted_at=NOW + 25 * HOUR,
    ended_at=None,
    mode="recommend",
    moves=0,
    moves_joules=0.0,
    asleep_seconds=(),
    actual_joules=KWH,
    unfolded_joules=KWH,
    hot_seconds=0.0,
    caused_seconds=0.0,
    missed_seconds=0.0,
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose daemon does not run."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("REBALANCERD_SOCKET", raising=False)
    file = tmp_path / "rebalancerd.toml"
    host = '[[hosts]]\nname = "h1"\nuri = "qemu+ssh://h1/system"\n'
    file.write_text(f'state_dir = "{tmp_path}"\n{host}[serve]\nsocket = "{tmp_path}/none.sock"\n')
    return file


def fill(directory: Path, *nights: Night) -> None:
    ledger = SqlLedger(f"sqlite:///{directory}/ledger.sqlite", SimClock(NOW))
    for night in nights:
        ledger.record_night(night)
    ledger.close()


def report(*arguments: str) -> SimpleNamespace:
    done = CliRunner().invoke(app, ["power", "report", *arguments])
    return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)


def test_a_person_reads_what_was_saved_and_what_it_cost(config: Path, tmp_path: Path) -> None:
    fill(tmp_path, FIRST, SECOND)
    told = report("-c", str(config))
    assert told.code == 0, told.err
    assert "told from its ledger" in told.err
    now, first, _ = told.out.split("\n\n")[:3]
    assert "under way, its window ends" in now
    assert "none: mode recommend moves nothing" in now
    assert "no host slept" in now
    assert "2.240 kWh = 5.750 unfolded − 3.500 as it was − 0.0100 for 24 moves" in first
    assert "h2 7.5 h, h3 25 min" in first
    assert "5 host-minutes, 2 of them caused by folding" in first
    assert "30 min without a reading, for which nothing is claimed" in first


def test_the_sum_is_of_all_nights_that_are_over(config: Path, tmp_path: Path) -> None:
    fill(tmp_path, FIRST, replace(FIRST, unfolded_joules=0.0), SECOND)
    told = report("-c", str(config), "--nights", "2")
    assert "-1.270 kWh saved in 2 nights that are over, -3.510 kWh in the 1 shown" in told.out


def test_a_program_reads_every_figure(config: Path, tmp_path: Path) -> None:
    fill(tmp_path, FIRST)
    told = json.loads(report("-c", str(config), "--output", "json").out)
    assert (told["nights_over"], told["saved_kwh"]) == (1, pytest.approx(2.24))
    (night,) = told["nights"]
    assert night["asleep_seconds"] == [["h2", 27000.0], ["h3", 1500.0]]
    assert night["unfolded_kwh"] - night["actual_kwh"] - night["moves_kwh"] == pytest.approx(night["saved_kwh"])


def test_without_a_night_or_a_ledger_it_says_so(config: Path, tmp_path: Path) -> None:
    told = report("-c", str(config))
    assert told.code == 75
    assert str(tmp_path) in told.err
    fill(tmp_path)
    assert "no night is on record" in report("-c", str(config)).out


def test_a_daemon_is_asked_first(world: World, run: Run) -> None:
    world.ledger.told_nights += [FIRST, SECOND]
    told = run("power", "report", "--nights", "1", "--output", "json")
    assert told.code == 0 and not told.err
    answer = json.loads(told.out)
    assert [n["window"] for n in answer["nights"]] == [SECOND.window]
    assert (answer["nights"][0]["ended_at"], answer["nights_over"]) == (None, 1)
    world.ledger.away = True
    assert "disk full" in run("power", "report").err
    assert run("power", "report", "--nights", "0").code == 2


def test_the_status_of_power_ends_with_the_night(world: World, run: Run) -> None:
    assert "night" not in run("power", "status").out
    world.nights = NightsTold(last=FIRST)
    assert run("power", "status").out.splitlines()[-1].endswith("2.240 kWh saved, 24 moves, h2 7.5 h, h3 25 min")
    assert json.loads(run("power", "status", "--output", "json").out)["night"]["moves"] == 24


def test_metrics_are_of_the_night_under_way_else_of_the_last() -> None:
    metrics = Metrics()
    metrics.observe_nights(NightsTold())
    assert "rebalancerd_night_under_way 0.0" in text(metrics)
    metrics.observe_nights(NightsTold(last=FIRST, total=NightsTotal(nights=3, saved_kwh=7.5)))
    told = text(metrics)
    assert 'rebalancerd_night_asleep_seconds{host="h2"} 27000.0' in told
    assert "rebalancerd_nights_saved_kwh 7.5" in told
    assert "rebalancerd_night_moves 24.0" in told
    metrics.observe_nights(NightsTold(now=SECOND, last=FIRST))
    told = text(metrics)
    assert "rebalancerd_night_under_way 1.0" in told
    assert "rebalancerd_night_asleep_seconds{" not in told


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()
