"""A process's memory read from outside: which mapping, and a real process whose writes are known."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from observe_world import UUIDS, HandClock
from quiet_child import MEMORY, PAGES, Child

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.units import GIB, MIB, PAGE_BYTES
from rebalancerd.observe.dirty_pool import DirtyPool, least_error
from rebalancerd.observe.memory_pages import BY_PAGES, Mapping, MemoryUnreadableError, measure, ram_mapping


def maps(*lines: tuple[int, int, str]) -> str:
    """As the kernel writes it: start and size in MiB, rights."""
    return "".join(f"{s * MIB:x}-{(s + n) * MIB:x} {rights} 00000000 00:00 0 \n" for s, n, rights in lines)


class TestMapping:
    def test_the_one_of_its_size_is_it_whatever_else_there_is(self) -> None:
        text = maps((10, 900, "rw-p"), (1000, 1024, "r--p"), (3000, 1024, "rw-p"), (5000, 1030, "rw-p"))
        assert ram_mapping(text, GIB) == Mapping(3000 * MIB, GIB)

    def test_else_the_smallest_that_is_a_little_larger(self) -> None:
        text = maps((10, 900, "rw-p"), (3000, 1040, "rw-s"), (5000, 1030, "rw-p"))
        assert ram_mapping(text, GIB) == Mapping(5000 * MIB, 1030 * MIB)

    def test_neighbours_that_have_its_size_together(self) -> None:
        text = maps(
            (500, 1040, "rw-p"), (3000, 600, "rw-p"), (3600, 424, "rw-p"), (5000, 600, "rw-p"), (5700, 424, "rw-p")
        )
        assert ram_mapping(text, GIB) == Mapping(3000 * MIB, GIB)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "garbage\n7f-\n",
            maps((10, 900, "rw-p")),
            maps((10, 1024, "r--p"), (2000, 1024, "---p")),
            maps((10, 64 * 1024, "rw-p")),  # far larger: a reservation, not its RAM
            maps((10, 512, "rw-p"), (600, 512, "rw-p")),  # two cells, not one stretch
            maps((10, 512, "rw-p"), (522, 512, "rw-s")),
            maps((10, 512, "rw-p"), (522, 1, "---p"), (523, 512, "rw-p")),
            maps((10, 1024, "rw-p"), (5000, 1024, "rw-p")),  # which one?
            maps((10, 1030, "rw-p"), (5000, 1030, "rw-p")),
        ],
    )
    def test_none_or_more_than_one_is_no_answer(self, text: str) -> None:
        with pytest.raises(MemoryUnreadableError):
            ram_mapping(text, GIB)


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def made(**how: object) -> Child:
        children.append(Child(UUIDS[0], **how))  # type: ignore[arg-type]
        return children[-1]

    yield made
    for child in children:
        child.end()


PERIODS = (0.1, 0.5, 1.0, 2.0)


def looked(child: Child, sleep: Callable[[float], None], clock: HandClock, seed: int = 0) -> tuple[DirtyReading, ...]:
    return measure(
        child.pid,
        MEMORY,
        monotonic=clock.monotonic,
        wall=clock.wall,
        sleep=sleep,
        periods=PERIODS,
        pages=2048,
        seed=seed,
    )


@pytest.mark.parametrize("kind", ["private", "shared"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_working_set_rewritten_at_a_known_rate(start: Callable[..., Child], kind: str, seed: int) -> None:
    """8000 pages a second, round and round over 6000: virtual time, real memory."""
    child, clock = start(kind=kind), HandClock()
    rate, working_set = 8000, 6000
    done = 0

    def sleep(seconds: float) -> None:
        nonlocal done
        clock.sleep(seconds)
        wanted = round((clock.now - 1000.0) * rate)
        while done < wanted:
            first = done % working_set
            count = min(wanted - done, working_set - first)
            child.write(first, count)
            done += count

    readings = looked(child, sleep, clock, seed)

    assert [r.period_seconds for r in readings] == list(PERIODS)
    for reading in readings:
        truth = min(rate * reading.period_seconds, working_set) / PAGES
        sigma = math.sqrt(truth * (1 - truth) / 2048)
        assert reading.unique_bytes / MEMORY == pytest.approx(truth, abs=5 * sigma)


def test_a_quiet_guest_is_quiet_and_equal_values_are_not_seen(start: Callable[..., Child]) -> None:
    child, clock = start(), HandClock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        child.write(0, PAGES, step=0)

    assert [r.rate_bytes_per_second for r in looked(child, sleep, clock)] == [0.0] * 4


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_looking_makes_no_page_and_a_new_page_has_changed(start: Callable[..., Child], kind: str) -> None:
    child, clock = start(kind=kind, filled=PAGES // 4), HandClock()
    key = "RssAnon" if kind == "private" else "RssShmem"
    before = child.status(key)
    assert [r.unique_bytes for r in looked(child, clock.sleep, clock)] == [0.0] * 4
    assert child.status(key) == before

    def grow(seconds: float) -> None:
        clock.sleep(seconds)
        child.write(0, PAGES, step=1)

    for reading in looked(child, grow, clock):
        assert reading.unique_bytes == pytest.approx(MEMORY)


def test_a_late_reading_has_its_own_length_and_a_very_late_one_is_left_out(start: Callable[..., Child]) -> None:
    child, clock = start(), HandClock()

    def sleep(seconds: float) -> None:
        clock.sleep(0.25 if seconds < 0.2 else seconds * 1.2)
        child.write(0, PAGES)

    readings = looked(child, sleep, clock)

    assert [r.period_seconds for r in readings] == [0.5, 1.0, 2.0]
    assert readings[0].rate_bytes_per_second == pytest.approx(MEMORY / (0.25 + 0.25 * 1.2))


def test_a_process_that_ends_meanwhile_is_no_reading(start: Callable[..., Child]) -> None:
    child, clock = start(), HandClock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > 1000.3:
            child.end()

    with pytest.raises(MemoryUnreadableError, match=str(child.pid)):
        looked(child, sleep, clock)
    with pytest.raises(MemoryUnreadableError):
        looked(child, clock.sleep, clock)


def test_memory_that_nobody_ever_touched_is_not_a_quiet_guest(start: Callable[..., Child]) -> None:
    child, clock = start(filled=0), HandClock()
    with pytest.raises(MemoryUnreadableError, match="none of"):
        looked(child, clock.sleep, clock)


def test_no_file_is_left_open(start: Callable[..., Child]) -> None:
    child, clock = start(filled=0), HandClock()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for memory in (MEMORY, 4 * GIB, 0):
        with pytest.raises(MemoryUnreadableError):
            measure(child.pid, memory, monotonic=clock.monotonic, wall=clock.wall, sleep=clock.sleep)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_without_the_right_the_reason_is_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "maps").write_text(maps((10, 1024, "rw-p")))
    (tmp_path / "7" / "mem").symlink_to("mem")
    clock = HandClock()
    with pytest.raises(MemoryUnreadableError, match="process 7: "):
        measure(7, GIB, monotonic=clock.monotonic, wall=clock.wall, sleep=clock.sleep, proc=tmp_path)


def test_the_pool_knows_how_far_4096_pages_can_be_wrong() -> None:
    pool = DirtyPool(100.0, BY_PAGES)
    pool.add(UUIDS[0], DirtyReading(taken_at=1.0, period_seconds=1.0, rate_bytes_per_second=GIB / 4))
    pool.add(UUIDS[0], DirtyReading(taken_at=1.0, period_seconds=2.0, rate_bytes_per_second=0.0))
    curve = pool.curve(UUIDS[0], 2.0, GIB)
    assert curve is not None
    assert curve.points[0].standard_error_bytes == pytest.approx(math.sqrt(0.25 * 0.75 / 4096) * GIB)
    assert curve.points[1].standard_error_bytes == pytest.approx(GIB / 4096, rel=0.01)
    # a guest with fewer pages than are looked at is looked at whole
    assert least_error(8 * MIB, 16 * MIB, BY_PAGES) == least_error(0.5 * GIB, GIB, BY_PAGES) / 64
    assert least_error(PAGE_BYTES, 2 * PAGE_BYTES, BY_PAGES) == pytest.approx(2 * PAGE_BYTES * math.sqrt(0.25 / 2))
