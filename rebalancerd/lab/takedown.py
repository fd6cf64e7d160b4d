"""Removes what a lab left on the machine, found by name alone, so that it works after a crash at any point."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from rebalancerd.lab.commands import LabError, succeeds
from rebalancerd.lab.state import FILE_NAME

_LXCFS_RUN_DIR = Path("/run/lxcfs")


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
    """Delete the empty directories that labs made outside their own: those given, and the run directory of lxcfs.

    Only the last lab on the machine may do so: another would lose what it has mounted on them, though in a namespace of its own.
    """
    for path in (*_LXCFS_RUN_DIR.glob("*"), _LXCFS_RUN_DIR, *(Path(path) for path in made)):
        try:
            path.rmdir()
        except OSError:
            continue  # in use, or gone
