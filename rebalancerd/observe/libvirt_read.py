"""LibvirtRead: ports.HypervisorRead on read-only connections, one bulk call per host and tick."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.migration import Completion, Progress
from rebalancerd.cluster.sample import Definition, DomainSample, HostInventory, HostSample
from rebalancerd.cluster.units import KIB
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.observe.definition_xml import read_definition
from rebalancerd.observe.dirty_watch import DirtyWatch
from rebalancerd.observe.domain_stats import (
    completion_of,
    dirty_status,
    domain_sample,
    domain_state,
    progress_of,
    running_job,
    whole,
)
from rebalancerd.observe.libvirt_connection import ERR_NO_DOMAIN, HostLink, Opener, open_read_only
from rebalancerd.observe.libvirt_events import HostEvents
from rebalancerd.observe.libvirt_facts import FACTS_MAX_AGE_SECONDS, FactsCache, optional, read_facts, read_host_facts
from rebalancerd.observe.libvirt_inventory import read_inventory
from rebalancerd.observe.safe_xml import DomainXmlError
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import Clock, HostError, HostRefusedError

T = TypeVar("T")
GROUPS = ("STATE", "CPU_TOTAL", "BALLOON", "VCPU", "INTERFACE", "BLOCK", "DIRTYRATE")
FACTS_SHARE_OF_DEADLINE = 0.4  # of a call's deadline, for reading XML: on a slow link the rest waits for the next tick
ERR_OPERATION_INVALID = 55


class _HostReader:
    """One host: a link for sampling, one for questions in between, and what is remembered of its domains."""

    def __init__(self, host: HostSettings, settings: ObserveSettings, clock: Clock, opener: Opener) -> None:
        self.name = host.name
        self._clock = clock
        self._deadline = settings.call_deadline_seconds
        self.events = HostEvents()
        self._facts = FactsCache(clock)
        self._dirty = DirtyWatch()
        self._host_facts: HostFacts | None = None
        self._host_facts_at = float("-inf")
        self._verify_all = True

        def link(purpose: str, on_open: Callable[[Any], None] | None) -> HostLink:
            return HostLink(
                host, purpose=purpose, opener=opener, clock=clock, deadline_seconds=self._deadline, on_open=on_open
            )

        self.sampling = link("sample", self._on_open)
        self.asking = link("ask", None)

    def _on_open(self, connection: Any) -> None:
        """A new connection may have missed events: read every XML anew and look for jobs on every domain."""
        self.events.register(connection)
        self.events.forget_listed()
        self._facts = FactsCache(self._clock)
        self._host_facts_at = float("-inf")
        self._verify_all = True

    def sample(self, connection: Any) -> HostSample:
        begun = self._clock.monotonic()
        records = connection.getAllDomainStats(_groups(), _sample_flags())
        ended = self._clock.monotonic()
        cpu = optional(lambda: connection.getCPUStats(-1, 0))
        memory = optional(lambda: connection.getMemoryStats(-1, 0))
        facts = self._read_host_facts(connection)
        uuids = frozenset(domain.UUIDString() for domain, _ in records)
        self.events.listed(uuids)
        if self._verify_all:
            self.events.suspect(uuids)
            self._verify_all = False
        self._refresh(records, until=begun + self._deadline * FACTS_SHARE_OF_DEADLINE)
        samples = tuple(self._domain(domain, stats) for domain, stats in records)
        self._facts.keep(uuids)
        self._dirty.keep(uuids)
        return HostSample(
            host=self.name,
            taken_at=(begun + ended) / 2,
            facts=facts,
            cpu_busy_ns=_busy(cpu),
            cpu_idle_ns=_idle(cpu),
            memory_total_bytes=_kib(memory, "total"),
            memory_available_bytes=_available(memory),
            domains=samples,
        )

    def _read_host_facts(self, connection: Any) -> HostFacts:
        now = self._clock.monotonic()
        if self._host_facts is None or now - self._host_facts_at > FACTS_MAX_AGE_SECONDS:
            self._host_facts, self._host_facts_at = read_host_facts(connection), now
        return self._host_facts

    def _refresh(self, records: list[tuple[Any, dict[str, object]]], until: float) -> None:
        """Read the facts that may have changed, those that events named first, for as long as there is time."""
        changed = self.events.take_changed()
        wanted = []
        for domain, stats in records:
            uuid = domain.UUIDString()
            if uuid in changed or self._facts.stale(uuid, vcpus=whole(stats, "vcpu.current")):
                wanted.append((uuid not in changed, uuid, domain))
        wanted.sort(key=lambda item: item[:2])
        for index, (_, uuid, domain) in enumerate(wanted):
            if self._clock.monotonic() > until:
                self.events.changed(frozenset(u for _, u, _ in wanted[index:]) & changed)
                return
            self._facts.refresh(uuid, domain)

    def _domain(self, domain: Any, stats: dict[str, object]) -> DomainSample:
        """One domain. Whatever is wrong with it costs only itself."""
        uuid = domain.UUIDString()
        facts, fault = self._facts.get(uuid)
        try:
            sample = domain_sample(uuid, domain.name(), stats, facts, fault=fault)
            status = dirty_status(stats)
            return replace(
                sample,
                dirty=self._dirty.take(uuid, status, self._clock.wall()),
                dirty_measuring=status is not None and status.measuring,
                job=self._job(uuid, domain),
                fault=fault or ("libvirt gave no statistics" if sample.state is DomainState.UNKNOWN else None),
            )
        except Exception as error:  # noqa: BLE001 - one odd VM never blocks the rest
            reason = f"cannot be read: {type(error).__name__}: {error}"
            return DomainSample(uuid=uuid, name=domain.name(), state=DomainState.UNKNOWN, facts=facts, fault=reason)

    def _job(self, uuid: str, domain: Any) -> str | None:
        """The job on a domain that may have one; asked only of those, for the question is a call of its own."""
        import libvirt

        if uuid not in self.events.suspected():
            return None
        try:
            job = running_job(domain.jobStats(0))
        except libvirt.libvirtError:
            return None
        if job is None:
            self.events.clear_suspicion(uuid)
        return job


class LibvirtRead:
    """ports.HypervisorRead. Opens nothing before the first question; every connection it opens is read-only.

    ``opener`` replaces how a read-only connection is made.
    """

    def __init__(
        self, hosts: Sequence[HostSettings], settings: ObserveSettings, clock: Clock, opener: Opener = open_read_only
    ) -> None:
        self._readers = {host.name: _HostReader(host, settings, clock, opener) for host in hosts}

    def hosts(self) -> tuple[str, ...]:
        """Names of the configured hosts."""
        return tuple(self._readers)

    def sample(self, host: str) -> HostSample:
        """One bulk reading of a host and its domains, paused ones included (an incoming migration is one)."""
        reader = self._readers[host]
        return self._named(host, "sample", lambda: reader.sampling.call("sample", reader.sample))

    def locate(self, host: str, vm_uuid: str) -> DomainState:
        """State of that domain on that host; ABSENT if it is not even defined there, and only then."""
        state = self._ask(host, "locate", lambda c: _with_domain(c, vm_uuid, lambda d: domain_state(*d.state())))
        return DomainState.ABSENT if state is None else state

    def progress(self, host: str, vm_uuid: str) -> Progress | None:
        """The running migration job of that domain on that host, None if there is no such job."""
        return self._ask(host, "job statistics", lambda c: _with_domain(c, vm_uuid, _running))

    def completion(self, host: str, vm_uuid: str) -> Completion | None:
        """Statistics of the last finished migration of that domain: asked of this host, or kept from the event.

        A domain that is here came by that migration; what an event told is of the one by which it left, maybe long ago.
        """
        kept = self._readers[host].events.completion(vm_uuid)
        try:
            asked = self._ask(host, "completed job", lambda c: _with_domain(c, vm_uuid, _completed))
        except HostError:
            if kept is None:
                raise
            return kept
        return kept if asked is None else asked

    def inventory(self, host: str) -> HostInventory:
        """Networks, secrets, filters, domains and the like that a preflight compares."""
        return self._ask(host, "inventory", lambda c: read_inventory(host, c))

    def domain_facts(self, host: str, vm_uuid: str) -> VmFacts | None:
        """Facts of one domain, read now (a changed autostart raises no event); None if it is not there."""
        return self._ask(host, "domain facts", lambda c: _with_domain(c, vm_uuid, read_facts))

    def definition(self, host: str, vm_uuid: str) -> Definition | None:
        """What is defined of a domain that is shut off, and what the host keeps for it; None if it is not there."""
        return self._ask(host, "definition", lambda c: _with_domain(c, vm_uuid, read_definition))

    def events_missed(self) -> dict[str, int]:
        """Domains per host that came or went without any event telling it, since the start."""
        return {name: reader.events.missed for name, reader in self._readers.items()}

    def close(self) -> None:
        """Let go of every connection."""
        for reader in self._readers.values():
            reader.sampling.close()
            reader.asking.close()

    def _ask(self, host: str, what: str, work: Callable[[Any], T]) -> T:
        link = self._readers[host].asking
        return self._named(host, what, lambda: link.call(what, work))

    @staticmethod
    def _named(host: str, what: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except DomainXmlError as error:
            raise HostRefusedError(host, f"{what}: the XML {error}") from error


def _with_domain(connection: Any, vm_uuid: str, work: Callable[[Any], T]) -> T | None:
    """``work`` on the domain; None if the host says that there is no such domain."""
    import libvirt

    try:
        return work(connection.lookupByUUIDString(vm_uuid))
    except libvirt.libvirtError as error:
        if error.get_error_code() == ERR_NO_DOMAIN:
            return None
        raise


def _running(domain: Any) -> Progress | None:
    import libvirt

    try:
        return progress_of(domain.jobStats(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == ERR_OPERATION_INVALID:  # it is off, as after its end in mid-migration: no job
            return None
        raise


def _completed(domain: Any) -> Completion | None:
    import libvirt

    flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | getattr(libvirt, "VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED", 0)
    try:
        stats = domain.jobStats(flags)
    except libvirt.libvirtError as error:
        if error.get_error_code() == ERR_OPERATION_INVALID:  # not running any more: nothing is kept
            return None
        raise
    return completion_of(stats) if stats.get("type") == libvirt.VIR_DOMAIN_JOB_COMPLETED else None


def _groups() -> int:
    import libvirt

    return sum(getattr(libvirt, f"VIR_DOMAIN_STATS_{group}", 0) for group in GROUPS)


def _sample_flags() -> int:
    """Active domains, and never wait for one that is busy."""
    import libvirt

    flags: int = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    return flags | getattr(libvirt, "VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT", 0)


def _busy(cpu: dict[str, object] | None) -> int | None:
    """Nanoseconds that all CPUs together were busy; waiting for a disk is not."""
    if cpu is None:
        return None
    user, kernel = whole(cpu, "user"), whole(cpu, "kernel")
    return None if user is None or kernel is None else user + kernel


def _idle(cpu: dict[str, object] | None) -> int | None:
    """Nanoseconds that all CPUs together were not busy."""
    if cpu is None:
        return None
    idle = whole(cpu, "idle")
    return None if idle is None else idle + (whole(cpu, "iowait") or 0)


def _kib(memory: dict[str, object] | None, key: str) -> int | None:
    value = None if memory is None else whole(memory, key)
    return None if value is None else value * KIB


def _available(memory: dict[str, object] | None) -> int | None:
    """Free memory and what the kernel would give back at once. libvirt does not tell MemAvailable; an agent does."""
    free = _kib(memory, "free")
    if free is None:
        return None
    return free + (_kib(memory, "buffers") or 0) + (_kib(memory, "cached") or 0)
