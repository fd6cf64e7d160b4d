"""What a host has that a migration may need: networks, bridges, pools, secrets, filters, domains."""

from typing import Any

from rebalancerd.cluster.sample import HostInventory
from rebalancerd.observe.domain_stats import domain_state
from rebalancerd.observe.domain_xml import secret_by_usage
from rebalancerd.observe.libvirt_facts import optional, read_host_facts

USAGE_TYPES = {1: "volume", 2: "ceph", 3: "iscsi", 4: "tls", 5: "vtpm"}


def read_inventory(host: str, connection: Any) -> HostInventory:
    """Read it now. What the driver does not support or the rights do not allow is None. Raises libvirtError, DomainXmlError."""
    facts = read_host_facts(connection)
    pools = optional(lambda: connection.listAllStoragePools(0))
    filters = optional(lambda: connection.listAllNWFilters(0))
    return HostInventory(
        host=host,
        host_uuid=facts.uuid,
        networks=facts.networks,
        bridges=_bridges(connection),
        pools=None if pools is None else frozenset(p.name() for p in pools if p.isActive()),
        secrets=_secrets(connection),
        nwfilters=None if filters is None else frozenset(f.name() for f in filters),
        domains=_domains(connection),
        machine_types=facts.machine_types,
        libvirt_version=facts.libvirt_version,
        hypervisor_version=facts.hypervisor_version,
    )


def _bridges(connection: Any) -> frozenset[str] | None:
    """Names of the host's interfaces, bridges among them. libvirt needs netcf or udev for it; without: unknown."""
    interfaces = optional(lambda: connection.listAllInterfaces(0))
    return None if interfaces is None else frozenset(i.name() for i in interfaces)


def _secrets(connection: Any) -> frozenset[str] | None:
    """UUIDs of the secrets, and TYPE/USAGE of those that have one."""
    secrets = optional(lambda: connection.listAllSecrets(0))
    if secrets is None:
        return None
    found: set[str] = set()
    for secret in secrets:
        found.add(secret.UUIDString())
        if secret.usageID():
            found.add(secret_by_usage(USAGE_TYPES.get(secret.usageType(), ""), secret.usageID()))
    return frozenset(found)


def _domains(connection: Any) -> tuple[tuple[str, str, Any], ...]:
    import libvirt

    from rebalancerd.observe.libvirt_connection import ERR_NO_DOMAIN

    found = []
    for domain in connection.listAllDomains(0):
        try:
            found.append((domain.UUIDString(), domain.name(), domain_state(*domain.state())))
        except libvirt.libvirtError as error:
            if error.get_error_code() != ERR_NO_DOMAIN:  # it went away between list and question
                raise
    return tuple(sorted(found))
