"""Whether what the ledger holds is whole: the file's own structure, references, and rows that can be read."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Table, and_, func, select

from rebalancerd.record.codec import CYCLES, MIGRATIONS, NIGHTS, PLANS, Codec, CodecError
from rebalancerd.record.schema import cycles, metadata, migrations, nights, plans

MOST = 20


def wrong_with(connection: Connection) -> tuple[str, ...]:
    """What is wrong with the database, at most about twenty lines; empty if it is sound."""
    if connection.dialect.name == "sqlite":
        found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({MOST})")]
        damage = [line for line in found if line != "ok"]
        if damage:
            return tuple(damage)
    return (*strays(connection), *unreadable(connection))


def counted(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Rows of each of these tables."""
    tables = metadata.tables
    return {
        name: int(connection.execute(select(func.count()).select_from(tables[name])).scalar_one()) for name in names
    }


def strays(connection: Connection) -> tuple[str, ...]:
    """Tables with rows that refer to nothing."""
    told = []
    for table in metadata.sorted_tables:
        for key in table.foreign_keys:
            parent = key.column.table.alias()
            lost = select(func.count()).select_from(table.outerjoin(parent, parent.c[key.column.name] == key.parent))
            lost = lost.where(and_(parent.c[key.column.name].is_(None), key.parent.is_not(None)))
            count = connection.execute(lost).scalar_one()
            if count:
                told.append(f"{count} rows of {table.name} refer to {key.column.table.name} that are not there")
    return tuple(told[:MOST])


def unreadable(connection: Connection) -> tuple[str, ...]:
    """Plans, migrations, cycles and nights whose content is not what was written."""
    told: list[str] = []
    for row in connection.execute(select(plans.c.id, plans.c.body, plans.c.digest)):
        try:
            if PLANS.read(row.body).digest != row.digest:
                told.append(f"plan {row.id} was changed: its digest is not {row.digest}")
        except CodecError as error:
            told.append(f"plan {row.id} cannot be read: {error}")
    codecs: tuple[tuple[Table, str, Codec[Any]], ...] = (
        (migrations, "migration", MIGRATIONS),
        (cycles, "cycle", CYCLES),
        (nights, "night", NIGHTS),
    )
    for table, name, codec in codecs:
        for key, body in connection.execute(select(table.c.id, table.c.body)):
            try:
                codec.read(body)
            except CodecError as error:
                told.append(f"{name} {key} cannot be read: {error}")
    return tuple(told[:MOST])
