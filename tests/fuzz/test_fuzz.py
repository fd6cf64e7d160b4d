"""A short look with Hypothesis at every reader; `make fuzz` looks longer, guided by coverage. Kept examples go first."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import KEPT, TARGETS

KEPT_FILES = sorted(path for path in KEPT.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_good_is_read(name: str) -> None:
    """The inputs to begin from reach their reader."""
    seeds = TARGETS[name].seeds()

    assert seeds
    for seed in seeds:
        TARGETS[name].read(seed)


@pytest.mark.parametrize("path", KEPT_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_reader(path: Path) -> None:
    TARGETS[path.parent.name].read(path.read_bytes())


@st.composite
def spoilt(draw: st.DrawFn, name: str) -> bytes:
    """A good input with a few parts cut out, doubled, overwritten, or mixed with another's; or any bytes."""
    target = TARGETS[name]
    data = bytearray(draw(st.sampled_from(target.seeds())))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 40)))
        part = draw(
            st.sampled_from((*target.words, b""))
            | st.binary(max_size=8)
            | st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace"))
            | st.just(bytes(data[at:end]) * 2)
        )
        data[at:end] = part
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_reader(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=target.examples,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(spoilt(name) | st.binary(max_size=200))
    def look(data: bytes) -> None:
        target.read(data)

    look()
