"""docs/faults.md: the table with its tests and how they ended."""

from collections.abc import Mapping
from pathlib import Path

from tests.faults.registry import lab, quick
from tests.faults.table import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
HEAD = """# Faults

What may go wrong, what rebalancerd does then, and the tests that show it. This page is made by `make faults`; a test holds it to
the tests that exist. Tests are named by their file under `tests/`; those under `lab/` run a real daemon on real libvirt hosts with
QEMU guests, and after each of them `tests/lab/after.py` looks at hosts, ledger and daemon. Rows with a test in the lab: {count} of {rows}.

| N | fault | behaviour | tests | result |
|---|---|---|---|---|
"""


def page(results: Mapping[int, str]) -> str:
    """The page with one line a row."""
    without, with_hosts = quick(), lab()
    lines = []
    for row in ROWS:
        tests = [f"`{t}`" for t in (*without[row.number], *with_hosts[row.number])]
        fault, behaviour = (text.replace("|", "\\|") for text in (row.fault, row.behaviour))
        lines.append(
            f"| {row.number} | {fault} | {behaviour} | {', '.join(tests)} | {results.get(row.number, 'not run')} |\n"
        )
    count = sum(bool(tests) for tests in with_hosts.values())
    return HEAD.format(count=count, rows=len(ROWS)) + "".join(lines)


def rows_of(text: str) -> dict[int, list[str]]:
    """Cells of every row of a page, by number."""
    found = {}
    for line in text.splitlines():
        cells = [c.strip() for c in line.split(" | ")]
        number = cells[0].removeprefix("| ")
        if number.isdigit():
            found[int(number)] = cells
    return found
