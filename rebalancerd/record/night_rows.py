"""Nights in the ledger's tables: a row a night that grows until the night is over, its evening in a row of its own."""

from dataclasses import replace

from sqlalchemy import Connection, delete, func, insert, select, update

from rebalancerd.cluster.night import Evening, Night, NightsTotal
from rebalancerd.record.codec import EVENINGS, NIGHTS, CodecError
from rebalancerd.record.rows import stored
from rebalancerd.record.schema import migrations, night_evenings, nights, outcomes


def write(connection: Connection, night: Night) -> int:
    """Write a night, its evening with it the first time; returns its number."""
    values = {
        "window_name": stored(night.window),
        "began_at": night.began_at,
        "ends_at": night.ends_at,
        "ended_at": night.ended_at,
        "saved_kwh": night.saved_kwh,
        "body": stored(NIGHTS.write_lossy(replace(night, id=0, evening=Evening()))),
    }
    if night.id and connection.execute(update(nights).where(nights.c.id == night.id).values(**values)).rowcount:
        return night.id
    number = int(connection.execute(insert(nights).values(**values).returning(nights.c.id)).scalar_one())
    body = stored(EVENINGS.write_lossy(night.evening))
    connection.execute(insert(night_evenings).values(night_id=number, body=body))
    return number


def under_way(connection: Connection) -> Night | None:
    """The newest night that is not over, with its evening; None also for one that cannot be read any more."""
    wanted = select(nights.c.id, nights.c.body, night_evenings.c.body.label("evening")).outerjoin(night_evenings)
    row = connection.execute(wanted.where(nights.c.ended_at.is_(None)).order_by(nights.c.id.desc()).limit(1)).first()
    if row is None or (night := _night_of(row.id, row.body)) is None:
        return None
    try:
        return replace(night, evening=Evening() if row.evening is None else EVENINGS.read(row.evening))
    except CodecError:
        return night  # without its evening every VM counts where it is: less is claimed


def newest(connection: Connection, limit: int) -> tuple[Night, ...]:
    """The last nights without their evenings, newest first; rows that cannot be read are left out."""
    found = connection.execute(select(nights.c.id, nights.c.body).order_by(nights.c.id.desc()).limit(max(0, limit)))
    return tuple(night for row in found if (night := _night_of(row.id, row.body)) is not None)


def total(connection: Connection) -> NightsTotal:
    """What the nights that are over add up to."""
    wanted = select(func.count(), func.coalesce(func.sum(nights.c.saved_kwh), 0.0)).where(
        nights.c.ended_at.is_not(None)
    )
    count, saved = connection.execute(wanted).one()
    return NightsTotal(nights=int(count), saved_kwh=float(saved))


def moves(connection: Connection, since: float, until: float) -> tuple[int, float]:
    """How many migrations of ours ended in that time, and the seconds they took together."""
    wanted = select(func.count(), func.coalesce(func.sum(outcomes.c.seconds), 0.0)).join(migrations)
    within = (outcomes.c.ended_at >= since, outcomes.c.ended_at <= until, outcomes.c.seconds >= 0, migrations.c.ours)
    count, seconds = connection.execute(wanted.where(*within)).one()
    return int(count), float(seconds)


def prune(connection: Connection, before: float) -> int:
    """Forget the evenings of nights that were over by then; the nights stay. How many rows went."""
    over = select(nights.c.id).where(nights.c.ended_at < before)
    return int(connection.execute(delete(night_evenings).where(night_evenings.c.night_id.in_(over))).rowcount)


def _night_of(number: int, body: str) -> Night | None:
    try:
        return replace(NIGHTS.read(body), id=number)
    except CodecError:
        return None
