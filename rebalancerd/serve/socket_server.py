"""The API on a UNIX socket: who connects is checked before a byte of the request is looked at by the application."""

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rebalancerd.serve.peer import Peer, peer_of
from rebalancerd.serve.problem import CONTENT_TYPE, encoded, problem

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

log = structlog.get_logger(__name__)

SOCKET_MODE = 0o660
BACKLOG = 64
START_PATIENCE_SECONDS = 10.0
STOP_PATIENCE_SECONDS = 5.0
PROBE_SECONDS = 1.0


class SocketInUseError(Exception):
    """Somebody answers on the socket, or something that is not a socket stands in its place."""


def default_allowed_uids() -> frozenset[int]:
    """Root and the daemon's own user."""
    return frozenset({0, os.geteuid()})


def bind_socket(path: Path) -> socket.socket:
    """A listening socket at ``path``, mode 0660. A stale file is removed only if nobody answers on it.

    Raises SocketInUseError, OSError.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _remove_stale(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.bind(str(path))
        # until listen() every connection is refused, so nobody slips in before the mode is right
        path.chmod(SOCKET_MODE)
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        if len(os.fsencode(path)) > 107:
            raise OSError(f"{path}: too long for a socket, 107 bytes at most") from error
        raise
    return server


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketInUseError(f"{path} exists and is not a socket; move it away or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise SocketInUseError(f"{path}: cannot tell whether another daemon listens there ({error})") from error
    raise SocketInUseError(f"another process answers on {path}; stop it first")


class SocketServer:
    """Serves an application on a UNIX socket from a thread of its own. Takes no signals."""

    def __init__(self, app: Callable[..., Any], path: Path, allowed_uids: Collection[int] | None = None) -> None:
        self.path = path
        self.allowed_uids = default_allowed_uids() if allowed_uids is None else frozenset(allowed_uids)
        self._socket: socket.socket | None = None
        self._inode: int | None = None
        settings = uvicorn.Config(
            app,
            loop="asyncio",
            http=_protocol(self.allowed_uids),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(STOP_PATIENCE_SECONDS),
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def start(self) -> None:
        """Bind, and serve until ``stop``. Raises SocketInUseError, OSError, RuntimeError if it does not come up."""
        self._socket = bind_socket(self.path)
        self._inode = self.path.lstat().st_ino
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(START_PATIENCE_SECONDS / 0.02)):
            if self._server.started:
                return
            if not self._thread.is_alive():
                break
            waited.wait(0.02)
        self.stop()
        raise RuntimeError(f"the API on {self.path} did not come up")

    def stop(self) -> None:
        """Finish what is being answered, close, and remove the socket's file. Safe to call twice."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_PATIENCE_SECONDS + 2.0)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._unlink_ours()

    def _unlink_ours(self) -> None:
        """Remove the file unless it is a successor's by now."""
        try:
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()
        except OSError:
            return

    def _run(self) -> None:
        assert self._socket is not None
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except Exception:
            log.exception("api_failed", socket=str(self.path))


def _protocol(allowed_uids: frozenset[int]) -> type[H11Protocol]:
    """HTTP over h11 in which every connection's application knows its peer, or refuses it."""

    class PeerProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            peer = peer_of(transport.get_extra_info("socket"))
            if peer.uid in allowed_uids:
                self.app = _with_peer(self.app, peer)
            else:
                log.warning("api_peer_refused", uid=peer.uid, pid=peer.pid)
                self.app = _refuse(peer)
            super().connection_made(transport)

    return PeerProtocol


def _with_peer(app: "ASGI3Application", peer: Peer) -> "ASGI3Application":
    async def served(scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
        known: dict[str, Any] = {**scope, "peer": peer}
        await app(known, receive, send)  # type: ignore[arg-type]

    return served


def _refuse(peer: Peer) -> "ASGI3Application":
    who = f"user id {peer.uid}" if peer.uid >= 0 else "a user the kernel does not name"
    hint = "run the command as root or as the daemon's user, or add the user id to serve.allowed_uids"
    body = encoded(problem("FORBIDDEN", f"{who} may not command this daemon", hint))

    async def refused(scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:  # noqa: ARG001
        headers = [
            (b"content-type", CONTENT_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 403, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return refused
