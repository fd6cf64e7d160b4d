"""Removes what a lab left on the machine, found by name alone, so that it works after a crash at any point."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from rebalancerd.lab.commands import LabError, succeeds
from rebalancerd.lab.state import FILE_NAME

LXCFS_RUN_DIR = Path("/run/lxcfs")
LXCFS_RUN_DIRS = tuple(str(path) for path in (LXCFS_RUN_DIR, LXCFS_RUN_DIR / "controllers", LXCFS_RUN_DIR / "root"))


def unmount_below(directory: Path, timeout: float = 10.0) -> None:
    """Unmount everything mounted below a directory.

    Raises:
        LabError: something is still mounted after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while mounts := _mounts_below(directory):
        for mount in mounts:
            succeeds(("umount", "--lazy", mount))
        if time.monotonic() > deadline:
            raise LabError(f"cannot unmount {', '.join(mounts)}")


def _mounts_below(directory: Path) -> list[str]:
    points = [line.split()[4].replace("\\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(directory)]


def delete_state(state_dir: Path) -> None:
    """Delete the directory of a lab, its state file last; a directory that is not a lab's is left alone.

    Raises:
        LabError: something in it cannot be deleted.
    """
    if not state_dir.is_dir() or not (state_dir / FILE_NAME).exists():
        return
    try:
        for path in state_dir.iterdir():
            if path.name == FILE_NAME:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        (state_dir / FILE_NAME).unlink()
        state_dir.rmdir()
    except OSError as error:
        raise LabError(f"cannot delete {error.filename}: {error.strerror}") from error


def delete_shared_directories(made: tuple[str, ...]) -> None:
    """Delete those of the directories that a lab made outside its own, and that are empty.

    Only the last lab on the machine may do so: another, or an lxcfs of the machine's own, has mounted something on them in
    a mount namespace where this process does not see it, and would lose it.
    """
    lxcfs = _runs("lxcfs")
    for path in sorted((Path(path) for path in made), reverse=True):
        if lxcfs and path.is_relative_to(LXCFS_RUN_DIR):
            continue
        try:
            path.rmdir()
        except OSError:
            continue  # in use, or gone


def _runs(program: str) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # the command line of a process that has ended but is not collected yet is empty
            if (process / "comm").read_text().strip() == program and (process / "cmdline").read_bytes():
                return True
        except OSError:
            continue  # ended since it was listed
    return False
