"""Exit codes, and the error that carries one."""

from collections.abc import Sequence

OK = 0
ERROR = 1
USAGE = 2
PLAN_NOT_EMPTY = 10
NOT_THERE = 75  # EX_TEMPFAIL of sysexits.h: no daemon answers, it is not the one that acts, or another one is at it

EPILOG = (
    "Exit codes: 0 done; 1 error; 2 wrong usage; 10 plan not empty (plan --detailed-exitcode); "
    "75 no daemon answers, it is not the one that acts, or another training runs."
)


class CliError(Exception):
    """Ends the command with ``code``; message, details (a line each) and hint go to standard error."""

    def __init__(self, message: str, hint: str = "", *, code: int = ERROR, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message, self.hint, self.code, self.details = message, hint, code, tuple(details)
