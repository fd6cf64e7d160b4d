"""``rebalancerd doctor``: what will stop a migration, before one is tried."""

from typing import TYPE_CHECKING, Annotated

import typer

from rebalancerd.cli.exits import ERROR
from rebalancerd.cli.options import DEFAULT_CONFIG, ConfigOption, OutputOption
from rebalancerd.cli.output import Output, emit_json, log_to_stderr, plain, say, show, table, talk

if TYPE_CHECKING:
    from rich.text import Text

    from rebalancerd.cli.doctor_checks import Finding

STYLES = {"ok": "green", "fail": "bold red", "warn": "yellow", "not checked": "dim"}


def doctor(
    every: Annotated[bool, typer.Option("--all", help="Show what is in order, too.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    output: OutputOption = Output.TABLE,
) -> None:
    """Look at every host for what will stop a migration: reachability, rights, UUIDs, ports, CPU, storage, networks.

    Changes nothing. Ends with 1 if any check fails.
    """
    from rebalancerd.cli.config import load
    from rebalancerd.cli.doctor_checks import Result, diagnose
    from rebalancerd.cli.doctor_look import compare_cpus, look_at
    from rebalancerd.clock import SystemClock
    from rebalancerd.daemon import build_ports

    log_to_stderr()
    cfg = load(config)
    talk(f"looking at {len(cfg.hosts)} hosts as mode {cfg.mode} would")
    ports = build_ports(cfg, SystemClock())
    looks = look_at(cfg.host_settings(), ports.read, ports.probe, ports.write, cfg.observe_settings().agent_tls)
    findings = diagnose(looks, cfg.mode, compare_cpus(looks, ports.probe))
    if output is Output.JSON:
        emit_json({"format": 1, "mode": cfg.mode.value, "findings": [_document(f) for f in findings]})
    else:
        _print(findings, every=every)
    if any(f.result is Result.FAIL for f in findings):
        raise typer.Exit(ERROR)


def _document(finding: "Finding") -> dict[str, str]:
    return {
        "check": finding.check,
        "host": finding.host,
        "result": finding.result.value,
        "detail": finding.detail,
        "mend": finding.mend,
    }


def _print(findings: "tuple[Finding, ...]", *, every: bool) -> None:
    from collections import Counter

    from rebalancerd.cli.doctor_checks import Result

    shown = [f for f in findings if every or f.result is not Result.OK]
    rows = ((f.host, f.check, plain(f.result.value, STYLES[f.result.value]), _words(f)) for f in shown)
    if shown:
        show(table(("HOST", "CHECK", "RESULT", "WHAT WAS SEEN, AND HOW TO MEND IT"), rows))
        say()
    counts = Counter(f.result for f in findings)
    tally = ", ".join(f"{counts[result]} {result.value}" for result in Result if counts[result])
    say(f"{tally or 'nothing was checked'}{'' if every else ' (--all shows what is in order, too)'}")


def _words(finding: "Finding") -> "Text":
    from rebalancerd.cli.doctor_checks import Result

    words = plain(finding.detail)
    if finding.mend and finding.result is not Result.OK:
        words.append("\n")
        words.append_text(plain(f"→ {finding.mend}", "dim"))
    return words
