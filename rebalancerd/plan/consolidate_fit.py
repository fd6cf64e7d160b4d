"""Receivers: the hosts that stay on, and where on them a unit of VMs fits best, in vectors over hosts and columns.

Best fit: among the hosts that stay on anyway the efficient ones first, of equal ones the one that is left fullest. Each
placement changes the state and can be taken back, bit for bit.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rebalancerd.plan.constraints import PLACEMENT, check_unit
from rebalancerd.plan.demand import Floats, Indices
from rebalancerd.plan.search import CHUNK, TOLERANCE, Search, Unit
from rebalancerd.plan.state import PlacementState, Undo

Mask = NDArray[np.bool_]


class Receivers:
    """``open_to``: mask (H,) of hosts that may receive; ``rank``: (H,), lower is filled first. ``evaluated`` counts pairs.

    ``limit_cpu``, ``limit_memory``: (H,) what a host may be filled up to.
    """

    def __init__(self, search: Search, open_to: Mask, rank: Floats) -> None:
        state = search.state
        settings = state.settings
        self.search, self.state = search, state
        self.open_to, self.rank = open_to, rank
        fold_cpu = min(settings.cpu_headroom, settings.consolidate_cpu_headroom, 1.0)
        fold_memory = min(settings.memory_headroom, settings.consolidate_memory_headroom)
        self.limit_cpu: Floats = np.nan_to_num(state.capacity_cpu) * fold_cpu
        self.limit_memory: Floats = np.nan_to_num(state.capacity_memory) * fold_memory
        self.peak_cpu = state.demand.peak(state.held_cpu, settings.quantile)
        self.peak_memory = state.demand.peak(state.held_memory, settings.quantile)
        self.evaluated = 0
        self._closed: dict[int, set[int]] = {}

    def close(self, vm: int, hosts: Iterable[int]) -> None:
        """Those hosts are no destination of that VM, e.g. for its predicted cost."""
        self._closed.setdefault(vm, set()).update(hosts)

    def closed_to(self, vm: int) -> list[int]:
        """Hosts that were closed to that VM."""
        return sorted(self._closed.get(vm, ()))

    def allowed(self, unit: Unit) -> Mask:
        """Receivers that no unchanging rule, no group and nothing learned closes to the unit, whatever their load."""
        mask = self.search.admission.of_unit(unit.vms) & self.open_to
        mask[list(unit.sources)] = False
        self.search.close_groups(unit, mask)
        for v in unit.vms:
            mask[list(self._closed.get(v, ()))] = False
        return mask

    def choose(self, unit: Unit) -> list[int]:
        """Receivers the unit fits on, best first; of the first few that have any. Empty if it fits nowhere."""
        hosts = self._likely(unit, np.flatnonzero(self.allowed(unit)))
        for start in range(0, len(hosts), CHUNK):
            chunk = hosts[start : start + CHUNK]
            self.evaluated += len(chunk)
            fits = [int(h) for h in chunk[self._fits(unit, chunk)]]
            while fits and check_unit(self.state, unit.vms, fits[0], PLACEMENT) is not None:
                fits.pop(0)  # the constraints themselves have the last word, not the sums
            if fits:
                return fits
        return []

    def _likely(self, unit: Unit, hosts: Indices) -> Indices:
        """Those that bounds on the peaks do not rule out, in the order in which they are tried.

        The bound: the peak of a sum is at least the peak of one part plus the least value of the other.
        """
        slack, state = 1 + TOLERANCE, self.state
        fits = state.hard_memory[hosts] + unit.hard_memory <= state.capacity_memory[hosts] * slack
        fits &= self.peak_cpu[hosts] + unit.cpu.min() <= self.limit_cpu[hosts] * slack
        fits &= self.peak_memory[hosts] + unit.memory.min() <= self.limit_memory[hosts] * slack
        hosts = hosts[fits]
        found: Indices = hosts[np.lexsort((hosts, -np.round(self.fullness(hosts), 6), self.rank[hosts]))]
        return found

    def fullness(self, hosts: Indices) -> Floats:
        """(N,) sum of the shares of both limits that are used, at the peak quantile."""
        with np.errstate(divide="ignore", invalid="ignore"):
            cpu = self.peak_cpu[hosts] / self.limit_cpu[hosts]
            memory = self.peak_memory[hosts] / self.limit_memory[hosts]
        return np.nan_to_num(cpu) + np.nan_to_num(memory)

    def _fits(self, unit: Unit, hosts: Indices) -> Mask:
        state, slack, quantile = self.state, 1 + TOLERANCE, self.state.settings.quantile
        cpu = state.demand.peak(state.held_cpu[hosts] + unit.cpu, quantile)
        memory = state.demand.peak(state.held_memory[hosts] + unit.memory, quantile)
        fits: Mask = (cpu <= self.limit_cpu[hosts] * slack) & (memory <= self.limit_memory[hosts] * slack)
        return fits

    def apply(self, unit: Unit, destination: int) -> list[Undo]:
        """Move the unit there."""
        undos = [self.state.apply(v, destination) for v in unit.vms]
        self._refresh({*unit.sources, destination})
        return undos

    def undo(self, undos: Sequence[Undo]) -> None:
        """Take placements back, in the order in which they were made."""
        for undo in reversed(undos):
            self.state.undo(undo)
        self._refresh({host for undo in undos for host, _, _ in undo.rows})

    def _refresh(self, hosts: Iterable[int]) -> None:
        state, rows = self.state, np.array(sorted(hosts), dtype=np.intp)
        self.peak_cpu[rows] = state.demand.peak(state.held_cpu[rows], state.settings.quantile)
        self.peak_memory[rows] = state.demand.peak(state.held_memory[rows], state.settings.quantile)

    def why_nowhere(self, unit: Unit) -> str:
        """Why the unit fits on none of the receivers, counted, e.g. "of 9 others 2 are closed to it, 7 lack CPU"."""
        others = self.open_to.copy()
        others[list(unit.sources)] = False
        total, allowed = int(others.sum()), np.flatnonzero(self.allowed(unit))
        if not total:
            return "no other host that stays on may receive"
        state, quantile, slack = self.state, self.state.settings.quantile, 1 + TOLERANCE
        memory = state.demand.peak(state.held_memory[allowed] + unit.memory, quantile)
        full = memory > self.limit_memory[allowed] * slack
        full |= state.hard_memory[allowed] + unit.hard_memory > state.capacity_memory[allowed] * slack
        cpu = state.demand.peak(state.held_cpu[allowed] + unit.cpu, quantile) > self.limit_cpu[allowed] * slack
        counts = (
            (total - len(allowed), "closed to it by rules"),
            (int((full & ~cpu).sum()), "without memory for it"),
            (int((cpu & ~full).sum()), "without CPU for it"),
            (int((cpu & full).sum()), "without memory and CPU for it"),
            (int((~cpu & ~full).sum()), "refused by a rule on the placement"),
        )
        return f"of {total} others {', '.join(f'{count} {what}' for count, what in counts if count)}"


def lower_bound(state: PlacementState, receivers: Receivers) -> int:
    """Fewest hosts on which the VMs' demand could be, were VMs as fluid as water and every host without load of its own.

    With one path its peak counts, else what is asked for now, which is part of every path. A host that is above its limit
    may stay so.
    """
    demand = state.demand
    columns = slice(None) if demand.paths == 1 else slice(-1, None)
    fewest = 0
    for rows, held, limits in (
        (demand.cpu[:, columns], state.held_cpu[:, columns], receivers.limit_cpu),
        (demand.memory[:, columns], state.held_memory[:, columns], receivers.limit_memory),
    ):
        asked = float(rows.sum(axis=0, dtype=np.float64).max(initial=0.0))
        room = np.cumsum(np.sort(np.maximum(limits, held.max(axis=1)))[::-1])
        fewest = max(fewest, int(np.searchsorted(room, asked * (1 - TOLERANCE))) + 1 if asked > 0 else 0)
    return fewest
