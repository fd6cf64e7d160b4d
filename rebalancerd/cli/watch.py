"""``rebalancerd watch``: running migrations, live."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rebalancerd.cli.client import Client
from rebalancerd.cli.options import OutputOption, SocketOption, socket_path
from rebalancerd.cli.output import Output, console, emit_line, plain, say, show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rebalancerd.serve.schemas import MigrationRow, Watch

BAR_CELLS = 16


def watch(
    interval: Annotated[
        float, typer.Option("--interval", "-n", min=0.2, max=3600.0, help="Seconds between looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Follow running migrations: progress, what remains, dirty rate, how long against its prediction; then how it went.

    Ends with Ctrl-C. Off a terminal it prints each look below the last; as JSON, one line per look.
    """
    client = Client(socket_path(socket))
    if output is Output.JSON:
        _stream(client, interval, once=once)
    elif once or not sys.stdout.isatty():
        _lines(client, interval, once=once)
    else:
        _live(client, interval)


def _stream(client: Client, interval: float, *, once: bool) -> None:
    while True:
        emit_line(client.get("watch"))
        if once:
            return
        time.sleep(interval)


def _lines(client: Client, interval: float, *, once: bool) -> None:
    """Off a terminal: print only what changed since the last look."""
    from rebalancerd.serve.schemas import Watch

    shown: tuple[object, ...] | None = None
    while True:
        seen = Watch.model_validate(client.get("watch"))
        state = (seen.migrations, seen.recent, seen.cycle)
        if state != shown:
            show(render(seen))
            sys.stdout.flush()
            shown = state
        if once:
            return
        say()
        time.sleep(interval)


def _live(client: Client, interval: float) -> None:
    from rich.live import Live

    from rebalancerd.serve.schemas import Watch

    with Live(console=console(), screen=False, auto_refresh=False) as live:
        try:
            while True:
                live.update(render(Watch.model_validate(client.get("watch"))), refresh=True)
                time.sleep(interval)
        except KeyboardInterrupt:
            return


def render(seen: "Watch") -> "RenderableType":
    """One look as something rich can print."""
    from rich.console import Group

    from rebalancerd.serve.wording import span

    parts: list[RenderableType] = []
    if seen.migrations:
        parts.append(_running(seen))
    else:
        parts.append(plain("nothing is moving", "dim"))
    if seen.recent:
        parts += [plain(""), plain("ended within the last 15 minutes", "bold"), ended_table(seen.recent, seen.now)]
    if seen.cycle is not None:
        ago = span(max(0.0, seen.now - seen.cycle.at))
        parts += [
            plain(""),
            plain(f"last cycle #{seen.cycle.id}, {ago} ago, mode {seen.mode}: {seen.cycle.reason}", "dim"),
        ]
    return Group(*parts)


def _running(seen: "Watch") -> "RenderableType":
    columns = ("VM", "FROM → TO", "STATE", "PROGRESS", "REMAINING", "SENDING", "DIRTYING", "FOR", "PREDICTED", "END")
    return table(columns, (_running_row(m, seen.now) for m in seen.migrations), numbers=(4, 5, 6, 7, 8))


def _running_row(move: "MigrationRow", now: float) -> tuple[object, ...]:
    from rebalancerd.serve.wording import size, span

    state = move.state + (f" (round {move.iteration})" if move.iteration else "") + ("" if move.ours else ", not ours")
    return (
        move.vm_name,
        f"{move.source} → {move.destination}",
        state,
        bar(move),
        size(move.remaining_bytes) if move.remaining_bytes is not None else "?",
        rate(move.rate_bytes_per_second),
        rate(move.dirty_bytes_per_second),
        span(move.elapsed_seconds) if move.elapsed_seconds is not None else "?",
        _bounded(move.predicted_seconds, move.predicted_seconds_upper, span, "?"),
        plain(_end(move, now), "red" if move.late else None),
    )


def _bounded(value: float | None, upper: float | None, words: "Callable[[float], str]", unknown: str = "-") -> str:
    """``10.0 s ≤ 25 s``: a predicted value and its upper bound, where it has one."""
    if value is None:
        return unknown
    return words(value) + (f" ≤ {words(upper)}" if upper is not None else "")


def bar(move: "MigrationRow") -> str:
    """Progress in cells: memory done of all, as far as pre-copy can tell."""
    if not move.total_bytes or move.remaining_bytes is None:
        return "?"
    done = min(1.0, max(0.0, 1.0 - move.remaining_bytes / move.total_bytes))
    full = round(done * BAR_CELLS)
    return f"{'█' * full}{'░' * (BAR_CELLS - full)} {done * 100:3.0f} %"


def _end(move: "MigrationRow", now: float) -> str:
    from rebalancerd.serve.wording import span

    if move.predicted_end_at is None:
        return "?"
    left = move.predicted_end_at - now
    words = f"in {span(left)}" if left >= 0 else f"{span(-left)} over"
    if move.late:
        words += ", past its bound"
    if move.estimated_end_at is not None:
        words += f" (at this pace in {span(max(0.0, move.estimated_end_at - now))})"
    elif move.remaining_bytes and move.rate_bytes_per_second and move.dirty_bytes_per_second:
        words += " (at this pace never)"
    return words


def rate(value: float | None) -> str:
    """Bytes per second in MiB/s."""
    return "?" if value is None else f"{value / 1024**2:.1f} MiB/s"


def ended_table(rows: "tuple[MigrationRow, ...]", now: float, *, ids: bool = False) -> "RenderableType":
    """Ended migrations, predicted against actual (yellow where it is above the bound).

    ``ids``: with the id that `explain move` takes.
    """
    from rebalancerd.serve.wording import size, span

    pairs = ("TOOK", "PREDICTED", "DOWNTIME", "PREDICTED", "SENT", "PREDICTED")
    columns = ("VM", "FROM → TO", "ENDED", "VERDICT", *pairs, "BY")

    def pair(
        actual: float | None, value: float | None, upper: float | None, shown: "Callable[[float], str]"
    ) -> tuple[object, ...]:
        above = actual is not None and upper is not None and actual > upper
        told = "-" if actual is None else shown(actual)
        return plain(told, "yellow" if above else None), _bounded(value, upper, shown)

    def words(row: "MigrationRow") -> tuple[object, ...]:
        good = row.state == "succeeded"
        verdict = row.state if good or not row.reason else f"{row.state}: {row.reason}"
        ended = f"{span(max(0.0, now - row.ended_at))} ago" if row.ended_at is not None else "not yet"
        return (
            row.vm_name,
            f"{row.source} → {row.destination}",
            ended,
            plain(verdict, "green" if good else "red" if row.ended_at is not None else "yellow"),
            *pair(row.actual_seconds, row.predicted_seconds, row.predicted_seconds_upper, span),
            *pair(
                row.actual_downtime_seconds,
                row.predicted_downtime_seconds,
                row.predicted_downtime_seconds_upper,
                span,
            ),
            *pair(row.actual_bytes, row.predicted_bytes, row.predicted_bytes_upper, size),
            row.predicted_by or "-",
            *((row.id,) if ids else ()),
        )

    return table((*columns, *(("ID",) if ids else ())), (words(row) for row in rows), numbers=(4, 5, 6, 7, 8, 9))
