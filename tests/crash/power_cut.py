"""What a disk may hold when the power fails: replayed from the log of every write and sync of a process (file_log.c).

The model: what was synced is there. Of the writes to a file since its last sync each is there, is not, or is there up to
some sector, whatever their order. Names of files are there as soon as they are made or removed, as with a journalling
file system whose fsync covers the name of a new file.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("file_log.c")
SECTOR = 512
VARIANTS = ("nothing", "everything", "some", "some")  # of what was not synced


def build(directory: Path) -> Path | None:
    """The preloaded library; None without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = directory / "file_log.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def environment(library: Path, log: Path, below: Path) -> dict[str, str]:
    return os.environ | {"LD_PRELOAD": str(library), "FILE_LOG": str(log), "FILE_LOG_DIR": f"{below}/"}


@dataclass
class Disk:
    """Files by path: what is synced, and the writes since."""

    synced: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, kind: str, words: str, data: bytes) -> None:
        if kind == "W":
            at, _length, path = words.split(" ", 2)
            self.pending.setdefault(path, []).append((int(at), data))
        elif kind == "T":
            size, path = words.split(" ", 1)
            self.pending.setdefault(path, []).append((int(size), None))
        elif kind == "S":
            self.synced[words] = self.image(words, "everything", random.Random(0))
            self.pending[words] = []
        elif kind == "R":
            source, target = words.split("\t")
            self.synced[target] = bytearray(self.synced.get(source, b""))
            self.pending[target] = list(self.pending.get(source, []))
        elif kind == "D":
            self.synced.pop(words, None)
            self.pending.pop(words, None)
        elif kind == "N":
            self.notes.append(words)

    def image(self, path: str, variant: str, rng: random.Random) -> bytearray:
        """The file after a power cut."""
        held = bytearray(self.synced.get(path, b""))
        for at, data in self.pending.get(path, []):
            if variant == "nothing" or (variant == "some" and rng.random() < 0.5):
                continue
            if data is None:
                held[at:] = b""
                continue
            kept = data
            if variant == "some" and rng.random() < 0.3:
                kept = data[: rng.randrange(len(data) // SECTOR + 1) * SECTOR]
            if len(held) < at:
                held.extend(bytes(at - len(held)))
            held[at : at + len(kept)] = kept
        return held

    def write_to(self, directory: Path, below: Path, variant: str, rng: random.Random) -> None:
        """Put the files as they would be found under ``directory`` instead of ``below``; shared memory is never kept."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for path in {*self.synced, *self.pending}:
            name = Path(path)
            if name.parent == below and not path.endswith("-shm"):
                (directory / name.name).write_bytes(self.image(path, variant, rng))


def cuts(log: Path) -> Iterator[Disk]:
    """The disk after each record of the log, growing."""
    raw, at, disk = log.read_bytes(), 0, Disk()
    while at < len(raw):
        end = raw.index(b"\n", at)
        kind, _, words = raw[at:end].decode().partition(" ")
        at, data = end + 1, b""
        if kind == "W":
            length = int(words.split(" ", 2)[1])
            data, at = raw[at : at + length], at + length
        disk.take(kind, words, data)
        yield disk
