"""Domain XML: facts, what makes a VM immovable, hostile input."""

import pytest

from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.vm import DiskKind, VmFacts
from rebalancerd.observe.domain_xml import parse_domain
from rebalancerd.observe.safe_xml import MAX_CHARACTERS, DomainXmlError
from rebalancerd.observe.topology_xml import cpu_set

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"


def domain(devices: str = "", body: str = "", cpu: str = "<cpu mode='custom'><model>Haswell</model></cpu>") -> str:
    return (
        f"<domain type='kvm'><name>web</name><uuid>{UUID.upper()}</uuid><memory unit='MiB'>512</memory>"
        f"<vcpu current='2'>4</vcpu><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>{cpu}{body}"
        f"<devices>{devices}</devices></domain>"
    )


def read(xml: str, **changes: object) -> VmFacts:
    beside = {"persistent": True, "autostart": False, "has_managed_save": False, **changes}
    return parse_domain(xml, **beside)  # type: ignore[arg-type]


def test_facts_of_an_ordinary_domain() -> None:
    facts = read(
        domain(
            "<disk type='file' device='disk'><source file='/srv/a.img'/><target dev='vda'/></disk>"
            "<disk type='network' device='disk'><source protocol='rbd' name='pool/img'/><target dev='vdb'/><auth>"
            "<secret type='ceph' uuid='AAAA'/></auth></disk>"
            "<disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdc'/><readonly/></disk>"
            "<disk type='file' device='cdrom'><target dev='sda'/></disk>"
            "<interface type='network'><source network='prod' portgroup='g'/><filterref filter='clean'/></interface>"
            "<interface type='bridge'><source bridge='br0'/></interface>"
        )
    )
    assert (facts.uuid, facts.name, facts.vcpus, facts.memory_bytes) == (UUID, "web", 2, 512 * 2**20)
    assert (facts.virt_type, facts.arch, facts.machine, facts.cpu_mode) == ("kvm", "x86_64", "pc-q35-7.2", "custom")
    assert [d.kind for d in facts.disks] == [DiskKind.FILE, DiskKind.NETWORK, DiskKind.VOLUME, DiskKind.FILE]
    assert [d.source for d in facts.disks] == ["/srv/a.img", "pool/img", "v", None]
    assert [d.writable for d in facts.disks] == [True, True, False, False]
    assert (facts.disks[2].pool, facts.disks[3].removable) == ("p", True)
    assert [(n.kind, n.source, n.portgroup, n.nwfilter) for n in facts.nics] == [
        ("network", "prod", "g", "clean"),
        ("bridge", "br0", None, None),
    ]
    assert facts.secrets == {"aaaa"}
    assert facts.immovable == ()


IMMOVABLE = {
    "hostdev": ("<hostdev mode='subsystem' type='pci'/>", "", "passthrough"),
    "mdev": ("<hostdev type='mdev'><source><address uuid='u'/></source></hostdev>", "", "mdev"),
    "sriov": ("<interface type='hostdev'/>", "", "SR-IOV"),
    "vdpa": ("<interface type='vdpa'/>", "", "vdpa"),
    "vdpa disk": ("<disk type='vhostvdpa'><target dev='vda'/></disk>", "", "vhostvdpa"),
    "nvme": ("<disk type='nvme'><target dev='vda'/></disk>", "", "nvme"),
    "transient": ("<disk type='file'><target dev='vda'/><transient/></disk>", "", "transient"),
    "block job": ("<disk type='file'><target dev='vda'/><mirror/></disk>", "", "block job"),
    "virtiofs": ("<filesystem><driver type='virtiofs'/></filesystem>", "", "virtiofs"),
    "shmem": ("<shmem name='s' role='peer'/>", "", "master"),
    "unreadable pinning": ("", "<cputune><vcpupin vcpu='0' cpuset='1-'/></cputune>", "cannot be read"),
    "huge pages of NUMA nodes": (
        "",
        "<numatune><memory mode='strict' nodeset='0'/></numatune><memoryBacking><hugepages/></memoryBacking>",
        "huge pages of certain NUMA nodes",
    ),
    "huge pages of two sizes": (
        "",
        "<memoryBacking><hugepages><page size='2048'/><page size='1' unit='GiB'/></hugepages></memoryBacking>",
        "several sizes",
    ),
    "huge pages of no size": ("", "<memoryBacking><hugepages><page size='x'/></hugepages></memoryBacking>", "read"),
    "vnc": ("<graphics type='vnc' listen='10.0.0.5'/>", "", "10.0.0.5"),
    "spice": ("<graphics type='spice'><listen type='address' address='fd00::1'/></graphics>", "", "fd00::1"),
    "sev": ("", "<launchSecurity type='sev'/>", "sev"),
    "tpm": ("<tpm><backend type='passthrough'/></tpm>", "", "TPM"),
    "evdev": ("<input type='evdev'/>", "", "input"),
    "nvdimm": ("<memory model='nvdimm'/>", "", "nvdimm"),
}


@pytest.mark.parametrize("case", IMMOVABLE)
def test_what_forbids_a_migration_is_named(case: str) -> None:
    devices, body, word = IMMOVABLE[case]
    (cause,) = read(domain(devices, body)).immovable
    assert word in cause


def test_vcpus_pinned_by_cpuset_are_named() -> None:
    xml = domain().replace("<vcpu current='2'>", "<vcpu cpuset='0-3' current='2'>")
    assert read(xml).host_topology == ("vCPUs are pinned to host CPUs (cpuset)",)
    assert (read(xml).pinned_cpus, read(xml).immovable) == (frozenset(range(4)), ())


def test_what_refers_to_cpus_and_numa_nodes_is_named_with_the_cpus_of_the_vcpus() -> None:
    tune = (
        "<cputune><vcpupin vcpu='0' cpuset='2-4,^3'/><vcpupin vcpu='1' cpuset='9'/><emulatorpin cpuset='0'/></cputune>"
    )
    facts = read(domain(body=f"{tune}<numatune><memory mode='strict' nodeset='0'/></numatune>"))

    assert facts.host_topology == (
        "CPU pinning (vcpupin)",
        "CPU pinning (emulatorpin)",
        "memory bound to host NUMA nodes (numatune)",
    )
    assert (facts.pinned_cpus, facts.immovable) == (frozenset({2, 4, 9}), ())


@pytest.mark.parametrize(
    ("inner", "size"),
    [("<hugepages/>", 0), ("<hugepages><page size='2048'/></hugepages>", 2**21), ("<nosharepages/>", None)],
)
def test_the_size_of_huge_pages(inner: str, size: int | None) -> None:
    facts = read(domain(body=f"<memoryBacking>{inner}</memoryBacking>"))

    assert (facts.hugepage_bytes, facts.immovable) == (size, ())


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-99999", "1,,2", "-1", "\u0661"])
def test_no_set_of_cpus(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
        cpu_set(text)


def test_invtsc_needs_a_frequency() -> None:
    cpu = "<cpu mode='custom'><feature name='invtsc' policy='require'/></cpu>"
    clock = "<clock><timer name='tsc' frequency='2000000000'/></clock>"
    assert "invtsc" in read(domain(cpu=cpu)).immovable[0]
    assert read(domain(cpu=cpu, body=clock)).immovable == ()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::1", "localhost", ""])
def test_consoles_on_loopback_or_wildcard_are_fine(address: str) -> None:
    assert read(domain(f"<graphics type='vnc' listen='{address}'/>")).immovable == ()


def test_shared_memory_of_the_master_and_a_network_console_are_fine() -> None:
    listen = "<graphics type='vnc' listen='10.0.0.5'><listen type='network' address='10.0.0.5'/></graphics>"
    assert read(domain(f"<shmem name='s' role='master'/>{listen}")).immovable == ()


def test_snapshots_forbid_and_unknown_ones_do_not() -> None:
    assert "2 snapshots" in read(domain(), snapshots=2).immovable[0]
    assert read(domain(), snapshots=None).immovable == ()


def test_cpu_digest_ignores_order_and_topology_but_not_features() -> None:
    one = "<cpu mode='custom'><model>H</model><feature name='a'/><feature name='b'/></cpu>"
    two = "<cpu mode='custom'>\n<topology sockets='2'/><feature name='b'/> <feature name='a'/><model>H</model></cpu>"
    three = "<cpu mode='custom'><model>H</model><feature name='a'/></cpu>"
    digests = [read(domain(cpu=cpu)).cpu_digest for cpu in (one, two, three, "")]
    assert digests[0] == digests[1] != digests[2]
    assert digests[3] is None


def test_malformed_policy_means_observe_and_is_named() -> None:
    metadata = "<metadata><policy xmlns='urn:rebalancerd:policy:1' mode='yolo'/></metadata>"
    facts = read(domain(body=metadata))
    assert facts.policy.mode is Mode.OBSERVE
    assert "yolo" in facts.faults[0]


BOMB = """<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<domain><name>&b;</name></domain>"""
BAD = {
    "bomb": (BOMB, "DOCTYPE"),
    "external": ("<!DOCTYPE d SYSTEM 'file:///etc/passwd'><domain/>", "DOCTYPE"),
    "empty": ("", "well-formed"),
    "cut": (domain()[:80], "well-formed"),
    "surrogate": (domain().replace("web", "\ud800"), "well-formed"),
    "root": ("<network/>", "<network>"),
    "huge": ("<domain>" + " " * MAX_CHARACTERS, "characters"),
    "deep": ("<domain>" + "<a>" * 80 + "</a>" * 80 + "</domain>", "deep"),
    "uuid": (domain().replace(UUID.upper(), "x"), "<uuid>"),
    "name": (domain().replace("<name>web</name>", ""), "<name>"),
    "memory": (domain().replace("512", "-5"), "<memory>"),
    "zero memory": (domain().replace("512", "0"), "<memory>"),
    "unit": (domain().replace("MiB", "parsec"), "unit"),
    "vcpus": (domain().replace("current='2'", "current='99999'"), "vCPUs"),
    "digits": (domain().replace("512", "5\u0661\u0662"), "<memory>"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_xml_is_a_named_error(case: str) -> None:
    xml, word = BAD[case]
    with pytest.raises(DomainXmlError, match=word):
        read(xml)


def test_hostile_names_are_data() -> None:
    name = "'; DROP TABLE x; --\u202e\x85<b>"
    escaped = name.replace("<", "&lt;").replace(">", "&gt;")
    assert read(domain().replace(">web<", f">{escaped}<")).name == name
