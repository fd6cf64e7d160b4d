"""Owners by their marks, policies in metadata and rules, URIs."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from rebalancerd.cluster.policy import Mode, VmPolicy
from rebalancerd.observe.host_uri import HostUriError, check_uri, read_only_uri
from rebalancerd.observe.owner import declared_owner, owner_of
from rebalancerd.observe.policy_xml import effective_policy, read_policy
from rebalancerd.observe.settings import PolicyRule

NS = "urn:rebalancerd:policy:1"

OWNERS = {
    "nova": "<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>",
    "ovirt": "<metadata><o:vm xmlns:o='http://ovirt.org/vm/1.0'/></metadata>",
    "opennebula": "<metadata><o:vm xmlns:o='http://opennebula.org/xmlns/libvirt/1.0'/></metadata>",
    "kubevirt": "<metadata><k xmlns='http://kubevirt.io'/></metadata>",
    "pacemaker": "<description>This VM is managed by Pacemaker.</description>",
    "cloudstack": "<sysinfo><system><entry name='product'>CloudStack KVM Hypervisor</entry></system></sysinfo>",
}


@pytest.mark.parametrize("controller", list(OWNERS))
def test_other_controllers_are_known_by_their_marks(controller: str) -> None:
    owner = owner_of(ET.fromstring(f"<domain>{OWNERS[controller]}</domain>"), "web")
    assert owner is not None
    assert owner.name == controller
    assert owner.evidence


@pytest.mark.parametrize(
    ("name", "controller"), [("instance-0000001a", "nova"), ("i-2-10-VM", "cloudstack"), ("one-7", "opennebula")]
)
def test_generated_names_tell_the_controller(name: str, controller: str) -> None:
    owner = owner_of(ET.fromstring("<domain/>"), name)
    assert owner is not None
    assert owner.name == controller


def test_an_ordinary_vm_has_no_owner() -> None:
    metadata = "<metadata><l xmlns='http://libosinfo.org/xmlns/libvirt/domain/1.0'/><x/></metadata>"
    assert owner_of(ET.fromstring(f"<domain>{metadata}</domain>"), "one-two") is None


def test_rules_declare_an_owner_or_nobody() -> None:
    rules = (PolicyRule(name="ha-*", owner="pacemaker"), PolicyRule(name="instance-*", owner="none"))
    assert declared_owner("ha-db", rules)[1].name == "pacemaker"  # type: ignore[union-attr]
    assert declared_owner("instance-00000001", rules) == (True, None)
    assert declared_owner("web", rules) == (False, None)


def policy(attributes: str = "", children: str = "") -> tuple[VmPolicy, tuple[str, ...]]:
    return read_policy(
        ET.fromstring(f"<metadata><p:policy xmlns:p='{NS}' {attributes}>{children}</p:policy></metadata>")
    )


def test_a_whole_policy_is_read() -> None:
    read, faults = policy(
        "mode='guarded' priority='-3' max-downtime='0.25' post-copy='yes'",
        "<p:pin host='h1'/><p:pin host='h2'/><p:avoid host='h3'/><p:affinity group='a'/><p:anti-affinity group='b'/>",
    )
    assert faults == ()
    assert read == VmPolicy(
        mode=Mode.GUARDED,
        pin=frozenset({"h1", "h2"}),
        avoid=frozenset({"h3"}),
        affinity=frozenset({"a"}),
        anti_affinity=frozenset({"b"}),
        priority=-3,
        postcopy=True,
        max_downtime_seconds=0.25,
    )


@pytest.mark.parametrize(
    ("attributes", "children"),
    [
        ("mode='AUTO'", ""),
        ("mood='auto'", ""),
        ("priority='1e9'", ""),
        ("max-downtime='nan'", ""),
        ("max-downtime='-1'", ""),
        ("post-copy='maybe'", ""),
        ("", "<p:pin/>"),
        ("", "<p:pin host=' '/>"),
        ("", "<p:pinn host='h1'/>"),
        ("", "<pin host='h1'/>"),
    ],
)
def test_what_is_malformed_leaves_nothing_but_observe(attributes: str, children: str) -> None:
    read, faults = policy(attributes, children)
    assert read == VmPolicy(mode=Mode.OBSERVE)
    assert len(faults) == 1


def test_two_policies_are_malformed() -> None:
    metadata = ET.fromstring(f"<metadata><policy xmlns='{NS}'/><policy xmlns='{NS}'/></metadata>")
    assert read_policy(metadata)[0].mode is Mode.OBSERVE


def test_no_metadata_is_no_opinion() -> None:
    assert read_policy(None) == (VmPolicy(), ())


class TestMerging:
    """Stricter mode wins, configuration beats metadata, metadata alone never grants post-copy."""

    def test_stricter_mode_wins_from_either_side(self) -> None:
        loose, strict = VmPolicy(mode=Mode.AUTO), VmPolicy(mode=Mode.OBSERVE)
        assert effective_policy("vm", loose, [PolicyRule(name="*", policy=strict)]).mode is Mode.OBSERVE
        assert effective_policy("vm", strict, [PolicyRule(name="*", policy=loose)]).mode is Mode.OBSERVE

    def test_no_opinion_stays_none(self) -> None:
        assert effective_policy("vm", VmPolicy(), [PolicyRule(name="*", policy=VmPolicy(priority=2))]).mode is None

    def test_post_copy_comes_from_rules_only(self) -> None:
        asking = VmPolicy(postcopy=True)
        assert not effective_policy("vm", asking, []).postcopy
        assert not effective_policy("vm", asking, [PolicyRule(name="*", policy=VmPolicy(priority=1))]).postcopy
        assert effective_policy("vm", VmPolicy(), [PolicyRule(name="v*", policy=asking)]).postcopy

    def test_configuration_replaces_and_the_smallest_downtime_counts(self) -> None:
        metadata = VmPolicy(pin=frozenset({"h9"}), priority=9, max_downtime_seconds=9.0, affinity=frozenset({"m"}))
        rules = [
            PolicyRule(name="db-*", policy=VmPolicy(pin=frozenset({"h1"}), anti_affinity=frozenset({"db"}))),
            PolicyRule(name="*", policy=VmPolicy(priority=2, max_downtime_seconds=0.5, anti_affinity=frozenset({"x"}))),
            PolicyRule(name="db-1", policy=VmPolicy(max_downtime_seconds=0.2)),
            PolicyRule(name="web-*", policy=VmPolicy(mode=Mode.OBSERVE)),
        ]
        merged = effective_policy("db-1", metadata, rules)
        assert (merged.pin, merged.priority, merged.max_downtime_seconds) == (frozenset({"h1"}), 2, 0.2)
        assert (merged.affinity, merged.anti_affinity) == (frozenset({"m"}), frozenset({"db", "x"}))
        assert merged.mode is None


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu:///session",
        "qemu+ssh://root@h1.example:2222/system?keyfile=/k",
        "qemu+tls://h1/system",
        "qemu+tcp://[fd00::1]/system",
        "qemu+unix:///system?socket=/run/x/libvirt-sock",
    ],
)
def test_known_schemes_are_accepted(uri: str) -> None:
    check_uri("h1", uri)


@pytest.mark.parametrize(
    "uri",
    ["xen:///system", "test:///default", "http://h1/system", "h1", "", "qemu+ssh:///system", "qemu+ssh://h1/",
     "qemu+unix://h1/system", "qemu+tcp://h1:99999/system", "qemu+ext://h1/system", "qemu:///system\n", "qemu+ssh://[h/system"],
)  # fmt: skip
def test_anything_else_is_an_error_that_names_the_host(uri: str) -> None:
    with pytest.raises(HostUriError, match="host alpha"):
        check_uri("alpha", uri)


def test_read_only_socket_is_chosen(tmp_path: Path) -> None:
    socket = tmp_path / "libvirt-sock"
    uri = f"qemu+unix:///system?socket={socket}"
    assert read_only_uri(uri, None) == uri
    Path(f"{socket}-ro").touch()
    assert read_only_uri(uri, None) == f"{uri}-ro"
    assert read_only_uri(f"{uri}-ro", None) == f"{uri}-ro"
    assert read_only_uri(uri, "/other/ro") == "qemu+unix:///system?socket=/other/ro"
    assert read_only_uri("qemu:///system", "/other/ro") == "qemu+unix:///system?socket=/other/ro"
    assert read_only_uri("qemu+ssh://a@b/system?keyfile=/k", None) == "qemu+ssh://a@b/system?keyfile=/k"
