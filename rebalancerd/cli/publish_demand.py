"""``python -m rebalancerd.cli.publish_demand --traces DIR`` (``make demand-model TRACES=DIR``): the shipped demand model."""

import argparse
import sys
import time
from pathlib import Path

from rebalancerd.observe.traces.error import TraceError
from rebalancerd.observe.traces.reader import read_traces
from rebalancerd.predict.demand.publish import CARD, LICENSED, publish_demand, write_card
from rebalancerd.predict.store import shipped_directory


def main(arguments: list[str] | None = None) -> int:
    """Make it in the package's own models directory and say what came of it."""
    parser = argparse.ArgumentParser(description="train the shipped demand model")
    parser.add_argument(
        "--traces", type=Path, required=True, help=f"directory of traces; {', '.join(LICENSED)} are used"
    )
    parser.add_argument("--into", type=Path, default=shipped_directory(), help="directory of the model")
    options = parser.parse_args(arguments)
    try:
        manifest = publish_demand(options.into, read_traces(options.traces), now=time.time())
        if (card := options.into / CARD).exists():
            write_card(card, manifest)
    except (TraceError, ValueError, OSError) as error:
        print(f"no model was made: {error}", file=sys.stderr)
        return 1
    print(f"{manifest.id}: {manifest.rows} values, {manifest.bytes} bytes")
    for name, figures in manifest.errors.items():
        told = ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if value is not None)
        print(f"  {name}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
