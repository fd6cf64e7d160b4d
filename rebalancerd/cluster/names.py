"""Names from outside (VMs, hosts, error texts) made safe to show: they are data, never terminal control or markup."""

ELLIPSIS = "…"


def printable(text: str, limit: int | None = None) -> str:
    r"""``text`` with everything that is not printable written as an escape (``\x1b``, ``\n``, ``\u202e``), backslashes doubled.

    So control sequences, line breaks, bidirectional overrides, zero-width characters and broken UTF-8 (surrogates) are
    seen instead of obeyed, and two different names never look the same for that reason. ``limit``: longest result in
    characters; a longer one ends in an ellipsis.
    """
    shown = "".join(_escaped(c) for c in text)
    if limit is not None and len(shown) > limit:
        return shown[: max(0, limit - 1)] + ELLIPSIS
    return shown


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
