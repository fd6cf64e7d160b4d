"""Runs the fixed commands of Debian's packages that the lab consists of."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COMMAND_SECONDS = 60.0
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/sbin"))


class LabError(Exception):
    """The lab could not do what was asked; the text says what failed and on what."""


def run(*argv: str, timeout: float = COMMAND_SECONDS) -> str:
    """Run a command and return its standard output.

    Args:
        argv: the command and its arguments; no shell is involved.
        timeout: seconds after which the command is killed.

    Raises:
        LabError: the command is missing, took too long or ended with an exit code other than 0.
    """
    try:
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C"},
        )
    except OSError as error:
        raise LabError(f"cannot run {argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no end after {timeout:g} s") from error
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def succeeds(argv: Sequence[str]) -> bool:
    """Run a command whose failure is an ordinary answer, such as deleting what may be gone already."""
    try:
        run(*argv)
    except LabError:
        return False
    return True


def start_detached(log: Path, *argv: str) -> None:
    """Start a command that outlives this process, whatever becomes of it; its output goes to `log`.

    Raises:
        LabError: it cannot be started.
    """
    run("sh", "-c", 'log=$1; shift; exec setsid --fork "$@" >"$log" 2>&1', "sh", str(log), *argv)


def wait_until(condition: Callable[[], bool], timeout: float, failure: str, log: Path) -> None:
    """Wait until a condition holds.

    Raises:
        LabError: it does not after `timeout` seconds; the text is `failure` and the end of `log`.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            tail = log.read_text(errors="replace").strip().splitlines()[-5:] if log.exists() else []
            raise LabError("\n".join([failure, *tail]))
        time.sleep(0.02)
