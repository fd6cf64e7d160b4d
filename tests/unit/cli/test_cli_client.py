"""The client of the daemon's socket, against servers that behave oddly."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebalancerd.cli.client import Client
from rebalancerd.cli.exits import NOT_THERE, CliError

Answer = Callable[[socket.socket], None]


@pytest.fixture
def answered(tmp_path: Path) -> Iterator[Callable[[Answer], Path]]:
    """A socket on which one connection is answered by a function and closed."""
    listening, threads = socket.socket(socket.AF_UNIX), []
    listening.bind(str(tmp_path / "s"))
    listening.listen(1)

    def serve(answer: Answer) -> Path:
        def once() -> None:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

        threads.append(threading.Thread(target=once))
        threads[-1].start()
        return tmp_path / "s"

    yield serve
    for thread in threads:
        thread.join(10)
    listening.close()


def refuse(connection: socket.socket) -> None:
    """403 at once; what is asked is never read."""
    body = json.dumps({"code": "FORBIDDEN", "message": "user id 7 may not command this daemon"}).encode()
    connection.sendall(
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    )


def test_who_is_refused_before_all_was_read_is_told_why(answered: Callable[[Answer], Path]) -> None:
    """More than the socket holds is still to be sent when the other end closes."""
    client = Client(answered(refuse))

    with pytest.raises(CliError, match="user id 7 may not command") as refused:
        client.post("pause", {"reason": "x" * 4_000_000})
    assert refused.value.code == 1


def test_who_is_cut_off_without_a_word_is_told_that(answered: Callable[[Answer], Path]) -> None:
    client = Client(answered(lambda _connection: None))

    with pytest.raises(CliError) as cut:
        client.post("pause", {"reason": "x" * 4_000_000})
    assert cut.value.code == NOT_THERE
