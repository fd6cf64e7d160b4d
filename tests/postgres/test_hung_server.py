"""A server that hangs on a UNIX socket, where the kernel gives nothing up: the ledger does."""

import signal
import time

import pytest

from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record import postgres
from rebalancerd.record.sql_ledger import SqlLedger
from tests.postgres_server import Postgres, why_not
from tests.unit.record.record_values import FixedClock


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_call_to_a_server_that_hangs_has_an_end_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "ANSWER_SECONDS", 2.0)
    server = Postgres()
    try:
        ledger = SqlLedger(server.create("hung"), FixedClock())
        assert ledger.migrations() == ()
        server.freeze(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(LedgerUnavailableError, match=r"did not answer within 2 s|timeout"):
            ledger.migrations()
        assert time.monotonic() - begun < 60
        server.freeze(signal.SIGCONT)
        assert ledger.migrations() == ()
        ledger.close()
    finally:
        server.close()
