"""``python -m tests.bench NAME [options] --json FILE``: prints a table for people and writes the figures as JSON."""

import argparse
import importlib
import sys
from pathlib import Path

from rebalancerd import log
from rebalancerd.collector import leave_out_what_stays
from tests.bench.report import Report

BENCHES = (
    "consolidation",
    "cost",
    "cycle",
    "failover",
    "forecast",
    "hotspot",
    "migrate",
    "planner",
    "soak",
    "walk",
    "week",
)


def main(argv: list[str]) -> int:
    """Run one benchmark by name."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--json", type=Path, default=None, help="where to write the figures")
    known, rest = parser.parse_known_args(argv)
    bench = importlib.import_module(f"tests.bench.{known.name}")
    options = bench.arguments(argparse.ArgumentParser(prog=f"python -m tests.bench {known.name}")).parse_args(rest)
    log.configure(level="warning", form="auto")
    leave_out_what_stays()  # as the daemon does
    report = Report(known.name, vars(options))
    bench.run(options, report)
    report.finish(known.json)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
