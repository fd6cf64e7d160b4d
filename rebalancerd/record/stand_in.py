"""A ledger in memory in the place of one whose file was refused: enough to observe, never enough to act."""

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
    """The ledger; or, where its file is there and refused (damaged, of a newer version), a stand-in and the reason.

    ``access``: how to log in to PostgreSQL, for which there is no stand-in. The file stays as it is. Raises LedgerUnavailableError if there is no such file and none can be made.
    """
    try:
        return SqlLedger(url, clock, access=access), None
    except LedgerUnavailableError as error:
        path = file_of(make_url(url))
        if path is None or not path.is_file():
            raise
        return StandInLedger(str(error), clock), str(error)
