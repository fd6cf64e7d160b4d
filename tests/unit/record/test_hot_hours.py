"""Hours of measured load: minutes that hosts were hot, and hotspots by the advice there was."""

from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.advice import HostTerms, WatchedHour
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.units import GIB
from rebalancerd.record.hindsight import Past
from rebalancerd.record.hot_hours import watched_hour
from tests.unit.record.advice_world import NAN, STEP, T0, host, series

HOUR = int(T0 // 3600)  # T0 is the beginning of an hour
HOSTS = [t for t in (HostTerms.of(host("a")), HostTerms.of(host("b"))) if t is not None]
COOL, HOT = 2.0, 7.0


def load(marks: str) -> np.ndarray:
    """A step each: ``.`` cool, ``#`` hot, ``?`` unknown. The last twelve are the hour, what stands before came before it."""
    return np.array([{".": COOL, "#": HOT, "?": NAN}[m] for m in marks])


def hour(a: str, b: str = "." * 14, *, advised=(), held: float = 4.0) -> WatchedHour:
    cpu = {"a": load(a), "b": load(b)}
    memory = {name: np.where(np.isfinite(values), held * GIB, NAN) for name, values in cpu.items()}
    kinds = {"host_cpu_cores": cpu, "host_memory_bytes": memory}
    # the last of the rows ends with the hour
    made = {n: replace(series(n, columns, 14), end=T0 + 3600) for n, columns in kinds.items()}
    return watched_hour(HOUR, Past(made, Stays({})), HOSTS, cpu_headroom=0.8, memory_headroom=0.85, advised=advised)


def kinds(found: WatchedHour) -> tuple[int, int, int]:
    return found.foreseen, found.late, found.unadvised


def test_a_cool_hour() -> None:
    assert hour("." * 14) == WatchedHour(hour=HOUR, known=1.0, hot_seconds=0.0)


def test_memory_makes_hot_as_well() -> None:
    found = hour("." * 14, held=28.0)

    assert found.hot_seconds == 2 * 3600.0


@pytest.mark.parametrize(
    ("marks", "hot_steps", "begun"),
    [
        ("..##..........", 2, 1),
        ("..#...........", 1, 0),  # a single step is no hotspot
        ("..#.#.........", 2, 0),
        ("..##.##.......", 4, 2),
        ("############..", 10, 0),  # it began before this hour, and was counted there
        (".##...........", 1, 1),  # its second step lies in this hour
        ("............##", 2, 1),
        (".............#", 1, 0),  # its second step belongs to the next hour
        ("..##?##.......", 4, 1),  # a gap does not make two of one
        ("..?#..........", 1, 0),
    ],
)
def test_hot_steps_and_hotspots(marks: str, hot_steps: int, begun: int) -> None:
    found = hour(marks)

    assert (found.hot_seconds, sum(kinds(found))) == (hot_steps * STEP, begun)


def test_gaps_are_not_watched() -> None:
    assert hour("..??????......").known == pytest.approx(1 - 6 / 24)
    assert hour("?" * 14, "?" * 14) == WatchedHour(hour=HOUR, known=0.0, hot_seconds=0.0)


@pytest.mark.parametrize(
    ("advised", "kind"),
    [
        ((), (0, 0, 1)),
        ((("a", T0 - 600, T0 + 1200),), (1, 0, 0)),
        ((("a", T0 + 600, T0 + 2400),), (1, 0, 0)),  # in the very step in which it gets hot
        ((("a", T0 + 700, T0 + 2500),), (0, 1, 0)),
        ((("b", T0 - 600, T0 + 1200),), (0, 0, 1)),
        ((("a", T0 - 3000, T0 - 1200),), (0, 0, 1)),  # its window was over
        ((("a", T0 - 600, T0 + 1200), ("a", T0 + 700, T0 + 2500)), (1, 0, 0)),
    ],
)
def test_hotspots_by_the_advice_there_was(advised: tuple, kind: tuple[int, int, int]) -> None:
    """The host is hot from the third step of the hour on, that is from its tenth minute."""
    assert kinds(hour("....####......", advised=advised)) == kind
