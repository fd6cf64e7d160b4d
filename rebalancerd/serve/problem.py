"""What the API answers when it does not do what was asked: a code, one sentence, and a way out."""

import difflib
import json
from collections.abc import Iterable

CONTENT_TYPE = "application/problem+json"


class ProblemError(Exception):
    """A refused request. ``code`` is stable and for programs; ``message`` and ``hint`` are for people."""

    def __init__(self, code: str, message: str, hint: str = "", *, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.status = code, message, hint, status

    def document(self) -> dict[str, object]:
        """The body of the answer."""
        return problem(self.code, self.message, self.hint)

    def __str__(self) -> str:
        """Message and hint in one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


def problem(code: str, message: str, hint: str = "") -> dict[str, object]:
    """A problem document."""
    return {"format": 1, "code": code, "message": message, "hint": hint}


def encoded(document: dict[str, object]) -> bytes:
    """A problem document as bytes; text that no UTF-8 can carry is escaped, never an error of its own."""
    return json.dumps(document, ensure_ascii=True).encode("ascii")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known words, or all of them where they are few and none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not names:
        return "none is known yet"
    return f"known: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}"
