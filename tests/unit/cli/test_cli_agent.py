"""``agent``: what is measured and served with which options. Nothing listens and no memory is read here."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import structlog
from prometheus_client.registry import Collector
from typer.testing import CliRunner

from rebalancerd.cli.app import app
from rebalancerd.cli.exits import USAGE
from rebalancerd.observe import agent as agents
from rebalancerd.observe.agent_dirty import DirtyMeter
from rebalancerd.observe.listening import TlsFiles


class Called:
    """In the place of the server; remembers what it was to serve and is stopped at once."""

    address = "a:1"

    def __init__(self) -> None:
        self.collectors: list[str] = []
        self.pages: list[str] = []
        self.started = 0

    def serve(
        self,
        listen: str,
        collectors: Sequence[Collector],
        pages: Mapping[str, Callable[[], bytes]] | None = None,
        tls: TlsFiles | None = None,
    ) -> "Called":
        assert tls is None
        self.collectors = [type(collector).__name__ for collector in collectors]
        self.pages = list(pages or {})
        return self

    def wait(self) -> None:
        raise KeyboardInterrupt

    def close(self) -> None:
        pass


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[Called]:
    made = Called()
    monkeypatch.setattr(agents, "serve_agent", made.serve)
    monkeypatch.setattr(DirtyMeter, "start", lambda _: setattr(made, "started", made.started + 1))
    yield made
    structlog.reset_defaults()  # the command sets the level of what is logged


def test_no_memory_is_read_unless_asked_for(called: Called) -> None:
    assert CliRunner().invoke(app, ["agent"]).exit_code == 0
    assert (called.collectors, called.pages, called.started) == (["SurroundingsCollector", "RaplCollector"], [], 0)


def test_with_dirty_guests_are_measured_and_served(called: Called) -> None:
    assert CliRunner().invoke(app, ["agent", "--dirty", "--dirty-every", "20"]).exit_code == 0
    assert (called.collectors, called.pages, called.started) == (
        ["SurroundingsCollector", "RaplCollector", "DirtyMeter"],
        ["/dirty"],
        1,
    )


@pytest.mark.parametrize("every", ["1", "nan", "9999999"])
def test_an_interval_that_cannot_be_is_refused(called: Called, every: str) -> None:
    result = CliRunner().invoke(app, ["agent", "--dirty", "--dirty-every", every])
    assert (result.exit_code, called.started) == (USAGE, 0)
