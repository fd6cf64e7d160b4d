"""An independent check of plans: simulates the waves and lists what is violated; shares no code with the planner.

While a wave runs each of its VMs counts on both ends. Observed migrations count on both ends all along; one whose
destination nobody knows counts on every host. A host's own use beyond its reservation (measured use less its guests')
stays with it. A host that is over a limit already is blamed only for what arrives there.
"""

from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode, Mode
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm
from tests.bench.planner_checker_fit import machine_fits, network_fits, storage_fits

SLACK = 1 + 1e-6
OFF = (DomainState.SHUTOFF, DomainState.CRASHED, DomainState.ABSENT)
RUNNING = (DomainState.RUNNING, DomainState.RUNNING_POSTCOPY, DomainState.RUNNING_POSTCOPY_FAILED)
Row = NDArray[np.float64]


class Limits(Protocol):
    """Numbers that a plan must keep: those of PlanSettings with these names."""

    @property
    def quantile(self) -> float: ...
    @property
    def out_per_host(self) -> int: ...
    @property
    def in_per_host(self) -> int: ...
    @property
    def per_cluster(self) -> int: ...


def violations(
    shot: Snapshot,
    scenarios: Scenarios,
    limits: Limits,
    plan: Plan,
    drained: frozenset[str] = frozenset(),
    *,
    spare: bool = False,
) -> list[str]:
    """What the plan violates, in words, empty if nothing. ``spare``: ask also whether the end survives any one host."""
    return Simulation(shot, scenarios, limits).run(plan, drained, spare=spare)


class Simulation:
    """Walks through a plan; afterwards ``place`` and ``there`` say where everything stands."""

    def __init__(self, shot: Snapshot, scenarios: Scenarios, limits: Limits) -> None:
        self.shot, self.scenarios, self.limits = shot, scenarios, limits
        self.at = {h.name: i for i, h in enumerate(shot.hosts)}
        self.place = {v.uuid: v.host for v in shot.vms}
        self.need = {v.uuid: self.needs(v) for v in shot.vms}
        columns = scenarios.paths * scenarios.steps + 1
        self.cpu, self.memory = np.zeros((len(shot.hosts), columns)), np.zeros(len(shot.hosts))
        self.there: dict[str, set[str]] = {h.name: set() for h in shot.hosts}
        for flight in shot.in_flight:
            if flight.vm_uuid in self.place and flight.destination in self.at:
                cpu, memory = self.need[flight.vm_uuid]
                self.cpu[self.at[flight.destination]] -= cpu[-1]
                self.memory[self.at[flight.destination]] -= memory
        for h, host in enumerate(shot.hosts):
            own_cpu, own_memory = self.own(host)
            self.cpu[h], self.memory[h] = np.maximum(self.cpu[h] + own_cpu, 0.0), max(0.0, self.memory[h] + own_memory)
        for vm in shot.vms:
            self.count(vm.uuid, vm.host, 1)
        for flight in shot.in_flight:
            if flight.vm_uuid not in self.place:
                continue
            for name in self.at if flight.destination is None else {flight.destination} & self.at.keys():
                if flight.vm_uuid not in self.there[name]:
                    self.count(flight.vm_uuid, name, 1)
            self.place[flight.vm_uuid] = flight.destination or f"wherever {flight.vm_uuid} goes"

    def needs(self, vm: Vm) -> tuple[Row, float]:
        """Reference cores over all paths and now; bytes that must be granted."""
        s, home = self.scenarios, self.shot.host(vm.host)
        if vm.state in OFF:
            return np.zeros(s.paths * s.steps + 1), 0.0
        row, used, held = s.row.get(vm.uuid), vm.load.cpu_cores, vm.load.memory_bytes
        paths = np.full(s.paths * s.steps, vm.facts.vcpus * home.speed_factor) if row is None else s.cpu_cores[row]
        memory = float(vm.facts.memory_bytes if row is None else s.memory_bytes[row].max())
        if row is None or not s.known[row] or used is None or not held:
            memory = max(memory, float(vm.facts.memory_bytes))
        busy, now = home.load.cpu_cores, float(paths.max())
        if used is not None:
            short = busy is None or not home.cores or busy >= 0.6 * home.cores
            waited = min(vm.load.steal_cores or 0.0, used / 4) if short else 0.0
            now = max(used, min(used + waited, max(1, vm.facts.vcpus))) * home.speed_factor
        return np.append(paths.astype(np.float64), now), max(memory, float(held or 0))

    def own(self, host: Host) -> tuple[float, float]:
        mine = self.shot.vms_on[host.name]
        busy, used = host.load.cpu_cores or 0.0, host.load.memory_used_bytes or 0
        cpu = busy - sum(v.load.cpu_cores or 0 for v in mine) - host.reserved_cores
        memory = used - sum(v.load.memory_bytes or 0 for v in mine) - host.reserved_memory_bytes
        return max(0.0, cpu) * host.speed_factor, max(0.0, float(memory))

    def count(self, uuid: str, name: str, sign: int) -> None:
        cpu, memory = self.need[uuid]
        self.cpu[self.at[name]] += sign * cpu
        self.memory[self.at[name]] += sign * memory
        (self.there[name].add if sign > 0 else self.there[name].discard)(uuid)

    def run(self, plan: Plan, drained: frozenset[str], *, spare: bool) -> list[str]:
        found: list[str] = []
        waves = sorted({s.wave for s in plan.steps})
        if [s.wave for s in plan.steps] != sorted(s.wave for s in plan.steps):
            found.append("waves are out of order")
        for wave in waves:
            steps = [s for s in plan.steps if s.wave == wave]
            found += [f"wave {wave}: {text}" for text in self.wave(steps, drained)]
        moved = {s.move.vm_uuid for s in plan.steps}
        groups: dict[str, list[Vm]] = {}
        for vm in self.shot.vms:
            for group in vm.policy.affinity if vm.state not in OFF else ():
                groups.setdefault(group, []).append(vm)
        for group, members in sorted(groups.items()):
            if any(m.uuid in moved for m in members) and len({self.place[m.uuid] for m in members}) > 1:
                found.append(f"end: affinity group {group} is apart")
        legs = Counter(s.move.vm_uuid for s in plan.steps)
        found += [f"{uuid} moves {n} times, at most once by way of a parking host" for uuid, n in legs.items() if n > 2]
        return found + (self.without_one() if spare else [])

    def wave(self, steps: Sequence[Step], drained: frozenset[str]) -> list[str]:
        found = [f"{u} moves twice" for u, n in Counter(s.move.vm_uuid for s in steps).items() if n > 1]
        for label, names, most in (
            ("leave", [s.move.source for s in steps], self.limits.out_per_host),
            ("arrive at", [s.move.destination for s in steps], self.limits.in_per_host),
        ):
            found += [f"{n} {label} {name}, cap {most}" for name, n in Counter(names).items() if n > most]
        if len(steps) > self.limits.per_cluster:
            found.append(f"{len(steps)} in the cluster, cap {self.limits.per_cluster}")
        started: list[tuple[str, str, str]] = []
        for step in steps:
            uuid, source, target = step.move.vm_uuid, step.move.source, step.move.destination
            if uuid not in self.place or target not in self.at or source not in self.at:
                found.append(f"{uuid}: unknown VM or host")
                continue
            vm = self.shot.vm(uuid)
            found += [f"{vm.name} to {target}: {text}" for text in self.alone(vm, source, target, drained)]
            if self.place[uuid] in self.at and uuid not in self.there[target]:
                self.count(uuid, target, 1)
                started.append((uuid, self.place[uuid], target))
        for name in sorted({target for _, _, target in started}):
            found += self.full(name)
        for uuid, _, target in started:
            mine = self.shot.vm(uuid).policy.anti_affinity
            others = (self.shot.vm(o) for o in sorted(self.there[target] - {uuid})) if mine else ()
            found += [
                f"{uuid} on {target} together with {o.name}: anti-affinity"
                for o in others
                if o.state not in OFF and mine & o.policy.anti_affinity
            ]
        for uuid, home, target in started:
            if home != target:
                self.count(uuid, home, -1)
            self.place[uuid] = target
        return found

    def full(self, name: str) -> list[str]:
        host, h = self.shot.host(name), self.at[name]
        peak = self.peak(self.cpu[h])
        found = []
        if peak > (host.capacity_cores or 0.0) * SLACK:
            found.append(f"CPU of {name}: {peak:.2f} of {host.capacity_cores}")
        if self.memory[h] > (host.capacity_memory_bytes or 0) * SLACK:
            found.append(f"memory of {name}: {self.memory[h]:.0f} of {host.capacity_memory_bytes}")
        return found

    def peak(self, row: Row) -> float:
        """The quantile of the paths' peaks of such a row, the last column counted in every path."""
        s = self.scenarios
        peaks = np.sort(np.maximum(row[:-1].reshape(s.paths, s.steps).max(axis=1), row[-1]))
        return float(peaks[ceil(self.limits.quantile * (s.paths - 1) - 1e-9)])

    def alone(self, vm: Vm, source: str, target: str, drained: frozenset[str]) -> list[str]:
        """Rules of the VM and the two hosts, whatever else is there."""
        home, there = self.shot.host(source), self.shot.host(target)
        flying = {f.vm_uuid for f in self.shot.in_flight}
        fine = {
            "source": self.place[vm.uuid] == source != target != vm.host,
            "running": vm.state in RUNNING and vm.busy is None and vm.uuid not in flying,
            "owner": vm.owner is None and vm.facts.owner is None,
            "VM mode": vm.policy.mode is not Mode.OBSERVE,
            "immovable": not vm.facts.immovable,
            "source mode": home.unusable is None and home.facts is not None and home.mode is not HostMode.OBSERVE,
            "host mode": there.unusable is None and there.facts is not None and there.mode is HostMode.ACTIVE,
            "load known": there.load.cpu_cores is not None and there.load.memory_used_bytes is not None,
            "path": bool(there.peer_uri and there.migration_uri),
            "drained": target not in drained,
            "pin": not vm.policy.pin or target in vm.policy.pin,
            "avoid": target not in vm.policy.avoid,
            "vCPUs": there.facts is None or vm.facts.vcpus <= there.facts.cpus,
            "machine": machine_fits(vm, there),
            "CPU group": self.cpu_fits(vm, home, there),
            "network": all(network_fits(n.kind, n.source, there) for n in vm.facts.nics),
            "storage": storage_fits(vm, home.storage_domains & there.storage_domains),
        }
        return [name for name, good in fine.items() if not good]

    def cpu_fits(self, vm: Vm, home: Host, there: Host) -> bool:
        if vm.facts.virt_type == "qemu" or (home.cpu_group and home.cpu_group == there.cpu_group):
            return True
        row = self.shot.cpu_fit.get((vm.facts.cpu_digest or "", there.name))
        asked = vm.facts.cpu_mode not in ("host-passthrough", "maximum")
        return asked and row is not None and row.fit is CpuFit.COMPATIBLE

    def without_one(self) -> list[str]:
        """Hosts whose VMs the others' free memory cannot take, largest VM first to the emptiest host."""
        found = []
        capacity = np.array([float(h.capacity_memory_bytes or 0) for h in self.shot.hosts])
        for host in self.shot.hosts:
            room = capacity - self.memory
            room[self.at[host.name]] = -1.0
            for size in sorted((self.need[u][1] for u in self.there[host.name]), reverse=True):
                room[room.argmax()] -= size
            if np.delete(room, self.at[host.name]).min(initial=0.0) < 0:
                found.append(f"end: {host.name} could not fail")
        return found
