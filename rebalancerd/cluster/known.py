"""MigrationFacts: what is known of a migration before it begins; predictions rest on nothing else, and training learns from it."""

from dataclasses import dataclass

from rebalancerd.cluster.cost import Candidate, MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFacts:
    """One candidate migration as the daemon knew it; None is unknown. Bytes, bytes per second, cores of the host.

    ``resident_bytes``: memory that the VM's process held. ``link_bytes_per_second``: rating of the slower end's link,
    ``link_share`` the part of it that the migration was to get. ``source_cpu_cores``, ``destination_cpu_cores``: cores
    kept busy on the two hosts, of ``source_cores`` and ``destination_cores`` usable ones.
    """

    memory_bytes: int
    resident_bytes: int | None = None
    vcpus: int = 1
    vm_cpu_cores: float | None = None
    vm_steal_cores: float | None = None
    dirty: DirtyCurve | None = None
    link_bytes_per_second: float | None = None
    link_share: float = 1.0
    options: MigrationOptions = MigrationOptions()
    source_cores: float | None = None
    source_cpu_cores: float | None = None
    destination_cores: float | None = None
    destination_cpu_cores: float | None = None


def migration_facts(snapshot: Snapshot, candidate: Candidate) -> MigrationFacts | None:
    """What a snapshot says of a candidate; None if it does not know the VM."""
    vm = snapshot.vm_by_uuid.get(candidate.vm_uuid)
    if vm is None:
        return None
    source, destination = (snapshot.host_by_name.get(n) for n in (candidate.source, candidate.destination))
    return MigrationFacts(
        memory_bytes=vm.facts.memory_bytes,
        resident_bytes=vm.load.memory_bytes,
        vcpus=vm.facts.vcpus,
        vm_cpu_cores=vm.load.cpu_cores,
        vm_steal_cores=vm.load.steal_cores,
        dirty=vm.dirty,
        link_bytes_per_second=_link(source, destination),
        link_share=candidate.link_share,
        options=candidate.options,
        source_cores=source.cores if source else None,
        source_cpu_cores=source.load.cpu_cores if source else None,
        destination_cores=destination.cores if destination else None,
        destination_cpu_cores=destination.load.cpu_cores if destination else None,
    )


def _link(source: Host | None, destination: Host | None) -> float | None:
    if source is None or destination is None:
        return None
    return min(source.link_bytes_per_second, destination.link_bytes_per_second)
