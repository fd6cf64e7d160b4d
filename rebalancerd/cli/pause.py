"""``rebalancerd pause``, ``resume`` and ``abort``."""

from typing import Annotated

import typer

from rebalancerd.cli import durations
from rebalancerd.cli.command import send
from rebalancerd.cli.options import OutputOption, ReasonOption, SocketOption
from rebalancerd.cli.output import Output


def _duration(text: str) -> float:
    try:
        return durations.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def pause(
    for_: Annotated[
        float | None, typer.Option("--for", parser=_duration, metavar="TIME", help="How long: 90s, 15m, 2h, 1h30m, 1d.")
    ] = None,
    reason: ReasonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start no more migrations, until resume or for a while. Running ones go on."""
    send("pause", {"seconds": for_, "reason": reason}, socket, output)


def resume(reason: ReasonOption = "", socket: SocketOption = None, output: OutputOption = Output.TABLE) -> None:
    """End a pause."""
    send("resume", {"reason": reason}, socket, output)


def abort(
    vm: Annotated[str, typer.Argument(help="VM whose migration to abort, by name or UUID.")],
    reason: ReasonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Abort a running migration that rebalancerd started; the VM goes on on its source."""
    send("abort", {"vm": vm, "reason": reason}, socket, output)
