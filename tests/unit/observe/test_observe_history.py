"""History: means per step, restarts, gaps, reuse of columns, growth, damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.observe.history import HOST_CPU, TIERS, VM_CPU, VM_MEMORY, History, Tier, _capacity_for, tiers_of
from rebalancerd.observe.ring_file import HEADER_BYTES

FAST = (Tier(10.0, 6), Tier(60.0, 4))
START = 1_700_000_040.0  # a multiple of 60


def open_history(path: Path, **changes: object) -> History:
    return History(path, **{"tiers": FAST, **changes})  # type: ignore[arg-type]


def column(history: History, name: str, resource: str = VM_CPU, tier: int = 0) -> list[float | None]:
    series = history.series(resource, tier)
    if name not in series.ids:
        return []
    return [None if np.isnan(v) else round(float(v), 4) for v in series.values[:, series.ids.index(name)]]


def test_a_row_is_the_mean_of_its_step_and_the_step_under_way_is_left_out(tmp_path: Path) -> None:
    history = open_history(tmp_path)
    for second, value in ((0, 1.0), (5, 3.0), (10, 8.0), (15, 8.0), (20, 5.0)):
        history.append(START + second, {VM_CPU: {"a": value}})
    assert column(history, "a") == [2.0, 8.0]
    series = history.series(VM_CPU)
    assert series.end == START + 20
    assert series.step_seconds == 10.0
    assert not series.values.flags.writeable
    assert column(history, "a", tier=1) == []


def test_a_restart_loses_nothing_not_even_the_step_under_way(tmp_path: Path) -> None:
    history = open_history(tmp_path)
    for second, value in ((0, 1.0), (10, 4.0), (12, 4.0)):
        history.append(START + second, {VM_CPU: {"a": value}, HOST_CPU: {"h1": value}})
    # killed: neither flush nor close
    again = open_history(tmp_path)
    again.append(START + 18, {VM_CPU: {"a": 1.0}})
    again.append(START + 20, {VM_CPU: {"a": 1.0}})
    assert column(again, "a") == [1.0, 3.0]
    assert column(again, "h1", HOST_CPU) == [1.0, 4.0]


def test_a_gap_in_time_is_unknown(tmp_path: Path) -> None:
    history = open_history(tmp_path)
    history.append(START, {VM_CPU: {"a": 1.0}})
    history.append(START + 30, {VM_CPU: {"a": 2.0}})
    history.append(START + 40, {VM_CPU: {"a": 2.0}})
    assert column(history, "a") == [1.0, None, None, 2.0]


def test_the_ring_keeps_its_rows_and_no_more(tmp_path: Path) -> None:
    history = open_history(tmp_path)
    for step in range(20):
        history.append(START + 10 * step, {VM_CPU: {"a": float(step)}})
    assert column(history, "a") == [13.0, 14.0, 15.0, 16.0, 17.0, 18.0]
    assert column(history, "a", tier=1) == [2.5, 8.5, 14.5]
    history.append(START + 10_000, {VM_CPU: {"a": 1.0}})
    history.append(START + 10_010, {VM_CPU: {"a": 1.0}})
    assert column(history, "a") == [1.0]


def test_absurd_values_are_left_out(tmp_path: Path) -> None:
    history = open_history(tmp_path)
    bad = {"a": float("nan"), "b": -1.0, "c": float("inf"), "d": None, "e": 1e300, "f": 1.0}
    history.append(START, {VM_CPU: bad})
    history.append(START + 10, {VM_CPU: {"a": 1.0}})
    assert column(history, "f") == [1.0]
    assert column(history, "a") == [None]
    assert set(history.series(VM_CPU).ids) == {"a", "f"}


def test_columns_of_the_gone_are_reused_and_hold_nothing_of_them(tmp_path: Path) -> None:
    history = open_history(tmp_path, forget_seconds=25.0)
    history.append(START, {VM_CPU: {"old": 7.0}, VM_MEMORY: {"old": 7.0}})
    for step in range(1, 4):
        history.append(START + 10 * step, {VM_CPU: {"stays": 1.0}})
    history.append(START + 40, {VM_CPU: {"stays": 1.0, "new": 2.0}})
    history.append(START + 50, {VM_CPU: {"stays": 1.0, "new": 2.0}})
    assert history.series(VM_CPU).ids == ("new", "stays")
    assert column(history, "new") == [None, None, None, None, 2.0]
    slots = json.loads((tmp_path / "vm.slots.json").read_text())["slots"]
    assert slots["new"][0] == 0, "the column of the old one"


def test_capacity_grows_and_keeps_what_was_there(tmp_path: Path) -> None:
    history = open_history(tmp_path)
    history.append(START, {VM_CPU: {"a": 5.0}})
    many = {f"vm{n}": float(n) for n in range(300)}
    history.append(START + 10, {VM_CPU: {"a": 6.0, **many}})
    history.append(START + 20, {VM_CPU: {}})
    assert column(history, "a") == [5.0, 6.0]
    assert column(history, "vm299") == [None, 299.0]
    history.close()
    assert column(open_history(tmp_path), "vm299") == [None, 299.0]


def test_hostile_ids_are_data(tmp_path: Path) -> None:
    name = "../../etc/passwd\x00\n\u202e"
    history = open_history(tmp_path)
    history.append(START, {VM_CPU: {name: 1.0}})
    history.append(START + 10, {VM_CPU: {name: 1.0}})
    history.flush()
    assert column(open_history(tmp_path), name) == [1.0]
    assert {p.suffix for p in tmp_path.iterdir()} == {".ring", ".json"}


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[:-4])
    elif how == "tiny":
        path.write_bytes(content[:10])
    elif how == "magic":
        path.write_bytes(b"X" + content[1:])
    elif how == "version":
        path.write_bytes(content[:8] + b"\x63" + content[9:])
    elif how == "header":
        path.write_bytes(content[:40] + b"\xff" + content[41:])
    else:
        path.write_bytes(b"\0" * HEADER_BYTES)


@pytest.mark.parametrize("how", ["truncated", "tiny", "magic", "version", "header", "zeros"])
def test_a_damaged_ring_is_kept_aside_and_begun_anew(tmp_path: Path, how: str) -> None:
    history = open_history(tmp_path)
    history.append(START, {VM_CPU: {"a": 1.0}, VM_MEMORY: {"a": 9.0}})
    history.append(START + 10, {VM_CPU: {"a": 1.0}, VM_MEMORY: {"a": 9.0}})
    history.close()
    ring = tmp_path / "vm_cpu_cores.10s.ring"
    damage(ring, how)
    before = ring.read_bytes()
    again = open_history(tmp_path)
    assert column(again, "a") == []
    assert column(again, "a", VM_MEMORY) == [9.0], "the others are untouched"
    assert (tmp_path / "vm_cpu_cores.10s.ring.unreadable").read_bytes() == before
    again.append(START + 20, {VM_CPU: {"a": 2.0}})
    again.append(START + 30, {VM_CPU: {"a": 2.0}})
    assert column(again, "a") == [2.0]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": "rebalancerd-slots", "version": 1, "slots": {"a": [0, 1], "b": [0, 1]}}', None],
)
def test_without_a_readable_index_nobody_knows_whose_columns_these_are(tmp_path: Path, content: str | None) -> None:
    history = open_history(tmp_path)
    history.append(START, {VM_CPU: {"a": 1.0}})
    history.close()
    index = tmp_path / "vm.slots.json"
    if content is None:
        index.unlink()
    else:
        index.write_text(content)
    again = open_history(tmp_path)
    assert again.series(VM_CPU).ids == ()
    assert (tmp_path / "vm_cpu_cores.10s.ring.unreadable").exists()


def test_a_clock_that_goes_back_a_little_waits_and_a_lot_begins_anew(tmp_path: Path) -> None:
    history = open_history(tmp_path)
    history.append(START, {VM_CPU: {"a": 1.0}})
    history.append(START + 10, {VM_CPU: {"a": 1.0}})
    history.append(START - 300, {VM_CPU: {"a": 9.0}})
    history.append(START + 20, {VM_CPU: {"a": 1.0}})
    assert column(history, "a") == [1.0, 1.0]
    long_ago = START - 90_000
    history.append(long_ago, {VM_CPU: {"a": 3.0}})
    history.append(long_ago + 10, {VM_CPU: {"a": 3.0}})
    assert column(history, "a") == [3.0]
    assert (tmp_path / "vm_cpu_cores.10s.ring.clock").exists()


def test_load_is_recorded_in_the_steps_that_are_forecast() -> None:
    assert tiers_of(300.0) == TIERS
    assert tiers_of(60.0) == (Tier(60.0, 2880), TIERS[1])
    assert tiers_of(7.0)[0].rows * 7.0 >= 48 * 3600


def test_twenty_thousand_vms_need_less_than_25_mb_a_day() -> None:
    """24 h of the first tier for one series."""
    rows = int(86400 / TIERS[0].step_seconds) + 1
    assert HEADER_BYTES + rows * _capacity_for(20_000) * 4 < 25_000_000


def test_the_same_rows_give_the_same_series_object(tmp_path: Path) -> None:
    history = open_history(tmp_path)
    history.append(START, {VM_CPU: {"a": 1.0}})
    history.append(START + 10, {VM_CPU: {"a": 1.0}})
    first = history.series(VM_CPU)
    history.append(START + 15, {VM_CPU: {"a": 2.0}})
    assert history.series(VM_CPU) is first
    with pytest.raises(ValueError, match="read-only"):
        first.values[0, 0] = 3.0
