"""Constraints on what the guest needs to find on the destination: CPU, machine type, networks, storage.

What is unknown about machine types and bridges is let through here and asked again by the preflight, which reads the
destination's inventory right before the call and refuses what it cannot confirm. What is unknown about the CPU and
about file or block storage is refused: no later check would be as good as the declared or probed fact.
"""

from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.storage import covered
from rebalancerd.cluster.vm import Nic
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.wording import listed, shown

HOST_CPU_MODES = frozenset({"host-passthrough", "maximum"})


def vcpu_count(ask: Ask) -> Refusal | None:
    """A guest never gets more vCPUs than its host has CPUs."""
    facts = ask.target.facts
    if facts is None or facts.cpus >= ask.guest.facts.vcpus:
        return None
    return ask.refuse(
        Code.CPU_CAPACITY, f"has {ask.guest.facts.vcpus} vCPUs, {shown(ask.target.name)} has {facts.cpus} CPUs"
    )


def machine_type(ask: Ask) -> Refusal | None:
    """Same architecture, and the machine type among those the destination's hypervisor offers (unknown: preflight)."""
    facts, guest = ask.target.facts, ask.guest.facts
    if facts is None:
        return None
    if facts.arch != guest.arch:
        return ask.refuse(Code.MACHINE_TYPE, f"is {shown(guest.arch)}, {shown(ask.target.name)} is {shown(facts.arch)}")
    if guest.machine is None or facts.machine_types is None or guest.machine in facts.machine_types:
        return None
    return ask.refuse(
        Code.MACHINE_TYPE, f"machine type {shown(guest.machine)} is not offered by {shown(ask.target.name)}"
    )


def cpu_model(ask: Ask) -> Refusal | None:
    """The destination's CPU must run the guest's: declared equal (``cpu_group``), or probed compatible.

    Software emulation (virt type qemu) brings its own CPU. A guest that sees the host's CPU as it is moves within
    one CPU group only. What was not probed is unknown, and unknown is refused.
    """
    guest, target = ask.guest.facts, ask.target
    if guest.virt_type == "qemu" or (target.cpu_group and target.cpu_group == ask.source.cpu_group):
        return None
    if guest.cpu_mode in HOST_CPU_MODES:
        return ask.refuse(Code.CPU_MODEL, f"CPU mode {guest.cpu_mode} needs one CPU group, not {_groups(ask)}")
    row = ask.state.snapshot.cpu_fit.get((guest.cpu_digest or "", target.name))
    if guest.cpu_digest is None or row is None or row.fit is CpuFit.UNKNOWN:
        why = shown(row.detail) if row else f"never compared; CPU groups are {_groups(ask)}"
        return ask.refuse(Code.CPU_MODEL_UNKNOWN, f"CPU fit with {shown(target.name)} is unknown: {why}")
    if row.fit is CpuFit.INCOMPATIBLE:
        return ask.refuse(Code.CPU_MODEL, f"CPU does not fit {shown(target.name)}: {shown(row.detail)}")
    return None


def _groups(ask: Ask) -> str:
    return f"{shown(ask.source.cpu_group or 'none')} and {shown(ask.target.cpu_group or 'none')}"


def _missing_nic(ask: Ask, nic: Nic) -> bool:
    declared = ask.target.networks
    listed_by_libvirt = None if ask.target.facts is None else ask.target.facts.networks
    if nic.source is None:
        return False
    if nic.kind == "network" and listed_by_libvirt is not None:
        return nic.source not in listed_by_libvirt
    if nic.kind in ("network", "bridge", "direct") and declared is not None:
        return nic.source not in declared
    return False


def networks(ask: Ask) -> Refusal | None:
    """Networks as libvirt lists them, else as declared; bridges as declared (undeclared: preflight)."""
    absent = sorted({f"{nic.kind} {shown(nic.source or '')}" for nic in ask.guest.facts.nics if _missing_nic(ask, nic)})
    return ask.refuse(Code.NETWORK_MISSING, f"{shown(ask.target.name)} lacks {listed(absent)}") if absent else None


def storage(ask: Ask) -> Refusal | None:
    """Every disk, CD-ROM image included, must lie on storage that both hosts declare."""
    shared = ask.source.storage_domains & ask.target.storage_domains
    local = [
        f"{shown(d.target)} {shown(d.source or d.pool or '')}" for d in ask.guest.facts.disks if not covered(d, shared)
    ]
    if local:
        both = f"{shown(ask.source.name)} and {shown(ask.target.name)}"
        return ask.refuse(Code.STORAGE_UNREACHABLE, f"no storage declared on both {both} covers {listed(local)}")
    return None


def topology(ask: Ask) -> Refusal | None:
    """What is pinned to CPUs or NUMA nodes goes where they mean the same: equal topologies, both known."""
    causes = ask.guest.facts.host_topology
    if not causes:
        return None
    here, there = (h.facts.topology if h.facts is not None else None for h in (ask.source, ask.target))
    if here is not None and here == there:
        return None
    unknown = [shown(h.name) for h, told in ((ask.source, here), (ask.target, there)) if told is None]
    if unknown:
        why = f"the topology of {' and '.join(unknown)} is unknown"
    else:
        why = f"that of {shown(ask.target.name)} is not that of {shown(ask.source.name)}"
    return ask.refuse(Code.TOPOLOGY, f"needs the same CPUs and NUMA nodes ({listed(causes)}), {why}")


RULES = (vcpu_count, machine_type, cpu_model, topology, networks, storage)
