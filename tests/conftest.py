"""What holds for all tests: the collector is set as in the daemon, a slow machine is no fault of a property, models are unpacked once."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from rebalancerd.collector import leave_out_what_stays
from rebalancerd.predict import artefact

settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
MODELS = Path(__file__).parents[1] / "models"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Once every module is there."""
    leave_out_what_stays()


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
