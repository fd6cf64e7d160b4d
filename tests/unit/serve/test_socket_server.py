"""The socket: who may connect, what happens to a stale file, and how it ends."""

import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from rebalancerd.serve.peer import Peer, peer_of
from rebalancerd.serve.socket_server import SocketInUseError, SocketServer, bind_socket

ASK = textwrap.dedent("""
    import os, socket, sys
    if len(sys.argv) > 2:
        os.setgroups([]); os.setresgid(*[int(sys.argv[2])] * 3); os.setresuid(*[int(sys.argv[2])] * 3)
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    s.sendall(b"GET /v1/ping HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    while data := s.recv(65536):
        sys.stdout.buffer.write(data)
""")


async def app(scope, receive, send) -> None:
    """Answers with the peer it was told of."""
    body = json.dumps({"uid": scope["peer"].uid, "name": scope["peer"].name}).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that other users may enter, with a path short enough for a socket."""
    for part in (tmp_path, *tmp_path.parents):
        if part.stat().st_uid == os.geteuid() and part != Path("/"):
            part.chmod(part.stat().st_mode | 0o055)
    return tmp_path


def ask(path: Path, uid: int | None = None) -> tuple[int, str]:
    command = [sys.executable, "-c", ASK, str(path)] + ([str(uid)] if uid is not None else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition("\n\n")
    return int(head.split()[1]), body


@pytest.fixture
def served(directory: Path):
    """Starts servers, and stops them."""
    running: list[SocketServer] = []

    def start(**options: object) -> SocketServer:
        server = SocketServer(app, directory / "api.sock", **options)  # type: ignore[arg-type]
        running.append(server)
        server.start()
        return server

    yield start
    for server in running:
        server.stop()


def test_an_allowed_peer_is_served_and_named(served) -> None:
    server = served()

    status, body = ask(server.path)

    assert status == 200
    assert json.loads(body)["uid"] == os.geteuid()


def test_a_peer_that_is_not_on_the_list_is_refused_before_the_application(served) -> None:
    server = served(allowed_uids={os.geteuid() + 1})

    status, body = ask(server.path)

    assert status == 403
    assert json.loads(body)["code"] == "FORBIDDEN"
    assert str(os.geteuid()) in json.loads(body)["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_where_the_file_lets_him_connect(served) -> None:
    server = served()
    server.path.chmod(0o666)

    status, body = ask(server.path, uid=65534)

    assert status == 403
    assert "65534" in json.loads(body)["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_on_the_list_is_served_under_his_own_id(served) -> None:
    server = served(allowed_uids={65534})
    server.path.chmod(0o666)

    status, body = ask(server.path, uid=65534)

    assert status == 200
    assert json.loads(body)["uid"] == 65534


def test_the_socket_is_for_owner_and_group_only(served) -> None:
    server = served()

    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660


def test_a_stale_file_is_replaced(directory: Path, served) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(directory / "api.sock"))
    left.close()

    server = served()

    assert ask(server.path)[0] == 200


def test_a_socket_on_which_somebody_answers_is_left_alone(served) -> None:
    server = served()

    with pytest.raises(SocketInUseError, match="another process answers"):
        bind_socket(server.path)
    assert ask(server.path)[0] == 200


def test_a_file_that_is_no_socket_is_left_alone(directory: Path) -> None:
    (directory / "api.sock").write_text("precious")

    with pytest.raises(SocketInUseError, match="not a socket"):
        bind_socket(directory / "api.sock")
    assert (directory / "api.sock").read_text() == "precious"


def test_a_path_that_is_too_long_is_named(directory: Path) -> None:
    with pytest.raises(OSError, match="too long for a socket"):
        bind_socket(directory / ("x" * 120))


def test_stop_ends_the_thread_and_removes_the_file_even_with_an_idle_connection(served) -> None:
    before = set(threading.enumerate())  # other tests' servers may be up
    server = served()
    idle = socket.socket(socket.AF_UNIX)
    idle.connect(str(server.path))

    server.stop()
    server.stop()

    idle.close()
    assert not server.path.exists()
    assert not [t for t in threading.enumerate() if t.name == "api" and t not in before]


def test_stop_leaves_a_successors_socket_alone(served) -> None:
    server = served()
    server.path.unlink()
    successor = bind_socket(server.path)

    server.stop()

    assert server.path.exists()
    successor.close()


def test_garbage_is_answered_with_an_error_and_the_next_one_is_served(served) -> None:
    server = served()
    with socket.socket(socket.AF_UNIX) as bad:
        bad.settimeout(10)
        bad.connect(str(server.path))
        bad.sendall(b"\x00\xffnonsense\r\n\r\n")
        assert b"400" in bad.recv(4096)

    assert ask(server.path)[0] == 200


def test_a_peer_of_something_that_is_no_unix_socket_is_nobody() -> None:
    with socket.socket(socket.AF_INET) as other:
        assert peer_of(other).uid == -1
    assert peer_of(None).uid == -1


def test_a_user_without_a_name_is_named_by_number() -> None:
    assert Peer(1, 4_000_000_000, 0).name == "uid 4000000000"
