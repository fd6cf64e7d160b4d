"""Names from outside in every output: escaped, told apart, and read back as they were."""

import io
import json
import logging
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from rebalancerd import log
from rebalancerd.cli.output import plain, table
from rebalancerd.cluster.names import printable
from rebalancerd.serve.metrics import Metrics
from rebalancerd.sim import replay_picture

ANY = st.text(max_size=40)  # surrogates too: names that are no UTF-8
VALID = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
HOSTILE = "\x1b]0;owned\x07\x1b[2J<script>&\"'[bold]\n\r\u202e\u200b\x00\x9b31m\\n"


def assert_safe(shown: str) -> None:
    """Nothing in it steers a terminal, hides or turns around; line breaks are the writer's own."""
    assert all(c.isprintable() for c in shown.replace("\n", "")), ascii(shown)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown.replace("\n", ""))


@given(ANY, ANY)
@example("a\n", "a\\n")
@example("\x1b", "\\x1b")
def test_two_names_never_look_the_same(one: str, other: str) -> None:
    assert_safe(printable(one))
    assert "\n" not in printable(one)
    assert (printable(one) == printable(other)) == (one == other)


@given(ANY, st.integers(0, 50))
def test_a_shortened_name_is_safe_and_short(name: str, limit: int) -> None:
    assert_safe(printable(name, limit))
    assert len(printable(name, limit)) <= max(1, limit)


@settings(deadline=None)
@given(st.lists(ANY, min_size=1, max_size=3), ANY)
@example([HOSTILE], HOSTILE)
def test_tables_and_lines_of_the_commands(names: list[str], title: str) -> None:
    """What rich makes of it, on a terminal with colours: no sequence but rich's own, no markup obeyed."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=False, markup=False, highlight=False, emoji=False, width=200)
    console.print(table(("name",) * len(names), [names]))
    console.print(plain(title))
    assert_safe(stream.getvalue())


@contextmanager
def logged(form: str) -> Iterator[io.StringIO]:
    """The daemon's logging into a text, and what was set up before afterwards."""
    root, former, stream = logging.getLogger(), structlog.get_config(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    log.configure(form=form, stream=stream)  # type: ignore[arg-type]
    try:
        yield stream
    finally:
        structlog.configure(**former)
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)


@settings(deadline=None)
@given(ANY)
@example(HOSTILE)
def test_the_log_in_both_forms(name: str) -> None:
    for form in ("json", "pretty"):
        with logged(form) as stream:
            structlog.get_logger("x").warning("event", vm=name, nested={name: [name]}, error=ValueError(name))
        text = stream.getvalue()
        assert_safe(text)
        assert text.count("\n") == 1, "one event, one line"
        if form == "json":
            assert text.isascii()
            assert json.loads(text)["vm"] == name


@settings(deadline=None, max_examples=60)
@given(st.lists(VALID, min_size=1, max_size=3, unique=True))
@example([HOSTILE])
def test_labels_of_the_metrics(names: list[str]) -> None:
    """Each host's label reads back as it was, and makes no line of its own."""
    metrics = Metrics()
    for number, name in enumerate(names):
        metrics._vms.labels(host=name).set(number)
    page = generate_latest(metrics.registry).decode()

    families = {f.name: f for f in text_string_to_metric_families(page)}
    assert {s.labels["host"]: s.value for s in families["rebalancerd_host_vms"].samples} == {
        name: number for number, name in enumerate(names)
    }
    assert [line for line in page.split("\n") if line and not line.startswith(("# ", "rebalancerd_"))] == []


@given(ANY)
@example(HOSTILE)
def test_text_of_pictures(name: str) -> None:
    """The pictures are SVG: a name in one is text and attribute, never an element."""
    shown = replay_picture._text(name)

    element = ET.fromstring(f"<a b='{shown}' c=\"{shown}\">{shown}</a>")
    assert (element.text or "", element.get("b"), element.get("c"), len(element)) == (*[printable(name)] * 3, 0)
