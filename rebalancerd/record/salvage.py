"""What can still be read of a damaged SQLite ledger, in a new file. The damaged one is only copied, never opened.

Every table is read by row number from both ends; where a page cannot be read, the numbers between are tried by halves.
Rows that refer to nothing, or whose content is not what was written, are left out: the daemon must be able to trust all
that is in the new file.
"""

import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Table, insert
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.codec import (
    ADVICE,
    ADVICE_SCORES,
    CYCLES,
    EVENINGS,
    MIGRATIONS,
    NIGHTS,
    PLANS,
    Codec,
    CodecError,
)
from rebalancerd.record.database import MAGIC, make_file, telling
from rebalancerd.record.schema import meta, metadata

MOST_PROBES = 200_000  # reads between the first and the last damaged row of one table
COMPANIONS = ("-wal", "-shm", "-journal")
Row = dict[str, Any]
BODIES: dict[str, Codec[Any]] = {
    "cycles": CYCLES,
    "plans": PLANS,
    "migrations": MIGRATIONS,
    "migration_events": MIGRATIONS,
    "advice": ADVICE,
    "advice_scores": ADVICE_SCORES,
    "nights": NIGHTS,
    "night_evenings": EVENINGS,
}


@dataclass
class Salvaged:
    """Rows by table: ``saved``, and ``left_out`` because their content is not whole or what they refer to is not there.

    ``damaged``: tables of which parts could not be read, so that nobody knows how many rows are missing.
    """

    saved: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()


def salvage(damaged: Path, fresh: Path) -> Salvaged:
    """Write what ``damaged`` still holds to ``fresh``, which must not exist. Raises LedgerUnavailableError."""
    if fresh.exists():
        raise LedgerUnavailableError(f"{fresh} is there already; nothing was written")
    with telling(f"sqlite:///{damaged}"), tempfile.TemporaryDirectory(dir=fresh.parent, prefix=".salvage-") as place:
        copy = Path(place) / "ledger.sqlite"
        for tail in ("", *COMPANIONS):
            if Path(f"{damaged}{tail}").exists():
                shutil.copyfile(f"{damaged}{tail}", f"{copy}{tail}")
        with copy.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise LedgerUnavailableError(f"{damaged} is empty or no SQLite database: nothing in it can be saved")
        engine = make_file(fresh)
        try:
            with closing(_opened(copy)) as source, engine.execution_options(immediate=True).begin() as target:
                return _copied(source, target, damaged)
        except BaseException:
            for tail in ("", *COMPANIONS):
                Path(f"{fresh}{tail}").unlink(missing_ok=True)
            raise
        finally:
            engine.dispose()


def _opened(copy: Path) -> sqlite3.Connection:
    source = sqlite3.connect(copy)
    source.isolation_level = None
    source.row_factory = sqlite3.Row
    source.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
        source.execute(f"PRAGMA {pragma}")
    return source


def _copied(source: sqlite3.Connection, target: Connection, damaged: Path) -> Salvaged:
    found = Salvaged()
    try:
        there = {str(r[0]) for r in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise LedgerUnavailableError(f"{damaged}: not even its list of tables can be read ({error})") from None
    holes: list[str] = []
    for table in metadata.sorted_tables:
        if table.name in there:
            _copy_table(source, target, table, found, holes)
    found.damaged = tuple(holes)
    if not found.saved.get("meta"):
        target.execute(insert(meta), [{"key": "format", "value": "1"}, {"key": "created_at", "value": "0.0"}])
    return found


def _copy_table(
    source: sqlite3.Connection, target: Connection, table: Table, found: Salvaged, holes: list[str]
) -> None:
    columns = {str(row["name"]) for row in source.execute(f'PRAGMA table_info("{table.name}")')}
    reader = _TableReader(source, table.name, [column.name for column in table.columns if column.name in columns])
    saved = left_out = 0
    for row in reader.rows():
        if not _whole(table.name, row):
            left_out += 1
            continue
        try:  # parents come first, so a row that refers to nothing fails here
            with target.begin_nested():
                target.execute(insert(table).values(_typed(table, row)))
            saved += 1
        except (SQLAlchemyError, TypeError, ValueError):
            left_out += 1
    found.saved[table.name] = saved
    if left_out:
        found.left_out[table.name] = left_out
    if reader.broken:
        holes.append(table.name)


class _TableReader:
    """Reads one table of a damaged file: every row that can be read, each once. ``broken``: some part could not be."""

    def __init__(self, source: sqlite3.Connection, table: str, names: list[str]) -> None:
        self._source, self._table, self._names = source, table, names
        self._probes = MOST_PROBES
        self.broken = False

    def rows(self) -> Iterator[Row]:
        """The rows, in no order."""
        seen: set[int] = set()
        for order in ("ASC", "DESC"):
            try:
                for row in self._select(f"ORDER BY rowid {order}"):
                    if row["_row"] in seen:
                        break  # the two ends have met
                    seen.add(row["_row"])
                    yield self._plain(row)
            except sqlite3.DatabaseError:
                self.broken = True
            if not self.broken:
                return
        ordered = [0, *sorted(seen), max([self._last_given(), *seen]) + 1]
        for before, after in itertools.pairwise(ordered):
            yield from self._between(before + 1, after - 1)

    def _between(self, low: int, high: int) -> Iterator[Row]:
        """Rows of a range that may hold damage: halved until it can be read or is one row."""
        if low > high or self._probes <= 0:
            return
        self._probes -= 1
        try:
            rows = self._select("WHERE rowid BETWEEN ? AND ?", low, high).fetchall()
        except sqlite3.DatabaseError:
            if low < high:
                middle = (low + high) // 2
                yield from self._between(low, middle)
                yield from self._between(middle + 1, high)
            return
        yield from map(self._plain, rows)

    def _select(self, which: str, *values: int) -> sqlite3.Cursor:
        names = ", ".join(f'"{name}"' for name in self._names)  # of our own declaration, as is the table's
        query = f'SELECT rowid AS "_row", {names} FROM "{self._table}" NOT INDEXED {which}'  # noqa: S608
        return self._source.execute(query, values)

    def _plain(self, row: sqlite3.Row) -> Row:
        return {name: row[name] for name in self._names}

    def _last_given(self) -> int:
        """The highest row number that was ever given, where the table counts them."""
        try:
            found = self._source.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (self._table,)).fetchone()
        except sqlite3.DatabaseError:
            return 0
        return int(found[0]) if found is not None else 0


def _whole(table: str, row: Row) -> bool:
    """Whether the row's content is what was written."""
    codec = BODIES.get(table)
    if codec is None:
        return True
    try:
        value = codec.read(row["body"])
    except (CodecError, KeyError, TypeError):
        return False
    return table != "plans" or bool(value.digest == row["digest"])


def _typed(table: Table, row: Row) -> Row:
    """SQLite keeps truth as numbers."""
    return {
        name: bool(value) if value is not None and table.c[name].type.python_type is bool else value
        for name, value in row.items()
    }
