"""Puts what was sampled, declared and learnt together into the Host and Vm of a snapshot. Pure."""

import math
from collections.abc import Sequence
from dataclasses import replace

from rebalancerd.cluster.dirty import DirtyCurve
from rebalancerd.cluster.host import Host, HostLoad
from rebalancerd.cluster.policy import HostMode, Mode, VmPolicy
from rebalancerd.cluster.sample import AgentSample, DomainSample, HostSample
from rebalancerd.cluster.units import MIB
from rebalancerd.cluster.vm import Vm, VmFacts, VmLoad
from rebalancerd.observe.host_watch import HostWatch
from rebalancerd.observe.owner import declared_owner
from rebalancerd.observe.placement import Standing
from rebalancerd.observe.policy_xml import effective_policy
from rebalancerd.observe.settings import PolicyRule

REMOTE_SCHEMES = ("qemu+ssh:", "qemu+tls:", "qemu+tcp:")


def agent_over(load: HostLoad, sample: HostSample, agent: AgentSample | None) -> HostLoad:
    """A host's load, the agent's figures in the place of libvirt's where it tells them and they can be true."""
    if agent is None:
        return load
    cpu, available = agent.cpu_cores, agent.memory_available_bytes
    total = sample.memory_total_bytes or sample.facts.memory_bytes
    cpu_true = cpu is not None and math.isfinite(cpu) and 0 <= cpu <= sample.facts.cpus * 1.1
    memory_true = available is not None and 0 <= available <= total
    return HostLoad(
        cpu_cores=cpu if cpu_true else load.cpu_cores,
        memory_used_bytes=total - available if memory_true and available is not None else load.memory_used_bytes,
        swap_used_bytes=agent.swap_used_bytes,
        psi_cpu=agent.psi_cpu,
        psi_memory=agent.psi_memory,
        network_bytes_per_second=agent.network_bytes_per_second,
        package_watts=agent.package_watts,
        package_fault=agent.package_fault,
    )


def host_of(watch: HostWatch, now: float, unusable: str | None, *, drained: bool) -> Host:
    """A host from its settings, which win over what libvirt says, and its last answer."""
    declared, sample = watch.settings, watch.sample
    facts = None if sample is None else sample.facts
    total = None if sample is None else sample.memory_total_bytes or sample.facts.memory_bytes
    cpus = None if facts is None or facts.cpus < 1 else float(facts.cpus)
    peer = declared.write_uri if declared.write_uri.startswith(REMOTE_SCHEMES) else None
    return Host(
        name=declared.name,
        facts=facts,
        load=HostLoad() if sample is None else agent_over(watch.load, sample, watch.agent),
        mode=HostMode.DRAIN if drained and declared.mode is not HostMode.OBSERVE else declared.mode,
        cores=declared.cores if declared.cores is not None else cpus,
        speed_factor=declared.speed_factor,
        reserved_cores=declared.reserved_cores,
        reserved_memory_bytes=declared.reserved_memory_bytes,
        memory_bytes=declared.memory_bytes if declared.memory_bytes is not None else total,
        failure_domain=declared.failure_domain,
        storage_domains=declared.storage_domains,
        networks=declared.networks,
        cpu_group=declared.cpu_group,
        link_bytes_per_second=declared.link_bytes_per_second,
        uri=declared.uri,
        peer_uri=declared.peer_uri or peer,
        migration_uri=declared.migration_uri,
        age_seconds=watch.age(now),
        unusable=unusable,
        idle_watts=declared.idle_watts,
        max_watts=declared.max_watts,
        power_watts=declared.power_watts,
        hugepages=declared.hugepages,
        memory_overcommit=declared.memory_overcommit,
    )


def vm_of(
    standing: Standing,
    facts: VmFacts,
    load: VmLoad | None,
    dirty: DirtyCurve | None,
    rules: Sequence[PolicyRule],
) -> Vm:
    """A VM where it stands, with the policy and owner in force."""
    declared, owner = declared_owner(facts.name, tuple(rules))
    if declared and owner is None and facts.owner is not None:
        facts = replace(facts, owner=None)  # the operator says that nobody else has it
    return Vm(
        facts=facts,
        host=standing.sighting.host,
        state=standing.sighting.domain.state,
        load=load or VmLoad(),
        policy=effective_policy(facts.name, facts.policy, rules),
        owner=owner if declared else facts.owner,
        dirty=dirty,
        busy=standing.busy,
    )


def stand_in_facts(domain: DomainSample) -> VmFacts:
    """Facts of a VM whose XML could not be read: it is counted by what its statistics tell, and never moved."""
    reason = domain.fault or "its XML could not be read"
    return VmFacts(
        uuid=domain.uuid,
        name=domain.name,
        vcpus=domain.vcpus or 1,
        memory_bytes=max(domain.balloon_bytes or 0, domain.rss_bytes or 0) or 128 * MIB,
        immovable=(reason,),
        autostart=None,
        has_managed_save=None,
        policy=VmPolicy(mode=Mode.OBSERVE),
        faults=(f"facts are unknown: {reason}",),
    )
