"""``rebalancerd drain`` and ``undrain``."""

from typing import Annotated

import typer

from rebalancerd.cli.command import send
from rebalancerd.cli.options import OutputOption, ReasonOption, SocketOption
from rebalancerd.cli.output import Output

HostArgument = Annotated[str, typer.Argument(help="Host, as the configuration names it.")]


def drain(
    host: HostArgument, reason: ReasonOption = "", socket: SocketOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Empty a host by live migration and keep it empty, e.g. for maintenance."""
    send("drain", {"host": host, "reason": reason}, socket, output)


def undrain(
    host: HostArgument, reason: ReasonOption = "", socket: SocketOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Let a drained host take VMs again."""
    send("undrain", {"host": host, "reason": reason}, socket, output)
