"""The shipped units: hardened as promised, measured by systemd's own tool."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(("unit", "limit"), [("rebalancerd.service", 1.5), ("rebalancerd-agent.service", 1.5)])
def test_exposure_is_low(unit: str, limit: float) -> None:
    """`systemd-analyze security --offline=yes` gives an exposure of at most 1.5."""
    shown = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=yes", str(UNITS / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)

    assert found, shown.stdout + shown.stderr
    assert float(found.group(1)) <= limit


def test_stopping_never_waits_for_a_migration() -> None:
    """The unit gives the daemon 60 s to stop and kills nothing but its own processes."""
    text = (UNITS / "rebalancerd.service").read_text()

    assert "TimeoutStopSec=60" in text
    assert "Type=notify" in text
    assert "WatchdogSec=" in text
