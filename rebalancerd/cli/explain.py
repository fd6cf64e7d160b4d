"""``rebalancerd explain``."""

from enum import StrEnum
from typing import Annotated

import typer

from rebalancerd.cli.client import Client
from rebalancerd.cli.exits import USAGE, CliError
from rebalancerd.cli.options import OutputOption, SocketOption, socket_path
from rebalancerd.cli.output import Output, emit_json, say


class Kind(StrEnum):
    """What can be explained."""

    VM = "vm"
    HOST = "host"
    CYCLE = "cycle"
    MOVE = "move"


def explain(
    kind: Annotated[Kind, typer.Argument(help="What to explain.")],
    subject: Annotated[
        str | None,
        typer.Argument(help="VM name or UUID; host name; cycle number (without one: the last); migration id."),
    ] = None,
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say why a VM was moved or stayed, why a host is hot, what a cycle did, how a move went."""
    if subject is None and kind is not Kind.CYCLE:
        raise CliError(
            f"explain {kind.value} needs a name", f"such as `rebalancerd explain {kind.value} NAME`", code=USAGE
        )
    answer = Client(socket_path(socket)).get(f"explain/{kind.value}", subject=subject or "last")
    if output is Output.JSON:
        emit_json(answer)
        return
    say(str(answer.get("title", "")), "bold")
    for line in answer.get("lines", ()):
        say(f"  {line}", escaped=True)
