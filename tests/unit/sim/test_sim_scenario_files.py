"""Scenario files are read strictly: a typing error is found, not ignored."""

from pathlib import Path

import pytest

from rebalancerd.cluster.policy import HostMode, Mode
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.sim.scenario import ScenarioError, load, parse_script, parse_world, seconds

HOST = {"name": "a"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("1h30m", 5400), ("00:10:00", 600), ("1:05", 65), (12, 12), ("0.5s", 0.5), ("2d", 172_800)],
)
def test_durations(text: str | float, expected: float) -> None:
    """The ways to write one."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "1x", "1:2", "-5s", "10:99:"])
def test_what_is_not_a_duration(text: str) -> None:
    """Says so."""
    with pytest.raises(ScenarioError, match="not a duration"):
        seconds(text)


def test_a_world_with_units_counts_policies_and_settings() -> None:
    """Human units of the file are base units inside."""
    world = parse_world(
        {
            "mode": "guarded",
            "run": "2h",
            "host": [{"name": "a", "memory_gib": 64, "link_mbit": 1000, "mode": "drain"}],
            "vm_defaults": {"dirty_mib_s": 4},
            "vm": [{"name": "v", "host": "a", "count": 2, "cpu": 1.5, "period": "12h", "policy": {"pin": ["a"]}}],
            "guard": {"cooldown_seconds": "1h", "blackouts": [{"start": "01:00", "end": "02:00", "days": [0]}]},
        }
    )

    assert world.mode is Mode.GUARDED
    assert world.run_seconds == 7200
    assert world.cluster.hosts[0].memory_bytes == 64 * GIB
    assert world.cluster.hosts[0].link_bytes_per_second == 125e6
    assert world.cluster.hosts[0].mode is HostMode.DRAIN
    assert [v.name for v in world.cluster.vms] == ["v-1", "v-2"]
    assert world.cluster.vms[0].dirty_bytes_per_second == 4 * MIB
    assert world.cluster.vms[0].demand.base == 1.5
    assert world.cluster.vms[0].demand.period_seconds == 43_200
    assert world.cluster.vms[0].policy.pin == {"a"}
    assert world.guard.cooldown_seconds == 3600
    assert world.guard.blackouts[0].days == (0,)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({"host": [HOST], "hosts": []}, "hosts"),
        ({"host": [{"name": "a", "cores": 3}]}, "cores"),
        ({"host": [HOST], "vm": [{"name": "v", "host": "a", "ram": 1}]}, "ram"),
        ({"host": [HOST], "vm": [{"name": "v", "host": "b"}]}, "not declared"),
        ({"host": [HOST], "guard": {"cool": 1}}, "cool"),
        ({"host": [HOST], "mode": "full"}, "full"),
        ({"host": [HOST], "vm": [{"name": "v", "host": "a", "cpu": -1}]}, "negative"),
        ({}, "needs hosts"),
    ],
)
def test_wrong_keys_are_named(table: dict, names: str) -> None:
    """The message says which."""
    with pytest.raises(ScenarioError, match=names):
        parse_world(table)


def test_a_script_is_in_order_and_quotes_words() -> None:
    """Comments and empty lines are skipped; going back in time is an error with its line."""
    first, second = parse_script('00:01:00 demand "a b" cpu 2 # why\n\n2m pause\n')

    assert (first.at, first.verb, first.arguments) == (60.0, "demand", ("a b", "cpu", "2"))
    assert (second.at, second.verb) == (120.0, "pause")
    with pytest.raises(ScenarioError, match="cmdlist:2"):
        parse_script("2m pause\n1m resume\n")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """File and reason."""
    (tmp_path / "cluster.toml").write_text("mode = ")
    with pytest.raises(ScenarioError, match=r"cluster\.toml"):
        load(tmp_path)
