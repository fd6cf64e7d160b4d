"""Sending one command to the daemon and saying what it answered."""

from pathlib import Path
from typing import Any

from rebalancerd.cli.client import Client
from rebalancerd.cli.options import socket_path
from rebalancerd.cli.output import Output, emit_json, say


def send(path: str, body: dict[str, Any], socket: Path | None, output: Output) -> None:
    """Post a command; prints the daemon's sentence, or the whole answer as JSON. Raises CliError."""
    answer = Client(socket_path(socket)).post(path, body)
    if output is Output.JSON:
        emit_json(answer)
    else:
        say(str(answer.get("message", "done")))
