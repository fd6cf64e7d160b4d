"""``rebalancerd plan`` and ``apply``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebalancerd.cli.client import Client
from rebalancerd.cli.command import send
from rebalancerd.cli.exits import PLAN_NOT_EMPTY, USAGE, CliError
from rebalancerd.cli.offline import Asked, offline_plan
from rebalancerd.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    OutputOption,
    ReasonOption,
    SecondsOption,
    SocketOption,
    socket_path,
)
from rebalancerd.cli.output import Output, emit_json, log_to_stderr, talk

if TYPE_CHECKING:
    from rebalancerd.cluster.plan import Plan


def plan(
    *,
    file: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Also write a file for apply.")
    ] = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 10 where there is something to do.")
    ] = False,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Plan from a file of `snapshot save`, asking nobody.")
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if",
            metavar="TEXT",
            help="Suppose something first, such as 'host h4 down', 'host h4 drain', 'vm web1 on h2', 'vm web1 gone', "
            "'add host h9 cores=16 memory=64GiB like h2'. May be given several times.",
        ),
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Plan by that policy instead: balance or consolidate.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            "--window", metavar="DURATION", help="How long it is to hold, such as '8h'; else the forecast's horizon."
        ),
    ] = None,
    seconds: SecondsOption = 10.0,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what would be moved now, why and at what predicted cost. Moves nothing.

    Asks the daemon. Where none answers, looks at the hosts itself for a few seconds, read-only, and says so.
    With --from, --what-if, --policy or --window the plan is made here, by the same planner and cost model.
    """
    client = Client(socket_path(socket, config))
    if what_if and file is not None:
        raise CliError("a plan for what is only supposed is not to be applied", "leave out -o", code=USAGE)
    asked = Asked(tuple(what_if or ()), policy, window)
    if source is not None or asked != Asked():
        made, document = offline_plan(source, asked, client=client, config=config, seconds=seconds)
    elif client.is_there():
        made, document = _by_daemon(client)
    else:
        made, document = _standalone(client.path, config, seconds)
    if file is not None:
        _write(file, made)
    if output is Output.JSON:
        emit_json(document)
    else:
        from rebalancerd.cli.plan_view import print_plan

        print_plan(made, written=file)
    if detailed_exitcode and not made.is_empty:
        raise typer.Exit(PLAN_NOT_EMPTY)


def apply(
    file: Annotated[Path, typer.Argument(help="Plan file, as `plan -o` wrote it.")],
    reason: ReasonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have the daemon carry out a plan file: its digest, expiry and facts must still hold (mode guarded or auto)."""
    send("apply", {"document": _read(file), "reason": reason}, socket, output)


def _by_daemon(client: Client) -> "tuple[Plan, dict[str, Any]]":
    from rebalancerd.record.planfile import PlanFileError, parse_document

    document = client.get("plan")["document"]
    try:
        return parse_document(document), document
    except PlanFileError as error:
        raise CliError(f"the daemon's plan cannot be read: {error}", "is it of another version?") from error


def _standalone(socket: Path, config: Path, seconds: float) -> "tuple[Plan, dict[str, Any]]":
    import tempfile

    from rebalancerd.cli.config import load
    from rebalancerd.daemon import standalone_plan
    from rebalancerd.record.planfile import document

    log_to_stderr()
    cfg = load(config)
    talk(
        f"no daemon answers on {socket}: looking at {len(cfg.hosts)} hosts read-only for {seconds:g} s, without history"
    )
    with tempfile.TemporaryDirectory(prefix="rebalancerd-plan-") as directory:
        try:
            made = standalone_plan(cfg, seconds, Path(directory))
        except ValueError as error:
            raise CliError(f"no plan can be made: {error}", "see `rebalancerd doctor`") from error
    return made, document(made)


def _write(file: Path, made: "Plan") -> None:
    from rebalancerd.record.planfile import PlanFileError, write_plan

    try:
        write_plan(file, made)
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror or error}") from error
    except PlanFileError as error:
        raise CliError(f"cannot write {file}: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    from rebalancerd.record.planfile import PlanFileError, document, read_plan

    try:
        return document(read_plan(file))
    except PlanFileError as error:
        raise CliError(str(error), "make one with `rebalancerd plan -o FILE`; it is not to be edited") from error
