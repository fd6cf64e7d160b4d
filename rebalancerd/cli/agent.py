"""``rebalancerd agent``."""

from typing import Annotated

import typer

from rebalancerd.cli.exits import USAGE, CliError

DEFAULT_LISTEN = "127.0.0.1:9178"


def agent(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS:PORT", help="Where to export this host's figures.")
    ] = DEFAULT_LISTEN,
) -> None:
    """Export this host's CPU, memory, swap, pressure and NIC rates over HTTP until stopped."""
    address, port = address_and_port(listen)
    from rebalancerd.observe.agent import serve_agent

    try:
        serve_agent(address, port)
    except OSError as error:
        raise CliError(f"cannot listen on {listen}: {error.strerror or error}", "choose another --listen") from error


def address_and_port(text: str) -> tuple[str, int]:
    """``127.0.0.1:9178`` or ``[::1]:9178``. Raises CliError."""
    address, colon, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not colon or not address or not port.isascii() or not port.isdigit() or not 0 <= int(port[:9]) <= 65535:
        raise CliError(f"{text!r} is no ADDRESS:PORT, such as {DEFAULT_LISTEN} or [::1]:9178", code=USAGE)
    return address, int(port)
