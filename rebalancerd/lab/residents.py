"""Guests on the hosts of a lab: where each is, starting it and removing it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rebalancerd.lab.commands import LabError
from rebalancerd.lab.host import LabHost

_STATES = {1: "running", 2: "running", 3: "paused", 5: "shut off"}  # virDomainState; 2 waits for a resource


@dataclass(frozen=True)
class Place:
    """A domain as one host knows it; during a migration two hosts know it.

    Args:
        guest: domain name.
        host: of which libvirtd told.
        state: ``running``, ``paused``, ``shut off`` or ``unknown``.
    """

    guest: str
    host: LabHost
    state: str


def places(hosts: Iterable[LabHost]) -> dict[str, Place]:
    """Where each domain is; of two hosts that know it, the one that runs it. Hosts that do not answer are left out."""
    rank = {"running": 0, "paused": 1, "shut off": 3}
    found: dict[str, Place] = {}
    with ThreadPoolExecutor() as pool:
        for rows in pool.map(_domains, tuple(hosts)):
            for place in rows:
                known = found.get(place.guest)
                if known is None or rank.get(place.state, 2) < rank.get(known.state, 2):
                    found[place.guest] = place
    return found


def _domains(host: LabHost) -> list[Place]:
    import libvirt

    rows = []
    try:
        with host.connected() as connection:
            for domain in connection.listAllDomains():
                try:
                    state = _STATES.get(domain.state()[0], "unknown")
                except libvirt.libvirtError:
                    continue  # gone since it was listed
                rows.append(Place(domain.name(), host, state))
    except LabError:
        return []
    return rows


def start(host: LabHost, name: str, xml: str, *, persistent: bool, autostart: bool) -> None:
    """Start a domain on a host; one that the host has defined already is started as it is.

    Raises:
        LabError: libvirtd refuses.
    """
    import libvirt

    with host.connected() as connection:
        if not persistent:
            connection.createXML(xml)
            return
        try:
            domain = connection.lookupByName(name)
        except libvirt.libvirtError:
            domain = connection.defineXML(xml)
        domain.setAutostart(int(autostart))
        domain.create()


def remove(hosts: Iterable[LabHost], name: str) -> None:
    """Stop a domain wherever it is and undefine it. Hosts that do not answer are left out.

    Raises:
        LabError: libvirtd refuses.
    """
    import libvirt

    for host in hosts:
        if not host.responsive():
            continue
        with host.connected() as connection:
            try:
                domain = connection.lookupByName(name)
            except libvirt.libvirtError:
                continue
            persistent = domain.isPersistent()
            try:
                if domain.isActive():
                    domain.destroy()
                if persistent:
                    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
