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
        together: dict[str, list[int]] = defaultdict(list)
        for v, vm in enumerate(vms):
            if not active[v]:
                continue
            for group in vm.policy.anti_affinity:
                self._anti[group].append(v)
            for group in vm.policy.affinity:
                together[group].append(v)
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
