"""What one simulated host knows of its guests, and the journal of what happened."""

from dataclasses import dataclass, field

from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.sim.spec import HostSpec


@dataclass(slots=True, kw_only=True)
class Domain:
    """What one host's libvirt knows of one guest; copies of a guest on two hosts are two domains."""

    uuid: str
    name: str
    state: DomainState
    persistent: bool = True
    autostart: bool = False
    managed_save: bool = False
    facts: VmFacts | None = None


@dataclass(slots=True, kw_only=True)
class SimHost:
    """A host and what happened to it."""

    spec: HostSpec
    row: int
    domains: dict[str, Domain] = field(default_factory=dict)
    alive: bool = True
    may_set_autostart: bool = True
    may_migrate: bool = True

    @property
    def asleep(self) -> tuple[str, ...]:
        """Guests that hold memory here without running: paused, not by a migration."""
        return tuple(d.uuid for d in self.domains.values() if d.state is DomainState.PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in the simulated world, for the story and the invariants."""

    at: float
    kind: str
    vm_uuid: str
    host: str
    detail: str = ""
