"""What is wrong with a configuration file: every problem with its key, its line where it can be found, and a way out."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rebalancerd.cluster.names import printable

Key = tuple[str | int, ...]
_SECRET = re.compile(r"passw(or)?d|passphrase|secret|token|credential|api_?key|private_?key", re.IGNORECASE)
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_ASSIGNMENT = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.\-]+)\s*=""")
_TEXT = 240
# a password in a URL, and one that is handed to a program as an argument
_IN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]*?:(?P<text>[^/?#\s]+)@")
_IN_QUERY = re.compile(
    r"[?&;][^=&;\s]*(?:passw(?:or)?d|passphrase|secret|token)[^=&;\s]*=(?P<text>[^&;\s]+)", re.IGNORECASE
)
# an option that is called like a secret, unless it says where the secret is
_OPTION = r"^-{1,2}(?![\w-]*[_-]?(?:file|path|fd|stdin)\b)[\w-]*(?:passw(?:or)?d|passphrase|secret|token)[\w-]*"
_IN_ARGUMENT = re.compile(rf"{_OPTION}[=:](?P<text>.+)$", re.IGNORECASE | re.DOTALL)
_ARGUMENT = re.compile(rf"{_OPTION}$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong. ``key`` as the file nests it; ``line`` from 1, None if it could not be found."""

    key: Key
    reason: str
    line: int | None = None
    hint: str = ""

    def text(self) -> str:
        """``line 12: plan.quantile: reason (hint)``, everything from the file escaped."""
        where = f"line {self.line}: " if self.line is not None else ""
        name = f"{printable(dotted(self.key), _TEXT)}: " if self.key else ""
        return f"{where}{name}{printable(self.reason, 4 * _TEXT)}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(Exception):
    """A configuration that cannot be used. ``problems`` holds all that was found; the message lists them."""

    def __init__(self, path: Path | str, problems: Iterable[Problem]) -> None:
        self.path = Path(path)
        self.problems = tuple(problems)
        shown = printable(str(path))
        super().__init__("\n".join(f"{shown}: {problem.text()}" for problem in self.problems))


def dotted(key: Key) -> str:
    """``hosts[0].uri``; entries of a list count from 0."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The nearest known words as a hint, "" where nothing is near."""
    near = difflib.get_close_matches(given, sorted(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(map(printable, near))}?" if near else ""


def of_validation(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The problems that validation found, in the file's own terms."""
    found = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        key = tuple(part for part in item["loc"] if not (isinstance(part, str) and part.startswith("function-")))
        reason, hint = item["msg"].removeprefix("Value error, "), ""
        if item["type"] == "extra_forbidden":
            names = file_keys(model, key[:-1])
            reason, hint = "unknown key", did_you_mean(str(key[-1]), names)
        elif item["type"] == "missing":
            reason = "is required"
        elif item["type"] == "too_short":
            reason = "at least one is needed"
        found.append(Problem(key=key, reason=reason, hint=hint))
    # a list whose entries are all wrong is also counted as empty: that says nothing more
    wrong = {p.key[:n] for p in found for n in range(len(p.key))}
    return [p for p in found if p.reason != "at least one is needed" or p.key not in wrong]


def file_keys(model: type[BaseModel], section: Key) -> frozenset[str]:
    """The keys that a section of the file may have."""
    here: type[BaseModel] | None = model
    for part in section:
        if isinstance(part, int) or here is None:
            continue
        field = next((f for n, f in here.model_fields.items() if part in (n, file_key(n))), None)
        here = _model_in(field.annotation) if field is not None else None
    return frozenset(file_key(name) for name in here.model_fields) if here is not None else frozenset()


def file_key(name: str) -> str:
    """Name of a setting in the file: units are written with the value, so that they leave the name."""
    for suffix in ("_bytes_per_second", "_seconds", "_bytes"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in getattr(annotation, "__args__", ()) if (m := _model_in(a)) is not None), None)


def inline_secrets(tree: Any, key: Key = ()) -> list[Problem]:
    """What looks like a secret written into the file, which everybody who may read it would see: keys, passwords in URLs,
    arguments of commands."""
    found: list[Problem] = []
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            if _SECRET.search(name) and not name.endswith("_file"):
                reason = "secrets are not written into the configuration, only the path of a file that holds them"
                found.append(Problem(key=(*key, name), reason=reason, hint="only keys ending in _file are accepted"))
            else:
                found += inline_secrets(value, (*key, name))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            found += inline_secrets(value, (*key, index))
            if isinstance(value, str) and _ARGUMENT.match(value) and index + 1 < len(tree):
                found.append(Problem(key=(*key, index + 1), reason=_ON_A_COMMAND_LINE))
    elif isinstance(tree, str):
        if _IN_URL.search(tree) or _IN_QUERY.search(tree):
            found.append(Problem(key=key, reason="a URL in the configuration holds no password"))
        elif _IN_ARGUMENT.match(tree):
            found.append(Problem(key=key, reason=_ON_A_COMMAND_LINE))
    return found


_ON_A_COMMAND_LINE = "a secret among a command's arguments: every user of the machine could read it there"


def without_secrets(problems: Iterable[Problem], tree: Any) -> list[Problem]:
    """The problems, and of those that would show a secret of the file only the place."""
    texts = secret_texts(tree)
    return [
        replace(p, reason="is wrong; it is not shown, because it holds a secret")
        if any(text in p.reason or text in p.hint for text in texts)
        else p
        for p in problems
    ]


def secret_texts(tree: Any, *, secret: bool = False) -> set[str]:
    """The secrets that ``inline_secrets`` finds, as far as a message could show them."""
    if isinstance(tree, Mapping):
        inner = (
            secret_texts(v, secret=secret or (_SECRET.search(k) is not None and not k.endswith("_file")))
            for k, v in tree.items()
        )
        return set().union(*inner)
    if isinstance(tree, list):
        follows = [False, *(isinstance(v, str) and _ARGUMENT.match(v) is not None for v in tree)]
        return set().union(*(secret_texts(v, secret=secret or f) for v, f in zip(tree, follows, strict=False)))
    if not isinstance(tree, str) or not tree:
        return set()
    matches = (*_IN_URL.finditer(tree), *_IN_QUERY.finditer(tree), *_IN_ARGUMENT.finditer(tree))
    return {m["text"] for m in matches} | ({tree} if secret else set())


def with_lines(problems: Iterable[Problem], text: str) -> list[Problem]:
    """The problems with their lines, in the order of the file."""
    lines = line_numbers(text)

    def line_of(key: Key) -> int | None:
        while key:
            if key in lines:
                return lines[key]
            key = key[:-1]
        return None

    placed = [replace(p, line=p.line if p.line is not None else line_of(p.key)) for p in problems]
    return sorted(placed, key=lambda p: (p.line is None, p.line or 0))


def line_numbers(text: str) -> dict[Key, int]:
    """Lines of headers and assignments by key; what stands in multi-line values or inline tables is not found singly."""
    found: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    section: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            section = _section(_parts(header[2]), counts, listed=header[1] == "[[")
            found.setdefault(section, number)
        elif (assignment := _ASSIGNMENT.match(line)) is not None:
            found.setdefault((*section, *_parts(assignment[1])), number)
    return found


def _section(names: list[str], counts: dict[Key, int], *, listed: bool) -> Key:
    """The key of a header, entries of lists numbered as they come."""
    key: Key = ()
    for index, name in enumerate(names):
        key = (*key, name)
        if listed and index == len(names) - 1:
            counts[key] = counts.get(key, -1) + 1
        if key in counts:
            key = (*key, counts[key])
    return key


def _parts(text: str) -> list[str]:
    if text[:1] in "\"'":
        return [text[1:-1]]
    return [part.strip().strip("\"'") for part in text.split(".")]
