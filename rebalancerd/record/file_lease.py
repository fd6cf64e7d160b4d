"""The lease of a single controller: an exclusive lock on a file of the state directory."""

import fcntl
import os
from pathlib import Path


class LeaseTakenError(Exception):
    """Another daemon holds the lock. The message names the file and, where known, the holder's process id."""


class FileLease:
    """Exclusive ``flock`` on a file, held until the process ends or ``release`` is called. Implements ports.Lease."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises LeaseTakenError at once if it is held, OSError if the file cannot be made."""
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            self._fd = -1
            raise LeaseTakenError(f"{path} is locked by another rebalancerd (process {holder})") from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    @property
    def epoch(self) -> int:
        """Always 1: a file lock has one tenure per process."""
        return 1

    @property
    def standby(self) -> bool:
        """Never: nobody waits for a file lock, a second daemon ends at once."""
        return False

    def held(self) -> bool:
        """Whether the lock is still ours: the file on disk is the one that was locked."""
        if self._fd < 0:
            return False
        try:
            return os.fstat(self._fd).st_ino == self._path.stat().st_ino
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
