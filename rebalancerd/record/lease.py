"""The lease of several controllers: one row of the shared ledger, on the database's clock, numbered by tenure.

Who leads renews it; who stands by takes it once it has expired. Every write about a migration checks, in its own
transaction and with the row locked, that the tenure is still this one: a controller that slept through the loss of its
lease writes nothing more. The database's clock may step: forwards a standby takes over early, and the fence holds;
backwards a standby goes by its own monotonic clock, which has seen no renewal for a whole lease.
"""

import secrets
import threading
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Engine, Float, RowMapping, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_nothing

from rebalancerd.ports import Clock, LedgerUnavailableError
from rebalancerd.record.database import telling
from rebalancerd.record.schema import lease, migrations

ROW = 1
RENEWALS = 5  # looks at the row within one lease: three may fail before the lease does
DB_NOW: ColumnElement[float] = literal_column("extract(epoch FROM clock_timestamp())::double precision", Float)


class Fence(Protocol):
    """What a write about a migration is checked against."""

    def check(self, connection: Connection, epoch: int | None) -> None:
        """Raises LedgerUnavailableError unless this controller leads. ``epoch``: of an intent, which only its own
        tenure may write, and only before the lease expires."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """Who leads, as last read. ``ours``: this process. ``expires_in_seconds``: by the database's clock, at that look."""

    controller: str
    epoch: int
    ours: bool
    taken_at: float
    expires_in_seconds: float


class SharedLease:
    """ports.Lease on a row of PostgreSQL. ``look`` renews or takes it; ``held`` is a matter of this process's clock."""

    def __init__(self, engine: Engine, url: str, clock: Clock, *, controller: str, seconds: float) -> None:
        """``seconds``: how long a tenure lasts without renewal; the same for every controller of a cluster."""
        self.controller, self.seconds = controller, seconds
        self.instance = f"{controller[:40]}-{secrets.token_hex(8)}"
        self._engine, self._url, self._clock = engine, url, clock
        self._lock = threading.Lock()
        self._epoch = 0
        self._held_until = float("-inf")
        self._tenure: Tenure | None = None
        self._seen: tuple[int, int] = (-1, -1)  # epoch and beat of the row
        self._seen_since = float("inf")
        self._released = False

    @property
    def look_seconds(self) -> float:
        """Time between two looks."""
        return self.seconds / RENEWALS

    @property
    def epoch(self) -> int:
        """Number of this controller's last tenure; 0 before its first."""
        return self._epoch

    def held(self) -> bool:
        """Whether the last renewal was asked for less than one lease ago, on the monotonic clock."""
        return self._clock.monotonic() < self._held_until

    @property
    def standby(self) -> bool:
        """Whether somebody else leads, or nobody does yet."""
        return not self.held()

    def tenure(self) -> Tenure | None:
        """Who led at the last look that succeeded; None before the first."""
        return self._tenure

    def look(self) -> bool:
        """Renew the lease, or take it if it is free; whether this controller holds it. Raises LedgerUnavailableError."""
        with self._lock, telling(self._url):
            if self._released:
                return False
            asked_at = self._clock.monotonic()
            with self._engine.begin() as connection:
                row = self._renewed(connection) or self._taken(connection, asked_at)
            return self._learn(row, asked_at)

    def _renewed(self, connection: Connection) -> RowMapping | None:
        """The row after its renewal; None if it is not ours."""
        if self._epoch == 0:
            return None
        renewal = (
            update(lease)
            .where(lease.c.id == ROW, lease.c.instance == self.instance, lease.c.epoch == self._epoch)
            .values(expires_at=DB_NOW + self.seconds, beat=lease.c.beat + 1)
            .returning(lease, DB_NOW.label("now"))
        )
        return connection.execute(renewal).mappings().first()

    def _taken(self, connection: Connection, asked_at: float) -> RowMapping:
        """The row as it is, or as it became because it was free."""
        row = self._row(connection)
        if row is None:
            last = connection.execute(select(func.coalesce(func.max(migrations.c.epoch), 0))).scalar_one()
            free = {"controller": "", "instance": "", "seconds": 0.0, "expires_at": 0.0, "taken_at": 0.0}
            values = {"id": ROW, "epoch": int(last), "beat": 0, **free}
            connection.execute(insert_or_nothing(lease).values(values).on_conflict_do_nothing())
            row = self._row(connection)
        if row is None:
            raise LedgerUnavailableError(f"the lease's row vanished from {self._url}")
        silent = self._silent_seconds(row, asked_at)
        free = row["expires_at"] <= row["now"] or silent >= max(self.seconds, row["seconds"])
        if not free:
            return row
        taking = (
            update(lease)
            .where(lease.c.id == ROW, lease.c.epoch == row["epoch"], lease.c.beat == row["beat"])
            .values(
                **self._values(),
                epoch=lease.c.epoch + 1,
                beat=0,
                taken_at=DB_NOW,
                expires_at=DB_NOW + self.seconds,
            )
            .returning(lease, DB_NOW.label("now"))
        )
        return connection.execute(taking).mappings().first() or self._row(connection) or row

    def _values(self) -> dict[str, object]:
        return {"controller": self.controller, "instance": self.instance, "seconds": self.seconds}

    @staticmethod
    def _row(connection: Connection) -> RowMapping | None:
        return connection.execute(select(lease, DB_NOW.label("now")).where(lease.c.id == ROW)).mappings().first()

    def _silent_seconds(self, row: RowMapping, now: float) -> float:
        """How long the row has been what it is, on our clock: no step of the database's clock can lengthen a lease."""
        seen = (int(row["epoch"]), int(row["beat"]))
        if seen != self._seen:
            self._seen, self._seen_since = seen, now
        return now - self._seen_since

    def _learn(self, row: RowMapping, asked_at: float) -> bool:
        ours = bool(row["instance"] == self.instance)
        self._tenure = Tenure(
            controller=str(row["controller"]),
            epoch=int(row["epoch"]),
            ours=ours,
            taken_at=float(row["taken_at"]),
            expires_in_seconds=float(row["expires_at"] - row["now"]),
        )
        if ours:
            # the number first: who sees the lease held must see the tenure it is held in
            self._epoch = int(row["epoch"])
            self._held_until = asked_at + self.seconds
        else:
            self._held_until = float("-inf")
            self._silent_seconds(row, asked_at)
        return ours

    def check(self, connection: Connection, epoch: int | None) -> None:
        """Fence: see ``Fence``. The row stays locked until the transaction ends, so that nobody takes over within it."""
        row = (
            connection.execute(select(lease, DB_NOW.label("now")).where(lease.c.id == ROW).with_for_update(read=True))
            .mappings()
            .first()
        )
        if row is None or row["instance"] != self.instance or row["epoch"] != self._epoch:
            self._held_until = float("-inf")
            who = "nobody" if row is None else f"{row['controller']} (epoch {row['epoch']})"
            raise LedgerUnavailableError(f"{self.controller} (epoch {self._epoch}) does not lead any more: {who} does")
        if epoch is None:
            return
        if epoch != row["epoch"]:
            raise LedgerUnavailableError(f"the intent is of epoch {epoch}, the lease of epoch {row['epoch']}")
        if row["expires_at"] <= row["now"]:
            late = row["now"] - row["expires_at"]
            raise LedgerUnavailableError(f"the lease expired {late:.1f} s ago and is not renewed yet")

    def release(self) -> None:
        """Give it up at once, if it is ours, so that a standby need not wait. Never raises; looks do nothing afterwards."""
        with self._lock:
            self._released = True
            self._held_until = float("-inf")
            if self._epoch == 0:
                return
            giving = (
                update(lease)
                .where(lease.c.id == ROW, lease.c.instance == self.instance, lease.c.epoch == self._epoch)
                .values(expires_at=0.0)
            )
            try:
                with telling(self._url), self._engine.begin() as connection:
                    connection.execute(giving)
            except LedgerUnavailableError:
                return
