"""Writable network disks that every host of a lab reaches: one qemu-nbd per disk on the bridge's address."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.lab.cgroup import Cgroup
from rebalancerd.lab.commands import LabError, run

FIRST_PORT = 10809
SECTOR_BYTES = 512


@dataclass(frozen=True)
class Disk:
    """A raw image served over NBD.

    Args:
        guest: name of the guest, which is the name of the export.
        directory: where the image and the server's pid file are.
        address: IPv4 address the server listens on.
        port: TCP port it listens on.
    """

    guest: str
    directory: Path
    address: str
    port: int

    @property
    def image(self) -> Path:
        """The file with the disk's content."""
        return self.directory / f"{self.guest}.img"

    @property
    def pid_file(self) -> Path:
        """Where the server writes its process id."""
        return self.directory / f"{self.guest}.pid"

    def serve(self, size_mib: int, services: Cgroup) -> None:
        """Make the image if it is not there and serve it, in the given cgroup, if it is not served.

        Raises:
            LabError: the server does not start.
        """
        if self.server_pid(services) is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.image.exists():
            with self.image.open("wb") as file:
                file.truncate(size_mib << 20)
        cache = "none" if _takes_direct_io(self.image) else "writeback"
        options = ("--fork", "--persistent", "--shared=8", f"--cache={cache}", "--format=raw")
        where = (f"--bind={self.address}", f"--port={self.port}", f"--export-name={self.guest}")
        server = ("qemu-nbd", *options, *where, f"--pid-file={self.pid_file}", str(self.image))
        run(*services.command_in(*server))

    def server_pid(self, services: Cgroup) -> int | None:
        """Process id of the running server, None if there is none."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if pid in services.pids() else None

    def remove(self, services: Cgroup) -> None:
        """End the server and delete the image."""
        pid = self.server_pid(services)
        if pid is not None:
            services.kill(pid)
        self.image.unlink(missing_ok=True)
        self.pid_file.unlink(missing_ok=True)

    def first_sector(self) -> str:
        """Text in the first sector, where a guest keeps its latest heartbeat; '' before the first.

        Raises:
            LabError: there is no such disk.
        """
        try:
            with self.image.open("rb") as file:
                return file.read(SECTOR_BYTES).rstrip(b"\0").decode(errors="replace").strip()
        except OSError as error:
            raise LabError(f"guest {self.guest} has no disk: {error.strerror}") from error


def _takes_direct_io(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False  # a file system in memory, for one
    return True
