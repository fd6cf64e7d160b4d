"""How often Python looks for unreachable reference cycles (https://docs.python.org/3/library/gc.html).

A cycle over thousands of VMs makes hundreds of thousands of objects that live until the next one; by default the collector
walks through them after every 700 new ones, which is a fifth of a cycle's time. What the daemon lets go of is freed by
its reference counts; cycles are few.
"""

import gc

THRESHOLDS = (
    50_000,
    20,
    100,
)  # new container objects before the youngest is looked through; of those before the next older


def look_seldom() -> None:
    """Leave out what is there already (modules, models) for good, and look at the rest seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
