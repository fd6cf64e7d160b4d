"""Each hard constraint by itself: what it refuses, what it lets through, and the fact it names."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.policy import HostMode, Mode, Owner, VmPolicy
from rebalancerd.cluster.refusal import Code, about_host, about_vm
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.snapshot import CpuFitRow, InFlight
from rebalancerd.cluster.storage import covered
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import Disk, DiskKind, DomainState, Nic
from rebalancerd.plan.constraints import check, movable
from rebalancerd.plan.state import PlacementState
from tests.unit.plan.plan_cluster import host, inputs_of, vm


def ask(guest=None, target=None, source=None, others=(), **changes):
    """What `check` says of moving ``guest`` from h1 to h2."""
    hosts = [source or host("h1"), target or host("h2")]
    state = PlacementState(inputs_of(hosts, [guest or vm("a", "h1"), *others], **changes))
    return check(state, state.vm_index[(guest or vm("a", "h1")).uuid], state.host_index["h2"])


def file_disk(path="/shared/a.qcow2", **changes):
    return replace(Disk(target="vda", kind=DiskKind.FILE, source=path, writable=True), **changes)


def test_nothing_refuses_a_plain_move():
    assert ask() is None


@pytest.mark.parametrize(
    ("guest", "code", "word"),
    [
        (vm("a", "h2"), Code.SAME_HOST, "h2"),
        (vm("a", "h1", state=DomainState.PAUSED), Code.VM_NOT_RUNNING, "paused"),
        (vm("a", "h1", state=DomainState.UNKNOWN), Code.VM_NOT_RUNNING, "unknown"),
        (vm("a", "h1", busy="backup"), Code.VM_BUSY, "backup"),
        (vm("a", "h1", owner=Owner(name="nova", evidence="metadata")), Code.FOREIGN_OWNER, "nova"),
        (vm("a", "h1", facts={"owner": Owner(name="pacemaker", evidence="name")}), Code.FOREIGN_OWNER, "pacemaker"),
        (vm("a", "h1", policy=VmPolicy(mode=Mode.OBSERVE)), Code.VM_MODE, "observe"),
        (vm("a", "h1", facts={"immovable": ("hostdev 0000:01",)}), Code.IMMOVABLE, "hostdev"),
        (vm("a", "h1", policy=VmPolicy(pin=frozenset({"h1", "h9"}))), Code.PINNED, "unknown here: h9"),
        (vm("a", "h1", policy=VmPolicy(avoid=frozenset({"h2"}))), Code.AVOIDED, "h2"),
        (vm("a", "h1", facts={"arch": "aarch64"}), Code.MACHINE_TYPE, "aarch64"),
        (vm("a", "h1", facts={"machine": "pc-q35-9.9"}), Code.MACHINE_TYPE, "pc-q35-9.9"),
        (vm("a", "h1", 17.0), Code.CPU_CAPACITY, "17 vCPUs"),
        (vm("a", "h1", 1.0, 65.0), Code.MEMORY_CAPACITY, "65.0 GiB of 64.0 GiB"),
        (vm("a", "h1", 13.0), Code.WOULD_BE_HOT, "81 % CPU"),
        (vm("a", "h1", 1.0, 55.0), Code.WOULD_BE_HOT, "86 % memory"),
        (vm("a", "h1", facts={"nics": (Nic(kind="network", source="dmz"),)}), Code.NETWORK_MISSING, "network dmz"),
        (vm("a", "h1", facts={"disks": (file_disk("/local/a.img"),)}), Code.STORAGE_UNREACHABLE, "/local/a.img"),
    ],
)  # fmt: skip
def test_the_guest_itself(guest, code, word):
    refusal = ask(guest)

    assert refusal.code is code
    assert word in refusal.detail
    assert refusal.subject == guest.uuid
    assert refusal.destination == "h2"


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"mode": HostMode.NO_INBOUND}, Code.HOST_MODE, "no_inbound"),
        ({"mode": HostMode.DRAIN}, Code.HOST_MODE, "drain"),
        ({"mode": HostMode.OBSERVE}, Code.HOST_MODE, "observe"),
        ({"unusable": "stale for 90 s"}, Code.HOST_STALE, "stale for 90 s"),
        ({"facts": None}, Code.HOST_STALE, "facts are unknown"),
        ({"cores": None}, Code.HOST_LOAD_UNKNOWN, "CPU capacity"),
        ({"memory_bytes": None}, Code.HOST_LOAD_UNKNOWN, "memory capacity"),
        ({"cores": 0.0}, Code.CPU_CAPACITY, "of 0.00 cores"),
        ({"peer_uri": None}, Code.NO_MIGRATION_PATH, "no peer URI"),
        ({"migration_uri": None}, Code.NO_MIGRATION_PATH, "no migration URI"),
        ({"cpu_group": "g2"}, Code.CPU_MODEL_UNKNOWN, "never compared"),
        ({"cpu_group": None}, Code.CPU_MODEL_UNKNOWN, "none"),
        ({"reserved_memory_bytes": 63 * GIB}, Code.MEMORY_CAPACITY, "2.0 GiB of 1.0 GiB"),
        ({"reserved_cores": 15.5}, Code.CPU_CAPACITY, "1.00 cores of 0.50 cores"),
    ],
)
def test_the_destination_itself(change, code, word):
    refusal = ask(target=replace(host("h2"), **change))

    assert refusal.code is code
    assert word in refusal.detail


def test_the_source_must_be_usable_and_not_in_observe_mode():
    assert ask(source=host("h1", unusable="unreachable")).code is Code.HOST_STALE
    assert ask(source=host("h1", mode=HostMode.OBSERVE)).code is Code.HOST_MODE
    assert ask(source=host("h1", mode=HostMode.DRAIN)) is None


def test_a_host_being_drained_receives_nothing():
    assert ask(drained=frozenset({"h2"})).code is Code.HOST_MODE


def test_blocked_hosts_and_pairs_keep_their_reason():
    quarantine = ask(blocked_hosts={"h2": about_host(Code.QUARANTINED, "h2", "two failed migrations")})
    refused = ask(blocked_pairs={("u-a", "h2"): about_vm(Code.LIBVIRT_REFUSED, "u-a", "no such device")})

    assert (quarantine.code, quarantine.subject) == (Code.QUARANTINED, "u-a")
    assert "two failed migrations" in quarantine.detail
    assert "no such device" in refused.detail


def test_a_vm_in_flight_is_busy():
    flight = InFlight(vm_uuid="u-a", source="h1", destination="h2", ours=False)

    assert ask(snapshot={"in_flight": (flight,)}).code is Code.VM_BUSY


def test_unknown_machine_types_and_bridges_are_left_to_the_preflight():
    bare = host("h2")
    bare = replace(bare, facts=replace(bare.facts, machine_types=None, networks=None))
    nics = (Nic(kind="bridge", source="br0"), Nic(kind="network", source="dmz"))

    assert ask(vm("a", "h1", facts={"machine": "pc-q35-9.9", "nics": nics}), target=bare) is None


def test_declared_networks_cover_bridges_and_hosts_that_list_none():
    guest = vm("a", "h1", facts={"nics": (Nic(kind="bridge", source="br0"), Nic(kind="user", source=None))})
    silent = host("h2", networks=frozenset({"dmz"}))
    silent = replace(silent, facts=replace(silent.facts, networks=None))

    assert ask(guest, target=host("h2", networks=frozenset({"br0"}))) is None
    assert ask(guest, target=host("h2", networks=frozenset({"br1"}))).code is Code.NETWORK_MISSING
    assert ask(vm("a", "h1", facts={"nics": (Nic(kind="network", source="dmz"),)}), target=silent) is None


@pytest.mark.parametrize(
    ("fit", "code"),
    [(CpuFit.COMPATIBLE, None), (CpuFit.INCOMPATIBLE, Code.CPU_MODEL), (CpuFit.UNKNOWN, Code.CPU_MODEL_UNKNOWN)],
)
def test_a_probed_cpu_fit_decides_between_groups(fit, code):
    rows = (CpuFitRow(cpu_digest="c1", host="h2", fit=fit, detail="lacks avx512"),)
    refusal = ask(target=host("h2", cpu_group="g2"), snapshot={"cpu_fits": rows})

    assert (refusal and refusal.code) == code


@pytest.mark.parametrize("mode", ["host-passthrough", "maximum"])
def test_the_hosts_own_cpu_needs_one_group_even_if_probed_compatible(mode):
    rows = (CpuFitRow(cpu_digest="c1", host="h2", fit=CpuFit.COMPATIBLE, detail=""),)
    guest = vm("a", "h1", facts={"cpu_mode": mode})

    assert ask(guest, target=host("h2", cpu_group="g2"), snapshot={"cpu_fits": rows}).code is Code.CPU_MODEL
    assert ask(guest) is None


def test_software_emulation_brings_its_own_cpu():
    guest = vm("a", "h1", facts={"virt_type": "qemu", "cpu_mode": None, "cpu_digest": None})

    assert ask(guest, target=host("h2", cpu_group=None)) is None


@pytest.mark.parametrize(
    ("disk", "shared", "fine"),
    [
        (file_disk("/shared/a.qcow2"), {"/shared"}, True),
        (file_disk("/shared/a.qcow2"), {"/shared/"}, True),
        (file_disk("/shared2/a.qcow2"), {"/shared"}, False),
        (file_disk("/shared/../etc/a"), {"/shared"}, False),
        (file_disk("shared/a"), {"/shared"}, False),
        (file_disk("/shared"), {"/shared"}, True),
        (file_disk("/a"), {"/"}, True),
        (file_disk("/shared/a"), {"shared"}, False),
        (file_disk("/dev/mapper/lun1", kind=DiskKind.BLOCK), {"/dev/mapper"}, True),
        (file_disk("vol", kind=DiskKind.VOLUME, pool="p"), {"pool:p"}, True),
        (file_disk("vol", kind=DiskKind.VOLUME, pool="p"), {"pool:q", "/"}, False),
        (file_disk("rbd/a", kind=DiskKind.NETWORK, protocol="rbd"), set(), True),
        (file_disk(None, removable=True), set(), True),
        (file_disk("whatever", kind=DiskKind.OTHER), {"/"}, False),
    ],
)
def test_storage_is_covered_at_component_boundaries(disk, shared, fine):
    assert covered(disk, frozenset(shared)) is fine


def test_storage_must_be_declared_on_both_hosts():
    guest = vm("a", "h1", facts={"disks": (file_disk(),)})

    assert ask(guest) is None
    assert ask(guest, source=host("h1", storage_domains=frozenset())).code is Code.STORAGE_UNREACHABLE


def test_capacity_counts_the_hosts_own_use_and_whatever_is_in_flight():
    """64 GiB: 30 of its own, 20 of a copy on its way in, 20 asked for."""
    flight = InFlight(vm_uuid="u-c", source="h1", destination="h2", ours=True)
    own = host("h2")
    own = replace(own, load=replace(own.load, cpu_cores=0.0, memory_used_bytes=50 * GIB))
    refusal = ask(
        vm("a", "h1", 1.0, 20.0), target=own, others=[vm("c", "h1", 1.0, 20.0)], snapshot={"in_flight": (flight,)}
    )

    assert refusal.code is Code.MEMORY_CAPACITY
    assert "70.0 GiB of 64.0 GiB" in refusal.detail


def test_a_vm_of_unknown_memory_is_granted_what_it_is_configured_with():
    guest = vm("a", "h1", 1.0, None, facts={"memory_bytes": 70 * GIB})

    assert ask(guest).code is Code.MEMORY_CAPACITY


def test_faster_cores_carry_more():
    """13 cores of a speed-1 host are 10 of a host whose cores are 1.3 times as fast."""
    assert ask(vm("a", "h1", 13.0)).code is Code.WOULD_BE_HOT
    assert ask(vm("a", "h1", 13.0), target=host("h2", speed_factor=1.3)) is None


def test_groups_bind_and_part():
    bound, apart = VmPolicy(affinity=frozenset({"g"})), VmPolicy(anti_affinity=frozenset({"g"}))

    assert ask(vm("a", "h1", policy=bound), others=[vm("b", "h1", policy=bound)]).code is Code.AFFINITY
    assert ask(vm("a", "h1", policy=bound), others=[vm("b", "h2", policy=bound)]) is None
    assert ask(vm("a", "h1", policy=apart), others=[vm("b", "h2", policy=apart)]).code is Code.ANTI_AFFINITY
    assert ask(vm("a", "h1", policy=apart), others=[vm("b", "h1", policy=apart)]) is None
    off = vm("b", "h2", policy=apart, state=DomainState.SHUTOFF)
    assert ask(vm("a", "h1", policy=apart), others=[off]) is None


def test_anti_affinity_sees_a_member_that_is_just_arriving():
    apart = VmPolicy(anti_affinity=frozenset({"g"}))
    flight = InFlight(vm_uuid="u-b", source="h3", destination="h2", ours=False)
    inputs = inputs_of(
        [host("h1"), host("h2"), host("h3")],
        [vm("a", "h1", policy=apart), vm("b", "h3", policy=apart)],
        snapshot={"in_flight": (flight,)},
    )
    state = PlacementState(inputs)

    assert check(state, 0, 1).code is Code.ANTI_AFFINITY
    assert check(state, 0, 2).code is Code.ANTI_AFFINITY


def test_contradictory_rules_are_refused_by_name():
    both = VmPolicy(affinity=frozenset({"g"}), anti_affinity=frozenset({"x"}))
    state = PlacementState(
        inputs_of([host("h1"), host("h2")], [vm("a", "h1", policy=both), vm("b", "h1", policy=both)])
    )
    refusal = check(state, 0, 1, together=(0, 1))

    assert refusal.code is Code.ANTI_AFFINITY
    assert "group x: b" in refusal.detail


def test_movable_names_no_destination():
    state = PlacementState(inputs_of([host("h1")], [vm("a", "h1", busy="backup"), vm("b", "h1")]))

    assert movable(state, 0).code is Code.VM_BUSY
    assert movable(state, 0).destination is None
    assert movable(state, 1) is None
