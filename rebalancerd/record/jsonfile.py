"""JSON files that are exchanged with an operator: written whole or not at all, read with a limit and with clear faults."""

import json
import os
from pathlib import Path
from typing import Any


class JsonFileError(ValueError):
    """A file that cannot be read or does not hold JSON; the message names it and says what is wrong."""


def write_whole(path: Path, text: str, mode: int = 0o666) -> None:
    """Write ASCII text to a file whole or not at all; ``mode`` less the umask are its rights. Raises OSError."""
    part = path.with_name(path.name + ".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="ascii") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_tree(path: Path, most_bytes: int) -> Any:
    """What the JSON of a file holds. Raises JsonFileError: unreadable, larger than that, cut short."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(most_bytes + 1)
    except OSError as error:
        raise JsonFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(raw) > most_bytes:
        raise JsonFileError(f"{path}: is larger than {most_bytes} bytes")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise JsonFileError(f"{path}: is not JSON, or was cut short: {error}") from error
