"""``rebalancerd ledger``: check, repair, export and migrate the ledger; no daemon is needed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebalancerd.cli.exits import ERROR, NOT_THERE, CliError
from rebalancerd.cli.options import DEFAULT_CONFIG, ConfigOption, OutputOption
from rebalancerd.cli.output import Output, emit_json, emit_line, say, show, table

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from rebalancerd.config import Config

app = typer.Typer(help="The ledger: check, repair, export and migrate it.", no_args_is_help=True)


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, output: OutputOption = Output.TABLE) -> None:
    """Read all of the ledger and say what is wrong with it. Exit code 1 if anything is. Changes nothing."""
    from rebalancerd.record.evolve import revision_of
    from rebalancerd.record.export import TABLES
    from rebalancerd.record.soundness import counted, wrong_with

    cfg = _load(config)
    with _reading(cfg) as connection:
        wrong = wrong_with(connection)
        revision = revision_of(connection)
        rows = counted(connection, TABLES) if not wrong else {}
    if output is Output.JSON:
        document = {"format": 1, "ledger": _place(cfg), "schema": revision, "sound": not wrong}
        emit_json(document | {"wrong": list(wrong), "rows": rows})
    else:
        say(f"ledger {_place(cfg)}, schema {revision}")
        for line in wrong:
            say(f"  {line}", "red")
        filled = [(name, count) for name, count in rows.items() if count]
        if filled:
            show(table(("TABLE", "ROWS"), filled, numbers=(1,)))
        say("sound" if not wrong else "damaged: `rebalancerd ledger repair` saves what can be read", "bold")
    if wrong:
        raise typer.Exit(ERROR)


@app.command()
def repair(
    config: ConfigOption = DEFAULT_CONFIG,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Where to write what is saved.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the ledger's place; the damaged one is kept beside it.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Save what can be read of a damaged SQLite ledger to a new file. The daemon must be stopped; nothing is deleted."""
    from rebalancerd.ports import LedgerUnavailableError
    from rebalancerd.record.salvage import salvage

    cfg = _load(config)
    damaged = _file(cfg)
    fresh = to if to is not None else damaged.with_name(f"{damaged.name}.salvaged")
    with _alone(cfg):
        try:
            found = salvage(damaged, fresh)
        except LedgerUnavailableError as error:
            raise CliError(str(error), "the ledger is as it was") from error
        kept = _swap(damaged, fresh) if replace else None
    if output is Output.JSON:
        document = {
            "format": 1,
            "saved": found.saved,
            "left_out": found.left_out,
            "damaged_tables": list(found.damaged),
        }
        emit_json(document | {"file": str(damaged if kept else fresh), "kept": str(kept or damaged)})
        return
    say(f"{sum(found.saved.values())} rows saved, {sum(found.left_out.values())} left out")
    for name, count in found.left_out.items():
        say(f"  {name}: {count} rows not whole or without what they refer to", "yellow")
    for name in found.damaged:
        say(f"  {name}: parts of the file could not be read; how many rows they held is not known", "red")
    if kept is not None:
        say(f"{damaged} is the repaired ledger; the damaged one is kept as {kept}")
    else:
        say(f"written to {fresh}; {damaged} is as it was. `--replace` puts the repaired one in its place")


@app.command()
def export(
    config: ConfigOption = DEFAULT_CONFIG,
    tables: Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")] = None,
    days: Annotated[float | None, typer.Option("--days", min=0.0, help="Only the last so many days.")] = None,
) -> None:
    """Print the ledger as JSON lines: a header, then a line a row. The daemon may run meanwhile."""
    from rebalancerd.record.export import TABLES, lines

    unknown = sorted(set(tables or ()) - set(TABLES))
    if unknown:
        raise CliError(f"no table {', '.join(unknown)}", f"there are {', '.join(TABLES)}")
    since = time.time() - days * 86_400.0 if days is not None else 0.0
    with _reading(_load(config)) as connection:
        for line in lines(connection, tables=tables or (), since=since):
            emit_line(line)


@app.command()
def migrate(
    revision: Annotated[
        str, typer.Argument(metavar="SCHEMA", help="Such as 0002; see `ledger check` for the present one.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Bring the ledger to another schema, such as that of an older version to go back to. Every controller must be stopped.

    An older schema loses the tables it does not know, so copy or export the ledger first. The daemon itself only goes up.
    """
    from rebalancerd.ledgers import ledger_access
    from rebalancerd.ports import LedgerUnavailableError
    from rebalancerd.record.database import open_engine, telling
    from rebalancerd.record.evolve import known_revisions, migrate, revision_of

    cfg = _load(config)
    if revision not in known_revisions():
        raise CliError(f"no schema {revision!r}", f"there are {', '.join(sorted(known_revisions()))}")
    with _alone(cfg):
        try:
            engine = open_engine(cfg.ledger_url, ledger_access(cfg))
            try:
                with telling(cfg.ledger_url):
                    _nobody_leads(engine)
                    migrate(engine, revision)
                    with engine.connect() as connection:
                        now = revision_of(connection)
            finally:
                engine.dispose()
        except LedgerUnavailableError as error:
            raise CliError(str(error), "the ledger is as it was") from error
    say(f"ledger {_place(cfg)} has schema {now}")


def _nobody_leads(engine: "Engine") -> None:
    from sqlalchemy import select

    from rebalancerd.record.lease import DB_NOW
    from rebalancerd.record.schema import lease

    if engine.dialect.name != "postgresql":
        return
    with engine.connect() as connection:
        leader = connection.execute(select(lease.c.controller).where(lease.c.expires_at > DB_NOW)).scalar()
    if leader is not None:
        raise CliError(f"controller {leader} leads", "stop every controller first", code=NOT_THERE)


def _load(path: Path) -> "Config":
    from rebalancerd.cli.config import load

    return load(path)


def _place(cfg: "Config") -> str:
    from sqlalchemy.engine import make_url

    from rebalancerd.record.database import file_of
    from rebalancerd.record.postgres import shown

    url = make_url(cfg.ledger_url)
    return str(file_of(url) or shown(url))


def _file(cfg: "Config") -> Path:
    from sqlalchemy.engine import make_url

    from rebalancerd.record.database import file_of

    path = file_of(make_url(cfg.ledger_url))
    if path is None:
        hint = "restore it by PostgreSQL's own means: pg_amcheck finds damage, a backup mends it"
        raise CliError("only a ledger on a SQLite file is repaired here", hint)
    if not path.exists():
        raise CliError(f"there is no ledger {path}", "see ledger.url and state_dir in the configuration")
    return path


@contextmanager
def _reading(cfg: "Config") -> "Iterator[Connection]":
    from rebalancerd.ledgers import ledger_access
    from rebalancerd.ports import LedgerUnavailableError
    from rebalancerd.record.reader import LedgerReader

    try:
        with LedgerReader(cfg.ledger_url, ledger_access(cfg)) as reader, reader.reading() as connection:
            yield connection
    except LedgerUnavailableError as error:
        raise CliError(str(error)) from error


@contextmanager
def _alone(cfg: "Config") -> Iterator[None]:
    """With the state directory's lock, so that no daemon writes meanwhile."""
    from rebalancerd.record.file_lease import FileLease, LeaseTakenError

    try:
        lock = FileLease(Path(cfg.state_dir) / "lock")
    except LeaseTakenError as error:
        raise CliError(str(error), "stop the daemon first: systemctl stop rebalancerd", code=NOT_THERE) from error
    except OSError as error:
        raise CliError(f"cannot lock {cfg.state_dir}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _swap(damaged: Path, fresh: Path) -> Path:
    """Put the fresh file in the place of the damaged one, which is kept with its companions; returns where."""
    kept = damaged.with_name(f"{damaged.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    try:
        for tail in ("-wal", "-shm", "-journal", ""):
            if Path(f"{damaged}{tail}").exists():
                Path(f"{damaged}{tail}").rename(f"{kept}{tail}")
        fresh.rename(damaged)
    except OSError as error:
        raise CliError(f"cannot put {fresh} in the place of {damaged}: {error.strerror or error}") from error
    return kept
