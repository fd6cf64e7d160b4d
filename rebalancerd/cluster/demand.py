"""What a VM asks for now, from what it was measured to use and to wait for."""

from math import isfinite

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.vm import Vm

STARVED_GROWTH = 0.25
SHORT_OF_CPU = 0.6


def sane(value: float | None) -> float | None:
    """The value, or None for what no measurement can be: NaN, infinite, negative."""
    return value if value is not None and isfinite(value) and value >= 0 else None


def short_of_cpu(host: Host) -> bool:
    """Whether the host uses so much of its CPU that its guests' delay can be its doing; unknown counts as short.

    On a host with CPU to spare a guest waits for other reasons (a CPU quota of its own, pinning, a burst finer than the
    samples), and moving guests does not end the wait.
    """
    used, cores = sane(host.load.cpu_cores), sane(host.cores)
    return used is None or not cores or used >= SHORT_OF_CPU * cores


def cpu_demand_cores(vm: Vm, host: Host) -> float | None:
    """CPU a VM asks for now, in cores of its host ``host``; None is unknown.

    Use, plus what it waits for (vCPU delay) where the host is short of CPU, at most a quarter of its use. Delay tells
    *that* a guest is starved, not by how much: one that gets a third of a core of the half it wants is runnable all the
    time, so use plus delay reads one whole core, and the busier the host, the worse. What it really asks for shows once
    it is served. Never above its vCPUs, and never below its measured use.
    """
    used = sane(vm.load.cpu_cores)
    if used is None:
        return None
    waited = min(sane(vm.load.steal_cores) or 0.0, STARVED_GROWTH * used) if short_of_cpu(host) else 0.0
    return max(used, min(used + waited, float(max(1, vm.facts.vcpus))))
