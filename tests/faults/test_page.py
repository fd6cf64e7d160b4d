"""The registry is whole, and the committed page tells of it as it is."""

from tests.faults.page import PAGE, rows_of
from tests.faults.registry import exists, lab, quick
from tests.faults.table import ROWS


def test_every_row_has_a_test_and_every_test_exists() -> None:
    assert [row.number for row in ROWS] == list(range(1, 63))
    assert [n for n, tests in quick().items() if not tests] == []
    named = [t for registry in (quick(), lab()) for tests in registry.values() for t in tests]
    assert [t for t in named if not exists(t)] == []


def test_the_page_lists_every_row_with_its_tests() -> None:
    """Run `make faults` after a change."""
    rows = rows_of(PAGE.read_text(encoding="utf-8"))

    assert sorted(rows) == [row.number for row in ROWS]
    for number, tests in quick().items():
        assert all(f"`{t}`" in rows[number][3] for t in (*tests, *lab()[number])), number
