"""The preflight: each thing that is not as the plan assumes, or cannot be read, refuses with its own code."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from rebalancerd.cluster.host import HugePages
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.policy import Owner
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.sample import CpuFit, DomainSample
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import Disk, DiskKind, DomainState, Nic, VmFacts
from rebalancerd.ports import HostRefusedError
from tests.unit.act.act_world import FACTS, OTHER, VM, ActProbe, Domain, Scene, one_step_plan


def refused(change: Callable[[Scene], None], code: Code, *, facts: VmFacts = FACTS, scene: Scene | None = None) -> str:
    """Start after a change of the world: refused with that code, nothing written, nothing called. Returns the detail."""
    scene = scene or Scene()
    scene.world.facts[VM] = facts
    change(scene)
    result = scene.start(facts=facts)
    assert isinstance(result, Refusal), result
    assert result.code is code, result
    assert scene.world.calls == []
    return result.detail


def test_the_plain_case_passes() -> None:
    assert isinstance(Scene().start(), MigrationRecord)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (DomainState.PAUSED, Code.VM_NOT_RUNNING),
        (DomainState.SHUTOFF, Code.VM_NOT_RUNNING),
        (DomainState.CRASHED, Code.VM_NOT_RUNNING),
        (DomainState.PAUSED_IOERROR, Code.VM_NOT_RUNNING),
        (DomainState.PAUSED_MIGRATION, Code.VM_BUSY),
        (DomainState.RUNNING_POSTCOPY, Code.VM_BUSY),
        (DomainState.UNKNOWN, Code.PREFLIGHT_UNKNOWN),
    ],
)
def test_it_must_run_on_its_source(state: DomainState, code: Code) -> None:
    refused(lambda s: setattr(s.world.domains[("a", VM)], "state", state), code)


@pytest.mark.parametrize("host", ["b", "c"])
@pytest.mark.parametrize("definition_left", [False, True])
def test_moved_by_hand(host: str, definition_left: bool) -> None:
    def move(scene: Scene) -> None:
        del scene.world.domains[("a", VM)]
        scene.world.domains[(host, VM)] = Domain(DomainState.RUNNING)
        if definition_left:
            scene.world.domains[("a", VM)] = Domain(DomainState.SHUTOFF)

    assert f"runs on {host}" in refused(move, Code.NOT_ON_SOURCE)


def test_gone() -> None:
    refused(lambda s: s.world.domains.clear(), Code.VM_GONE)


def test_a_job_on_it() -> None:
    from tests.unit.act.act_world import Job

    refused(lambda s: s.world.jobs.append(Job(VM, "a", "c")), Code.VM_BUSY)


@pytest.mark.parametrize("host", ["a", "b"])
def test_a_host_that_does_not_answer(host: str) -> None:
    refused(lambda s: s.world.silent.add(host), Code.HOST_UNREACHABLE)


def test_a_host_that_refuses_to_answer() -> None:
    scene = Scene()

    def fail(host: str) -> object:
        raise HostRefusedError(host, "access denied", 88)

    scene.executor._preflight._read.inventory = fail  # type: ignore[method-assign, assignment]
    refused(lambda _: None, Code.PREFLIGHT_UNKNOWN, scene=scene)


@pytest.mark.parametrize(
    "change",
    [
        {"vcpus": 4},
        {"memory_bytes": 2 * GIB},
        {"name": "other"},
        {"machine": "pc-q35-7.2"},
        {"cpu_digest": "x"},
        {"persistent": False},
        {"disks": (Disk(target="vdb", kind=DiskKind.FILE, source="/x", writable=True),)},
        {"nics": (Nic(kind="network", source="default"),)},
        {"secrets": frozenset({"s"})},
    ],
    ids=lambda c: next(iter(c)),
)
def test_facts_that_changed_since_the_plan(change: dict[str, object]) -> None:
    """Hot-plugged, resized, renamed: the plan does not speak of this VM any more."""
    scene = Scene()
    scene.world.facts[VM] = replace(FACTS, **change)  # type: ignore[arg-type]
    result = scene.start(facts=FACTS)
    assert isinstance(result, Refusal)
    assert result.code is Code.PLAN_STALE
    assert next(iter(change)) in result.detail


def test_immovable_owner_and_managed_save() -> None:
    nothing = lambda _: None  # noqa: E731
    refused(nothing, Code.IMMOVABLE, facts=replace(FACTS, immovable=("hostdev",)))
    refused(nothing, Code.MANAGED_SAVE, facts=replace(FACTS, has_managed_save=True))
    refused(nothing, Code.PREFLIGHT_UNKNOWN, facts=replace(FACTS, has_managed_save=None))
    scene = Scene()
    scene.world.facts[VM] = replace(FACTS, owner=Owner(name="nova", evidence="metadata"))
    result = scene.start(facts=FACTS)
    assert isinstance(result, Refusal)
    assert result.code is Code.FOREIGN_OWNER


@pytest.mark.parametrize("uuid", [VM, OTHER])
def test_uuid_or_name_known_on_the_destination(uuid: str) -> None:
    """Inactive ones too."""

    def define(scene: Scene) -> None:
        scene.world.facts[OTHER] = replace(FACTS, uuid=OTHER)
        scene.world.domains[("b", uuid)] = Domain(DomainState.SHUTOFF)

    refused(define, Code.NAME_CLASH)


def test_active_on_both_hosts() -> None:
    refused(lambda s: s.world.domains.update({("b", VM): Domain(DomainState.RUNNING)}), Code.DUPLICATE_VM)


def test_host_uuids_are_known_and_distinct() -> None:
    refused(lambda s: s.world.host_uuids.update(b="uuid-a"), Code.DUPLICATE_HOST_UUID)
    refused(lambda s: s.world.host_uuids.update(b=None), Code.PREFLIGHT_UNKNOWN)


@pytest.mark.parametrize(
    ("facts", "inventory", "code"),
    [
        ({}, {"machine_types": frozenset({"pc-q35-7.2"})}, Code.MACHINE_TYPE),
        ({"nics": (Nic(kind="network", source="blue"),)}, {}, Code.NETWORK_MISSING),
        ({"nics": (Nic(kind="network", source="blue"),)}, {"networks": None}, Code.PREFLIGHT_UNKNOWN),
        ({"nics": (Nic(kind="bridge", source="br0"),)}, {"bridges": frozenset({"br1"})}, Code.NETWORK_MISSING),
        ({"nics": (Nic(kind="bridge", source="br0", nwfilter="f"),)}, {}, Code.MISSING_NWFILTER),
        ({"nics": (Nic(kind="bridge", source="br0", nwfilter="f"),)}, {"nwfilters": None}, Code.PREFLIGHT_UNKNOWN),
        ({"secrets": frozenset({"s1"})}, {"secrets": frozenset({"s2"})}, Code.MISSING_SECRET),
        ({"secrets": frozenset({"s1"})}, {"secrets": None}, Code.PREFLIGHT_UNKNOWN),
        (
            {"disks": (Disk(target="vda", kind=DiskKind.VOLUME, source="v", writable=True, pool="p"),)},
            {},
            Code.STORAGE_UNREACHABLE,
        ),
    ],
)
def test_what_the_destination_lacks(facts: dict[str, object], inventory: dict[str, object], code: Code) -> None:
    refused(
        lambda s: s.world.inventory_changes.update(inventory),
        code,
        facts=replace(FACTS, **facts),  # type: ignore[arg-type]
    )


def test_what_libvirt_checks_itself_may_be_unknown() -> None:
    """Bridges and machine types: many hosts cannot list them."""
    scene = Scene()
    facts = replace(FACTS, nics=(Nic(kind="bridge", source="br0"),))
    scene.world.facts[VM] = facts
    scene.world.inventory_changes = {"bridges": None, "machine_types": None}
    assert isinstance(scene.start(facts=facts), MigrationRecord)


class TestAutostart:
    def test_without_the_right_a_flag_would_be_lost(self) -> None:
        refused(lambda s: setattr(s.world, "may_autostart", False), Code.AUTOSTART_RIGHT)

    def test_an_unknown_flag_could_not_be_restored(self) -> None:
        refused(lambda _: None, Code.PREFLIGHT_UNKNOWN, facts=replace(FACTS, autostart=None))

    def test_it_is_read_now_and_not_from_the_plan(self) -> None:
        """Somebody set it since the plan was made; that raises no event, so only the preflight sees it."""
        scene = Scene()
        record = scene.start(facts=replace(FACTS, autostart=False))
        assert isinstance(record, MigrationRecord)
        assert record.autostart is True

    def test_a_transient_domain_has_none(self) -> None:
        scene = Scene()
        facts = replace(FACTS, persistent=False, autostart=None, has_managed_save=None)
        scene.world.facts[VM] = facts
        scene.world.may_autostart = False
        record = scene.start(facts=facts)
        assert isinstance(record, MigrationRecord)
        assert record.autostart is False


class TestMemory:
    def test_too_little_or_unknown(self) -> None:
        refused(lambda s: setattr(s.world, "available_bytes", GIB - 1), Code.MEMORY_CAPACITY)
        refused(lambda s: setattr(s.world, "available_bytes", None), Code.PREFLIGHT_UNKNOWN)

    def test_a_vm_in_huge_pages_needs_those_and_not_what_is_available(self) -> None:
        facts = replace(FACTS, hugepage_bytes=2 * MIB)
        few = HugePages(size_bytes=2 * MIB, total=600, free=511)

        def begun(pools: tuple[HugePages, ...] | None) -> object:
            scene = Scene()
            scene.world.facts[VM], scene.world.pools, scene.world.available_bytes = facts, pools, 0
            return scene.start(facts=facts)

        for change in ({}, {"hugepage_bytes": 0}):
            detail = refused(
                lambda s: setattr(s.world, "pools", (few,)), Code.HUGEPAGES, facts=replace(facts, **change)
            )
            assert detail == "needs 512 huge pages of 2 MiB, b has 511 free"
        assert isinstance(begun((replace(few, free=512),)), MigrationRecord)
        assert isinstance(begun((replace(few, free=None),)), MigrationRecord), "the plan judged it by the total"
        assert isinstance(begun(None), MigrationRecord), "only the operator knows of the pool"

    def test_what_it_needs_of_the_host_is_as_the_plan_saw_it(self) -> None:
        scene = Scene()
        scene.world.facts[VM] = replace(FACTS, host_topology=("CPU pinning (vcpupin)",), pinned_cpus=frozenset({1}))
        result = scene.start(facts=FACTS)

        assert isinstance(result, Refusal)
        assert (result.code, result.detail) == (
            Code.PLAN_STALE,
            "changed since the plan was made: host_topology, pinned_cpus",
        )

    def test_what_is_still_to_come_by_other_migrations_counts(self) -> None:
        """A foreign copy of 4 GiB of which 1 GiB has arrived will take 3 GiB more."""

        def incoming(scene: Scene) -> None:
            facts = replace(FACTS, uuid=OTHER, name="db", memory_bytes=4 * GIB)
            row = DomainSample(
                uuid=OTHER, name="db", state=DomainState.PAUSED_MIGRATION, facts=facts, rss_bytes=1 * GIB
            )
            scene.world.rows = [row]
            scene.world.available_bytes = 4 * GIB - 1

        refused(incoming, Code.MEMORY_CAPACITY)
        scene = Scene()
        incoming(scene)
        scene.world.available_bytes = 4 * GIB
        assert isinstance(scene.start(), MigrationRecord)

    def test_ours_that_has_only_begun_counts_whole(self) -> None:
        scene = Scene()
        scene.world.available_bytes = 2 * GIB - 1
        scene.world.facts[OTHER] = replace(FACTS, uuid=OTHER, name="db")
        scene.world.domains[("c", OTHER)] = Domain(DomainState.RUNNING)
        plan = one_step_plan(scene.world, vm_uuid=OTHER, source="c")
        assert isinstance(scene.executor.start(plan.steps[0], plan, facts=scene.world.facts[OTHER]), MigrationRecord)
        result = scene.start()
        assert isinstance(result, Refusal)
        assert result.code is Code.MEMORY_CAPACITY

    def test_an_incoming_copy_of_unknown_size_is_in_doubt(self) -> None:
        row = DomainSample(uuid=OTHER, name="db", state=DomainState.PAUSED_MIGRATION, facts=None)
        refused(lambda s: setattr(s.world, "rows", [row]), Code.PREFLIGHT_UNKNOWN)


@pytest.mark.parametrize(
    ("fit", "virt_type", "passes"),
    [
        (CpuFit.COMPATIBLE, "kvm", True),
        (CpuFit.UNKNOWN, "kvm", True),
        (CpuFit.INCOMPATIBLE, "kvm", False),
        (CpuFit.INCOMPATIBLE, "qemu", True),
    ],
)
def test_cpu_fit(fit: CpuFit, virt_type: str, passes: bool) -> None:
    """Emulation brings its own CPU; an unknown fit was the plan's to judge."""
    scene = Scene(probe=ActProbe(fit))
    facts = replace(FACTS, virt_type=virt_type)
    scene.world.facts[VM] = facts
    result = scene.start(facts=facts)
    assert isinstance(result, MigrationRecord) is passes
    if isinstance(result, Refusal):
        assert result.code is Code.CPU_MODEL


def test_same_host() -> None:
    scene = Scene()
    plan = one_step_plan(scene.world, destination="a")
    result = scene.start(plan)
    assert isinstance(result, Refusal)
    assert result.code is Code.SAME_HOST


def test_hostile_names_are_shown_escaped() -> None:
    scene = Scene()
    scene.world.facts[OTHER] = replace(FACTS, uuid=OTHER, name="web\x1b[2J")
    scene.world.facts[VM] = replace(FACTS, name="web\x1b[2J")
    scene.world.domains[("b", OTHER)] = Domain(DomainState.SHUTOFF)
    result = scene.start(facts=scene.world.facts[VM])
    assert isinstance(result, Refusal)
    assert "\x1b" not in result.detail
