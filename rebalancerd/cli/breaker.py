"""``rebalancerd close-breaker`` and ``clear-quarantine``."""

from typing import Annotated

import typer

from rebalancerd.cli.command import send
from rebalancerd.cli.options import OutputOption, ReasonOption, SocketOption
from rebalancerd.cli.output import Output


def close_breaker(reason: ReasonOption = "", socket: SocketOption = None, output: OutputOption = Output.TABLE) -> None:
    """Let migrations start again after too many failed, once you have looked at why."""
    send("close-breaker", {"reason": reason}, socket, output)


def clear_quarantine(
    host: Annotated[str, typer.Argument(help="Host that may receive again.")],
    reason: ReasonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let a host receive VMs again that failed as a destination."""
    send("clear-quarantine", {"host": host, "reason": reason}, socket, output)
