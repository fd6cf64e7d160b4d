"""The shipped units: hardened as promised, measured by systemd's own tool."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rebalancerd import config
from rebalancerd.predict.store import REQUEST

UNITS = Path(__file__).parents[2] / "systemd"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    ("unit", "limit"),
    [("rebalancerd.service", 1.5), ("rebalancerd-agent.service", 1.5), ("rebalancerd-train.service", 1.0)],
)
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


def test_training_gives_way_and_reaches_nobody() -> None:
    """A process of its own with the lowest weights, without a network, that ends."""
    text = (UNITS / "rebalancerd-train.service").read_text()

    for line in (
        "Type=oneshot",
        "PrivateNetwork=yes",
        "RestrictAddressFamilies=none",
        "Nice=19",
        "CPUWeight=10",
        "IOWeight=10",
        "StateDirectory=rebalancerd",
    ):
        assert line in text.splitlines()
    assert "/usr/bin/rebalancerd train cost --config /etc/rebalancerd/rebalancerd.toml" in text


def test_the_request_that_starts_a_training_is_the_daemons() -> None:
    """systemd watches the file that the daemon makes in the default state directory."""
    cfg = config.parse(config.generate())
    text = (UNITS / "rebalancerd-train.path").read_text()

    assert f"PathExists={cfg.models_dir}/{REQUEST}\n" in text
    assert "Unit=rebalancerd-train.service" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", [*sorted(p.name for p in UNITS.glob("*.service")), "rebalancerd-train.path"])
def test_systemd_understands_every_line(unit: str) -> None:
    shown = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(UNITS / unit)], capture_output=True, text=True, check=False
    )

    assert [line for line in shown.stderr.splitlines() if "not executable" not in line] == []
