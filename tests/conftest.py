"""What holds for all tests: reference cycles are looked for as in the daemon, and shipped models are unpacked once a process."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rebalancerd.collector import look_seldom
from rebalancerd.predict import artefact

MODELS = Path(__file__).parents[1] / "models"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Once every module is there."""
    look_seldom()


@pytest.fixture(scope="session", autouse=True)
def shipped_models_unpacked_once() -> Iterator[None]:
    """Seconds for each daemon that a test starts in its process; checks of manifest, version and answers are made each time."""
    unpack = artefact._unpacked
    shipped = {hashlib.sha256(path.read_bytes()).digest() for path in MODELS.glob("*.skops")}
    kept: dict[bytes, dict[str, Any]] = {}

    def once(path: Path, raw: bytes, mismatch: str | None) -> dict[str, Any]:
        digest = hashlib.sha256(raw).digest()
        if digest not in shipped or mismatch is not None:
            return unpack(path, raw, mismatch)
        if digest not in kept:
            kept[digest] = unpack(path, raw, mismatch)
        return dict(kept[digest])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefact, "_unpacked", once)
        yield
