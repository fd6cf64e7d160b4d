"""Every scenario: its log is what was reviewed, and no promise is broken on the way (checked after every step)."""

from pathlib import Path

import pytest

from rebalancerd.sim.runner import EXPECTED, record, run_scenario

HERE = Path(__file__).parent
SCENARIOS = sorted(p.parent for p in HERE.glob("*/cluster.toml"))


@pytest.mark.parametrize("directory", SCENARIOS, ids=lambda p: p.name)
def test_scenario(directory: Path, request: pytest.FixtureRequest) -> None:
    """The log of the run equals the expected one, line by line."""
    if request.config.getoption("--record", default=False) and record(directory):
        pytest.skip(f"recorded {directory.name}/{EXPECTED}: review it")
    expected = directory / EXPECTED
    assert expected.exists(), "no expected log: run with --record and review what it writes"

    assert run_scenario(directory).splitlines() == expected.read_text(encoding="utf-8").splitlines()


def test_there_are_enough_and_both_kinds() -> None:
    """At least as many scenarios in which nothing may be started as in which something must move."""
    logs = [(d / EXPECTED).read_text(encoding="utf-8") for d in SCENARIOS]
    moving = sum(": succeeded" in log for log in logs)

    assert len(SCENARIOS) >= 25
    assert moving >= 10
    assert len(logs) - moving >= moving
