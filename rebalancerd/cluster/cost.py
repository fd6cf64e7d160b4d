"""MigrationCost: what a live migration will cost, each figure with an upper bound, and the basis it rests on."""

from dataclasses import dataclass

COPY_CORES = 0.5  # kept busy by sending and receiving, of both hosts together, while a copy runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An expected value and its upper bound (90 %). Infinite means that no finite bound can be given."""

    value: float
    upper: float

    def __post_init__(self) -> None:
        """Reject NaN, negatives and an upper bound below the value."""
        if not (self.value >= 0 and self.upper >= self.value):
            raise ValueError(f"not an estimate: value {self.value}, upper {self.upper}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationOptions:
    """How a migration is to run. None for ``bandwidth`` means no cap; ``parallel`` 0 means a single connection."""

    max_downtime_seconds: float = 0.3
    bandwidth_bytes_per_second: float | None = None
    auto_converge: bool = False
    postcopy: bool = False
    parallel: int = 0
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A migration whose cost is asked: VM, hosts, the share of the link it will get, and the options."""

    vm_uuid: str
    source: str
    destination: str
    link_share: float = 1.0
    options: MigrationOptions = MigrationOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationCost:
    """Cost of one migration. ``seconds`` is the total, hand-over to the end; ``slowdown`` the guest's lost share, 0 to 1.

    ``non_convergence``: probability that pre-copy never ends (value and upper bound, 0 to 1). ``basis``: "physics" or a
    model id. ``inputs_missing``: measured inputs that were unknown and widened the bounds.
    """

    seconds: Estimate
    downtime_seconds: Estimate
    bytes: Estimate
    slowdown: Estimate
    non_convergence: Estimate
    basis: str
    inputs_missing: tuple[str, ...] = ()
