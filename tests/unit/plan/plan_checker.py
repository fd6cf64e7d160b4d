"""An independent judge of plans: shares no code with the planner, trusts none of its sums, returns violations as text.

It walks through the waves one by one, with dictionaries and plain loops, and asks of every state in between: does every
receiving host hold what runs on it and what is being copied to it?
"""

import posixpath
from collections import Counter, defaultdict
from math import ceil, isclose

import numpy as np

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode, Mode
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.vm import DiskKind, DomainState, Vm
from rebalancerd.plan.inputs import PlanInputs

SLACK = 1 + 1e-6
OFF = (DomainState.SHUTOFF, DomainState.CRASHED, DomainState.ABSENT)


class Judge:
    """Judges one plan against the inputs it was made from."""

    def __init__(self, inputs: PlanInputs, plan: Plan) -> None:
        self.inputs, self.plan, self.shot = inputs, plan, inputs.snapshot
        self.faults: list[str] = []
        self.where = {v.uuid: {v.host} for v in self.shot.vms}
        for flight in self.shot.in_flight:
            if flight.vm_uuid in self.where:
                every = {h.name for h in self.shot.hosts}
                self.where[flight.vm_uuid] |= every if flight.destination is None else {flight.destination} & every
        self.final = {v.uuid: v.host for v in self.shot.vms}
        for flight in self.shot.in_flight:
            if flight.vm_uuid in self.final:
                known = flight.destination in self.shot.host_by_name
                self.final[flight.vm_uuid] = str(flight.destination) if known else f"wherever {flight.vm_uuid} goes"
        for step in plan.steps:
            self.final[step.move.vm_uuid] = step.move.destination

    def fault(self, step: Step | None, text: str) -> None:
        self.faults.append(f"step {step.number}: {text}" if step else text)

    def judge(self) -> list[str]:
        plan, settings = self.plan, self.inputs.settings
        if [s.number for s in plan.steps] != list(range(1, len(plan.steps) + 1)):
            self.fault(None, "steps are not numbered from 1")
        if [s.wave for s in plan.steps] != sorted(s.wave for s in plan.steps):
            self.fault(None, "waves overlap")
        if len({s.move.vm_uuid for s in plan.steps}) != len(plan.steps):
            self.fault(None, "a VM moves twice")
        if plan.policy == "balance" and len(plan.steps) > settings.max_moves:
            self.fault(None, "too many moves")
        for step in plan.steps:
            self.step_alone(step)
        self.waves()
        self.end_state()
        self.scores()
        return self.faults

    # the VM and the pair

    def step_alone(self, step: Step) -> None:
        vm = self.shot.vm_by_uuid.get(step.move.vm_uuid)
        source, target = self.shot.host_by_name.get(step.move.source), self.shot.host_by_name.get(step.move.destination)
        if vm is None or source is None or target is None:
            self.fault(step, "unknown VM or host")
            return
        checks = {
            "source": vm.host == source.name and source.name != target.name,
            "running": vm.state
            in (DomainState.RUNNING, DomainState.RUNNING_POSTCOPY, DomainState.RUNNING_POSTCOPY_FAILED),
            "busy": vm.busy is None and all(f.vm_uuid != vm.uuid for f in self.shot.in_flight),
            "owner": vm.owner is None and vm.facts.owner is None,
            "mode": vm.policy.mode != Mode.OBSERVE,
            "immovable": not vm.facts.immovable,
            "source usable": source.unusable is None and source.facts is not None and source.mode != HostMode.OBSERVE,
            "target usable": target.unusable is None and target.facts is not None and target.mode == HostMode.ACTIVE,
            "drained target": target.name not in self.inputs.drained,
            "load known": target.load.cpu_cores is not None and target.load.memory_used_bytes is not None,
            "blocked": target.name not in self.inputs.blocked_hosts
            and (vm.uuid, target.name) not in self.inputs.blocked_pairs,
            "path": bool(target.peer_uri and target.migration_uri),
            "pin": not vm.policy.pin or target.name in vm.policy.pin,
            "avoid": target.name not in vm.policy.avoid,
            "resting": self.plan.policy == "drain" or vm.uuid not in self.inputs.resting_vms,
            "vcpus": target.facts is None or vm.facts.vcpus <= target.facts.cpus,
            "arch": target.facts is None or vm.facts.arch == target.facts.arch,
            "machine": target.facts is None
            or target.facts.machine_types is None
            or vm.facts.machine in (None, *target.facts.machine_types),
            "cpu": self.cpu_fits(vm, source, target),
            "network": self.nics_there(vm, target),
            "storage": self.disks_there(vm, source, target),
        }
        for name, fine in checks.items():
            if not fine:
                self.fault(step, name)
        self.cost(step, vm)

    def cpu_fits(self, vm: Vm, source: Host, target: Host) -> bool:
        if vm.facts.virt_type == "qemu":
            return True
        if source.cpu_group and source.cpu_group == target.cpu_group:
            return True
        if vm.facts.cpu_mode in ("host-passthrough", "maximum"):
            return False
        return any(
            row.cpu_digest == vm.facts.cpu_digest and row.host == target.name and row.fit == CpuFit.COMPATIBLE
            for row in self.shot.cpu_fits
        )

    def nics_there(self, vm: Vm, target: Host) -> bool:
        listed = target.facts.networks if target.facts else None
        for nic in vm.facts.nics:
            if nic.source is None:
                continue
            if nic.kind == "network" and listed is not None and nic.source not in listed:
                return False
            if nic.kind == "bridge" and target.networks is not None and nic.source not in target.networks:
                return False
        return True

    def disks_there(self, vm: Vm, source: Host, target: Host) -> bool:
        both = source.storage_domains & target.storage_domains
        for disk in vm.facts.disks:
            if disk.kind == DiskKind.NETWORK or (disk.source is None and disk.pool is None):
                continue
            if disk.pool is not None and f"pool:{disk.pool}" in both:
                continue
            if disk.source is not None and disk.kind in (DiskKind.FILE, DiskKind.BLOCK):
                parts = posixpath.normpath(disk.source).split("/")
                if any(
                    parts[: len(d.rstrip("/").split("/"))] == d.rstrip("/").split("/") for d in both if d[:1] == "/"
                ):
                    continue
            return False
        return True

    def cost(self, step: Step, vm: Vm) -> None:
        cost, settings = step.move.cost, self.inputs.settings
        limit = (
            settings.max_downtime_seconds if vm.policy.max_downtime_seconds is None else vm.policy.max_downtime_seconds
        )
        if cost.non_convergence.upper > settings.non_convergence_max:
            self.fault(step, "may not converge")
        if cost.seconds.upper > settings.max_migration_seconds:
            self.fault(step, "takes too long")
        if cost.downtime_seconds.upper > limit:
            self.fault(step, "downtime too long")
        if step.move.options.postcopy and not vm.policy.postcopy:
            self.fault(step, "post-copy without consent")
        if step.move.options.auto_converge and not vm.policy.auto_converge:
            self.fault(step, "throttled without consent")
        if step.move.options.max_downtime_seconds > limit:
            self.fault(step, "more downtime allowed than the VM accepts")

    # states in between

    def waves(self) -> None:
        settings = self.inputs.settings
        waves: dict[int, list[Step]] = defaultdict(list)
        for step in self.plan.steps:
            waves[step.wave].append(step)
        for wave in sorted(waves):
            steps = waves[wave]
            out = Counter(s.move.source for s in steps)
            into = Counter(s.move.destination for s in steps)
            if len(steps) > settings.per_cluster:
                self.fault(None, f"wave {wave}: too many at once")
            if max(out.values()) > settings.out_per_host or max(into.values()) > settings.in_per_host:
                self.fault(None, f"wave {wave}: too many on one host")
            for step in steps:
                self.where[step.move.vm_uuid].add(step.move.destination)
            for name in sorted(into):
                self.host_in_between(wave, name)
            for step in steps:
                self.apart(step)
            for step in steps:
                self.where[step.move.vm_uuid].discard(step.move.source)

    def apart(self, step: Step) -> None:
        mine = self.shot.vm(step.move.vm_uuid).policy.anti_affinity
        for other in self.shot.vms:
            if other.uuid == step.move.vm_uuid or other.state in OFF or not mine & other.policy.anti_affinity:
                continue
            if step.move.destination in self.where[other.uuid]:
                self.fault(step, f"anti-affinity with {other.name}")

    def demand(self, vm: Vm) -> tuple[np.ndarray, float, np.ndarray, float, float]:
        """CPU paths, CPU now, memory paths, memory now, memory granted."""
        s = self.inputs.scenarios
        speed = self.shot.host(vm.host).speed_factor
        if vm.state in OFF:
            zero = np.zeros(s.paths * s.steps)
            return zero, 0.0, zero, 0.0, 0.0
        row = s.row.get(vm.uuid)
        if row is None:
            cpu = np.full(s.paths * s.steps, vm.facts.vcpus * speed)
            memory = np.full(s.paths * s.steps, float(vm.facts.memory_bytes))
        else:
            cpu, memory = s.cpu_cores[row].astype(float), s.memory_bytes[row].astype(float)
        used, held = vm.load.cpu_cores, vm.load.memory_bytes
        now = cpu.max() if used is None else self.asked(vm, used) * speed
        held_now = memory.max() if held is None else held
        unknown = row is None or not s.known[row] or used is None or held is None
        granted = max(memory.max(), held_now, vm.facts.memory_bytes if unknown else 0)
        return cpu, float(now), memory, float(held_now), float(granted)

    def asked(self, vm: Vm, used: float) -> float:
        """Use and, from 60 % of the host's cores on, the wait for a CPU up to a quarter more, within the vCPUs."""
        home = self.shot.host(vm.host)
        spare = home.load.cpu_cores is not None and home.cores and home.load.cpu_cores < 0.6 * home.cores
        waited = 0.0 if spare else min(vm.load.steal_cores or 0.0, used / 4)
        return max(used, min(used + waited, vm.facts.vcpus))

    def own_use(self, host: Host) -> tuple[float, float]:
        mine = [v for v in self.shot.vms if v.host == host.name]
        cpu = (host.load.cpu_cores or 0) - sum(v.load.cpu_cores or 0 for v in mine) - host.reserved_cores
        memory = (host.load.memory_used_bytes or 0) - sum(v.load.memory_bytes or 0 for v in mine)
        memory -= host.reserved_memory_bytes
        cpu = max(0.0, cpu) * host.speed_factor
        for flight in self.shot.in_flight:
            if flight.destination == host.name and flight.vm_uuid in self.shot.vm_by_uuid:
                demand = self.demand(self.shot.vm(flight.vm_uuid))
                cpu, memory = cpu - demand[1], memory - demand[4]
        return max(0.0, cpu), max(0.0, memory)

    def peak(self, paths: np.ndarray, now: float) -> float:
        s = self.inputs.scenarios
        peaks = sorted(max(now, *paths[k * s.steps : (k + 1) * s.steps]) for k in range(s.paths))
        return float(peaks[ceil(self.inputs.settings.quantile * (s.paths - 1) - 1e-9)])

    def totals(self, name: str, there: list[Vm]) -> tuple[float, float, float]:
        """Peak CPU, peak memory, memory granted on a host with those VMs."""
        own_cpu, own_memory = self.own_use(self.shot.host(name))
        parts = [self.demand(v) for v in there]
        cpu = sum((p[0] for p in parts), np.full(self.inputs.scenarios.paths * self.inputs.scenarios.steps, own_cpu))
        memory = sum((p[2] for p in parts), np.full(len(cpu), own_memory))
        return (
            self.peak(cpu, own_cpu + sum(p[1] for p in parts)),
            self.peak(memory, own_memory + sum(p[3] for p in parts)),
            own_memory + sum(p[4] for p in parts),
        )

    def host_in_between(self, wave: int, name: str) -> None:
        host = self.shot.host(name)
        cpu, _, granted = self.totals(name, [v for v in self.shot.vms if name in self.where[v.uuid]])
        if host.cores is None or cpu > (host.cores - host.reserved_cores) * host.speed_factor * SLACK:
            self.fault(None, f"wave {wave}: CPU of {name} exceeded: {cpu}")
        if host.memory_bytes is None or granted > (host.memory_bytes - host.reserved_memory_bytes) * SLACK:
            self.fault(None, f"wave {wave}: memory of {name} exceeded: {granted}")

    # the end

    def end_state(self) -> None:
        settings = self.inputs.settings
        for name in {s.move.destination for s in self.plan.steps}:
            host = self.shot.host(name)
            cpu, memory, _ = self.totals(name, [v for v in self.shot.vms if name in self.where[v.uuid]])
            if cpu > settings.cpu_headroom * (host.capacity_cores or 0) * SLACK:
                self.fault(None, f"{name} is hot in the end: CPU {cpu} of {host.capacity_cores}")
            if memory > settings.memory_headroom * (host.capacity_memory_bytes or 0) * SLACK:
                self.fault(None, f"{name} is hot in the end: memory {memory} of {host.capacity_memory_bytes}")
        moved = {s.move.vm_uuid for s in self.plan.steps}
        groups: dict[str, set[str]] = defaultdict(set)
        for vm in self.shot.vms:
            for group in vm.policy.affinity if vm.state not in OFF else ():
                groups[group].add(vm.uuid)
        for group, members in groups.items():
            if any(self.final[m] != self.final[other] for m in members & moved for other in members):
                self.fault(None, f"affinity group {group} torn apart")

    def scores(self) -> None:
        plan = self.plan
        gains = sum(s.move.gain for s in plan.steps)
        if not isclose(plan.before.total - plan.after.total, gains, rel_tol=1e-6, abs_tol=1e-3):
            self.fault(None, f"gains {gains} are not the difference of the scores")
        if plan.policy == "balance" and plan.after.total > plan.before.total + 1e-6:
            self.fault(None, "the score got worse")
        if plan.policy == "balance" and plan.after.unmet > plan.before.unmet + 1e-6:
            self.fault(None, "unmet demand got worse")
        if not plan.steps and plan.before != plan.after:
            self.fault(None, "nothing moves, yet the score changes")
        if not plan.why or (not plan.steps and not plan.refusals):
            self.fault(None, "no reason given")


def violations(inputs: PlanInputs, plan: Plan) -> list[str]:
    """Everything that is wrong with a plan, empty if nothing is."""
    return Judge(inputs, plan).judge()
