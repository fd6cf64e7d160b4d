"""Host power in the ledger's tables: one row for every step; the newest of a host is its state, none is ever changed."""

from sqlalchemy import Connection, func, insert, select

from rebalancerd.cluster.power import PowerRecord
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.codec import POWER, CodecError
from rebalancerd.record.rows import stored
from rebalancerd.record.schema import power_events


def add(connection: Connection, record: PowerRecord, at: float) -> None:
    """Append a host's new state."""
    connection.execute(
        insert(power_events).values(
            at=at,
            host=stored(record.host),
            phase=record.phase.value,
            reason=stored(record.reason),
            body=stored(POWER.write_lossy(record)),
        )
    )


def newest(connection: Connection) -> tuple[PowerRecord, ...]:
    """The newest state of every host, by name. Raises LedgerUnavailableError for one that cannot be read."""
    last = select(func.max(power_events.c.id)).group_by(power_events.c.host)
    wanted = select(power_events.c.body).where(power_events.c.id.in_(last)).order_by(power_events.c.host)
    return tuple(_record_of(body) for body in connection.execute(wanted).scalars())


def _record_of(body: str) -> PowerRecord:
    try:
        return POWER.read(body)
    except CodecError as error:
        # what is not known of a sleeping host must stop whoever would act on it
        raise LedgerUnavailableError(f"a power record of the ledger cannot be read: {error}") from error
