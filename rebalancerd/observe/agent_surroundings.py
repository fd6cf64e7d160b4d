"""What a migration needs on this host and only this host can tell: do these paths exist, do these names resolve?

Looked at by a thread of its own, because a dead NFS mount or name server hangs whoever asks; an answer that has grown
old is left out of the export, so that it reads as unknown.
"""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rebalancerd.observe.agent import PREFIX

EVERY_SECONDS = 30.0
OLD_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _Seen:
    yes: bool
    at: float


class SurroundingsCollector(Collector):
    """Exports ``path_exists{path}`` and ``name_resolves{name}``, 1 or 0, for what it was told to look for."""

    def __init__(self, paths: Sequence[str], names: Sequence[str]) -> None:
        self._questions = [("path", p) for p in paths] + [("name", n) for n in names]
        self._seen: dict[tuple[str, str], _Seen] = {}

    def start(self) -> None:
        """Look now and every half minute, one thread per question: one that hangs keeps no other from being asked."""
        for kind, subject in self._questions:
            threading.Thread(
                target=self._keep_looking, args=(kind, subject), name=f"{kind} {subject}", daemon=True
            ).start()

    def look(self, kind: str, subject: str) -> None:
        """Ask one question now."""
        self._seen[kind, subject] = _Seen(_exists(subject) if kind == "path" else _resolves(subject), time.monotonic())

    def collect(self) -> Iterator[Metric]:
        """The answers that are not old."""
        for kind, name, text in (
            ("path", "path_exists", "Whether the path exists on this host."),
            ("name", "name_resolves", "Whether this host resolves the name."),
        ):
            family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[kind])
            for asked, subject in self._questions:
                seen = self._seen.get((asked, subject))
                if asked == kind and seen is not None and time.monotonic() - seen.at < OLD_SECONDS:
                    family.add_metric([subject], float(seen.yes))
            yield family

    def _keep_looking(self, kind: str, subject: str) -> None:
        while True:
            self.look(kind, subject)
            time.sleep(EVERY_SECONDS)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return False
