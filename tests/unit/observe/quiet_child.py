"""A real process that looks like a guest's QEMU and rewrites its memory when told, page by page and never by itself."""

import subprocess
import sys
from pathlib import Path

from rebalancerd.cluster.units import MIB, PAGE_BYTES

MEMORY = 64 * MIB
PAGES = MEMORY // PAGE_BYTES
CODE = """
import mmap, sys, threading
kind, filled, vcpu = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
    comm.write(vcpu)
flags = mmap.MAP_ANONYMOUS | (mmap.MAP_PRIVATE if kind == "private" else mmap.MAP_SHARED)
ram = mmap.mmap(-1, int(sys.argv[4]), flags=flags)
for page in range(filled):
    ram[page * 4096] = 1
print("ready", flush=True)
for line in sys.stdin:
    first, count, step = map(int, line.split())
    for page in range(first, first + count):
        ram[page * 4096] = (ram[page * 4096] + step) % 256
    print("done", flush=True)
"""


class Child:
    """``filled`` pages of its 64 MiB exist; ``write`` adds ``step`` to a byte of pages and returns when it is done."""

    def __init__(self, uuid: str, *, kind: str = "private", filled: int = PAGES, vcpu: str = "CPU 0/KVM") -> None:
        words = [
            "-c",
            CODE,
            kind,
            str(filled),
            vcpu,
            str(MEMORY),
            "-name",
            "guest=-uuid",
            "-uuid",
            uuid,
            "-m",
            f"size={MEMORY // 1024}k",
        ]
        self._process = subprocess.Popen(
            ["/usr/bin/qemu-system-x86_64", *words],
            executable=sys.executable,
            env={"PYTHONHOME": sys.base_prefix},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        try:
            self._hear("ready")
        except AssertionError:
            self.end()
            raise

    def write(self, first: int, count: int, step: int = 1) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {count} {step}\n")
        self._process.stdin.flush()
        self._hear("done")

    def status(self, key: str) -> str:
        text = (Path("/proc") / str(self.pid) / "status").read_text()
        return next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith(f"{key}:"))

    def proc(self, directory: Path) -> Path:
        """A /proc that has this process only."""
        (directory / str(self.pid)).symlink_to(f"/proc/{self.pid}")
        return directory

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == word
