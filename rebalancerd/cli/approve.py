"""``rebalancerd approve`` and ``reject``."""

from typing import Annotated

import typer

from rebalancerd.cli.command import send
from rebalancerd.cli.exits import USAGE, CliError
from rebalancerd.cli.options import OutputOption, ReasonOption, SocketOption
from rebalancerd.cli.output import Output

PlanArgument = Annotated[
    str,
    typer.Argument(metavar="PLAN[:STEP]", help="Plan id, as `plan` and `status` show it; with :STEP only that step."),
]
DigestOption = Annotated[
    str | None,
    typer.Option("--digest", help="Refuse unless the plan has this digest: what you looked at is what counts."),
]


def approve(
    plan: PlanArgument,
    digest: DigestOption = None,
    reason: ReasonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Allow a plan, or one step of it, to be started once (mode guarded)."""
    send("approve", _body(plan, digest, reason), socket, output)


def reject(
    plan: PlanArgument,
    digest: DigestOption = None,
    reason: ReasonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forbid a plan, or one step of it."""
    send("reject", _body(plan, digest, reason), socket, output)


def _body(plan: str, digest: str | None, reason: str) -> dict[str, object]:
    name, colon, step = plan.rpartition(":")
    if not colon:
        return {"plan": plan, "digest": digest, "reason": reason}
    if not (step.isascii() and step.isdigit() and int(step[:9]) >= 1 and name):
        raise CliError(f"{plan!r}: a step is a number from 1, as in p-1a2b3c4d-1700000000:2", code=USAGE)
    return {"plan": name, "step": int(step[:9]), "digest": digest, "reason": reason}
