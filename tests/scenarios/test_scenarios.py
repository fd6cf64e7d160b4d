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


def test_there_are_enough_and_half_of_them_must_not_move() -> None:
    """In at least half of the scenarios no migration is begun at all: doing nothing is the harder part."""
    logs = {d.name: (d / EXPECTED).read_text(encoding="utf-8") for d in SCENARIOS}
    still = {name for name, text in logs.items() if " migration " not in text}

    assert len(logs) >= 60
    assert len(still) >= len(logs) / 2
    assert sum(": succeeded" in text for text in logs.values()) >= 10
    assert not [name for name in still if " started: " in logs[name]]
