"""Whose turn it is: keeps the shared lease, and lets the acting room take over and stand down with it."""

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.lease import SharedLease

log = structlog.get_logger(__name__)


class Adopting(Protocol):
    """What is needed of the acting room."""

    def adopt(self) -> tuple[MigrationRecord, ...]:
        """Take over every open migration."""
        ...

    def stand_down(self) -> None:
        """Leave every migration to the leader."""
        ...


class TenureKeeper:
    """Looks at the lease a few times within its length, in a thread of its own: no host and no tick can delay it."""

    def __init__(
        self, lease: SharedLease, executor: Adopting | None, *, taken: Callable[[], None] = lambda: None
    ) -> None:
        """``taken`` is called after each takeover, once what runs was adopted."""
        self._lease, self._executor, self._taken = lease, executor, taken
        self._led: int | None = None  # epoch of the tenure that was begun
        self._told_error: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Keep the lease until ``stop`` is set."""
        while not stop.is_set():
            self.look()
            stop.wait(self._lease.look_seconds)

    def look(self) -> None:
        """One look, and what follows from it. Raises nothing."""
        try:
            leads = self._lease.look()
            self._told_error = None
        except LedgerUnavailableError as error:
            if self._told_error is None:
                log.error("lease_not_renewed", reason=str(error), held=self._lease.held())
            self._told_error = str(error)
            return
        except Exception:  # a bug must not end the thread: the lease would silently be lost for good
            log.exception("lease_not_renewed", bug=True)
            return
        if leads and self._led != self._lease.epoch:
            self._led = self._lease.epoch
            log.info("lease_taken", controller=self._lease.controller, epoch=self._led)
            # hosts that hang delay the adoption; the lease is to be renewed meanwhile
            threading.Thread(target=self._adopt, name="adopt", daemon=True).start()
        elif not leads and self._led is not None:
            leader = self._lease.tenure()
            log.warning("lease_lost", epoch=self._led, leader=leader.controller if leader is not None else None)
            self._led = None
            if self._executor is not None:
                self._executor.stand_down()

    def _adopt(self) -> None:
        try:
            adopted = self._executor.adopt() if self._executor is not None else ()
        except LedgerUnavailableError as error:  # the executor adopts before it starts anything
            log.error("adopting_put_off", reason=str(error))
            return
        if adopted:
            log.info("adopted", migrations=[record.id for record in adopted])
        self._taken()
