"""A ledger in memory in the place of one that was refused or is away: enough to observe, never enough to act."""

from sqlalchemy.engine import make_url

from rebalancerd.cluster.decision import Command
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.ports import Clock, LedgerUnavailableError
from rebalancerd.record.database import file_of
from rebalancerd.record.postgres import Access
from rebalancerd.record.sql_ledger import SqlLedger


class StandInLedger(SqlLedger):
    """Keeps this run's cycles in memory. Whatever must outlive the process is refused with the fault of the real one."""

    def __init__(self, fault: str, clock: Clock) -> None:
        super().__init__("sqlite://", clock)
        self._fault = fault

    def open_intent(self, _record: MigrationRecord) -> None:
        """Refused: an intent must be durable. Raises LedgerUnavailableError."""
        raise LedgerUnavailableError(self._fault)

    def add_command(self, *_: object, **__: object) -> Command:
        """Refused: a command must survive a restart. Raises LedgerUnavailableError."""
        raise LedgerUnavailableError(self._fault)


def open_or_stand_in(url: str, clock: Clock, access: Access | None = None) -> tuple[SqlLedger, str | None]:
    """The ledger; or a stand-in and the reason, where its file is there and refused (damaged, of a newer version) or its
    database cannot be used now.

    ``access``: how to log in to PostgreSQL. The file stays as it is. Raises LedgerUnavailableError if there is no such file and none can be made.
    """
    try:
        return SqlLedger(url, clock, access=access), None
    except LedgerUnavailableError as error:
        path = file_of(make_url(url))
        if path is not None and not path.is_file():
            raise
        return StandInLedger(str(error), clock), str(error)


def comes_back(url: str) -> bool:
    """Whether a ledger that cannot be used may come back by itself: a database, not a file that must be mended."""
    return file_of(make_url(url)) is None


def answers(url: str, clock: Clock, access: Access | None = None) -> bool:
    """Whether the ledger can be opened now."""
    try:
        SqlLedger(url, clock, access=access).close()
    except LedgerUnavailableError:
        return False
    return True
