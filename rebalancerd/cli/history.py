"""``rebalancerd history``."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from rebalancerd.cli import durations
from rebalancerd.cli.client import Client
from rebalancerd.cli.options import OutputOption, SocketOption, socket_path
from rebalancerd.cli.output import Output, emit_json, say, show, table

if TYPE_CHECKING:
    from rebalancerd.serve.schemas import History


def _since(text: str) -> float:
    try:
        return durations.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def history(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at most.")] = 20,
    since: Annotated[
        float | None, typer.Option("--since", parser=_since, metavar="TIME", help="Not older than: 90m, 12h, 7d.")
    ] = None,
    vm: Annotated[str | None, typer.Option("--vm", help="Only migrations of this VM, by name or UUID.")] = None,
    cycles: Annotated[bool, typer.Option("--cycles", help="Show cycles, not migrations.")] = False,
    advice: Annotated[bool, typer.Option("--advice", help="Show advice and how it turned out.")] = False,
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Past migrations, predicted against actual; or with --cycles what cycles decided, with --advice what was advised."""
    after = max(0.0, time.time() - since) if since is not None else 0.0
    answer = Client(socket_path(socket)).get("history", limit=limit, since=after, vm=vm)
    if output is Output.JSON:
        emit_json(answer)
        return
    from rebalancerd.cli.watch import ended_table
    from rebalancerd.serve.schemas import History
    from rebalancerd.serve.wording import instant, span

    seen = History.model_validate(answer)
    if cycles:
        rows = ((c.id, instant(c.at), span(c.seconds), c.mode, c.policy, c.outcome, c.reason) for c in seen.cycles)
        columns = ("CYCLE", "AT", "TOOK", "MODE", "POLICY", "OUTCOME", "REASON")
        show(table(columns, rows, numbers=(0, 2))) if seen.cycles else say("no cycle is on record")
    elif advice:
        _print_advice(seen)
    elif seen.migrations:
        show(ended_table(seen.migrations, seen.now, ids=True))
    else:
        say("no migration is on record" + (" for this VM" if vm is not None else ""))


def _print_advice(seen: "History") -> None:
    from rebalancerd.serve.wording import instant

    columns = ("AT", "VM", "FROM", "TO", "VERDICT", "WHY")
    rows = (
        (
            instant(a.at),
            a.vm_name,
            a.source,
            a.destination,
            (a.verdict or "open") + (", followed" if a.followed_at is not None else ""),
            a.reason or f"is judged after {instant(a.due_at)}",
        )
        for a in seen.advice
    )
    show(table(columns, rows)) if seen.advice else say("no advice is on record")
