"""Observer: samples every host, keeps what was seen, and makes one immutable snapshot of it on demand."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import structlog

from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.sample import AgentSample, HostSample
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Doubled, Snapshot, Unknown
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.observe.agent_curves import AgentCurves
from rebalancerd.observe.assemble import agent_over, host_of, stand_in_facts, vm_of
from rebalancerd.observe.cluster_file import FILE, ClusterFile
from rebalancerd.observe.cpu_table import CpuTable
from rebalancerd.observe.dirty_pool import DirtyPool
from rebalancerd.observe.history import HOST_CPU, HOST_MEMORY, VM_CPU, VM_DIRTY, VM_MEMORY, VM_STEAL, History
from rebalancerd.observe.host_watch import HostWatch
from rebalancerd.observe.placement import Placement, Sighting, place
from rebalancerd.observe.rates import Rates
from rebalancerd.observe.rolling_probe import Probe, ProbeCandidate, RollingProbe
from rebalancerd.observe.sanity import duplicate_host_uuids, jumped, vanished
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import Agents, Clock, HostError, HypervisorProbe, HypervisorRead

log = structlog.get_logger(__name__)
T = TypeVar("T")

NOT_THERE = frozenset({DomainState.SHUTOFF, DomainState.ABSENT})
CPU_QUESTIONS_PER_TICK = 16
DOUBLED_LOOKS = 2  # in a row; in one look a migration by other hands may end between the answers of its two hosts
MOST_THREADS = 256  # one per host, so that no host waits behind those that hang
SLACK_SECONDS = 2.5  # beside a call's own deadline, for its agent and its way through the threads


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one host gave in one tick."""

    sample: HostSample | None
    agent: AgentSample | None
    error: str | None


class Observer:
    """Follows the cluster. Thread-safe: sampling, probing and asking for snapshots may happen at once.

    ``concurrent`` False asks one host after the other, which is what virtual time wants.
    """

    def __init__(
        self,
        *,
        hosts: Sequence[HostSettings],
        settings: ObserveSettings,
        read: HypervisorRead,
        history: History,
        clock: Clock,
        probe: HypervisorProbe | None = None,
        agents: Agents | None = None,
        concurrent: bool = True,
        power_model: Callable[[Host], Host] = lambda host: host,
    ) -> None:
        """``power_model``: gives a host what is measured of its power in the place of what is declared."""
        self.settings = settings
        self._read, self._probe, self._agents = read, probe, agents
        self._power_model = power_model
        self._history, self._clock = history, clock
        self._cluster_file = ClusterFile(history.directory / FILE)
        self._watches = {host.name: HostWatch(host) for host in hosts}
        self._rates = Rates(longest_seconds=settings.stale_after_seconds)
        self._pool = DirtyPool(settings.probe_pool_seconds)
        self._told = AgentCurves(settings.probe_pool_seconds)
        self._rolling = RollingProbe(settings.probe_periods_seconds)
        self._cpu = CpuTable()
        self._lock = threading.RLock()
        self._threads: ThreadPoolExecutor | None = None
        self._pending: dict[str, Future[_Answer]] = {}
        if concurrent and len(self._watches) > 1:
            workers = min(MOST_THREADS, len(self._watches))
            self._threads = ThreadPoolExecutor(workers, thread_name_prefix="observe")
        self._facts: dict[str, VmFacts] = {}
        self._placement = Placement({}, (), ())
        self._stood: dict[str, str] = {}
        self._doubled: dict[str, int] = {}  # looks in a row
        self._cores: dict[str, float | None] = {}
        self._ours: tuple[MigrationRecord, ...] = ()
        self._samples = 0
        self._sampled_at: float | None = None
        self._frozen: tuple[float, str] | None = None  # until, why

    # sampling

    def sample(self) -> None:
        """Ask every host once. A host that fails or hangs costs its own deadline; nothing is raised.

        Called by one thread at a time.
        """
        names = tuple(self._watches)
        answers = self._ask_all(names)
        with self._lock:
            now = self._clock.monotonic()
            self._note_gap(now)
            arrived = [name for name in names if self._take(name, answers[name], now)]
            self._doubt_vanished(arrived, now)
            self._place()
            self._doubled = {uuid: self._doubled.get(uuid, 0) + 1 for uuid in self._placement.doubled}
            self._doubt_jumps(now)
            self._keep()
            self._samples += bool(arrived)
            self._record()

    def _ask_all(self, names: Sequence[str]) -> dict[str, _Answer]:
        """An answer of every host. Who is late counts as silent now; what it says at last is taken at the next tick."""
        if self._threads is None:
            return {name: self._ask(name) for name in names}
        for name in names:
            if name not in self._pending:
                self._pending[name] = self._threads.submit(self._ask, name)
        patience = self.settings.call_deadline_seconds + SLACK_SECONDS
        wait(self._pending.values(), timeout=patience)
        late = _Answer(None, None, f"no answer within {patience:g} s")
        return {name: self._pending.pop(name).result() if self._pending[name].done() else late for name in names}

    def _each(self, names: Sequence[str], work: Callable[[str], T]) -> dict[str, T]:
        if self._threads is None:
            return {name: work(name) for name in names}
        return dict(zip(names, self._threads.map(work, names), strict=True))

    def _ask(self, name: str) -> _Answer:
        sample, error = None, None
        try:
            sample = self._read.sample(name)
        except HostError as failure:
            error = str(failure).removeprefix(f"{name}: ")
        except Exception as failure:  # whatever one host does, the others are sampled
            log.exception("sample_failed", host=name, bug=True)
            error = f"its sample could not be understood: {type(failure).__name__}: {failure}"
        agent = None
        if self._agents is not None:
            try:
                agent = self._agents.read(name)
            except Exception:  # an agent is an extra
                log.exception("agent_failed", host=name, bug=True)
        return _Answer(sample, agent, error)

    def _note_gap(self, now: float) -> None:
        """After a long silence of our own (suspended, stopped) what was known is worth nothing: warm up anew."""
        if self._sampled_at is not None and now - self._sampled_at > self.settings.stale_after_seconds:
            self._samples = 0
            self._cores = {}
        self._sampled_at = now

    def _take(self, name: str, answer: _Answer, now: float) -> bool:
        watch = self._watches[name]
        watch.agent = answer.agent
        self._told.take(name, answer.agent, now)
        if answer.sample is None:
            if watch.error is None:
                log.warning("host_lost", host=name, reason=answer.error)
            watch.failed(answer.error or "no answer")
            return False
        if watch.error is not None or watch.sample is None:
            log.info("host_answers", host=name)
        watch.answered(answer.sample, now, self.settings)
        rates = self._rates.update(answer.sample)
        watch.load, watch.vm_loads, watch.dropped = rates.load, rates.vms, rates.dropped
        for domain in answer.sample.domains:
            if domain.facts is not None and domain.facts.uuid == domain.uuid:
                self._facts[domain.uuid] = domain.facts
            if domain.dirty is not None:
                self._pool.add(domain.uuid, domain.dirty)
        return True

    def _doubt_vanished(self, arrived: Sequence[str], now: float) -> None:
        stood: dict[str, set[str]] = {}
        for uuid, host in self._stood.items():
            stood.setdefault(host, set()).add(uuid)
        listed = {n: {d.uuid for d in w.sample.domains} for n, w in self._watches.items() if w.sample is not None}
        for name in arrived:
            watch, before = self._watches[name], stood.get(name, set())
            if not watch.lost_vms and (not before or before & listed[name]):
                continue
            elsewhere = set().union(*(uuids for host, uuids in listed.items() if host != name))
            until = now + self.settings.flap_stable_seconds
            watch.lost(vanished(before, listed[name], elsewhere), listed[name], elsewhere, until)

    def _place(self) -> None:
        sightings = [
            Sighting(name, domain, watch.error is None)
            for name, watch in self._watches.items()
            if watch.sample is not None
            for domain in watch.sample.domains
            if domain.state not in NOT_THERE
        ]
        self._placement = place(sightings, self._ours, self._stood)
        moving = {flight.vm_uuid for flight in self._placement.in_flight}
        for uuid, standing in self._placement.standings.items():
            # while it moves, where it came from is still what tells source from destination
            if uuid not in moving or uuid not in self._stood:
                self._stood[uuid] = standing.sighting.host

    def _doubt_jumps(self, now: float) -> None:
        cores = {
            uuid: load.cpu_cores
            for uuid, standing in self._placement.standings.items()
            if (load := self._watches[standing.sighting.host].vm_loads.get(uuid)) is not None
        }
        reason = jumped(self._cores, cores, self.settings.frozen_jump_share)
        if reason is not None:
            self._frozen = (now + self.settings.stale_after_seconds, reason)
            log.warning("telemetry_doubted", reason=reason)
        elif self._frozen is not None and now >= self._frozen[0]:
            self._frozen = None
        self._cores = cores

    def _keep(self) -> None:
        """Forget the VMs that no host lists any more."""
        present = frozenset(self._placement.standings)
        for uuid in self._facts.keys() - present:
            del self._facts[uuid]
        for uuid in self._stood.keys() - present:
            del self._stood[uuid]
        self._pool.keep(present)
        self._rolling.keep(present)
        self._told.keep(present)

    def _record(self) -> None:
        """One tick of history: what hosts that answered just now said."""
        values: dict[str, dict[str, float | None]] = {
            r: {} for r in (VM_CPU, VM_MEMORY, VM_STEAL, VM_DIRTY, HOST_CPU, HOST_MEMORY)
        }
        for name, watch in self._watches.items():
            if watch.error is None and watch.sample is not None:
                load = agent_over(watch.load, watch.sample, watch.agent)
                values[HOST_CPU][name], values[HOST_MEMORY][name] = load.cpu_cores, load.memory_used_bytes
        for uuid, standing in self._placement.standings.items():
            watch = self._watches[standing.sighting.host]
            vm = watch.vm_loads.get(uuid)
            if vm is None or watch.error is not None:
                continue
            values[VM_CPU][uuid], values[VM_MEMORY][uuid] = vm.cpu_cores, vm.memory_bytes
            values[VM_STEAL][uuid] = vm.steal_cores
            last = self._pool.last(uuid)
            if last is not None and last.period_seconds == min(self.settings.probe_periods_seconds):
                values[VM_DIRTY][uuid] = last.rate_bytes_per_second
        try:
            self._history.append(self._clock.wall(), values)
            if self._placement.standings:
                stands = {uuid: s.sighting.host for uuid, s in self._placement.standings.items()}
                self._cluster_file.stood(self._clock.wall(), stands)
                if self._cluster_file.due(self._clock.wall()):
                    self._write_cluster()
        except OSError as error:  # a full disk costs history, not sight
            log.error("history_not_written", reason=str(error))

    def _write_cluster(self) -> None:
        now = self._clock.monotonic()
        hosts = [host_of(watch, now, None, drained=False) for watch in self._watches.values()]
        self._cluster_file.write(self._clock.wall(), hosts, self._facts.values())

    # probing

    def probe_tick(self) -> None:
        """Start at most one dirty-rate calculation per host, and compare a few CPUs. Does nothing without a probe port."""
        if self._probe is None:
            return
        with self._lock:
            now = self._clock.monotonic()
            chosen = self._rolling.choose(self._candidates(now), self._heat(), now)
        self._each_probe(chosen)
        with self._lock:
            vms, hosts = self._comparable(now)
        # outside the lock: it asks hosts; only this method uses the table's writing side
        self._cpu.fill(self._probe, vms, hosts, now, CPU_QUESTIONS_PER_TICK)

    def _each_probe(self, chosen: Sequence[Probe]) -> None:
        by_host = {probe.host: probe for probe in chosen}
        outcomes = self._each(tuple(by_host), lambda host: self._start(by_host[host]))
        with self._lock:
            now = self._clock.monotonic()
            for host, reason in outcomes.items():
                if reason is None:
                    self._rolling.started(by_host[host], now)
                else:
                    self._rolling.refused(by_host[host], now)
                    log.info("probe_refused", host=host, vm=by_host[host].vm_uuid, reason=reason)

    def _start(self, probe: Probe) -> str | None:
        assert self._probe is not None
        try:
            # a migration may have begun since the last sample; the call would then block for libvirt's lock, 30 s
            if self._read.progress(probe.host, probe.vm_uuid) is not None:
                return "a job runs on it"
            self._probe.start_dirty_rate(probe.host, probe.vm_uuid, probe.period_seconds)
        except HostError as error:
            return str(error)
        return None

    def _usable(self, now: float) -> dict[str, HostSample]:
        return {
            name: watch.sample
            for name, watch in self._watches.items()
            if watch.sample is not None and watch.unusable(now, self.settings, None) is None
        }

    def _candidates(self, now: float) -> list[ProbeCandidate]:
        usable = self._usable(now)
        moving = {flight.vm_uuid for flight in self._placement.in_flight} | {r.vm_uuid for r in self._ours}
        found = []
        for uuid, standing in self._placement.standings.items():
            domain = standing.sighting.domain
            facts = self._facts.get(uuid)
            if standing.sighting.host in usable and facts is not None:
                found.append(
                    ProbeCandidate(
                        host=standing.sighting.host,
                        vm_uuid=uuid,
                        memory_bytes=facts.memory_bytes,
                        running=domain.state is DomainState.RUNNING,
                        migrating=uuid in moving or standing.busy is not None,
                        measuring=domain.dirty_measuring,
                    )
                )
        return found

    def _heat(self) -> dict[str, float]:
        """Share of its CPUs that a host keeps busy."""
        found = {}
        for name, watch in self._watches.items():
            if watch.sample is not None:
                cores = agent_over(watch.load, watch.sample, watch.agent).cpu_cores
                found[name] = (cores or 0.0) / max(1, watch.sample.facts.cpus)
        return found

    def _comparable(self, now: float) -> tuple[list[tuple[VmFacts, str]], list[tuple[str, HostFacts]]]:
        usable = self._usable(now)
        vms = [
            (facts, standing.sighting.host)
            for uuid, standing in sorted(self._placement.standings.items())
            if standing.sighting.host in usable and (facts := self._facts.get(uuid)) is not None
        ]
        return vms, [(name, sample.facts) for name, sample in usable.items()]

    # answering

    def snapshot(self, *, operator: OperatorState, ours: Sequence[MigrationRecord]) -> Snapshot:
        """The cluster as last sampled; ``ours`` are the migrations without a verdict that we started or adopted."""
        with self._lock:
            self._ours = tuple(ours)
            self._place()
            now = self._clock.monotonic()
            duplicates = duplicate_host_uuids(
                {n: w.sample.facts.uuid for n, w in self._watches.items() if w.sample is not None}
            )
            unknowns = [*self._placement.unknowns, *self._told.unknowns()]
            hosts = []
            for name, watch in self._watches.items():
                reason = watch.unusable(now, self.settings, duplicates.get(name))
                host = host_of(watch, now, reason, drained=name in operator.drained)
                hosts.append(self._power_model(host))
                unknowns += watch.dropped
                if reason is not None:
                    unknowns.append(Unknown(subject=name, field="host", reason=reason))
            vms = []
            for uuid, standing in self._placement.standings.items():
                domain = standing.sighting.domain
                facts = self._facts.get(uuid) or stand_in_facts(domain)
                load = self._watches[standing.sighting.host].vm_loads.get(uuid)
                by_libvirt = self._pool.curve(uuid, self._clock.wall(), facts.memory_bytes)
                dirty, doubt = self._told.choose(uuid, standing.sighting.host, facts.memory_bytes, by_libvirt, now)
                vms.append(vm_of(standing, facts, load, dirty, self.settings.rules))
                if doubt is not None:
                    unknowns.append(Unknown(subject=uuid, field="dirty", reason=doubt))
                unknowns += [Unknown(subject=uuid, field="facts", reason=fault) for fault in facts.faults]
                if domain.fault is not None:
                    unknowns.append(Unknown(subject=uuid, field="domain", reason=domain.fault))
            return Snapshot(
                taken_at=self._clock.wall(),
                hosts=tuple(hosts),
                vms=tuple(vms),
                in_flight=self._placement.in_flight,
                unknowns=tuple(sorted(unknowns, key=lambda u: (u.subject, u.field, u.reason))),
                cpu_fits=self._cpu.rows(),
                warming_up=self._samples < self.settings.warm_up_samples,
                frozen=None if self._frozen is None else self._frozen[1],
                doubled=tuple(
                    Doubled(vm_uuid=uuid, hosts=hosts)
                    for uuid, hosts in self._placement.doubled.items()
                    if self._doubled.get(uuid, 0) >= DOUBLED_LOOKS
                ),
            )

    def series(self, resource: str, tier: int = 0) -> Series:
        """Recorded history of one resource. Raises KeyError."""
        with self._lock:
            return self._history.series(resource, tier)

    def stays(self) -> Stays:
        """Which VM was where since when, as far back as it is kept."""
        with self._lock:
            return self._cluster_file.stays()

    def flush(self) -> None:
        """Bring history to the disk. Raises OSError."""
        with self._lock:
            self._history.flush()
            self._write_cluster()

    def close(self) -> None:
        """End the threads and close the history."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._history.close()
