"""The state file of a lab: what was asked for and what was chosen; everything else is found by names derived from it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from rebalancerd.lab.commands import LabError
from rebalancerd.lab.spec import GuestSpec, LabSpec

FILE_NAME = "lab.json"
LOCK_SECONDS = 120.0


@dataclass(frozen=True)
class LabState:
    """Contents of the state file.

    Args:
        spec: the lab as asked for.
        guests: guests it has, those added later included.
        accelerator: the one chosen, None before the choice.
        disk_ports: TCP port of the disk server of each guest with a disk.
        made_directories: directories outside the lab's own that were not there before it.
    """

    spec: LabSpec
    guests: tuple[GuestSpec, ...] = ()
    accelerator: Literal["kvm", "tcg"] | None = None
    disk_ports: dict[str, int] = field(default_factory=dict)
    made_directories: tuple[str, ...] = ()


_ADAPTER = TypeAdapter(LabState)


def load_state(state_dir: Path) -> LabState | None:
    """Read the state file; None if there is none.

    Raises:
        LabError: the file is not the state of a lab.
    """
    try:
        return _ADAPTER.validate_json((state_dir / FILE_NAME).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise LabError(f"{state_dir / FILE_NAME} is not the state of a lab: {error}") from error


def save_state(state_dir: Path, state: LabState) -> None:
    """Write the state file so that a crash leaves the old or the new one."""
    part = state_dir / f"{FILE_NAME}.part"
    part.write_bytes(_ADAPTER.dump_json(state, indent=2))
    part.replace(state_dir / FILE_NAME)


@contextmanager
def locked(state_dir: Path, *, create: bool) -> Iterator[None]:
    """Hold the lab's lock, so that two processes do not build and take down at once; wait for it for `LOCK_SECONDS`.

    Args:
        state_dir: directory of the lab.
        create: make it if it is not there; without it, a missing directory needs no lock.

    Raises:
        LabError: another process holds the lock.
    """
    if create:
        state_dir.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield
        return
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"another process is at work on the lab in {state_dir}") from error
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)
