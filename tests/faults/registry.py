"""Which tests show which row: those named ``test_fault_NN_…`` here and in the lab, and those that the table names."""

import re
from pathlib import Path

from tests.faults.table import LAB, OTHERS, ROWS

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"^(?:def|    def) (test_fault_(\d\d)_\w+)", re.MULTILINE)


def named(directory: str) -> dict[int, tuple[str, ...]]:
    """Tests of a directory by the row that their name tells, as pytest calls them, without parameters."""
    found: dict[int, list[str]] = {}
    for path in sorted((TESTS / directory).glob("test_*.py")):
        for name, row in NAMED.findall(path.read_text(encoding="utf-8")):
            found.setdefault(int(row), []).append(f"{directory}/{path.name}::{name}")
    return {row: tuple(ids) for row, ids in found.items()}


def quick() -> dict[int, tuple[str, ...]]:
    """Tests of every row that run without the lab."""
    here = named("faults")
    return {row.number: here.get(row.number, ()) + OTHERS.get(row.number, ()) for row in ROWS}


def lab() -> dict[int, tuple[str, ...]]:
    """Tests of every row with real hosts."""
    there = named("lab")
    return {row.number: there.get(row.number, ()) + LAB.get(row.number, ()) for row in ROWS}


def exists(test: str) -> bool:
    """Whether there is such a test, file or scenario."""
    path, _, name = test.partition("::")
    name = name.rpartition("::")[2]
    if not (TESTS / path).exists():
        return False
    return (
        not name
        or re.search(rf"^\s*def {name}\(", (TESTS / path).read_text(encoding="utf-8"), re.MULTILINE) is not None
    )


def selectors(test: str) -> str:
    """What pytest is to be given to run it."""
    if test.startswith("scenarios/") and "::" not in test:
        return f"{TESTS}/scenarios/test_scenarios.py::test_scenario[{test.removeprefix('scenarios/')}]"
    return f"{TESTS}/{test}"
