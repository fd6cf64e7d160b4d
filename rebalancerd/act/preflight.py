"""Preflight: right before a move both hosts are read anew, and whatever is not as the plan assumes refuses the step.

What cannot be read refuses too, with two exceptions that libvirt itself checks before it touches the guest, and that
many hosts cannot list: bridges and machine types.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from rebalancerd.cluster.names import printable
from rebalancerd.cluster.plan import Move
from rebalancerd.cluster.refusal import Code, Refusal, about_host, about_vm
from rebalancerd.cluster.sample import CpuFit, DomainSample, HostInventory, HostSample
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DiskKind, DomainState, VmFacts
from rebalancerd.ports import (
    Clock,
    HostError,
    HostRefusedError,
    HostUnreachableError,
    HypervisorProbe,
    HypervisorRead,
    HypervisorWrite,
)

SEARCH_SECONDS = 2.0  # spent at most on looking for a VM that is not where it should be
COMPARED = (
    "name",
    "vcpus",
    "memory_bytes",
    "virt_type",
    "machine",
    "cpu_digest",
    "hugepage_bytes",
    "host_topology",
    "pinned_cpus",
    "disks",
    "nics",
    "secrets",
    "persistent",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """A move that may be started, with the VM's facts as they are now."""

    facts: VmFacts


class Way(Protocol):
    """Who goes from where to where."""

    @property
    def vm_uuid(self) -> str:
        """The domain's UUID."""
        ...

    @property
    def source(self) -> str:
        """The host it is on."""
        ...

    @property
    def destination(self) -> str:
        """The host it is to be on."""
        ...


class Preflight:
    """Reads both hosts. ``check`` raises nothing that a host can cause; every answer is a Refusal or Cleared."""

    def __init__(
        self, *, read: HypervisorRead, write: HypervisorWrite, probe: HypervisorProbe | None, clock: Clock
    ) -> None:
        self._read, self._write, self._probe, self._clock = read, write, probe, clock

    def check(self, move: Move, planned: VmFacts, inbound: Mapping[str, int | None]) -> Cleared | Refusal:
        """Whether ``move`` can be started now. ``planned``: facts the plan was made from.

        ``inbound``: memory (bytes, None unknown) of our VMs under way to the same destination, by UUID.
        """
        try:
            return self._check(move, planned, inbound)
        except HostUnreachableError as error:
            return about_host(Code.HOST_UNREACHABLE, error.host, str(error))
        except HostRefusedError as error:
            return about_host(Code.PREFLIGHT_UNKNOWN, error.host, str(error))

    def _check(self, move: Move, planned: VmFacts, inbound: Mapping[str, int | None]) -> Cleared | Refusal:
        refusal = self._source(move)
        if refusal is not None:
            return refusal
        now = self._read.domain_facts(move.source, move.vm_uuid)
        if now is None:
            return about_vm(Code.VM_GONE, move.vm_uuid, f"is gone from {move.source}", move.destination)
        here, there = self._read.inventory(move.source), self._read.inventory(move.destination)
        refusal = (
            _same_facts(move, planned, now)
            or identities(move, here, there)
            or clash(move, now, there)
            or belongings(move, now, there)
            or self._autostart(move, now)
            or self._memory(move, now, inbound)
            or self._cpu(move, now)
        )
        return Cleared(facts=now) if refusal is None else refusal

    def _source(self, move: Move) -> Refusal | None:
        """It must run on the source, without a job."""
        state = self._read.locate(move.source, move.vm_uuid)
        if state is not DomainState.RUNNING:
            return self._not_running(move, state)
        if self._read.progress(move.source, move.vm_uuid) is not None:
            return about_vm(Code.VM_BUSY, move.vm_uuid, f"a job runs on it on {move.source}", move.destination)
        return None

    def _not_running(self, move: Move, state: DomainState) -> Refusal:
        uuid, to = move.vm_uuid, move.destination
        if state is DomainState.UNKNOWN:
            return about_vm(Code.PREFLIGHT_UNKNOWN, uuid, f"its state on {move.source} is unknown", to)
        if state is DomainState.PAUSED_MIGRATION or "postcopy" in state.value:
            return about_vm(Code.VM_BUSY, uuid, f"is {state.value} on {move.source}", to)
        if not state.is_active:
            elsewhere = self._find(move)
            if elsewhere is not None:
                return about_vm(Code.NOT_ON_SOURCE, uuid, f"runs on {elsewhere}, not on {move.source}", to)
        if state is DomainState.ABSENT:
            return about_vm(Code.VM_GONE, uuid, f"is gone from {move.source}", to)
        return about_vm(Code.VM_NOT_RUNNING, uuid, f"is {state.value} on {move.source}", to)

    def _find(self, move: Move) -> str | None:
        """Another host where it is active: the destination first, then the rest while time allows."""
        until = self._clock.monotonic() + SEARCH_SECONDS
        others = [h for h in self._read.hosts() if h not in (move.source, move.destination)]
        for host in (move.destination, *others):
            try:
                if self._read.locate(host, move.vm_uuid).is_active:
                    return host
            except HostError:
                pass  # it only helps to say where the VM went
            if self._clock.monotonic() >= until:
                break
        return None

    def _autostart(self, move: Move, now: VmFacts) -> Refusal | None:
        """Every libvirt migration loses the flag; a set one must be known and settable on the destination."""
        if not now.persistent or now.autostart is False:
            return None
        if now.autostart is None:
            detail = "its autostart flag cannot be read, so it could not be restored"
            return about_vm(Code.PREFLIGHT_UNKNOWN, move.vm_uuid, detail, move.destination)
        if self._write.may_set_autostart(move.destination):
            return None
        detail = f"autostart is lost by a migration, and setting it on {move.destination} is not allowed"
        return about_vm(Code.AUTOSTART_RIGHT, move.vm_uuid, detail, move.destination)

    def _memory(self, move: Move, now: VmFacts, inbound: Mapping[str, int | None]) -> Refusal | None:
        """What is available there, less what incoming migrations, ours and others', will still take."""
        host, sample = move.destination, self._read.sample(move.destination)
        if now.hugepage_bytes is not None:
            return _huge_pages(move, now, sample)
        if sample.memory_available_bytes is None:
            return about_host(Code.PREFLIGHT_UNKNOWN, host, "its available memory is unknown")
        coming = {d.uuid: _still_to_come(d, inbound) for d in sample.domains}
        coming |= {uuid: whole for uuid, whole in inbound.items() if uuid not in coming}
        if None in coming.values():
            return about_host(Code.PREFLIGHT_UNKNOWN, host, "how much an incoming migration will take is unknown")
        free = sample.memory_available_bytes - sum(c for c in coming.values() if c is not None)
        if free >= now.memory_bytes:
            return None
        detail = f"needs {now.memory_bytes / GIB:.2f} GiB, {host} has {max(0, free) / GIB:.2f} GiB available"
        return about_vm(Code.MEMORY_CAPACITY, move.vm_uuid, detail, host)

    def _cpu(self, move: Move, now: VmFacts) -> Refusal | None:
        """An unknown fit is left to the plan, which then demanded declared equal CPUs; emulation brings its own."""
        if self._probe is None or now.virt_type == "qemu":
            return None
        try:
            fit, detail = self._probe.cpu_fit(move.vm_uuid, move.source, move.destination)
        except HostRefusedError:
            return None
        if fit is not CpuFit.INCOMPATIBLE:
            return None
        return about_vm(Code.CPU_MODEL, move.vm_uuid, printable(detail), move.destination)


def _huge_pages(move: Move, now: VmFacts, sample: HostSample) -> Refusal | None:
    """Free huge pages there, as far as libvirt tells them; pools that only the operator declares were judged in the plan."""
    pools = {pool.size_bytes: pool for pool in sample.facts.hugepages or ()}
    size = now.hugepage_bytes or (next(iter(pools)) if len(pools) == 1 else 0)
    pool = pools.get(size)
    if pool is None or pool.free is None or pool.free * size >= now.memory_bytes:
        return None
    pages = -(-now.memory_bytes // size)
    detail = f"needs {pages} huge pages of {size // MIB} MiB, {move.destination} has {pool.free} free"
    return about_vm(Code.HUGEPAGES, move.vm_uuid, detail, move.destination)


def _still_to_come(domain: DomainSample, inbound: Mapping[str, int | None]) -> int | None:
    """Bytes an incoming copy will still take on its host: its memory less what its process holds; None unknown."""
    if domain.state is not DomainState.PAUSED_MIGRATION and domain.uuid not in inbound:
        return 0
    whole = domain.facts.memory_bytes if domain.facts is not None else domain.balloon_bytes
    whole = whole if whole is not None else inbound.get(domain.uuid)
    return None if whole is None else max(0, whole - (domain.rss_bytes or 0))


def _same_facts(move: Move, planned: VmFacts, now: VmFacts) -> Refusal | None:
    uuid, to = move.vm_uuid, move.destination
    changed = [name for name in COMPARED if getattr(planned, name) != getattr(now, name)]
    if changed:
        return about_vm(Code.PLAN_STALE, uuid, f"changed since the plan was made: {', '.join(changed)}", to)
    if now.immovable:
        return about_vm(Code.IMMOVABLE, uuid, "; ".join(printable(i) for i in now.immovable), to)
    if now.owner is not None and planned.owner is None:
        return about_vm(Code.FOREIGN_OWNER, uuid, f"is owned by {printable(now.owner.name)} now", to)
    if now.has_managed_save:
        return about_vm(Code.MANAGED_SAVE, uuid, f"has a managed-save image on {move.source}", to)
    if now.has_managed_save is None and now.persistent:
        return about_vm(Code.PREFLIGHT_UNKNOWN, uuid, "whether it has a managed-save image cannot be read", to)
    return None


def identities(move: Way, here: HostInventory, there: HostInventory) -> Refusal | None:
    """Both hosts must say who they are, and not be the same."""
    for inventory in (here, there):
        if inventory.host_uuid is None:
            return about_host(Code.PREFLIGHT_UNKNOWN, inventory.host, "its host UUID is unknown")
    if here.host_uuid != there.host_uuid:
        return None
    detail = f"{move.source} and {move.destination} have the same host UUID {printable(str(here.host_uuid))}"
    return about_host(Code.DUPLICATE_HOST_UUID, move.destination, detail)


def clash(move: Way, now: VmFacts, there: HostInventory) -> Refusal | None:
    """No domain of that UUID or name may be known there, active or not."""
    for uuid, name, state in there.domains:
        if uuid == move.vm_uuid and state.is_active:
            detail = f"is {state.value} on {there.host} as well"
            return about_vm(Code.DUPLICATE_VM, uuid, detail, there.host)
        if uuid == move.vm_uuid or name == now.name:
            detail = f"{there.host} has a domain {printable(name)} ({printable(uuid)}, {state.value})"
            return about_vm(Code.NAME_CLASH, move.vm_uuid, detail, there.host)
    return None


def belongings(move: Way, now: VmFacts, there: HostInventory) -> Refusal | None:
    """Machine type, networks, bridges, pools, secrets and network filters, as far as the destination can list them."""
    uuid, host = move.vm_uuid, there.host
    if now.machine is not None and there.machine_types is not None and now.machine not in there.machine_types:
        return about_vm(Code.MACHINE_TYPE, uuid, f"{host} does not offer machine type {printable(now.machine)}", host)
    bridges = {n.source for n in now.nics if n.kind == "bridge" and n.source is not None}
    if there.bridges is not None and bridges - there.bridges:
        return about_vm(Code.NETWORK_MISSING, uuid, f"{host} lacks bridge {_names(bridges - there.bridges)}", host)
    networks = {n.source for n in now.nics if n.kind == "network" and n.source is not None}
    pools = {d.pool for d in now.disks if d.kind is DiskKind.VOLUME and d.pool is not None}
    filters = {n.nwfilter for n in now.nics if n.nwfilter is not None}
    wanted: tuple[tuple[Code, str, Iterable[str], frozenset[str] | None], ...] = (
        (Code.NETWORK_MISSING, "network", networks, there.networks),
        (Code.STORAGE_UNREACHABLE, "storage pool", pools, there.pools),
        (Code.MISSING_SECRET, "secret", now.secrets, there.secrets),
        (Code.MISSING_NWFILTER, "network filter", filters, there.nwfilters),
    )
    for code, what, needed, present in wanted:
        missing = frozenset(needed) - (present or frozenset())
        if missing and present is None:
            detail = f"whether {host} has {what} {_names(missing)} cannot be read"
            return about_vm(Code.PREFLIGHT_UNKNOWN, uuid, detail, host)
        if missing:
            return about_vm(code, uuid, f"{host} lacks {what} {_names(missing)}", host)
    return None


def _names(names: Iterable[str]) -> str:
    return ", ".join(printable(name) for name in sorted(names))
