"""What the log says, and that no name in it is obeyed."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from rebalancerd.cluster.decision import Outcome
from rebalancerd.log import configure, log_cycle
from tests.unit.record.record_values import make_cycle

EVIL = "vm\x1b[2J\nlevel=critical \u202e"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_one_line_of_json_per_cycle() -> None:
    out = io.StringIO()
    configure(stream=out)

    log_cycle(make_cycle(id=7, reason=EVIL))

    (line,) = out.getvalue().splitlines()
    told = json.loads(line)
    assert line.isascii()
    assert told["event"] == "cycle"
    assert told["cycle"] == 7
    assert told["reason"] == EVIL
    assert told["outcome"] == "refused"
    assert told["hot"] == ["h1"]
    assert told["steps"] == {"refused": 1}
    assert told["refusals"] == {"hold": 1, "paused": 1, "pinned": 1}
    assert told["timestamp"].endswith("Z")
    assert told["level"] == "info"


def test_pretty_on_a_terminal_escapes_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    configure(stream=out)

    log_cycle(make_cycle(reason=EVIL))
    structlog.get_logger("x").warning(EVIL, names=[EVIL], deep={"a": {EVIL: (EVIL,)}})

    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_a_failed_cycle_is_an_error() -> None:
    out = io.StringIO()
    configure(stream=out)

    log_cycle(make_cycle(outcome=Outcome.FAILED))

    assert json.loads(out.getvalue())["level"] == "error"


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_libraries_and_warnings_speak_the_same_way(form: str) -> None:
    out = io.StringIO()
    configure(form=form, stream=out)

    logging.getLogger("apscheduler.executors").info("told every tick")
    logging.getLogger("uvicorn.error").warning("late %s", EVIL)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd", stacklevel=1)

    text = out.getvalue()
    assert "told every tick" not in text
    assert "uvicorn.error" in text
    assert "odd" in text
    assert "\x1b" not in text
    if form == "json":
        assert all(json.loads(line)["timestamp"] for line in text.splitlines())


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_exceptions_are_told_with_names_escaped(form: str) -> None:
    out = io.StringIO()
    configure(form=form, stream=out)

    try:
        raise ValueError(EVIL.replace("\n", " "))
    except ValueError:
        structlog.get_logger("x").exception("failed")

    assert "ValueError" in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_level_is_obeyed_and_setting_up_twice_does_not_double() -> None:
    out = io.StringIO()
    configure(stream=io.StringIO())
    configure("warning", stream=out)

    log_cycle(make_cycle())
    structlog.get_logger("x").warning("once")

    assert len(out.getvalue().splitlines()) == 1
