"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from rebalancerd.cli.output import Output

DEFAULT_CONFIG = Path("/etc/rebalancerd/rebalancerd.toml")
DEFAULT_SOCKET = Path("/run/rebalancerd/api.sock")

OutputOption = Annotated[
    Output, typer.Option("--output", envvar="REBALANCERD_OUTPUT", help="Form of the data: a table, or JSON.")
]
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="REBALANCERD_CONFIG", help="Configuration file.", show_default=True)
]
SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        envvar="REBALANCERD_SOCKET",
        help="The daemon's UNIX socket; without it the configuration's serve.socket.",
    ),
]
SecondsOption = Annotated[
    float, typer.Option("--seconds", min=2.0, max=600.0, help="How long to look where no daemon answers.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; noted beside the command.")]


def config_path() -> Path:
    """The configuration file meant where a command has no --config."""
    return Path(os.environ.get("REBALANCERD_CONFIG") or DEFAULT_CONFIG)


def socket_path(given: Path | None, config: Path | None = None) -> Path:
    """The socket: as given, else as the configuration says (if it can be read at all), else the default."""
    if given is not None:
        return given
    import tomllib

    try:
        tree = tomllib.loads((config or config_path()).read_text(encoding="utf-8"))
        named = tree.get("serve", {}).get("socket")
    except (OSError, ValueError, AttributeError):
        return DEFAULT_SOCKET  # `config check` says what is wrong with the file
    return Path(named) if isinstance(named, str) and named else DEFAULT_SOCKET
