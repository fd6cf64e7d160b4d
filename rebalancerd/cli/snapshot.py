"""``rebalancerd snapshot``: what a plan rests on, saved, so that ``plan --from`` can plan from it elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from rebalancerd.cli.client import Client
from rebalancerd.cli.exits import CliError
from rebalancerd.cli.offline import daemon_document, standalone_kept
from rebalancerd.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    OutputOption,
    SecondsOption,
    SocketOption,
    socket_path,
)
from rebalancerd.cli.output import Output, emit_json, say

app = typer.Typer(help="Save what a plan rests on, to plan from it offline.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Save what a plan rests on, to plan from it offline."""


@app.command()
def save(
    file: Annotated[Path, typer.Argument(help="File to write, for `plan --from`.")],
    seconds: SecondsOption = 10.0,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Save all that planning looks at now: hosts, VMs, forecast, limits, and who predicts costs. Moves nothing.

    Asks the daemon. Where none answers, looks at the hosts itself for a few seconds, read-only, and says so.
    """
    from rebalancerd.record.snapshotfile import SnapshotFileError, document, parse_document, write_snapshot

    client = Client(socket_path(socket, config))
    made = daemon_document(client) if client.is_there() else document(standalone_kept(client.path, config, seconds))
    try:
        kept = parse_document(made)
        write_snapshot(file, made)
    except SnapshotFileError as error:
        raise CliError(f"the daemon's snapshot cannot be read: {error}", "is it of another version?") from error
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror or error}") from error
    hosts, vms = len(kept.snapshot.hosts), len(kept.snapshot.vms)
    if output is Output.JSON:
        told = {"taken_at": kept.snapshot.taken_at, "hosts": hosts, "vms": vms, "costs": kept.costs}
        emit_json({"format": 1, "file": str(file), "digest": made["digest"], **told})
    else:
        say(f"{hosts} hosts and {vms} VMs written to {file}, costs by {kept.costs}")
        say(f"`rebalancerd plan --from {file}` plans from it; it names every guest, so keep it as you keep its hosts")
