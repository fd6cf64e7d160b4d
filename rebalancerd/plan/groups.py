"""Affinity and anti-affinity groups of the VMs that hold resources; whole groups, whatever host they are on."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rebalancerd.cluster.vm import Vm


class Groups:
    """Index of groups. Affinity is transitive: who shares a group with a member is bound to the whole."""

    def __init__(self, vms: Sequence[Vm], active: Sequence[bool]) -> None:
        self._anti: dict[str, list[int]] = defaultdict(list)
        self._bound: dict[int, tuple[int, ...]] = {}
        self._anti_of = [tuple(sorted(vm.policy.anti_affinity)) for vm in vms]
        self._wished: dict[str, list[int]] = defaultdict(list)
        self._pins = {v: vm.facts.pinned_cpus for v, vm in enumerate(vms) if active[v] and vm.facts.pinned_cpus}
        self._beside: dict[int, tuple[int, ...]] = {}
        together: dict[str, list[int]] = defaultdict(list)
        for v, vm in enumerate(vms):
            if not active[v]:
                continue
            for group in vm.policy.anti_affinity:
                self._anti[group].append(v)
            for group in vm.policy.affinity:
                together[group].append(v)
            for group in vm.policy.soft_affinity | vm.policy.soft_anti_affinity:
                self._wished[group].append(v)
        self.wishing = frozenset(v for v, vm in enumerate(vms) if _wishes(vm))
        self._join(together)

    def _join(self, together: dict[str, list[int]]) -> None:
        """Connected components over shared groups."""
        parent: dict[int, int] = {}

        def root(v: int) -> int:
            while parent.setdefault(v, v) != v:
                parent[v] = parent[parent[v]]
                v = parent[v]
            return v

        for members in together.values():
            for v in members:
                parent[root(v)] = root(members[0])
        parts: dict[int, list[int]] = defaultdict(list)
        for v in sorted(parent):
            parts[root(v)].append(v)
        for part in parts.values():
            self._bound.update(dict.fromkeys(part, tuple(part)))

    def bound(self, vm: int) -> tuple[int, ...]:
        """Every other VM that must share a host with it."""
        return tuple(v for v in self._bound.get(vm, ()) if v != vm)

    def unit(self, vm: int, leaving: Iterable[int]) -> tuple[int, ...]:
        """The VM and those bound to it that are among ``leaving``: what must move in one go."""
        mates = self._bound.get(vm)
        if mates is None:
            return (vm,)
        pool = set(leaving)
        return tuple(sorted({vm, *(v for v in mates if v in pool)}))

    def apart(self, vm: int) -> Iterable[tuple[str, tuple[int, ...]]]:
        """(group, other members) of each anti-affinity group it is in, by name."""
        for group in self._anti_of[vm]:
            yield group, tuple(v for v in self._anti.get(group, ()) if v != vm)

    def wished(self, groups: Iterable[str], vm: int) -> Iterable[tuple[str, tuple[int, ...]]]:
        """(group, other members) of those groups of wishes, by name."""
        for group in sorted(groups):
            yield group, tuple(v for v in self._wished.get(group, ()) if v != vm)

    def on_its_cpus(self, vm: int) -> tuple[int, ...]:
        """Every other VM that is pinned to a host CPU of the same number as one of its own."""
        mine = self._pins.get(vm)
        if mine is None:
            return ()
        if vm not in self._beside:
            self._beside[vm] = tuple(v for v, cpus in self._pins.items() if v != vm and not mine.isdisjoint(cpus))
        return self._beside[vm]


def _wishes(vm: Vm) -> bool:
    policy = vm.policy
    return bool(policy.prefer or policy.soft_affinity or policy.soft_anti_affinity)
