"""``rebalancerd power status``, ``sleep``, ``wake``, ``test``, ``report`` and ``plan-night``."""

import time
from typing import Annotated, Any

import typer

from rebalancerd.cli.client import Client
from rebalancerd.cli.command import send
from rebalancerd.cli.options import OutputOption, ReasonOption, SocketOption, socket_path
from rebalancerd.cli.output import Output, emit_json, say, show, table
from rebalancerd.cli.power_night import plan_night
from rebalancerd.cli.power_report import one_line, report

app = typer.Typer(help="Hosts that sleep: who, why, and orders about them.", no_args_is_help=True)

app.command("report")(report)
app.command("plan-night")(plan_night)

HostArgument = Annotated[str, typer.Argument(help="Host, as the configuration names it.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and why not.")]


@app.command("status")
def status(socket: SocketOption = None, output: OutputOption = Output.TABLE) -> None:
    """Who is asleep and why, how long each host boots, and why others are not put to sleep."""
    answer = Client(socket_path(socket)).get("power")
    if output is Output.JSON:
        emit_json(answer)
        return
    if not answer["hosts"]:
        say("no host's power is configured")
        _night(answer)
        return
    rows = []
    for row in answer["hosts"]:
        boots = f"{row['boot_seconds']:.0f} s" + ("" if row["boots"] else " (assumed)")
        why = "; ".join(
            part
            for part in (
                row["reason"],
                f"power-off disabled: {row['disabled']}" if row["disabled"] else "",
                f"wanted back: {row['wake_wanted']}" if row["wake_wanted"] else "",
                "" if row["controlled"] else "its power is not configured",
            )
            if part
        )
        rows.append((row["host"], row["phase"], _clock(row["since"]), boots, _clock(row["tested_at"]), why))
    show(table(("host", "power", "since", "boots in", "tested", "why"), rows))
    for what, key in (("woken", "woken"), ("sent to sleep", "sent_to_sleep"), ("could sleep", "could_sleep")):
        for host, why in answer[key]:
            say(f"{what}: {host}: {why}")
    for host, why in answer["kept"]:
        say(f"stays on: {host}: {why}")
    _night(answer)


def _night(answer: dict[str, Any]) -> None:
    if answer.get("night") is None:
        return
    from rebalancerd.serve.schemas import NightRow

    say(f"night: {one_line(NightRow.model_validate(answer['night']))}")


@app.command("sleep")
def sleep(
    host: HostArgument,
    *,
    dry_run: DryRunOption = False,
    reason: ReasonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Shut an empty host down in good order and remember to wake it."""
    _sleep(host, "power-sleep", dry_run=dry_run, reason=reason, socket=socket, output=output)


@app.command("test")
def wake_test(
    host: HostArgument,
    *,
    dry_run: DryRunOption = False,
    reason: ReasonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Put an empty host to sleep and wake it at once: only a host that passed may sleep for a night."""
    _sleep(host, "power-test", dry_run=dry_run, reason=reason, socket=socket, output=output)


@app.command("wake")
def wake(
    host: HostArgument, reason: ReasonOption = "", socket: SocketOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Wake a host that rebalancerd put to sleep."""
    send("power-wake", {"host": host, "reason": reason}, socket, output)


def _sleep(host: str, path: str, *, dry_run: bool, reason: str, socket: SocketOption, output: OutputOption) -> None:
    if not dry_run:
        send(path, {"host": host, "reason": reason}, socket, output)
        return
    answer = Client(socket_path(socket)).get("power/sleep", host=host, test=path == "power-test")
    if output is Output.JSON:
        emit_json(answer)
    elif answer["would_sleep"]:
        say(str(answer["message"]))
    else:
        say(f"{host} would not be put to sleep: {answer['code']}: {answer['message']}")


def _clock(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else "-"
