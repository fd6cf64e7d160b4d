"""The built wheel: it carries models, configuration, units and the schema of the ledger, and it runs on its own."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it; dependencies come from the running one, its own rebalancerd does not."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
    python = home / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
        capture_output=True,
    )
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home


def run(installed: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(
        [str(installed / "bin" / command[0]), *command[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_wheel_carries_what_is_not_python(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    assert "rebalancerd/_models/README.md" in names
    assert "rebalancerd/_config/rebalancerd.toml" in names
    assert "rebalancerd/_systemd/rebalancerd.service" in names
    assert "rebalancerd/_systemd/rebalancerd-train.path" in names
    assert any(n.startswith("rebalancerd/record/alembic/versions/") and n.endswith(".py") for n in names)
    assert "rebalancerd/lab/guest/workload.c" in names
    assert not any(n.startswith("tests/") for n in names)


def test_installed_wheel_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "python", "-c", "import rebalancerd; print(rebalancerd.__file__)")
    version = run(installed, tmp_path, "rebalancerd", "version")
    example = run(installed, tmp_path, "rebalancerd", "config", "generate")

    assert str(installed) in where.stdout
    assert version.returncode == 0 and "0.1.0" in version.stdout, version.stderr
    assert example.returncode == 0 and "[[hosts]]" in example.stdout, example.stderr


def test_installed_wheel_makes_its_ledger(installed: Path, tmp_path: Path) -> None:
    code = (
        "from rebalancerd.record.sql_ledger import SqlLedger; from rebalancerd.clock import SystemClock; "
        "l = SqlLedger('sqlite:///ledger.sqlite', SystemClock()); print(len(l.open_migrations())); l.close()"
    )
    made = run(installed, tmp_path, "python", "-c", code)

    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == "0"
    assert (tmp_path / "ledger.sqlite").stat().st_size > 0


def test_installed_wheel_finds_its_models(installed: Path, tmp_path: Path) -> None:
    """Those in the wheel, not those of some checkout."""
    listed = run(
        installed, tmp_path, "rebalancerd", "models", "list", "--output", "json", "--config", str(_config(tmp_path))
    )

    assert listed.returncode == 0, listed.stderr
    (_, shipped) = json.loads(listed.stdout)["directories"]
    assert Path(shipped).is_relative_to(installed) and Path(shipped).name == "_models"


def _config(directory: Path) -> Path:
    file = directory / "c.toml"
    hosts = '[[hosts]]\nname = "h1"\nuri = "qemu+ssh://h1/system"\n'
    file.write_text(f'state_dir = "{directory}/state"\n{hosts}')
    return file
