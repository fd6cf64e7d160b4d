"""What commands print: data on standard output, talk on standard error, names from outside escaped.

Nothing is ever read as markup. Colour is off where standard output is no terminal or NO_COLOR is set (rich does both).
"""

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rebalancerd.cluster.names import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDE = 240


class Output(StrEnum):
    """Form of the data."""

    TABLE = "table"
    JSON = "json"


def console(*, stderr: bool = False) -> "Console":
    """A console that obeys no markup; wide where it is no terminal, so that nothing is cut in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def say(line: str = "", style: str | None = None, *, escaped: bool = False) -> None:
    """A line of data for people. Escapes what is not printable; long lines wrap on the terminal only.

    ``escaped``: a line that should be safe already is printed as it is if it really is, so that no backslash doubles.
    """
    text = _styled(line, style) if escaped and line.isprintable() else plain(line, style)
    console().print(text, soft_wrap=not sys.stdout.isatty())


def talk(line: str) -> None:
    """A line on standard error."""
    sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()


def log_to_stderr() -> None:
    """For commands that call a room themselves: what it logs, if it is a warning, is talk."""
    from rebalancerd import log

    log.configure(level="warning")


def plain(text: str, style: str | None = None) -> "Text":
    """Escaped text in one style."""
    return _styled(printable(text), style)


def _styled(text: str, style: str | None) -> "Text":
    from rich.text import Text

    return Text(text, style=style or "")


def emit_json(document: Any) -> None:
    """A document as JSON in ASCII, so that no name in it can steer a terminal."""
    sys.stdout.write(json.dumps(document, ensure_ascii=True, indent=2, allow_nan=False) + "\n")


def emit_line(document: Any) -> None:
    """A document as one line of JSON, for streams."""
    sys.stdout.write(json.dumps(document, ensure_ascii=True, allow_nan=False) + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = ()) -> "Table":
    """A plain table; ``numbers``: indices of columns to set flush right. Cells are escaped text or rich Text."""
    from rich.table import Table
    from rich.text import Text

    right = set(numbers)
    built = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for index, name in enumerate(columns):
        built.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        built.add_row(*(cell if isinstance(cell, Text) else plain(str(cell)) for cell in row))
    return built


def show(renderable: object) -> None:
    """Print something of rich's, such as a table."""
    console().print(renderable)
