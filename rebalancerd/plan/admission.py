"""Admission: the destinations that no unchanging constraint closes to a VM, as one mask over the hosts.

The constraints stay the functions of ``rules_host`` and ``rules_fit``; here they are only asked once for all hosts that
are alike in what those functions read, so that a thousand hosts cost as much as the few kinds there are.
"""

from collections import defaultdict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.host import Host
from rebalancerd.plan import rules_fit, rules_host
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.state import PlacementState

Mask = NDArray[np.bool_]
OF_THE_HOST = (
    rules_host.target_mode,
    rules_host.target_usable,
    rules_host.target_load_known,
    rules_host.host_blocked,
    rules_host.migration_path,
)


class Admission:
    """Masks of shape (H,) by VM index, made when first asked for. They agree with ``constraints.unchanging``."""

    def __init__(self, state: PlacementState) -> None:
        self._state = state
        self._open = self._open_hosts()
        self._kinds = self._kinds_of_hosts()
        self._known: dict[int, Mask] = {}
        self._pairs: dict[str, list[int]] = defaultdict(list)
        for uuid, host in state.inputs.blocked_pairs:
            if host in state.host_index:
                self._pairs[uuid].append(state.host_index[host])

    def of(self, vm: int) -> Mask:
        """Where the VM alone may go, whatever the placement; what keeps the VM itself (``rules_vm``) is not asked."""
        if vm not in self._known:
            self._known[vm] = self._mask(vm)
        return self._known[vm]

    @property
    def receives(self) -> Mask:
        """Hosts that take anything in at all: shape (H,)."""
        return self._open

    def of_unit(self, vms: tuple[int, ...]) -> Mask:
        """Where every VM of a unit may go."""
        mask = self.of(vms[0])
        for vm in vms[1:]:
            mask = mask & self.of(vm)
        return mask

    def _open_hosts(self) -> Mask:
        """Hosts that receive at all."""
        state = self._state
        mask = np.zeros(len(state.hosts), dtype=np.bool_)
        if state.vms:
            for h in range(len(state.hosts)):
                ask = Ask(state, 0, h, (0,))  # these rules read nothing of the VM
                mask[h] = all(rule(ask) is None for rule in OF_THE_HOST)
        return mask

    def _kinds_of_hosts(self) -> list[NDArray[np.intp]]:
        """Hosts that ``rules_fit`` cannot tell apart."""
        fits: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in self._state.snapshot.cpu_fits:
            fits[row.host].append((row.cpu_digest, row.fit.value))
        kinds: dict[Hashable, list[int]] = defaultdict(list)
        for h, host in enumerate(self._state.hosts):
            kinds[(_fit_facts(host), tuple(sorted(fits[host.name])))].append(h)
        return [np.array(rows, dtype=np.intp) for rows in kinds.values()]

    def _mask(self, vm: int) -> Mask:
        state, mask = self._state, self._open.copy()
        guest = state.vms[vm]
        for hosts in self._kinds:
            ask = Ask(state, vm, int(hosts[0]), (vm,))
            if any(rule(ask) is not None for rule in rules_fit.RULES):
                mask[hosts] = False
        if guest.policy.pin:
            pinned = np.zeros(len(mask), dtype=np.bool_)
            pinned[[state.host_index[name] for name in guest.policy.pin if name in state.host_index]] = True
            mask &= pinned
        mask[[state.host_index[name] for name in guest.policy.avoid if name in state.host_index]] = False
        mask[self._pairs.get(guest.uuid, [])] = False
        mask[state.host_index[guest.host]] = False
        return mask


def _fit_facts(host: Host) -> Hashable:
    """What ``rules_fit`` reads of a destination."""
    facts = host.facts
    told = None if facts is None else (facts.cpus, facts.arch, facts.machine_types, facts.networks, facts.topology)
    return host.cpu_group, host.storage_domains, host.networks, told
