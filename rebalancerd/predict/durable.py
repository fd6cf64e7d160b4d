"""Small files that are there whole or not at all, whenever the machine stops."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Put a file in place of another one in one step, on the disk when this returns. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor, not a path
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
