"""Connections to libvirt: the event loop, opening, errors, and a link to a host that heals itself.

Everything that needs a connection for observing gets a ``HostLink``: one connection for one host and purpose, calls with
a deadline, keepalive, reconnection with exponential back-off. ``open_read_write`` is for the probe and the writer only.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from rebalancerd.observe.deadline_worker import DeadlineError, DeadlineWorker, TooManyHungCallsError
from rebalancerd.observe.host_uri import HostUriError, check_uri, read_only_uri
from rebalancerd.observe.settings import HostSettings
from rebalancerd.ports import Clock, HostError, HostRefusedError, HostUnreachableError

if TYPE_CHECKING:
    import libvirt

log = structlog.get_logger(__name__)
T = TypeVar("T")
Connection = Any  # libvirt.virConnect, which has no types of its own
Opener = Callable[[HostSettings], Connection]

KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_COUNT = 5, 3
BACKOFF_FIRST_SECONDS, BACKOFF_MOST_SECONDS = 1.0, 30.0
OPEN_DEADLINE_SECONDS = 10.0
OBSERVING = frozenset({"sample", "ask"})  # purposes for which a read-only connection does
# numbers of libvirt's ABI (virterror.h)
ERR_INTERNAL, ERR_NO_SUPPORT, ERR_NO_CONNECT, ERR_INVALID_CONN = 1, 3, 5, 6
ERR_OPERATION_DENIED, ERR_SYSTEM, ERR_RPC, ERR_NO_DOMAIN, ERR_AUTH_FAILED = 29, 38, 39, 42, 45
ERR_AUTH_CANCELLED, ERR_AUTH_UNAVAILABLE, ERR_ACCESS_DENIED = 79, 94, 88
FROM_RPC, FROM_REMOTE = 7, 13
CONNECTION_GONE = frozenset({ERR_NO_CONNECT, ERR_INVALID_CONN, ERR_RPC})
RIGHTS = frozenset({ERR_OPERATION_DENIED, ERR_AUTH_FAILED, ERR_AUTH_CANCELLED, ERR_AUTH_UNAVAILABLE, ERR_ACCESS_DENIED})

_loop_lock = threading.Lock()
_loop: threading.Thread | None = None


def start_event_loop() -> None:
    """Register libvirt's event loop and run it on a daemon thread; calling again changes nothing.

    It must come before the first open: without a running loop neither events nor keepalive work. Also silences
    libvirt's habit of writing every error to stderr; errors arrive as exceptions.
    """
    global _loop  # noqa: PLW0603 - libvirt has one event loop per process
    with _loop_lock:
        if _loop is not None:
            return
        import libvirt

        libvirt.registerErrorHandler(_ignore_message, None)
        libvirt.virEventRegisterDefaultImpl()
        _loop = threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True)
        _loop.start()


def _ignore_message(_context: object, _error: object) -> None:
    """libvirt prints to stderr what nobody handles."""


def _run_event_loop() -> None:
    import libvirt

    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except Exception as error:  # noqa: BLE001 - the loop serves every connection and must go on
            log.warning("libvirt_event_loop_error", reason=str(error))
            time.sleep(0.5)


def open_read_only(host: HostSettings) -> Connection:
    """A read-only connection to the host. Raises libvirt.libvirtError, HostUriError."""
    check_uri(host.name, host.uri)
    start_event_loop()
    import libvirt

    return libvirt.openReadOnly(read_only_uri(host.uri, host.ro_socket))


def open_read_write(host: HostSettings) -> Connection:
    """A connection that may change things: for the probe and the writer, and nobody else.

    Raises libvirt.libvirtError, HostUriError.
    """
    check_uri(host.name, host.write_uri)
    start_event_loop()
    import libvirt

    return libvirt.open(host.write_uri)


def host_error(
    host: str, what: str, error: "libvirt.libvirtError", *, alive: bool = True, relayed: bool = False
) -> HostError:
    """Unreachable if the connection is gone (``alive`` False, or the error says so), else refused with libvirt's code.

    ``relayed``: the host may be telling of its own connection to another one, so that only ``alive`` counts.
    """
    code, domain = error.get_error_code() or 0, error.get_error_domain() or 0
    message = f"{what}: {(error.get_error_message() or str(error))[:400]}"
    if code in RIGHTS:
        return HostRefusedError(host, message, code)
    broken = code in CONNECTION_GONE or (domain in (FROM_RPC, FROM_REMOTE) and code in (ERR_INTERNAL, ERR_SYSTEM))
    if not alive or (broken and not relayed):
        return HostUnreachableError(host, message)
    return HostRefusedError(host, message, code)


class HostLink:
    """One connection to one host for one purpose. Thread-safe; calls are made one at a time.

    ``on_open`` is called with every new connection, to register callbacks on it. A call that passes its deadline leaves
    its thread and connection behind; the next one opens anew, not before a back-off that doubles with each failure.
    """

    def __init__(
        self,
        host: HostSettings,
        *,
        purpose: str,
        opener: Opener,
        clock: Clock,
        deadline_seconds: float,
        on_open: Callable[[Connection], None] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.host = host.name
        self._settings = host
        self._purpose = purpose
        self._opener = opener
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._on_open = on_open
        self._jitter = jitter
        self._lock = threading.Lock()
        self._worker = DeadlineWorker(f"{purpose}-{host.name}")
        self._connection: Connection | None = None
        self._attempt: object | None = None
        self._closed_by_libvirt: str | None = None
        self._failures = 0
        self._not_before = float("-inf")
        self._last_error = ""

    def call(self, what: str, work: Callable[[Connection], T], *, deadline_seconds: float | None = None) -> T:
        """``work(connection)`` on the host's thread. Raises HostUnreachableError or HostRefusedError, and what ``work``
        raises of its own."""
        seconds = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        if not self._lock.acquire(timeout=seconds):
            raise HostUnreachableError(self.host, f"{what}: an earlier call has not returned within {seconds:g} s")
        try:
            connection = self._connected()
            return self._run(what, connection, lambda: work(connection), seconds)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Let go of the connection and the thread."""
        with self._lock:
            self._drop()
            self._worker.leave_behind()

    def _run(self, what: str, connection: Connection | None, work: Callable[[], T], seconds: float) -> T:
        import libvirt

        try:
            last = None if connection is None else lambda: _close(connection)
            return self._worker.run(work, seconds, last)
        except (DeadlineError, TooManyHungCallsError) as error:
            self._fail(str(error))
            raise HostUnreachableError(self.host, f"{what}: {error}") from None
        except libvirt.libvirtError as error:
            alive = connection is not None and self._closed_by_libvirt is None and is_alive(connection)
            mapped = host_error(self.host, what, error, alive=alive)
            if isinstance(mapped, HostUnreachableError):
                self._fail(str(error))
            raise mapped from error

    def _connected(self) -> Connection:
        if self._connection is not None and self._closed_by_libvirt is not None:
            self._fail(f"libvirt closed the connection ({self._closed_by_libvirt})")
        if self._connection is not None:
            return self._connection
        wait = self._not_before - self._clock.monotonic()
        if wait > 0:
            raise HostUnreachableError(self.host, f"{self._last_error}; next attempt in {wait:.0f} s")
        self._closed_by_libvirt = None
        observing = self._purpose in OBSERVING
        what = f"cannot connect to {self._settings.uri if observing else self._settings.write_uri}"
        try:
            attempt = self._attempt = object()
            connection = self._run(
                what, None, lambda: self._open(attempt), max(OPEN_DEADLINE_SECONDS, self._deadline_seconds)
            )
        except HostUriError as error:
            raise HostRefusedError(self.host, str(error)) from error
        except HostRefusedError as error:
            self._fail(str(error).partition(": ")[2])
            raise
        self._connection, self._failures = connection, 0
        return connection

    def _open(self, attempt: object) -> Connection:
        import libvirt

        connection = self._opener(self._settings)
        if self._attempt is not attempt:  # too late: nobody waits for it any more
            _close(connection)
            raise DeadlineError("opened after its deadline")
        for prepare in (
            lambda: connection.setKeepAlive(KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_COUNT),
            lambda: connection.registerCloseCallback(self._on_close, None),
            lambda: self._on_open and self._on_open(connection),
        ):
            try:
                prepare()
            except libvirt.libvirtError as error:
                if error.get_error_code() != ERR_NO_SUPPORT and not is_alive(connection):
                    raise
                log.debug("libvirt_feature_absent", host=self.host, purpose=self._purpose, reason=str(error))
        return connection

    def _on_close(self, connection: Connection, reason: int, _opaque: object) -> None:
        """Called by the event loop: only remember it, the next call reconnects."""
        if connection is self._connection:
            self._closed_by_libvirt = {0: "error", 1: "end of file", 2: "keepalive", 3: "client"}.get(
                reason, f"reason {reason}"
            )

    def _fail(self, why: str) -> None:
        """Drop the connection and put off the next attempt: 1 s, doubling, with jitter, at most 30 s."""
        self._drop()
        self._attempt = None
        self._last_error = why
        delay = min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._not_before = self._clock.monotonic() + delay * (0.5 + 0.5 * self._jitter())

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._closed_by_libvirt = None
        if connection is not None:
            # closing asks the daemon, which may hang: the thread that used the connection does it last
            self._worker.leave_behind(last=lambda: _close(connection))


def is_alive(connection: Connection) -> bool:
    """Whether libvirt takes the connection for usable; asks nobody."""
    try:
        return bool(connection.isAlive())
    except Exception:  # noqa: BLE001 - whatever it is, it is not alive
        return False


def _close(connection: Connection) -> None:
    import contextlib

    with contextlib.suppress(Exception):
        connection.unregisterCloseCallback()
    with contextlib.suppress(Exception):
        connection.close()
