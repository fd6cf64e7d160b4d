"""``python -m rebalancerd``."""

from rebalancerd.cli.app import main

main()
