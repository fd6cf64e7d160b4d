"""`power plan-night`, from a daemon and from a file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.settings import PredictSettings
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_cli_offline import CALM
from tests.unit.night.test_night_rehearsal import EVENING, NIGHT, inputs
from tests.unit.serve.serve_world import World

HOST = '[[hosts]]\nname = "h{n}"\nuri = "qemu+tcp://h{n}/system"\n'
POWER = '[hosts.power]\nkind = "command"\non_command = ["/bin/true"]\noff_command = ["/bin/true"]\n'
WINDOW = (
    '[guard]\ncooldown = "5 min"\n[[guard.policy_windows]]\nname = "night"\nstart = "0 20 * * *"\nend = "0 3 * * *"\n'
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Times as UTC, and no configuration on this machine."""
    monkeypatch.setenv("TZ", "UTC")
    for module in ("offline", "power_night"):
        monkeypatch.setattr(f"rebalancerd.cli.{module}.DEFAULT_CONFIG", tmp_path / "none.toml")
    monkeypatch.setenv("REBALANCERD_CONFIG", str(tmp_path / "none.toml"))


@pytest.fixture
def seen(world: World) -> World:
    """A daemon whose loop sees three hosts half an hour before the night, with limits that let two of them sleep."""
    world.clock.now = EVENING
    given = inputs()
    vms = tuple(replace(vm, dirty=CALM) for vm in given.snapshot.vms)
    snapshot = replace(given.snapshot, vms=vms)
    world.loop.inputs = replace(given, snapshot=snapshot, costs=PhysicsCost(PredictSettings()))
    return world


@pytest.fixture
def file(seen: World, run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "snapshot.json"
    assert run("snapshot", "save", str(path)).code == 0
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """h1 and h3 can be powered off; at night the policy consolidates."""
    path = tmp_path / "rebalancerd.toml"
    hosts = "".join(HOST.format(n=n) + (POWER if n != 2 else "") for n in (1, 2, 3))
    power = "[power]\nhosts_on_min = 1\nspare_hosts = 0\n"
    path.write_text(f'state_dir = "{tmp_path}"\n{hosts}{power}{WINDOW}')
    return path


def test_a_person_reads_the_night_from_a_file(file: Path, config: Path, run: Run) -> None:
    told = run("power", "plan-night", "--from", str(file), "--config", str(config))
    assert told.code == 0, told.err
    first, second, *_ = told.out.splitlines()
    assert first == "night (0 20 * * * to 0 3 * * *): 2026-01-05 20:00 to 2026-01-06 03:00, unfolding from 02:30"
    assert second.startswith("predicted: ") and "kWh saved = " in second
    assert "fold: " in told.out and "sleeps: off" in told.out and "asleep: " in told.out
    assert "unfold: " in told.out and "h2 → h3" in told.out
    assert "stays on: h2: no_power_control" in told.out
    assert "every host whose power is configured is taken to be on" in told.err


def test_a_program_reads_it_whole(file: Path, config: Path, run: Run) -> None:
    told = json.loads(run("power", "plan-night", "--from", str(file), "--config", str(config), "--output", "json").out)
    assert told["format"] == 1
    assert told["predicted"]["moves"] == len(told["moves"])
    assert {s["host"] for s in told["sleeps"]} <= {"h1", "h3"}
    slept = sum(seconds for _, seconds in told["predicted"]["asleep_seconds"])
    assert slept > 0
    assert told["predicted"]["saved_kwh"] == pytest.approx(
        slept * 100.0 / 3.6e6 - told["predicted"]["moves_kwh"], rel=1e-3
    )


def test_without_a_configuration_a_window_must_be_said(file: Path, run: Run) -> None:
    told = run("power", "plan-night", "--from", str(file))
    assert told.code == 1
    assert "no window of consolidation is configured" in told.err and "--window 8h" in told.err
    told = run("power", "plan-night", "--from", str(file), "--window", "4h")
    assert told.code == 0
    assert told.out.startswith("a window that begins now: 2026-01-05 19:30 to 2026-01-05 23:30")
    assert "the power of every host is taken to be controlled" in told.err


def test_a_daemon_without_host_power_says_who_cannot_sleep(seen: World, run: Run) -> None:
    told = run("power", "plan-night")
    assert told.code == 1 and "no window of consolidation is configured" in told.err
    seen.loop.settings.guard = replace(seen.loop.settings.guard, policy_windows=(NIGHT,))  # type: ignore[attr-defined]
    told = run("power", "plan-night")
    assert told.code == 0, told.err
    assert told.out.startswith("night (0 20 * * * to 0 6 * * *)")
    assert "no host goes to sleep" in told.out
    assert told.out.count("no_power_control") == 3
    assert "mode guarded: this is what auto would do" in told.err


@pytest.mark.parametrize("window", ["soon", "0s", "-1h"])
def test_a_window_that_is_none_is_refused(file: Path, run: Run, window: str) -> None:
    told = run("power", "plan-night", "--from", str(file), "--window", window)
    assert told.code == 2 and "--window" in told.err


def test_data_that_forbid_planning_are_told(seen: World, run: Run) -> None:
    seen.loop.inputs = ValueError("warming_up: not enough samples yet")
    told = run("power", "plan-night", "--window", "8h")
    assert told.code == 1 and "not enough samples yet" in told.err
