"""The daemon's API over its UNIX socket, as commands ask it."""

import http.client
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from rebalancerd.cli.exits import NOT_THERE, CliError
from rebalancerd.cli.output import talk

FORMAT = 1
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 120.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024
NOT_LEADER = frozenset({"LEASE_LOST", "NOT_LEADER"})


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(str(self._path))
            sock.settimeout(ANSWER_SECONDS)
        except OSError:
            sock.close()
            raise
        self.sock = sock


class Client:
    """Questions and commands to one daemon."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Ask. Raises CliError: exit code 75 where no daemon answers."""
        given = {k: str(v).lower() if isinstance(v, bool) else v for k, v in query.items() if v is not None}
        # a name that is no valid UTF-8 came to us with surrogates; it goes back the same way
        text = urlencode(given, encoding="utf-8", errors="surrogatepass")
        return self._request("GET", f"/v1/{path}{'?' + text if text else ''}", None)

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Command. Raises CliError."""
        return self._request("POST", f"/v1/{path}", json.dumps(body or {}, ensure_ascii=True).encode("ascii"))

    def is_there(self) -> bool:
        """Whether a daemon answers and we may ask it. Raises CliError where one refuses us."""
        try:
            self.get("ping")
        except CliError as error:
            if error.code == NOT_THERE:
                return False
            raise
        return True

    def _request(self, method: str, target: str, body: bytes | None) -> dict[str, Any]:
        connection = _UnixConnection(self.path)
        try:
            with suppress(BrokenPipeError):  # refused before all of it was read: the answer says why
                connection.request(
                    method, target, body, {"Content-Type": "application/json"} if body is not None else {}
                )
            answer = connection.getresponse()
            raw = answer.read(MAX_ANSWER_BYTES)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            hint = "start it with `systemctl start rebalancerd` or `rebalancerd run`, or name its socket with --socket"
            raise CliError(f"no daemon answers on {self.path}", hint, code=NOT_THERE) from error
        except PermissionError as error:
            raise CliError(f"not allowed to open {self.path}", "run it as root or as the daemon's user") from error
        except TimeoutError as error:
            raise CliError(
                f"the daemon on {self.path} does not answer in time", "see its log", code=NOT_THERE
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise CliError(
                f"{self.path}: {error or type(error).__name__}", "see the daemon's log", code=NOT_THERE
            ) from error
        finally:
            connection.close()
        return self._understood(answer.status, raw)

    def _understood(self, status: int, raw: bytes) -> dict[str, Any]:
        try:
            tree = json.loads(raw)
        except ValueError:
            tree = None
        if not isinstance(tree, dict):
            raise CliError(f"what answers on {self.path} is not rebalancerd", "name its socket with --socket")
        if status >= 400:
            code = NOT_THERE if tree.get("code") in NOT_LEADER else 1
            raise CliError(str(tree.get("message", f"HTTP {status}")), str(tree.get("hint", "")), code=code)
        version = tree.get("format")
        if isinstance(version, int) and version > FORMAT:
            talk(f"the daemon speaks format {version}, this program {FORMAT}: something may be missing below")
        return tree
