"""Whether what the hosts say can be true. Pure: each check gives a reason in words, or None."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from rebalancerd.cluster.sample import HostSample

BUSY_CORES, IDLE_CORES = 0.05, 0.001
FEWEST_JUMPS = 4  # two VMs that end their work together prove nothing
MOST_CPUS = 65536
LEAST_MEMORY_BYTES, MOST_MEMORY_BYTES = 64 * 1024**2, 2**50
MEMORY_TOLERANCE = 1.25


def implausible(sample: HostSample) -> str | None:
    """Why a host's own figures cannot be true."""
    facts = sample.facts
    if not 1 <= facts.cpus <= MOST_CPUS:
        return f"implausible telemetry: {facts.cpus} CPUs"
    if not LEAST_MEMORY_BYTES <= facts.memory_bytes <= MOST_MEMORY_BYTES:
        return f"implausible telemetry: {facts.memory_bytes} bytes of memory"
    total = sample.memory_total_bytes
    if total is not None and not LEAST_MEMORY_BYTES <= total <= facts.memory_bytes * MEMORY_TOLERANCE:
        return f"implausible telemetry: statistics say {total} bytes of memory, the host has {facts.memory_bytes}"
    available = sample.memory_available_bytes
    if total is not None and available is not None and available > total * MEMORY_TOLERANCE:
        return f"implausible telemetry: {available} bytes of {total} available"
    return None


def duplicate_host_uuids(uuids: Mapping[str, str | None]) -> dict[str, str]:
    """Hosts whose UUID is also another's, with the reason; libvirt takes a migration between them for one to itself."""
    by_uuid: dict[str, list[str]] = defaultdict(list)
    for host, uuid in uuids.items():
        if uuid:
            by_uuid[uuid.lower()].append(host)
    found = {}
    for uuid, hosts in by_uuid.items():
        for host in hosts if len(hosts) > 1 else ():
            others = ", ".join(sorted(h for h in hosts if h != host))
            found[host] = f"duplicate host UUID {uuid}, also of {others}: set host_uuid in libvirtd.conf"
    return found


def jumped(
    before: Mapping[str, float | None], now: Mapping[str, float | None], share: float, fewest: int = FEWEST_JUMPS
) -> str | None:
    """Why the telemetry of the whole cluster is doubted: too many VMs went to or from nothing in one tick.

    ``before`` and ``now``: cores by VM; only VMs known in both count.
    """
    both = [(b, n) for uuid, b in before.items() if b is not None and (n := now.get(uuid)) is not None]
    jumps = sum((b > BUSY_CORES and n < IDLE_CORES) or (b < IDLE_CORES and n > BUSY_CORES) for b, n in both)
    if jumps < fewest or jumps <= share * len(both):
        return None
    return f"the CPU load of {jumps} of {len(both)} VMs jumped to or from zero in one tick"


def vanished(before: Iterable[str], now: Iterable[str], elsewhere: Iterable[str]) -> frozenset[str]:
    """VMs that a host lost without a trace, on no other host and not even shut off; none unless it lost every one it had.

    A libvirtd that has just restarted answers with an empty list while it finds its guests again.
    """
    earlier = frozenset(before)
    return frozenset() if earlier & frozenset(now) else earlier - frozenset(elsewhere)
