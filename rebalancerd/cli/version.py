"""``rebalancerd version``."""

from rebalancerd import __version__
from rebalancerd.cli.options import OutputOption
from rebalancerd.cli.output import Output, emit_json, say


def version(output: OutputOption = Output.TABLE) -> None:
    """Print the version."""
    if output is Output.JSON:
        emit_json({"format": 1, "version": __version__})
    else:
        say(f"rebalancerd {__version__}")
