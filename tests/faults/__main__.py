"""``python -m tests.faults [--lab]``: run the tests of every row, print one line a row, write docs/faults.md.

Ends with 1 if a row has no test or one that did not pass.
"""

import sys

import pytest

from tests.faults.page import PAGE, page
from tests.faults.registry import TESTS, lab, quick, selectors
from tests.faults.table import ROWS


class Outcomes:
    """What pytest says of each test, by its id without parameters."""

    def __init__(self) -> None:
        self.worst: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst outcome of a test's phases and parameters."""
        order = ("passed", "skipped", "failed")
        if report.when != "call" and report.outcome == "passed":
            return
        for key in (report.nodeid, report.nodeid.partition("[")[0], report.nodeid.partition("::")[0]):
            before = self.worst.get(key, "passed")
            self.worst[key] = max(before, report.outcome, key=order.index)

    def of(self, test: str) -> str:
        """Outcome of a test of the registry."""
        return self.worst.get("tests/" + selectors(test).removeprefix(f"{TESTS}/"), "not run")


def main() -> int:
    """Run, print, write."""
    real = "--lab" in sys.argv
    tests = quick()
    if real:
        tests = {row: (*ids, *lab()[row]) for row, ids in tests.items()}
    outcomes = Outcomes()
    wanted = sorted({selectors(t) for ids in tests.values() for t in ids})
    pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", "--tb=short", *wanted], plugins=[outcomes])
    results = {}
    for row in ROWS:
        ended = [outcomes.of(t) for t in tests[row.number]]
        results[row.number] = (
            "passed" if ended and set(ended) == {"passed"} else ", ".join(sorted(set(ended))) or "no test"
        )
        sys.stdout.write(f"fault {row.number:02d}  {results[row.number]:8}  {len(ended)} tests  {row.fault}\n")
    PAGE.write_text(page(results), encoding="utf-8")
    return 0 if set(results.values()) == {"passed"} else 1


if __name__ == "__main__":
    sys.exit(main())
