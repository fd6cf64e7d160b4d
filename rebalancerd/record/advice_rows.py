"""Advice in the ledger's tables: a row when it is given, a row when it is judged; nothing is ever changed."""

from dataclasses import replace

from sqlalchemy import Connection, Integer, cast, delete, func, insert, select

from rebalancerd.cluster.advice import Advice, AdviceRecord, AdviceScore, Verdict, WatchedHour
from rebalancerd.record.codec import ADVICE, ADVICE_SCORES, CodecError
from rebalancerd.record.rows import stored
from rebalancerd.record.schema import advice, advice_scores, watched_hours

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3600.0


def add(connection: Connection, given: Advice) -> int:
    """Write advice; returns its number."""
    values = {
        "proposed_at": given.proposed_at,
        "due_at": given.due_at,
        "vm_uuid": stored(given.move.vm_uuid),
        "source": stored(given.move.source),
        "destination": stored(given.move.destination),
        "body": stored(ADVICE.write_lossy(replace(given, id=0))),
    }
    return int(connection.execute(insert(advice).values(values).returning(advice.c.id)).scalar_one())


def score(connection: Connection, judged: AdviceScore) -> None:
    """Write how advice turned out; once, whatever is told later."""
    known = select(advice_scores.c.advice_id).where(advice_scores.c.advice_id == judged.advice_id)
    if connection.execute(known).first() is not None:
        return
    connection.execute(
        insert(advice_scores).values(
            advice_id=judged.advice_id,
            scored_at=judged.scored_at,
            verdict=judged.verdict.value,
            followed=judged.followed_at is not None,
            body=stored(ADVICE_SCORES.write_lossy(judged)),
        )
    )


def unscored(connection: Connection) -> tuple[tuple[int, Advice | None], ...]:
    """(number, advice) of all that is not judged yet, oldest first; None in place of one that cannot be read."""
    wanted = select(advice.c.id, advice.c.body).outerjoin(advice_scores).where(advice_scores.c.advice_id.is_(None))
    found = connection.execute(wanted.order_by(advice.c.id)).all()
    return tuple((row.id, _advice_of(row.id, row.body)) for row in found)


def newest(
    connection: Connection, *, since: float, vm_uuid: str | None, limit: int
) -> tuple[tuple[Advice, AdviceScore | None], ...]:
    """Advice given since then with its score, newest first; rows that cannot be read are left out."""
    wanted = (
        select(advice.c.id, advice.c.body, advice_scores.c.body.label("judged"))
        .outerjoin(advice_scores)
        .where(advice.c.proposed_at >= since)
    )
    if vm_uuid is not None:
        wanted = wanted.where(advice.c.vm_uuid == stored(vm_uuid))
    rows = connection.execute(wanted.order_by(advice.c.id.desc()).limit(max(0, limit))).all()
    told = ((_advice_of(row.id, row.body), _score_of(row.judged)) for row in rows)
    return tuple((given, judged) for given, judged in told if given is not None)


def sources(connection: Connection, since: float, until: float) -> tuple[tuple[str, float, float], ...]:
    """(source, proposed at, end of its window) of advice whose window reaches into that time, oldest first."""
    wanted = select(advice.c.source, advice.c.proposed_at, advice.c.due_at)
    wanted = wanted.where(advice.c.proposed_at <= until, advice.c.due_at >= since)
    rows = connection.execute(wanted.order_by(advice.c.proposed_at))
    return tuple((row.source, row.proposed_at, row.due_at) for row in rows)


def add_hour(connection: Connection, hour: WatchedHour) -> None:
    """Write what an hour was like; once."""
    if connection.execute(select(watched_hours.c.hour).where(watched_hours.c.hour == hour.hour)).first() is None:
        values = {name: getattr(hour, name) for name in WatchedHour.__dataclass_fields__}
        connection.execute(insert(watched_hours).values(values))


def last_hour(connection: Connection, until: int) -> int | None:
    """The newest hour on record that is not later than ``until``."""
    newest_one = select(func.max(watched_hours.c.hour)).where(watched_hours.c.hour <= until)
    found = connection.execute(newest_one).scalar()
    return None if found is None else int(found)


def added_up(connection: Connection, since: float) -> AdviceRecord:
    """What the advice proposed since then, and the hours since then, come to."""
    days_since_epoch = advice.c.proposed_at / DAY_SECONDS
    # SQLite's cast cuts off and PostgreSQL's rounds; not every SQLite has floor()
    day = func.floor(days_since_epoch) if connection.dialect.name == "postgresql" else cast(days_since_epoch, Integer)
    given = advice.c.proposed_at >= since
    scored = [verdict.value for verdict in Verdict if verdict.is_scored]
    verdicts = connection.execute(
        select(advice_scores.c.verdict, func.count(), func.sum(cast(advice_scores.c.followed, Integer)))
        .join(advice)
        .where(given)
        .group_by(advice_scores.c.verdict)
    ).all()
    days = connection.execute(
        select(func.count(day.distinct())).join(advice_scores).where(given, advice_scores.c.verdict.in_(scored))
    ).scalar_one()
    waiting = connection.execute(
        select(func.count()).select_from(advice).outerjoin(advice_scores).where(advice_scores.c.advice_id.is_(None))
    ).scalar_one()
    columns = watched_hours.c
    hours = connection.execute(
        select(
            func.coalesce(func.sum(columns.known), 0.0),
            func.coalesce(func.sum(columns.hot_seconds), 0.0),
            *(func.coalesce(func.sum(c), 0) for c in (columns.foreseen, columns.late, columns.unadvised)),
        ).where(columns.hour >= int(since // HOUR_SECONDS))
    ).one()
    known, hot_seconds, foreseen, late, unadvised = hours
    return AdviceRecord(
        verdicts={Verdict(verdict): int(count) for verdict, count, _ in verdicts},
        open=int(waiting),
        followed=sum(int(followed or 0) for _, _, followed in verdicts),
        advised_days=int(days),
        watched_days=float(known) / 24,
        hot_seconds=float(hot_seconds),
        foreseen=int(foreseen),
        late=int(late),
        unadvised=int(unadvised),
    )


def prune(connection: Connection, before: float) -> int:
    """Forget advice and hours from before that instant; how many rows went."""
    gone = connection.execute(delete(advice).where(advice.c.proposed_at < before)).rowcount
    gone += connection.execute(delete(watched_hours).where(watched_hours.c.hour < int(before // HOUR_SECONDS))).rowcount
    return int(gone)


def _advice_of(number: int, body: str) -> Advice | None:
    try:
        return replace(ADVICE.read(body), id=number)
    except CodecError:
        return None


def _score_of(body: str | None) -> AdviceScore | None:
    try:
        return None if body is None else ADVICE_SCORES.read(body)
    except CodecError:
        return None
