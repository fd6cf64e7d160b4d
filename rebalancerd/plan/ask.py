"""Ask: the question every constraint answers: may this VM go to that host, moved together with those others?"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.refusal import Code, Refusal, about_vm
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.demand import Floats
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import shown


@dataclass(frozen=True)
class Ask:
    """``vm`` and ``destination`` are indices; ``together``: every VM that moves to it in one go, ``vm`` among them."""

    state: PlacementState
    vm: int
    destination: int
    together: tuple[int, ...]

    @property
    def guest(self) -> Vm:
        """The VM asked about."""
        return self.state.vms[self.vm]

    @property
    def source(self) -> Host:
        """The host where it runs."""
        return self.state.snapshot.host(self.guest.host)

    @property
    def target(self) -> Host:
        """The host it would go to."""
        return self.state.hosts[self.destination]

    @cached_property
    def arriving(self) -> tuple[int, ...]:
        """Those of ``together`` whose load the destination does not carry yet."""
        return tuple(v for v in self.together if self.destination not in self.state.presence[v])

    @cached_property
    def after(self) -> tuple[Floats, Floats, float]:
        """The destination with them on it: CPU row, memory row, bytes granted; everything in flight counted."""
        state, rows = self.state, list(self.arriving)
        return (
            state.held_cpu[self.destination] + state.demand.cpu[rows].sum(axis=0, dtype="float64"),
            state.held_memory[self.destination] + state.demand.memory[rows].sum(axis=0, dtype="float64"),
            float(state.hard_memory[self.destination] + state.demand.hard_memory[rows].sum()),
        )

    def refuse(self, code: Code, detail: str) -> Refusal:
        """A refusal of this question; ``detail`` names the binding fact."""
        return about_vm(code, self.guest.uuid, f"{shown(self.guest.name)}: {detail}", self.target.name)


Rule = Callable[[Ask], Refusal | None]
