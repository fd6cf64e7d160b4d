"""The demonstration: three real hosts, one of them made hot, and the daemon relieving it while a person watches.

Where there is neither root nor a way to become it, the simulated cluster plays the same story, and says that it does.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rebalancerd.cli import demo_story as story
from rebalancerd.cli.client import Client
from rebalancerd.cli.demo_cluster import DEMO_DIR, HOT, LINK_MBIT, config_text, demo_lab_spec
from rebalancerd.cli.exits import CliError
from rebalancerd.cli.output import say

if TYPE_CHECKING:
    from rebalancerd.lab import Lab
    from rebalancerd.serve.schemas import MigrationRow, Watch

DEFAULT_MINUTES = 4.0
COOL_ROUNDS = 3  # cycles in a row without a hot host before the story ends
QUIET_ROUNDS = 8  # cycles in a row in which nothing moves: it ends too, and says what is still hot
POLL_SECONDS = 1.0


def run_demo(minutes: float | None, json_path: Path) -> int:
    """Play the demonstration for at most ``minutes`` (default 4) and write its outcome to ``json_path``.

    Returns 0 if a hot host was relieved by at least one finished migration, else 1.
    """
    from rebalancerd.lab import can_run

    limit = (minutes or DEFAULT_MINUTES) * 60
    json_path.unlink(missing_ok=True)  # an earlier outcome is not this one's
    reason = can_run()
    if reason is None:
        return _real(limit, json_path)
    if os.geteuid() == 0:
        raise CliError(f"the lab cannot start: {reason}", "`make demo` installs what it needs")
    say(f"No real hosts here: {reason}.", "yellow")
    say("Running the SIMULATED cluster instead; run as root for real libvirt hosts and real migrations.", "yellow")
    return _simulated(json_path)


def _real(limit_seconds: float, json_path: Path) -> int:
    from rebalancerd.lab import Lab, LabError

    deadline = time.monotonic() + limit_seconds
    DEMO_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    if DEMO_DIR.is_symlink() or DEMO_DIR.stat().st_uid != os.geteuid():
        raise CliError(f"{DEMO_DIR} belongs to somebody else", "remove it")
    try:
        Lab.open(DEMO_DIR / "lab").down()  # what a killed demonstration left
    except LabError:
        pass
    for left in (DEMO_DIR / "state", DEMO_DIR / "lab"):
        shutil.rmtree(left, ignore_errors=True)  # an earlier story's cooldowns are not this one's
    lab = Lab(demo_lab_spec(), DEMO_DIR / "lab")
    daemon: subprocess.Popen[bytes] | None = None
    try:
        story.chapter("Three libvirt hosts on this machine, with real QEMU guests")
        lab.up(lambda line: say(f"  {line}", "dim"))
        for guest in lab.guests:
            lab.wait_booted(guest.name, 90)
        for host in lab.hosts:
            lab.shape(host.name, rate_mbit=LINK_MBIT)
        config = DEMO_DIR / "rebalancerd.toml"
        config.write_text(config_text(lab, DEMO_DIR))
        say(f"  configuration {config}, log {DEMO_DIR / 'daemon.log'}", "dim")
        with (DEMO_DIR / "daemon.log").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "rebalancerd", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ended = _play(lab, Client(DEMO_DIR / "rebalancerd.sock"), daemon, deadline)
        return _outcome(lab, ended, json_path)
    except LabError as error:
        raise CliError(
            f"the lab does not work: {error}", "as root this is a failure, never a reason to simulate"
        ) from error
    finally:
        if daemon is not None:
            daemon.terminate()
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
        lab.down()
        say("The lab is taken down; nothing of it is left running.", "dim")


def _play(lab: "Lab", client: Client, daemon: "subprocess.Popen[bytes]", deadline: float) -> "tuple[MigrationRow, ...]":
    """The story itself; returns the finished migrations."""
    first = _wait(client, daemon, deadline, "the first cycle on fresh figures", _settled)
    story.chapter("Before")
    story.hosts(first)
    before = {guest.name: lab.counter(guest.name) for guest in lab.guests}

    story.chapter("The load on h1 rises")
    _heat(lab)
    hot = _wait(client, daemon, deadline, "the forecast of a hot host", lambda w: any(h.hot for h in w.hosts))
    story.chapter("Forecast")
    story.hosts(hot)
    _wait(client, daemon, deadline, "a plan whose reason has held", lambda w: bool(w.migrations or w.recent))
    story.chapter("Plan")
    _show_plan(client)

    story.chapter("Live migration")
    last = _watch(client, daemon, deadline)
    story.chapter("Predicted against actual")
    story.comparison(last.recent)
    story.chapter("After")
    story.hosts(last)
    story.explanation(client, last.recent)
    story.heartbeats({g.name: (before[g.name], lab.counter(g.name)) for g in lab.guests})
    return last.recent


def _heat(lab: "Lab") -> None:
    """Give the guests of h1 their new load. One guest that does not listen is told and left as it is; two are too many."""
    from rebalancerd.lab import LabError

    deaf = 0
    for name, phases in HOT.items():
        try:
            lab.set_load(name, phases, timeout=12.0)
        except LabError as error:
            deaf += 1
            if deaf > 1:
                raise
            say(f"  {name} keeps its load: {error}", "yellow")
            continue
        say(f"  {name}: {phases[0].cpu_percent:g} % of a CPU, {phases[0].dirty_mib_per_second:g} MiB/s dirtied")


def _settled(seen: "Watch") -> bool:
    return seen.cycle is not None and bool(seen.hosts) and all(h.cpu_p95 is not None for h in seen.hosts)


def _wait(
    client: Client,
    daemon: "subprocess.Popen[bytes]",
    deadline: float,
    what: str,
    reached: Callable[["Watch"], bool],
) -> "Watch":
    """Look until ``reached``. Raises CliError where the daemon ends or time runs out."""
    from rebalancerd.serve.schemas import Watch

    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            raise CliError(f"the daemon ended with code {daemon.returncode}", f"see {DEMO_DIR / 'daemon.log'}")
        try:
            seen = Watch.model_validate(client.get("watch"))
        except CliError:
            seen = None  # not listening yet
        if seen is not None and reached(seen):
            return seen
        time.sleep(POLL_SECONDS)
    raise CliError(f"no time left while waiting for {what}", "give it more: DEMO_MINUTES=8 make demo")


def _show_plan(client: Client) -> None:
    """The plan of the first migration, from the ledger."""
    from rebalancerd.clock import SystemClock
    from rebalancerd.record.sql_ledger import SqlLedger
    from rebalancerd.serve.schemas import Watch

    seen = Watch.model_validate(client.get("watch"))
    first = min((*seen.migrations, *seen.recent), key=lambda row: row.intent_at)
    ledger = SqlLedger(f"sqlite:///{DEMO_DIR / 'state' / 'ledger.sqlite'}", SystemClock())
    try:
        made = ledger.plan(first.plan_id) if first.plan_id else None
    finally:
        ledger.close()
    if made is not None:
        story.plan(made)


def _watch(client: Client, daemon: "subprocess.Popen[bytes]", deadline: float) -> "Watch":
    """Follow the migrations until no host is hot for some looks in a row and nothing moves, or time is up."""
    from rebalancerd.serve.schemas import Watch

    cool, quiet, cycle = 0, 0, -1
    seen = Watch.model_validate(client.get("watch"))
    while time.monotonic() < deadline and daemon.poll() is None:
        seen = Watch.model_validate(client.get("watch"))
        for line in story.progress(seen):
            say(f"  {line}")
        if seen.cycle is not None and seen.cycle.id != cycle:
            cycle = seen.cycle.id
            calm = not seen.migrations and bool(seen.recent) and not any(h.hot for h in seen.hosts)
            cool = cool + 1 if calm else 0
            quiet = quiet + 1 if seen.recent and not seen.migrations else 0
        if cool >= COOL_ROUNDS or quiet >= QUIET_ROUNDS:
            break
        time.sleep(POLL_SECONDS)
    return seen


def _outcome(lab: "Lab", ended: "tuple[MigrationRow, ...]", json_path: Path) -> int:
    """Check with libvirt itself where each moved guest runs now, write the file, and say how it went."""
    done = []
    newest: dict[str, str] = {}
    for row in sorted(ended, key=lambda r: r.intent_at):
        if row.state == "succeeded" and row.actual_seconds is not None:
            newest[row.vm_name] = row.destination
            seconds = round(row.actual_seconds, 2)
            done.append({"vm": row.vm_name, "source": row.source, "destination": row.destination, "seconds": seconds})
    astray = [name for name, host in newest.items() if lab.find(name) != host]
    json_path.write_text(json.dumps({"real": True, "migrations": done}, indent=1) + "\n")
    if astray:
        say(f"libvirt does not have {', '.join(astray)} where the daemon says", "red")
        return 1
    if not done:
        say("No migration finished within the time given.", "red")
        return 1
    say(f"h1 was relieved by {len(done)} real live migration{'s' if len(done) > 1 else ''}; written to {json_path}.")
    return 0


def _simulated(json_path: Path) -> int:
    from rebalancerd.sim.demo import demo_spec
    from rebalancerd.sim.runner import simulate

    report = simulate(demo_spec(), listener=say)
    moved = [r for r in report.migrations if r.state.value == "succeeded" and r.seconds is not None]
    rows = [
        {"vm": r.vm_name, "source": r.source, "destination": r.destination, "seconds": round(r.seconds or 0.0, 2)}
        for r in moved
    ]
    json_path.write_text(json.dumps({"real": False, "migrations": rows}, indent=1) + "\n")
    say(f"{len(rows)} simulated migrations; written to {json_path}.")
    return 0 if rows else 1
