"""Move, Step, Plan: what is proposed, why, at what predicted cost, and the facts it relied on."""

from dataclasses import dataclass, field, fields

from rebalancerd.cluster.cost import Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.digest import ADDED_LATER, digest
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.refusal import Refusal

PLAN_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The objective and its parts, in the planner's currency (lower is better). ``total`` is their weighted sum.

    ``unmet``: expected unmet demand above headroom, core-seconds (memory as core-equivalents) over the horizon.
    ``imbalance``: standard deviation of hosts' relative load. ``cost``: predicted cost of the moves.
    ``hosts``: hosts that hold VMs, where the policy counts them.
    """

    total: float
    unmet: float
    imbalance: float
    cost: float = 0.0
    hosts: int | None = field(default=None, metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A move that was considered for the same relief and not taken: where to, its score, and why not."""

    vm_uuid: str
    vm_name: str
    destination: str
    score: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One VM from one host to another, and the reasoning. ``facts`` are those a start must find unchanged.

    ``known``: what the predicted cost rests on. ``price``: that cost in the planner's currency, core-seconds.
    ``hot_in_seconds``: until its source is predicted to be hot, 0 if it is, None if it is not going to be.
    """

    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    why: str
    cost: MigrationCost
    options: MigrationOptions
    gain: float
    payback_seconds: float | None
    alternatives: tuple[Alternative, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    known: MigrationFacts | None = field(default=None, metadata=ADDED_LATER)
    price: Estimate | None = field(default=None, metadata=ADDED_LATER)
    hot_in_seconds: float | None = field(default=None, metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A move in its place in the order: ``number`` from 1; steps of one ``wave`` may run together, waves never overlap."""

    number: int
    wave: int
    move: Move


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Ordered steps with expiry (epoch seconds), the facts relied on, and what was rejected.

    A plan without steps says "do nothing" and why. ``digest`` covers the whole content but the id, so that an approval
    given for one plan never counts for another and a file edited by hand is found out.

    ``benefit``: what its moves bring before their cost, core-seconds within the period they count for;
    ``payback_seconds``: from its start until that has repaid the cost, None if it never does. ``level``: aggressiveness
    it was made with, and what was set otherwise.
    """

    id: str
    policy: str
    created_at: float
    expires_at: float
    snapshot_digest: str
    steps: tuple[Step, ...]
    before: Score
    after: Score
    why: str
    hot_hosts: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    basis: str = "persistence"
    format: int = field(default=PLAN_FORMAT)
    benefit: float | None = field(default=None, metadata=ADDED_LATER)
    payback_seconds: float | None = field(default=None, metadata=ADDED_LATER)
    level: str | None = field(default=None, metadata=ADDED_LATER)

    @property
    def digest(self) -> str:
        """Digest of everything but the id."""
        first = [getattr(self, f.name) for f in fields(self) if f.name != "id" and "added later" not in f.metadata]
        later = [(f.name, getattr(self, f.name)) for f in fields(self) if "added later" in f.metadata]
        return digest([*first, *(row for row in later if row[1] is not None)])

    def step(self, number: int) -> Step:
        """The step of that number. Raises KeyError."""
        for step in self.steps:
            if step.number == number:
                return step
        raise KeyError(number)

    @property
    def is_empty(self) -> bool:
        """Whether it proposes nothing."""
        return not self.steps
