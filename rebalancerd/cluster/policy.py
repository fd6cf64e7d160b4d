"""Modes and per-VM policy. The stricter of cluster mode and VM mode wins; metadata alone never grants post-copy."""

from dataclasses import dataclass, field
from enum import StrEnum

from rebalancerd.cluster.digest import ADDED_LATER


class Mode(StrEnum):
    """How far the daemon may go, from least to most."""

    OBSERVE = "observe"
    RECOMMEND = "recommend"
    GUARDED = "guarded"
    AUTO = "auto"

    @property
    def rank(self) -> int:
        """0 (observe) to 3 (auto)."""
        return list(Mode).index(self)

    @property
    def may_act(self) -> bool:
        """Whether this mode ever moves a VM."""
        return self.rank >= Mode.GUARDED.rank


def stricter(*modes: Mode | None) -> Mode:
    """The least permissive of the given modes; None is "no opinion". With no opinion at all: auto."""
    return min((m for m in modes if m is not None), key=lambda m: m.rank, default=Mode.AUTO)


class HostMode(StrEnum):
    """What the operator allows on a host. ``maintenance`` is read as another word for ``drain``."""

    ACTIVE = "active"  # source and destination
    NO_INBOUND = "no_inbound"  # source only
    QUARANTINED = "quarantined"  # source only: it is not trusted with more guests
    DRAIN = "drain"  # to be emptied and kept empty
    OBSERVE = "observe"  # neither source nor destination

    @classmethod
    def _missing_(cls, value: object) -> "HostMode | None":
        return cls.DRAIN if value == "maintenance" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmPolicy:
    """Policy of one VM, merged from its metadata (``urn:rebalancerd:policy:1``) and the configuration.

    ``pin``: hosts it may be on (empty: any). ``avoid``: hosts it must not be moved to. ``affinity`` and
    ``anti_affinity``: group names; members of an affinity group share a host, members of an anti-affinity group do not.
    ``priority``: higher is moved later. ``max_downtime_seconds``: None means the cluster's limit. ``prefer`` (hosts),
    ``soft_affinity`` and ``soft_anti_affinity`` (groups) are wishes: they choose among what the rules allow.
    """

    mode: Mode | None = None
    pin: frozenset[str] = field(default_factory=frozenset)
    avoid: frozenset[str] = field(default_factory=frozenset)
    affinity: frozenset[str] = field(default_factory=frozenset)
    anti_affinity: frozenset[str] = field(default_factory=frozenset)
    priority: int = 0
    postcopy: bool = False
    auto_converge: bool = False
    max_downtime_seconds: float | None = None
    prefer: frozenset[str] = field(default_factory=frozenset, metadata=ADDED_LATER)
    soft_affinity: frozenset[str] = field(default_factory=frozenset, metadata=ADDED_LATER)
    soft_anti_affinity: frozenset[str] = field(default_factory=frozenset, metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The other controller that owns a VM, e.g. ``Owner(name="nova", evidence="metadata http://openstack.org/...")``."""

    name: str
    evidence: str
