"""LabelledMigration: a migration that has ended, with what was known before it began: what a cost model is trained on."""

from dataclasses import dataclass

from rebalancerd.cluster.known import MigrationFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledMigration:
    """One row of training or evaluation. None is not told; instants are epoch seconds.

    ``succeeded``: the VM runs on the destination. If not, pre-copy had not converged after ``deadline_seconds``, at
    which it was cut off (a censored row: it tells of the outcome only). ``seconds``: hand-over to the end;
    ``downtime_seconds``, ``bytes``: as libvirt counted them; ``slowdown``: share of its progress that the guest lost,
    0 to 1. ``family``, ``setting``, ``repeat``: of a harvest's row, the repeats of one setting differ by chance alone;
    '' and 0 for a cluster's own. ``concurrent``: migrations on the link at once. ``disturbed``: the machine was busy
    with something else, so that its figures are in doubt.
    """

    id: str
    at: float
    facts: MigrationFacts
    succeeded: bool
    deadline_seconds: float
    seconds: float | None = None
    downtime_seconds: float | None = None
    bytes: float | None = None
    slowdown: float | None = None
    family: str = ""
    setting: str = ""
    repeat: int = 0
    concurrent: int = 1
    disturbed: bool = False
