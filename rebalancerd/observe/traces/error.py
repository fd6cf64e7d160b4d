"""TraceError: recorded load that cannot be used, with the file it stands in and the reason."""

from pathlib import Path


class TraceError(Exception):
    """A trace cannot be read; the message begins with the file or directory and says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason
