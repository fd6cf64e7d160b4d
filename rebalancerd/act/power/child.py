"""Programs that are asked about or told to change power: started without a shell, with a clean environment, and killed late."""

import os
import signal
import subprocess
from dataclasses import dataclass

MOST_OUTPUT_BYTES = 65_536
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ")


class ChildLateError(Exception):
    """The program did not end in time, and it and what it started were killed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: exit code (negative: the signal that killed it), and what it wrote."""

    code: int
    output: str
    errors: str


def run_child(
    argv: tuple[str, ...], *, seconds: float, given: str = "", environment: dict[str, str] | None = None
) -> Ended:
    """Run a program in a process group of its own. Raises ChildLateError, OSError."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, **kept, **(environment or {})},
        cwd="/",
        start_new_session=True,
    )
    with child:
        try:
            output, errors = child.communicate(given.encode("utf-8"), timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # it is not reaped yet, so that the number is still its own
            child.communicate()
            raise ChildLateError(f"no answer within {seconds:g} s") from None
    return Ended(child.returncode, _text(output), _text(errors))


def _text(raw: bytes) -> str:
    return raw[:MOST_OUTPUT_BYTES].decode("utf-8", "replace")
