"""LibvirtProbe: the few harmless calls that libvirt refuses to read-only clients. It can start no migration."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import Any

from rebalancerd.cluster.sample import CpuFit
from rebalancerd.observe.libvirt_connection import (
    ERR_ACCESS_DENIED,
    ERR_NO_SUPPORT,
    HostLink,
    Opener,
    open_read_write,
)
from rebalancerd.observe.safe_xml import DomainXmlError, parse
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import Clock, HostRefusedError

PERIODS_SECONDS = range(1, 61)
# virCPUCompareResult
INCOMPATIBLE, IDENTICAL, SUPERSET = 0, 1, 2
ERR_CONFIG_UNSUPPORTED = 67
ERR_CPU_INCOMPATIBLE = 91


class LibvirtProbe:
    """ports.HypervisorProbe. The connections allow changes, so nothing but these two questions is offered.

    ``opener`` replaces how a connection is made.
    """

    def __init__(
        self, hosts: Sequence[HostSettings], settings: ObserveSettings, clock: Clock, opener: Opener = open_read_write
    ) -> None:
        if settings.probe != "direct":
            raise ValueError(f"probe is {settings.probe!r}: no probing connection may be made")
        self._links = {
            host.name: HostLink(
                host, purpose="probe", opener=opener, clock=clock, deadline_seconds=settings.call_deadline_seconds
            )
            for host in hosts
        }

    def start_dirty_rate(self, host: str, vm_uuid: str, period_seconds: int) -> None:
        """Start a page-sampling calculation; other modes disturb the guest or even kill it (software emulation).

        Raises ValueError for a period other than 1 to 60 whole seconds, HostUnreachableError, HostRefusedError.
        """
        if isinstance(period_seconds, bool) or period_seconds not in PERIODS_SECONDS:
            raise ValueError(f"dirty-rate period must be 1 to 60 whole seconds, not {period_seconds}")

        def start(connection: Any) -> None:
            import libvirt

            mode = getattr(libvirt, "VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING", 0)
            connection.lookupByUUIDString(vm_uuid).startDirtyRateCalc(int(period_seconds), mode)

        self._links[host].call("start of a dirty-rate calculation", start)

    def cpu_fit(self, vm_uuid: str, source: str, destination: str) -> tuple[CpuFit, str]:
        """Whether the destination's hypervisor accepts the VM's live CPU, and the detail in words.

        Raises HostUnreachableError, HostRefusedError.
        """
        what = "CPU of a VM"
        xml = self._links[source].call(what, lambda connection: _cpu_xml(connection.lookupByUUIDString(vm_uuid)))
        try:
            question = cpu_question(xml)
        except DomainXmlError as error:
            raise HostRefusedError(source, f"{what}: the XML {error}") from error
        if isinstance(question, tuple):
            return question
        try:
            return self._links[destination].call("comparison of CPUs", question)
        except HostRefusedError as error:
            if error.code == ERR_NO_SUPPORT:
                return CpuFit.UNKNOWN, "its libvirt cannot compare CPUs"
            if error.code in (ERR_CPU_INCOMPATIBLE, ERR_CONFIG_UNSUPPORTED):
                return CpuFit.INCOMPATIBLE, str(error)
            raise

    def close(self) -> None:
        """Let go of every connection."""
        for link in self._links.values():
            link.close()


def _cpu_xml(domain: Any) -> str:
    """The XML that would be sent to a destination.

    libvirt's access control puts its secrets (such as passwords of displays) to it, so where these are denied to us it
    is the XML without them: that has the CPU as the guest sees it, which asks no less of a destination.
    """
    import libvirt

    try:
        return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))
    except libvirt.libvirtError as error:
        if error.get_error_code() != ERR_ACCESS_DENIED:
            raise
    return str(domain.XMLDesc(0))


def cpu_question(xml: str) -> tuple[CpuFit, str] | Callable[[Any], tuple[CpuFit, str]]:
    """The answer where none need be asked, else what to ask the destination. Raises DomainXmlError."""
    root = parse(xml, "domain")
    virt_type = root.get("type", "kvm")
    if virt_type == "qemu":
        return CpuFit.COMPATIBLE, "software emulation brings its own CPU"
    cpu = root.find("cpu")
    os_type = root.find("os/type")
    if cpu is None or os_type is None:
        return CpuFit.UNKNOWN, "its XML names no CPU"
    if cpu.get("mode") in ("host-passthrough", "maximum"):
        return CpuFit.UNKNOWN, f"CPU mode {cpu.get('mode')} cannot be compared: the hosts must be declared alike"
    arch, machine = os_type.get("arch"), os_type.get("machine")
    cpu.tail = None
    text = ET.tostring(cpu, encoding="unicode")

    def compare(connection: Any) -> tuple[CpuFit, str]:
        result = connection.compareHypervisorCPU(None, arch, machine, virt_type, text, 0)
        if result == IDENTICAL:
            return CpuFit.COMPATIBLE, "identical CPU"
        if result == SUPERSET:
            return CpuFit.COMPATIBLE, "its CPU offers all that the VM's has"
        if result == INCOMPATIBLE:
            return CpuFit.INCOMPATIBLE, "lacks features of the VM's CPU"
        return CpuFit.UNKNOWN, f"libvirt answered {result}"

    return compare
