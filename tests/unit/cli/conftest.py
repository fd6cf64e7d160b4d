"""A daemon's API to run commands against."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from rebalancerd.cli.app import app
from rebalancerd.serve.api import create_app
from rebalancerd.serve.socket_server import SocketServer
from tests.unit.serve.serve_world import Current, World

Run = Callable[..., SimpleNamespace]


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Current, Path]]:
    current = Current()
    server = SocketServer(create_app(current), tmp_path_factory.mktemp("api") / "s")
    server.start()
    yield current, server.path
    server.stop()


@pytest.fixture
def world(_server: tuple[Current, Path]) -> World:
    """What the daemon is made of; its clock stands still."""
    made = World()
    _server[0].control = made.control
    return made


@pytest.fixture
def run(world: World, _server: tuple[Current, Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process against the daemon."""
    monkeypatch.setenv("REBALANCERD_SOCKET", str(_server[1]))
    monkeypatch.delenv("REBALANCERD_OUTPUT", raising=False)

    def command(*arguments: str, **environment: Any) -> SimpleNamespace:
        done = CliRunner().invoke(app, list(arguments), env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)

    return command
