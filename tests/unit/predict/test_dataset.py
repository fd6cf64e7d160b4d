"""Rows of migrations from a file: read strictly, absurd ones named with line and column."""

from dataclasses import replace

import pytest

from rebalancerd.predict.dataset import read_migrations, sound
from tests.unit.predict.cost_rows import synthetic

HEADER = (
    "id,started_at,memory_bytes,resident_bytes,dirty_periods_seconds,dirty_unique_bytes,dirty_error_bytes,dirty_readings,"
    "link_bytes_per_second,max_downtime_seconds,deadline_seconds,outcome,seconds,downtime_seconds,bytes,family,disturbed"
)
GOOD = "a,1e9,536870912,268435456,1;4,1048576;2097152,1e5;1e5,2;2,125000000,0.3,30,succeeded,4.5,0.2,250000000,idle,0"


def written(tmp_path, *lines, end="\n"):
    path = tmp_path / "m.csv"
    path.write_text("\n".join((HEADER, *lines)) + end)
    return path


def changed(**cells):
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | cells
    return ",".join(row.values())


def test_a_row_is_read_whole(tmp_path):
    (row,) = read_migrations(written(tmp_path, GOOD))
    assert (row.id, row.family, row.succeeded, row.seconds, row.bytes) == ("a", "idle", True, 4.5, 250e6)
    assert row.facts.dirty is not None
    assert [p.unique_bytes for p in row.facts.dirty.points] == [1048576.0, 2097152.0]
    assert row.facts.options.bandwidth_bytes_per_second is None
    assert row.facts.vm_cpu_cores is None


def test_runs_cut_off_are_kept_and_failed_ones_left_out(tmp_path):
    path = written(
        tmp_path,
        GOOD,
        changed(id="b", outcome="deadline", seconds="31", bytes="", downtime_seconds=""),
        changed(id="c", outcome="failed"),
    )
    assert [(r.id, r.succeeded) for r in read_migrations(path)] == [("a", True), ("b", False)]


def test_the_curve_from_the_guests_memory_is_preferred_and_can_be_left_aside(tmp_path):
    header = HEADER + ",exact_periods_seconds,exact_unique_bytes,exact_error_bytes,exact_readings"
    path = tmp_path / "m.csv"
    path.write_text("\n".join((header, GOOD + ",0.05;1,4096;8192,1;1,3;3", changed(id="b") + ",,,,")) + "\n")

    def periods(source):
        return [
            None if r.facts.dirty is None else [p.period_seconds for p in r.facts.dirty.points]
            for r in read_migrations(path, source)
        ]

    assert periods("best") == [[0.05, 1.0], [1.0, 4.0]]
    assert periods("sampled") == [[1.0, 4.0], [1.0, 4.0]]
    assert periods("exact") == [[0.05, 1.0], None]
    with pytest.raises(ValueError, match="source"):
        read_migrations(path, "guessed")


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"seconds": "fast"}, "column seconds"),
        ({"seconds": "-1"}, "column seconds"),
        ({"seconds": "nan"}, "column seconds"),
        ({"memory_bytes": ""}, "column memory_bytes"),
        ({"outcome": "maybe"}, "column outcome"),
        ({"dirty_unique_bytes": "-5;1"}, "column dirty_unique_bytes"),
        ({"dirty_unique_bytes": "5"}, "dirty_"),
        ({"dirty_periods_seconds": "4;1"}, "periods"),
        ({"bytes": str(250_000_000 * 1024)}, "bytes"),
        ({"bytes": str(250_000_000 // 1024)}, "sent of"),
        ({"downtime_seconds": "200"}, "downtime"),
        ({"dirty_unique_bytes": "1048576;2147483648"}, "dirtied"),
        ({"memory_bytes": "512"}, "memory_bytes"),
        ({"resident_bytes": str(2**44)}, "resident_bytes"),
    ],
)
def test_what_cannot_be_is_named_with_its_line(tmp_path, cells, told):
    with pytest.raises(ValueError, match=told) as caught:
        read_migrations(written(tmp_path, GOOD, changed(**cells)))
    assert "line 3" in str(caught.value)
    assert "m.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEADER + "\n" + GOOD[:40], "cut off"),
        (HEADER + "\n" + GOOD + ",1\n", "cells"),
        (HEADER + "\n" + GOOD.rpartition(",")[0] + "\n", "cells"),
        ("id,seconds\na,1\n", "no column"),
        (HEADER + "\n", "no row"),
        ("", "no column"),
        (HEADER + '\n"' + GOOD + "\n", "line"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, told):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        read_migrations(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_migrations(path)


def test_sound_rows_are_sound():
    assert [sound(r) for r in synthetic(60)] == [None] * 60


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"bytes": -1.0},
        {"slowdown": 1.5},
        {"downtime_seconds": 1e6},
        {"deadline_seconds": float("inf")},
    ],
)
def test_absurd_rows_are_not(change):
    assert sound(replace(next(r for r in synthetic(20) if r.succeeded), **change)) is not None
