"""The ledger as JSON lines: one header, then a line a row, table by table, in the order in which it was written."""

import json
import math
from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Connection, Table, select

from rebalancerd.record.evolve import revision_of
from rebalancerd.record.schema import metadata

FORMAT = 1
# the instant by which each table's rows are chosen; tables without one follow the row they belong to
INSTANTS = {
    "cycles": "started_at",
    "plans": "created_at",
    "migrations": "intent_at",
    "migration_events": "at",
    "outcomes": "ended_at",
    "commands": "at",
    "approval_uses": "at",
    "advice": "proposed_at",
    "advice_scores": "scored_at",
    "nights": "began_at",
}
TABLES = tuple(table.name for table in metadata.sorted_tables)


def lines(connection: Connection, *, tables: Collection[str] = (), since: float = 0.0) -> Iterator[dict[str, Any]]:
    """Header and rows. ``tables``: only these; ``since``: only rows from then on, of tables whose rows have an instant."""
    chosen = [table for table in metadata.sorted_tables if not tables or table.name in tables]
    yield {
        "format": FORMAT,
        "kind": "rebalancerd ledger",
        "schema": revision_of(connection),
        "tables": [table.name for table in chosen],
    }
    for table in chosen:
        for row in connection.execution_options(yield_per=500).execute(_wanted(table, since)).mappings():
            yield {"table": table.name, "row": {name: _plain(name, value) for name, value in row.items()}}


def _wanted(table: Table, since: float) -> Any:
    query = select(table).order_by(*table.primary_key.columns)
    instant = INSTANTS.get(table.name)
    return query if instant is None or since <= 0 else query.where(table.c[instant] >= since)


def _plain(name: str, value: Any) -> Any:
    if name == "body":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return None if isinstance(value, float) and not math.isfinite(value) else value
