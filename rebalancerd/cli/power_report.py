"""``rebalancerd power report``: what nights saved and cost, from the daemon or, where none answers, from its ledger."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebalancerd.cli.client import Client
from rebalancerd.cli.exits import NOT_THERE, CliError
from rebalancerd.cli.options import DEFAULT_CONFIG, ConfigOption, OutputOption, SocketOption, socket_path
from rebalancerd.cli.output import Output, emit_json, say, talk

if TYPE_CHECKING:
    from rebalancerd.serve.schemas import NightRow, NightsAnswer

WIDTH = 12


def report(
    *,
    nights: Annotated[int, typer.Option("--nights", "-n", min=1, max=1000, help="How many at most.")] = 7,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """What the last nights of consolidation saved and cost, the one under way included. Asks the ledger where no daemon answers."""
    client = Client(socket_path(socket, config))
    if client.is_there():
        from rebalancerd.serve.schemas import NightsAnswer

        answer = NightsAnswer.model_validate(client.get("power/nights", limit=nights))
    else:
        answer = _from_ledger(client.path, config, nights)
    if output is Output.JSON:
        emit_json(answer.model_dump(mode="json"))
        return
    if not answer.nights:
        say("no night is on record: none begins outside of a window whose policy is consolidate")
        return
    from rebalancerd.serve.wording import kwh

    for row in answer.nights:
        _print(row)
        say()
    shown = [row for row in answer.nights if row.ended_at is not None]
    if shown and answer.nights_over > 1:
        told = f"{kwh(answer.saved_kwh)} kWh saved in {answer.nights_over} nights that are over"
        if len(shown) < answer.nights_over:
            told += f", {kwh(sum(row.saved_kwh for row in shown))} kWh in the {len(shown)} shown"
        say(told, "bold")


def one_line(row: "NightRow") -> str:
    """A night in a line."""
    from rebalancerd.serve.wording import kwh

    state = "under way since" if row.ended_at is None else "over, began"
    return (
        f"{row.window}, {state} {_clock(row.began_at)}: {kwh(row.saved_kwh)} kWh saved, {_moves(row)}, {_asleep(row)}"
    )


def _from_ledger(socket: Path, config: Path, limit: int) -> "NightsAnswer":
    from rebalancerd.cli.config import load
    from rebalancerd.ledgers import ledger_access
    from rebalancerd.ports import LedgerUnavailableError
    from rebalancerd.record import night_rows
    from rebalancerd.record.reader import LedgerReader
    from rebalancerd.serve.night_rows import nights_answer

    cfg = load(config)
    talk(f"no daemon answers on {socket}: told from its ledger")
    try:
        with LedgerReader(cfg.ledger_url, ledger_access(cfg)) as ledger, ledger.reading() as connection:
            found, total = night_rows.newest(connection, limit), night_rows.total(connection)
    except LedgerUnavailableError as error:
        raise CliError(str(error), f"see state_dir and ledger in {config}", code=NOT_THERE) from error
    return nights_answer(time.time(), found, total)


def _print(row: "NightRow") -> None:
    from rebalancerd.serve.wording import kwh, span

    if row.ended_at is not None:
        until = f"to {_clock(row.ended_at)}"
    elif row.noted_at < row.ends_at:
        until = f"under way, its window ends {_clock(row.ends_at)}"
    else:
        until = f"its window ended {_clock(row.ends_at)}, not unfolded yet"
    say(f"{row.window}: {_clock(row.began_at)} {until}", "bold")
    paid = f" − {kwh(row.moves_kwh)} for {_moves(row)}" if row.moves else ""
    sums = f"{kwh(row.unfolded_kwh)} unfolded − {kwh(row.actual_kwh)} as it was{paid}"
    _line("saved", f"{kwh(row.saved_kwh)} kWh = {sums}")
    if not row.moves:
        _line("moves", "none" if row.mode in ("guarded", "auto") else f"none: mode {row.mode} moves nothing")
    _line("asleep", _asleep(row))
    _line("hot", f"{row.hot_seconds / 60:.0f} host-minutes, {row.caused_seconds / 60:.0f} of them caused by folding")
    if row.missed_seconds >= 1:
        _line("missed", f"{span(row.missed_seconds)} without a reading, for which nothing is claimed")


def _line(what: str, text: str) -> None:
    say(f"  {what:<{WIDTH - 4}}{text}")


def _moves(row: "NightRow") -> str:
    from rebalancerd.serve.wording import counted

    return counted(row.moves, "move")


def _asleep(row: "NightRow") -> str:
    from rebalancerd.serve.wording import span

    slept = [f"{host} {span(seconds)}" for host, seconds in row.asleep_seconds if seconds > 0]
    return ", ".join(slept) if slept else "no host slept"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
