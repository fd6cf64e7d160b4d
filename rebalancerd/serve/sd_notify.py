"""systemd's notification protocol (sd_notify(3)): a datagram to $NOTIFY_SOCKET, nothing where there is none."""

import os
import socket
from collections.abc import Callable

Send = Callable[[bytes], None]

PATIENCE_SECONDS = 2.0


def sender(address: str | None = None) -> Send:
    """A function that sends to ``address`` (default: $NOTIFY_SOCKET); it drops the message where nobody listens.

    A manager that does not read its socket holds the daemon up for ``PATIENCE_SECONDS`` at most.
    """
    target = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
    if not target or target[0] not in "/@":
        return lambda _message: None
    path = "\0" + target[1:] if target[0] == "@" else target

    def send(message: bytes) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(PATIENCE_SECONDS)
                channel.connect(path)
                channel.sendall(message)
        except OSError:
            return  # the manager went away, or reads nothing: not a reason to stop

    return send


class Notifier:
    """READY, STATUS, WATCHDOG, RELOADING and STOPPING of one service."""

    def __init__(self, send: Send | None = None) -> None:
        self._send = send if send is not None else sender()

    def ready(self) -> None:
        """Start-up is done."""
        self._send(b"READY=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; control characters are dropped."""
        line = "".join(c for c in text if c.isprintable())
        self._send(b"STATUS=" + line.encode("utf-8", "replace")[:900])

    def cycle_finished(self) -> None:
        """Feed the watchdog. Called after finished cycles only."""
        self._send(b"WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is being read again."""
        self._send(b"RELOADING=1")

    def stopping(self) -> None:
        """Shutdown has begun."""
        self._send(b"STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for more start-up time, e.g. while running migrations are adopted."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}".encode())
