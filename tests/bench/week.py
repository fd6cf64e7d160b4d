"""A simulated week with and without nights: hot-host minutes, energy, wakes that fail, a daemon that dies all the time."""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rebalancerd import log
from rebalancerd.sim.world import World
from tests.bench.report import Report
from tests.bench.week_world import Driver, Meter, cluster, watched, week

MOST_MORE_HOT = 0.01
KINDS = ("balanced", "nights")
BREAKS_AT = 15 * 3600.0  # after noon: three at night


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Size, length, and how much goes wrong."""
    parser.add_argument("--hosts", type=int, default=40)
    parser.add_argument("--vms", type=int, default=240)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills-per-step", type=int, default=3)
    parser.add_argument("--broken-nights", type=int, nargs="*", default=[1, 3], help="days whose night a wake fails in")
    parser.add_argument("--partial", type=Path, default=None, help="directory for the figures so far and the logs")
    return parser


def run(options: argparse.Namespace, report: Report) -> None:
    """Both weeks, each on a core of its own, then the figures side by side."""
    with ProcessPoolExecutor(len(KINDS)) as pool:
        balanced, nights = pool.map(lived, KINDS, [options] * len(KINDS))
    for key, value in (*balanced.items(), *nights.items()):
        report.figure(key, value)
    hot, allowed = nights["week.nights.hot_host_minutes"], balanced["week.balanced.hot_host_minutes"]
    allowed *= 1 + MOST_MORE_HOT
    report.figure("week.hot_host_minutes_allowed", allowed)
    report.figure("week.saved_kwh", balanced["week.balanced.kwh"] - nights["week.nights.kwh"])
    report.figure("week.saved_share", 1 - nights["week.nights.kwh"] / balanced["week.balanced.kwh"])
    broken = balanced["week.balanced.violations"] + nights["week.nights.violations"]
    report.figure("week.violations", broken)
    report.check("no promise was broken", broken == 0)
    report.check("hot-host minutes: at most 1 % more than without nights", hot <= allowed)
    wakes = len(options.broken_nights)
    report.check(f"{wakes} wakes failed", nights["week.nights.failed_wakes"] >= wakes)


def lived(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one week."""
    log.configure(level="critical", form="auto")
    nights, begun = kind == "nights", time.process_time()
    spec = week(cluster(options.hosts, options.vms, options.seed), options.days, nights=nights)
    with World(spec, begin=watched) as world:
        meter = Meter(world, spec.plan.cpu_headroom)
        world.cluster.meter = meter
        breaks = tuple(day * 86_400.0 + BREAKS_AT for day in options.broken_nights) if nights else ()
        driver = Driver(world, kills_per_step=options.kills_per_step if nights else 0, breaks_at=breaks)
        figures: dict[str, float] = {}
        while driver.live(6 * 3600.0):
            figures = _figures(f"week.{kind}", driver, meter) | {
                f"week.{kind}.cpu_seconds": time.process_time() - begun
            }
            if options.partial is not None:
                options.partial.mkdir(parents=True, exist_ok=True)
                (options.partial / f"{kind}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
                (options.partial / f"{kind}.log").write_text(world.story.text(), encoding="utf-8")
    for violation in driver.lived.violations:
        print(f"violation: {violation}", flush=True)
    return figures


def _figures(under: str, driver: Driver, meter: Meter) -> dict[str, float]:
    done = driver.lived
    told: dict[str, float] = {
        "days": driver.world.clock.monotonic() / 86_400.0,
        "hot_host_minutes": meter.hot_seconds / 60,
        "kwh": meter.kwh,
        "moves": sum(r.started_at is not None for r in driver.world.ledger.records.values()),
        "violations": len(done.violations),
        "host_hours_off": meter.off_seconds / 3600,
        "sleeps": done.slept,
        "kills": done.kills,
        "kinds_of_steps": len(done.steps),
        "broken_machines": len(done.broken),
        "failed_wakes": len(done.failed_wakes),
    }
    return {f"{under}.{key}": value for key, value in told.items()}
