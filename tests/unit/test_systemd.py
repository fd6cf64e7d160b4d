"""The shipped units: hardened as promised, measured by systemd's own tool."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rebalancerd import config
from rebalancerd.predict.store import REQUEST

UNITS = Path(__file__).parents[2] / "systemd"
GUIDE = Path(__file__).parents[2] / "docs" / "operator-guide.md"
AGENT = "rebalancerd-agent.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    ("unit", "limit"),
    [("rebalancerd.service", 1.3), ("rebalancerd-agent.service", 1.0), ("rebalancerd-train.service", 0.3)],
)
def test_exposure_is_low(unit: str, limit: float) -> None:
    """systemd itself takes an exposure above its threshold (in tenths) for a failure; each unit is held to its own."""
    shown = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=15", str(UNITS / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
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
    assert "/usr/bin/rebalancerd train all --config /etc/rebalancerd/rebalancerd.toml" in text


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


def documented_drop_in() -> str:
    """What the guide puts into the agent's unit for --dirty."""
    (block,) = re.findall(r"^  ```ini\n(  \[Service\]\n.*?)^  ```", GUIDE.read_text("utf-8"), re.M | re.S)
    return "".join(line.removeprefix("  ") for line in block.splitlines(keepends=True))


def test_the_shipped_agent_may_read_nobodys_memory() -> None:
    """What measuring guests needs is in the drop-in alone."""
    shipped, more = (UNITS / AGENT).read_text(), documented_drop_in()

    for line in ("CapabilityBoundingSet=", "AmbientCapabilities=", "PrivateUsers=yes"):
        assert line in shipped.splitlines()
    assert "--dirty" not in shipped
    assert "--dirty" in more
    for kind in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert f"{kind}=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH" in more.splitlines()
    assert "DAC_OVERRIDE" not in more, "it may not write"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_documented_drop_in(tmp_path: Path) -> None:
    """Every line of it, and the unit with it is still well closed."""
    unit = tmp_path / AGENT
    shutil.copy(UNITS / AGENT, unit)
    drop_in = tmp_path / f"{AGENT}.d" / "override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(documented_drop_in())

    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    shown = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=yes", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert [line for line in verified.stderr.splitlines() if "not executable" not in line] == []
    assert re.search(r"^✗ CapabilityBoundingSet=~CAP_SYS_PTRACE ", shown.stdout, re.M), "the drop-in was not read"
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)
    assert found, shown.stdout + shown.stderr
    assert float(found.group(1)) <= 2.0


MDWE = """
import ctypes, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit(77)
import mmap
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    sys.exit("memory that is writable and executable could be had")
except PermissionError:
    pass
import sqlite3, ssl
import libvirt, numpy, psutil, scipy.optimize, sklearn.ensemble, sqlalchemy
x = numpy.random.default_rng(1).random((300, 4))
assert numpy.linalg.svd(x @ x.T)[1][0] > 0
sklearn.ensemble.HistGradientBoostingRegressor(max_iter=3).fit(x, x[:, 0]).predict(x)
assert scipy.optimize.milp([1.0], integrality=[1], bounds=scipy.optimize.Bounds(0, 1)).success
ssl.create_default_context(); sqlite3.connect(":memory:"); psutil.cpu_times()
libvirt.registerErrorHandler(lambda *_: None, None)
libvirt.open("test:///default").listAllDomains()
"""


def test_what_we_use_runs_without_writable_code() -> None:
    """MemoryDenyWriteExecute stops no library of ours: the kernel's own form of it, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MDWE], capture_output=True, text=True, check=False, timeout=120)

    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr
