"""The daemon and its advice: noted after each cycle, judged by a tick of its own, told by status; it stops nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from rebalancerd.daemon import Daemon
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.serve.control import Control, Surroundings
from tests.unit.test_daemon import World, make_daemon, world  # noqa: F401 - fixtures


def status(daemon: Daemon) -> Any:
    about = Surroundings(hosts=("h1", "h2"), controller="c", started_at=0.0, advice=daemon.shadow.state)
    return Control(loop=daemon.loop, ledger=daemon.ledger, clock=daemon.clock, about=about).status()


def ticks(daemon: Daemon) -> dict[str, Callable[[], None]]:
    return {job.id: job.func for job in daemon._schedule().get_jobs()}


def test_each_cycle_is_noted_and_a_tick_judges(make_daemon: Callable[..., Daemon]) -> None:  # noqa: F811
    daemon = make_daemon("recommend")
    daemon.observer.sample()
    daemon.decide()

    assert daemon.shadow.note in daemon.on_cycle
    assert status(daemon).advice is None
    ticks(daemon)["shadow"]()
    told = status(daemon).advice
    assert told is not None
    assert (told.scored, [r.ready for r in told.ready]) == (0, [False, False])


@pytest.mark.parametrize("mode", ["observe", "auto"])
def test_modes_that_give_no_such_advice_say_nothing_of_it(make_daemon: Callable[..., Daemon], mode: str) -> None:  # noqa: F811
    daemon = make_daemon(mode)
    daemon.observer.sample()
    daemon.decide()
    ticks(daemon)["shadow"]()

    assert status(daemon).advice is None


def test_a_ledger_that_is_away_costs_the_tick_and_no_cycle(
    make_daemon: Callable[..., Daemon],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = make_daemon("recommend")
    daemon.observer.sample()

    def away(*_: object, **__: object) -> None:
        raise LedgerUnavailableError("disk full")

    monkeypatch.setattr(daemon.ledger, "advice_record", away)
    with capture_logs() as logs:
        daemon.decide()
        ticks(daemon)["shadow"]()

    assert [(e["tick"], e["reason"]) for e in logs if e["event"] == "tick_failed"] == [("shadow", "disk full")]
    assert status(daemon).advice.error == "disk full"


def test_a_bug_in_it_costs_no_cycle(make_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    daemon = make_daemon("recommend")
    daemon.observer.sample()

    def bug(_: object) -> None:
        raise ZeroDivisionError

    daemon.on_cycle[daemon.on_cycle.index(daemon.shadow.note)] = bug
    with capture_logs() as logs:
        daemon.decide()
        daemon.decide()

    assert len(list(daemon.ledger.cycles())) == 2
    assert [e["event"] for e in logs if e.get("bug")] == ["listener_failed"] * 2
