"""``python -m tests.faults [--quick|--lab] [ROW…]``: run the tests of every row (or of these), print one line a row, write docs/faults.md.

As root all of the lab's tests run too; ``--quick`` leaves them out, ``--lab`` runs nothing else. Rows that were not asked
for keep the result that the page tells, and so do tests of a level that was left out.

Ends with 1 if a row has no test or one that did not pass.
"""

import os
import sys

import pytest

from rebalancerd.lab import can_run
from tests.faults.page import PAGE, page, rows_of
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
    only_lab = "--lab" in sys.argv
    real = only_lab or ("--quick" not in sys.argv and os.geteuid() == 0)
    if real and (reason := can_run()) is not None:
        sys.stderr.write(f"{reason}\n")
        return 1
    with_hosts = lab()
    tests = dict.fromkeys(with_hosts, ()) if only_lab else quick()
    if real:
        os.environ["REBALANCERD_LAB"] = "full"
        tests = {row: (*ids, *with_hosts[row]) for row, ids in tests.items()}
    asked = {int(word) for word in sys.argv[1:] if word.isdigit()} or set(tests)
    tests = {row: ids for row, ids in tests.items() if row in asked and (ids or not only_lab)}
    outcomes = Outcomes()
    wanted = sorted({selectors(t) for ids in tests.values() for t in ids})
    pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", "--tb=short", *wanted], plugins=[outcomes])
    told = rows_of(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    results = {number: cells[-1].removesuffix("|").strip() for number, cells in told.items()}
    for row in ROWS:
        if row.number not in tests:
            continue
        ended = [outcomes.of(t) for t in tests[row.number]]
        results[row.number] = (
            "passed" if ended and set(ended) == {"passed"} else ", ".join(sorted(set(ended))) or "no test"
        )
        sys.stdout.write(f"fault {row.number:02d}  {results[row.number]:8}  {len(ended)} tests  {row.fault}\n")
    PAGE.write_text(page(results), encoding="utf-8")
    return 0 if {results[number] for number in tests} == {"passed"} else 1


if __name__ == "__main__":
    sys.exit(main())
