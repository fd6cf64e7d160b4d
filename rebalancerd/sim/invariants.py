"""The promises, checked on the simulated truth after every step: not on what the daemon believes, but on what is."""

from collections import Counter

from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.power import PowerPhase
from rebalancerd.cluster.vm import DomainState
from rebalancerd.sim.adapters import Reach, SimWrite, Wires
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.journal import JournalLedger
from rebalancerd.sim.power import OFF_WITH_VMS
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.transfer import Phase

ALLOWED_CALLS = frozenset({"migrate", "abort", "set_max_downtime", "set_bandwidth", "set_autostart"})
DUPLICATED, LOST = "duplicated by fault", "lost by fault"
ENDED_BY_OTHERS = frozenset(
    {"killed by fault", "stopped by its owner", "paused by its owner", "died with its host", LOST}
)


class InvariantError(AssertionError):
    """A promise was broken in the simulated world; the message says which, when and of whom."""


class Invariants:
    """Checks P1 to P3, P7, P9, P12 and the hard rules of placement. Raises InvariantError."""

    def __init__(
        self, spec: WorldSpec, cluster: SimCluster, wires: Wires, write: SimWrite, ledger: JournalLedger
    ) -> None:
        self._spec, self._cluster, self._wires, self._write, self._ledger = spec, cluster, wires, write, ledger
        self._version = -1
        self._calls_seen = self._events_seen = 0
        self.cycles_run = 0
        self.cycles_unrecorded = 0  # while the ledger could not be written
        self.last_sample_at = 0.0
        self.checks = 0
        self.violation: InvariantError | None = None
        write.before_migrate = self.before_migrate

    def before_migrate(self, record: MigrationRecord) -> None:
        """What must hold at the instant of a migrate call."""
        self._intent_is_durable(record)
        self._is_the_only_one(record)
        self._caps(record)
        self._hard_rules(record)

    def before_off(self, host: str) -> None:
        """What must hold at the instant of an order to shut a host down."""
        known = self._ledger.power.get(host)
        durable = known is not None and known.phase is PowerPhase.SHUTTING_DOWN
        self._assert(durable, "P3", f"{host} is shut down without a record of it")
        self._assert(self._spec.mode.may_act, "P9", f"{host} is shut down in mode {self._spec.mode}")
        domains = self._cluster.hosts[host].domains
        self._assert(not domains, "power", f"{host} is shut down with {len(domains)} domains on it")
        coming = [m for m in self._cluster.migrations.running.values() if host in (m.source, m.destination)]
        self._assert(not coming, "power", f"{host} is shut down while a VM migrates")

    def check(self) -> None:
        """What must hold between any two steps."""
        self.checks += 1
        if self.violation is not None:
            raise self.violation
        for call in self._write.calls[self._calls_seen :]:
            self._assert(call.kind in ALLOWED_CALLS, "P1", f"call {call.kind}")
            self._assert(self._spec.mode.may_act, "P9", f"call {call.kind} in mode {self._spec.mode}")
            self._assert(call.kind != "abort" or not call.postcopy, "P7", f"abort of {call.vm_uuid} in post-copy")
        self._calls_seen = len(self._write.calls)
        news = self._cluster.happened[self._events_seen :]
        self._events_seen = len(self._cluster.happened)
        off = next((e for e in news if e.kind == OFF_WITH_VMS), None)
        self._assert(off is None, "power", f"{off.host if off else ''} was powered off with VMs on it")
        written = self._ledger.cycles_written + self.cycles_unrecorded
        self._assert(written == self.cycles_run, "P12", f"{self.cycles_run} cycles left {written} records")
        if self._version != self._cluster.version:
            self._version = self._cluster.version
            self._placement()
            self._autostart()

    def _assert(self, holds: bool, promise: str, detail: str) -> None:
        if not holds:
            # kept as well as raised: the loop survives any error of a cycle, and this one must not be lost in it
            self.violation = InvariantError(f"{promise} broken at {self._cluster.now:.1f} s: {detail}")
            raise self.violation

    def _intent_is_durable(self, record: MigrationRecord) -> None:
        known = self._ledger.records.get(record.id)
        self._assert(known is not None and known.state.is_open, "P3", f"no open intent {record.id} before the call")
        self._assert(not self._ledger.full, "P3", f"{record.id} was started while the ledger could not be written")

    def _is_the_only_one(self, record: MigrationRecord) -> None:
        running = self._cluster.migrations.running.get(record.vm_uuid)
        seen = running is not None and (running.ours is not None or running.started < self.last_sample_at)
        self._assert(not seen, "P2", f"{record.vm_name} is migrating already")

    def _caps(self, record: MigrationRecord) -> None:
        """Every migration that a sample could have shown counts, whoever started it."""
        guard = self._spec.guard
        running = [
            m
            for m in self._cluster.migrations.running.values()
            if m.ours is not None or m.started < self.last_sample_at
        ]
        out, into = Counter(m.source for m in running), Counter(m.destination for m in running)
        self._assert(out[record.source] < guard.out_per_host, "P2", f"cap of moves out of {record.source}")
        self._assert(into[record.destination] < guard.in_per_host, "P2", f"cap of moves into {record.destination}")
        self._assert(len(running) < guard.per_cluster, "P2", "cap of moves in the cluster")

    def _hard_rules(self, record: MigrationRecord) -> None:
        vm, destination = self._cluster.vms[record.vm_uuid], self._cluster.hosts[record.destination]
        policy, name = vm.policy, record.destination
        self._assert(vm.owner is None, "foreign owner", f"{vm.name} belongs to {vm.owner}")
        self._assert(not vm.immovable, "immovable", f"{vm.name}: {vm.immovable}")
        self._assert(not policy.pin or name in policy.pin, "pin", f"{vm.name} to {name}")
        self._assert(name not in policy.avoid, "avoid", f"{vm.name} to {name}")
        self._assert(policy.mode is None or policy.mode.may_act, "mode", f"{vm.name} is in mode {policy.mode}")
        self._assert(destination.spec.mode is HostMode.ACTIVE, "host mode", f"{name} takes nothing in")
        options, accepts = record.options, policy.max_downtime_seconds
        limit = self._spec.plan.max_downtime_seconds if accepts is None else accepts
        self._assert(not options.postcopy or policy.postcopy, "post-copy", f"{vm.name} did not opt in")
        self._assert(not options.auto_converge or policy.auto_converge, "auto-converge", f"{vm.name} did not opt in")
        allowed = options.max_downtime_seconds
        self._assert(allowed <= limit, "downtime", f"{vm.name} accepts {limit:g} s and was to stand for {allowed:g} s")
        room = self._cluster.memory_available(name)
        need = int(self._cluster.guests.resident[self._cluster.rows[record.vm_uuid]])
        self._assert(room >= need, "memory", f"{vm.name} needs {need} bytes, {name} has {room}")
        blind = self._wires.reach.get(name, Reach.OK) is not Reach.OK or not destination.alive
        since = self._wires.since.get(name, self._cluster.now)
        stale = blind and self._cluster.now - since > self._spec.observe.stale_after_seconds
        self._assert(not stale, "P4", f"{name} has not answered for {self._cluster.now - since:.0f} s")
        for other in destination.domains:
            if other in self._cluster.vms and other != record.vm_uuid:
                shared = policy.anti_affinity & self._cluster.vms[other].policy.anti_affinity
                self._assert(not shared, "anti-affinity", f"{vm.name} and {self._cluster.vms[other].name} on {name}")

    def _placement(self) -> None:
        """Every guest runs once, unless somebody else ended it."""
        excused = {e.vm_uuid for e in self._cluster.happened if e.kind in ENDED_BY_OTHERS}
        doubled = {e.vm_uuid for e in self._cluster.happened if e.kind == DUPLICATED}
        appeared = {e.vm_uuid for e in self._cluster.happened if e.kind == "started by its owner"}
        running = Counter(
            d.uuid for h in self._cluster.hosts.values() for d in h.domains.values() if d.state.is_running
        )
        moving = self._cluster.migrations.running
        for uuid, vm in self._cluster.vms.items():
            count = running[uuid]
            self._assert(count <= 1 or uuid in doubled, "P1", f"{vm.name} runs on {count} hosts")
            if count == 0 and (vm.present or uuid in appeared) and uuid not in excused:
                between = uuid in moving and moving[uuid].phase in (Phase.SWITCH, Phase.FINISH)
                paused = any(
                    uuid in h.domains and h.domains[uuid].state is DomainState.PAUSED
                    for h in self._cluster.hosts.values()
                )
                self._assert(between or paused, "P1", f"{vm.name} runs nowhere")

    def _autostart(self) -> None:
        """Once the verdict is in, autostart is what it was."""
        latest = {record.vm_uuid: record for record in self._ledger.records.values()}
        for record in latest.values():
            if record.state is not MigrationState.SUCCEEDED or record.autostart_restored is False:
                continue
            domain = self._cluster.hosts[record.destination].domains.get(record.vm_uuid)
            if domain is not None and domain.state is DomainState.RUNNING and record.autostart is not None:
                self._assert(
                    not domain.persistent or domain.autostart == record.autostart,
                    "P1",
                    f"autostart of {record.vm_name} was {record.autostart} and is {domain.autostart}",
                )
