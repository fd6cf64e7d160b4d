"""The daemon and host power: built only where it is configured, and able to act only where the mode may."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rebalancerd.daemon import Daemon
from rebalancerd.ports import PowerError
from tests.unit.test_daemon import World, make_daemon, world  # noqa: F401 - fixtures

POWER = """
[[hosts]]
name = "h3"
uri = "qemu+tcp://10.9.9.3/system"
[hosts.power]
kind = "command"
on_command = ["/bin/true"]
off_command = ["/bin/true"]
"""


def jobs(daemon: Daemon) -> set[str]:
    return {job.id for job in daemon._schedule().get_jobs()}


def test_without_configured_power_there_is_none(make_daemon: Callable[..., Daemon]) -> None:  # noqa: F811
    daemon = make_daemon("auto")
    assert daemon.keeper is None and daemon.power is None
    assert "power" not in jobs(daemon)


def test_only_a_mode_that_may_act_holds_a_way_to_any_host(make_daemon: Callable[..., Daemon]) -> None:  # noqa: F811
    daemon = make_daemon("recommend", POWER)
    assert daemon.keeper is not None and daemon.keeper.controlled() == {"h3"}
    assert "power" not in jobs(daemon)
    with pytest.raises(PowerError, match="mode recommend builds no way"):
        daemon.keeper._power.on("h3")


def test_in_auto_its_tick_runs_and_each_cycle_decides(make_daemon: Callable[..., Daemon]) -> None:  # noqa: F811
    daemon = make_daemon("auto", POWER)
    assert "power" in jobs(daemon)
    daemon.observer.sample()
    daemon.decide()
    assert daemon.power is not None and daemon.power.told.at > 0
    assert daemon._no_power_off() is None
    daemon.stop()
    assert daemon._no_power_off() == "the daemon is stopping"


def test_what_was_measured_is_what_the_daemon_plans_with(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:  # noqa: F811
    daemon = make_daemon("auto", POWER)
    rows = [[1.7e9, 60.0 + i, i / 100] for i in range(60)]
    kept = {"format": 1, "rows": [{"host": "h3", "meter": "its controller", "readings": rows}]}
    (Path(daemon.config.state_dir) / "power_readings.json").write_text(json.dumps(kept))
    daemon.close()
    again = make_daemon("auto", POWER)
    assert "meter" in jobs(again)
    again.observer.sample()
    again.decide()
    assert again.loop.view is not None
    seen = again.loop.view.snapshot.host("h3")
    assert (seen.idle_watts, seen.max_watts) == (60.0, 160.0)
    assert again.power_models.told(seen).startswith("measured by its controller (60 readings)")
    again.power_models.tick()
