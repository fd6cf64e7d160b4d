"""Random walks over the simulated cluster, as many steps as asked for; every promise is checked after every step."""

import argparse

from tests.bench.report import Report
from tests.faults import walk

CHUNK = 1000


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """How many steps, and which walks."""
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1000, help="walks of the test suite have the numbers 0 to 3")
    return parser


def run(options: argparse.Namespace, report: Report) -> None:
    """Walk until the steps are done or a promise is broken; its script is then left in .walks/."""
    violations, number = 0, options.seed
    while walk.Walk.steps < options.steps and not violations:
        try:
            walk.walk(min(CHUNK, options.steps - walk.Walk.steps), number)
        except Exception as error:  # noqa: BLE001 — a crash anywhere in the product is a find as well
            violations += 1
            print(f"walk {number}: {error}")
        number += 1
        print(f"{walk.Walk.steps} steps", flush=True)
    for name, value in walk.figures().items():
        report.figure(f"walk.{name}", value)
    report.figure("walk.violations", violations)
