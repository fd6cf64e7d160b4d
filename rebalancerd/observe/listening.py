"""HTTP servers for figures: open to this machine alone, or with TLS to those who have a certificate of the cluster's CA.

A client that is slow, silent or no TLS client costs a thread for a few seconds, and nothing else.
"""

import ipaddress
import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog

log = structlog.get_logger(__name__)

CLIENT_SECONDS = 10.0  # for the handshake, and for each read and write after it
MOST_CLIENTS = 32
LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


class TlsError(ValueError):
    """Certificate files that cannot be used, or an address that would be open without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files, or names of systemd credentials: our certificate and its key, and the CA whose certificates the other side must show."""

    cert_file: str
    key_file: str
    ca_file: str

    def for_server(self) -> ssl.SSLContext:
        """A context that refuses every client without a certificate of the CA. Raises TlsError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._loaded(context)

    def for_client(self) -> ssl.SSLContext:
        """A context that shows our certificate and trusts servers of the CA only, under their own names. Raises TlsError."""
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        cert, key, ca = (_place(name) for name in (self.cert_file, self.key_file, self.ca_file))
        try:
            context.load_verify_locations(ca)
        except (OSError, ValueError) as error:
            raise TlsError(f"CA file {ca}: {_why(error)}") from None
        try:
            # an empty password: an encrypted key is an error, never a question on the terminal
            context.load_cert_chain(cert, key, password="")
        except (OSError, ValueError) as error:
            raise TlsError(f"certificate {cert} with key {key}: {_why(error)}") from None
        return context


def _place(name: str) -> Path:
    """An absolute path as it is; a bare name is one of systemd's credentials. Raises TlsError."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if name.startswith("/"):
        return Path(name)
    if "/" in name or name in (".", ".."):
        raise TlsError(f"{name!r} is neither an absolute path nor the name of a systemd credential")
    if directory is None:
        raise TlsError(f"{name!r} names a systemd credential, but the service has none: see LoadCredential=")
    return Path(directory) / name


def tls_files(cert_file: str | None, key_file: str | None, ca_file: str | None) -> TlsFiles | None:
    """The three together, None where none is given. Raises TlsError where some are missing."""
    if cert_file and key_file and ca_file:
        return TlsFiles(cert_file=cert_file, key_file=key_file, ca_file=ca_file)
    if cert_file or key_file or ca_file:
        raise TlsError("certificate, key and CA belong together: give all three")
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address. Names other than localhost's own are not looked up: no."""
    bare = host.strip("[]").partition("%")[0].rstrip(".").lower()
    if bare in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def check_open(host: str, *, tls: bool) -> None:
    """Raise TlsError for an address that others can reach, without TLS."""
    if not tls and not is_loopback(host):
        raise TlsError(f"{host or 'every address'} can be reached by others: that needs TLS with client certificates")


def serve_wsgi(
    app: Callable[..., Any], host: str, port: int, tls: TlsFiles | None = None
) -> tuple["FiguresServer", threading.Thread]:
    """Answer on ``host``:``port`` (0: any free one) from a thread. Raises TlsError, OSError."""
    check_open(host, tls=tls is not None)
    context = None if tls is None else tls.for_server()
    server = FiguresServer(host, port, context)
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, name="figures", daemon=True)
    thread.start()
    return server, thread


class FiguresServer(ThreadingMixIn, WSGIServer):
    """A WSGI server whose clients have their handshake in a thread of their own."""

    daemon_threads = True

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        import socket

        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        self._context = context
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__((str(address[0]), port), _QuietHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the client, or nothing where too many are served already."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the client's thread: handshake, then the request."""
        try:
            request.settimeout(CLIENT_SECONDS)
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError as error:  # ssl.SSLError and timeouts are OSErrors
            log.info("client_refused", client=str(client_address[0]), reason=_why(error))
            self.shutdown_request(request)
        finally:
            self._places.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Of a request that failed: one line, no traceback on standard error."""
        import sys

        log.info("client_failed", client=str(client_address[0]), reason=str(sys.exception())[:200])


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests, and looks no names of clients up."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        """The address itself."""
        return str(self.client_address[0])


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
