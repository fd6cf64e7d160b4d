"""``rebalancerd demo``."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", envvar="DEMO_MINUTES", min=0.5, help="How long at most; 4 without this."),
    ] = None,
    json_path: Annotated[Path, typer.Option("--json", help="Where the outcome is written.")] = Path("demo.json"),
) -> None:
    """Bring up three real hosts on this machine, make one hot, and watch it being relieved."""
    from rebalancerd.cli.demo import run_demo

    raise typer.Exit(run_demo(minutes, json_path))
