"""The doctor: each thing that stops a migration is found, and what cannot be asked is not called good."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rebalancerd.cli.doctor_checks import AgentLook, Answer, HostLook, Result, diagnose, dotted
from rebalancerd.cli.doctor_look import compare_cpus, look_at
from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.sample import CpuFit, DomainSample, HostInventory, HostSample
from rebalancerd.cluster.vm import Disk, DiskKind, DomainState, Nic, VmFacts
from rebalancerd.observe.settings import HostSettings
from rebalancerd.ports import HostRefusedError, HostUnreachableError

VM = VmFacts(uuid="u-1", name="web1", vcpus=2, memory_bytes=2**30, cpu_mode="custom", cpu_digest="c1")


def settings(name: str, **changes: Any) -> HostSettings:
    base = HostSettings(
        name=name,
        uri=f"qemu+tls://{name}/system",
        peer_uri=f"qemu+tls://{name}/system",
        migration_uri="tcp://10.0.0.1",
        cpu_group="a",
    )
    return replace(base, **changes)


def sample(name: str, *vms: VmFacts, **facts: Any) -> HostSample:
    return HostSample(
        host=name,
        taken_at=0.0,
        facts=HostFacts(
            **{"uuid": f"uuid-{name}", "cpus": 4, "memory_bytes": 2**33, "hypervisor_version": 7_002_000, **facts}
        ),
        cpu_busy_ns=1,
        memory_total_bytes=2**33,
        memory_available_bytes=2**32,
        domains=tuple(DomainSample(uuid=v.uuid, name=v.name, state=DomainState.RUNNING, facts=v) for v in vms),
    )


def look(
    name: str,
    *vms: VmFacts,
    facts: dict[str, Any] | None = None,
    declared: dict[str, Any] | None = None,
    **changes: Any,
) -> HostLook:
    base = HostLook(
        settings=settings(name, **(declared or {})),
        sample=sample(name, *vms, **(facts or {})),
        rights=Answer(True, "read-write"),
        port=Answer(True, "answers"),
        agent=AgentLook(skew_seconds=0.0, paths={"/srv": True}, names={"h2": True}),
    )
    return replace(base, **changes)


def found(looks: list[HostLook], host: str, check: str, mode: Mode = Mode.AUTO, fits: Any = None) -> tuple[Result, str]:
    (one,) = [f for f in diagnose(looks, mode, fits or {}) if f.host == host and f.check == check]
    if one.result is Result.FAIL:
        assert one.mend, "a failure says how to mend it"
    return one.result, one.detail


def test_two_good_hosts_are_good() -> None:
    findings = diagnose([look("h1", VM), look("h2")], Mode.AUTO, {})

    assert {f.result for f in findings} == {Result.OK}, [f for f in findings if f.result is not Result.OK]


def test_a_silent_host_is_one_failure_and_the_rest_goes_on() -> None:
    dead = HostLook(settings=settings("h1"), error="cannot connect: timed out")

    findings = diagnose([dead, look("h2", VM)], Mode.AUTO, {})

    assert [(f.check, f.result) for f in findings if f.host == "h1"] == [("reachable", Result.FAIL)]
    assert found([dead, look("h2", VM)], "h2", "storage") == (Result.NOT_CHECKED, "no other host answers")


def test_equal_host_uuids_fail_on_both() -> None:
    looks = [look("h1", facts={"uuid": "same"}), look("h2", facts={"uuid": "same"})]

    assert found(looks, "h1", "host uuid") == (Result.FAIL, "the same as h2: same")
    assert found(looks, "h2", "host uuid")[0] is Result.FAIL


def test_unknown_host_uuids_are_not_equal() -> None:
    looks = [look("h1", facts={"uuid": None}), look("h2", facts={"uuid": None})]

    assert found(looks, "h1", "host uuid")[0] is Result.NOT_CHECKED


@pytest.mark.parametrize(
    ("mode", "rights", "expected"),
    [
        (Mode.OBSERVE, Answer(None, "x"), Result.OK),
        (Mode.RECOMMEND, Answer(None, "x"), Result.NOT_CHECKED),
        (Mode.RECOMMEND, Answer(False, "x"), Result.WARN),
        (Mode.AUTO, Answer(False, "x"), Result.FAIL),
        (Mode.AUTO, Answer(None, "x"), Result.NOT_CHECKED),
    ],
)
def test_rights_by_what_the_mode_needs(mode: Mode, rights: Answer, expected: Result) -> None:
    assert found([look("h1", rights=rights)], "h1", "rights", mode)[0] is expected


@pytest.mark.parametrize(
    ("declared", "check", "expected"),
    [
        ({"peer_uri": None, "uri": "qemu+unix:///system"}, "peer uri", Result.FAIL),
        ({"peer_uri": "qemu:///system"}, "peer uri", Result.FAIL),
        ({"peer_uri": None}, "peer uri", Result.WARN),
        ({"migration_uri": None}, "migration uri", Result.FAIL),
        ({"migration_uri": "tcp://localhost"}, "migration uri", Result.FAIL),
        ({"migration_uri": "http://h1"}, "migration uri", Result.FAIL),
        ({"migration_uri": "10.0.0.1"}, "migration uri", Result.FAIL),
    ],
)
def test_addresses(declared: dict[str, Any], check: str, expected: Result) -> None:
    assert found([look("h1", declared=declared)], "h1", check)[0] is expected


def test_a_newer_qemu_warns_of_the_way_to_the_older() -> None:
    looks = [look("h1"), look("h2", facts={"hypervisor_version": 6_000_001})]

    assert found(looks, "h1", "qemu version") == (Result.WARN, "7.2.0, newer than h2 (6.0.1)")
    assert found(looks, "h2", "qemu version")[0] is Result.OK
    assert dotted(9_001_002) == "9.1.2"


def test_storage_that_only_one_host_has() -> None:
    disk = Disk(target="vda", kind=DiskKind.FILE, source="/srv/vm/web1.img", writable=True)
    vm = replace(VM, disks=(disk,))
    shared, local = {"storage_domains": frozenset({"/srv/vm"})}, {"storage_domains": frozenset({"/srv"})}

    assert found([look("h1", vm, declared=shared), look("h2", declared=shared)], "h1", "storage")[0] is Result.OK
    result, detail = found([look("h1", vm, declared=shared), look("h2", declared=local)], "h1", "storage")
    assert result is Result.FAIL
    assert "web1 to h2" in detail
    assert "vda /srv/vm/web1.img" in detail


def test_a_vm_that_can_go_somewhere_is_a_warning_only() -> None:
    vm = replace(VM, nics=(Nic(kind="network", source="blue"),))
    looks = [
        look("h1", vm),
        look("h2", facts={"networks": frozenset({"blue"})}),
        look("h3", facts={"networks": frozenset()}),
    ]

    assert found(looks, "h1", "networks") == (
        Result.WARN,
        "1 of 1 VMs cannot go everywhere, 0 nowhere; web1 to h3: lacks network blue",
    )


def test_bridges_are_looked_up_where_declared_or_listed() -> None:
    vm = replace(VM, nics=(Nic(kind="bridge", source="br0"),))

    assert (
        found([look("h1", vm), look("h2", declared={"networks": frozenset({"br1"})})], "h1", "networks")[0]
        is Result.FAIL
    )
    assert found([look("h1", vm), look("h2")], "h1", "networks")[0] is Result.OK


def test_secrets_and_filters() -> None:
    vm = replace(VM, secrets=frozenset({"s-1"}), nics=(Nic(kind="network", source=None, nwfilter="clean"),))
    bare = HostInventory(
        host="h2",
        host_uuid=None,
        networks=None,
        bridges=None,
        pools=None,
        secrets=frozenset(),
        nwfilters=frozenset(),
        domains=(),
    )

    result, detail = found([look("h1", vm), look("h2", inventory=bare)], "h1", "secrets, filters")

    assert result is Result.FAIL
    assert "secret s-1, network filter clean" in detail


def test_cpus() -> None:
    apart = [look("h1", VM), look("h2", declared={"cpu_group": "b"})]
    passthrough = [look("h1", replace(VM, cpu_mode="host-passthrough")), apart[1]]
    emulated = [look("h1", replace(VM, virt_type="qemu")), apart[1]]

    assert found(apart, "h1", "cpu model")[0] is Result.NOT_CHECKED
    assert found(apart, "h1", "cpu model", fits={("u-1", "h2"): Answer(True, "fits")})[0] is Result.OK
    assert found(apart, "h1", "cpu model", fits={("u-1", "h2"): Answer(False, "lacks avx2")})[0] is Result.FAIL
    assert found(passthrough, "h1", "cpu model")[0] is Result.FAIL
    assert found(emulated, "h1", "cpu model")[0] is Result.OK


def test_figures_that_cannot_be_read() -> None:
    broken = replace(
        sample("h1", VM),
        cpu_busy_ns=None,
        domains=(
            DomainSample(uuid="u", name="odd", state=DomainState.RUNNING, facts=None, fault="the XML is cut short"),
        ),
    )

    result, detail = found([look("h1", sample=broken)], "h1", "figures")

    assert result is Result.WARN
    assert "the host's CPU" in detail
    assert "VM odd: the XML is cut short" in detail


@pytest.mark.parametrize("agent", [None, AgentLook(error="refused")])
def test_without_an_agent_clock_files_and_names_are_not_checked(agent: AgentLook | None) -> None:
    for check in ("clock", "files", "name resolution"):
        assert found([look("h1", agent=agent)], "h1", check)[0] is Result.NOT_CHECKED


def test_what_an_agent_tells() -> None:
    agent = AgentLook(skew_seconds=-45.0, paths={"/srv": True, "/gone": False}, names={})

    looks = [look("h1", agent=agent)]

    assert found(looks, "h1", "clock") == (Result.FAIL, "45.00 s behind this machine")
    assert found(looks, "h1", "files") == (Result.FAIL, "there, no /gone exists")
    assert found(looks, "h1", "name resolution")[0] is Result.NOT_CHECKED
    assert found([look("h1", agent=replace(agent, skew_seconds=2.0))], "h1", "clock")[0] is Result.WARN


class Hosts:
    """Read, probe and write ports of a world in which h2 hangs and h3 refuses."""

    def __init__(self) -> None:
        self.compared = 0

    def hosts(self) -> tuple[str, ...]:
        return ("h1", "h2", "h3")

    def sample(self, host: str) -> HostSample:
        if host == "h2":
            raise HostUnreachableError("h2", "sample: timed out")
        if host == "h3":
            raise HostRefusedError("h3", "authentication failed", 45)
        return sample(host, VM)

    def inventory(self, host: str) -> HostInventory:
        raise HostUnreachableError(host, "inventory: timed out")

    def may_set_autostart(self, host: str) -> bool:
        return False

    def cpu_fit(self, vm_uuid: str, source: str, destination: str) -> tuple[CpuFit, str]:
        self.compared += 1
        return CpuFit.INCOMPATIBLE, "lacks avx2"


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_looking_at_hosts_that_answer_hang_and_refuse(listening: int) -> None:
    world: Any = Hosts()
    hosts = [settings(n, migration_uri=f"tcp://127.0.0.1:{listening}") for n in ("h1", "h2", "h3")]

    h1, h2, h3 = look_at(hosts, world, world, world)

    assert (h1.rights.yes, h1.inventory, h1.port.yes) == (False, None, True)
    assert (h2.sample, h2.refused, h2.error) == (None, False, "sample: timed out")
    assert (h3.sample, h3.refused, h3.error) == (None, True, "authentication failed")


def test_a_port_that_refuses_answers_and_one_that_does_not_resolve_does_not() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    world: Any = Hosts()

    (refusing,) = look_at([settings("h1", migration_uri=f"tcp://127.0.0.1:{port}")], world, None, None)
    (nowhere,) = look_at([settings("h1", migration_uri="tcp://no-such-host.invalid")], world, None, None)
    (unset,) = look_at([settings("h1", migration_uri=None)], world, None, None)

    assert (refusing.port.yes, nowhere.port.yes, unset.port.yes) == (True, False, None)


def test_each_kind_of_cpu_is_compared_once() -> None:
    twins = [replace(VM, uuid=f"u-{n}") for n in range(5)]
    world: Any = Hosts()

    fits = compare_cpus([look("h1", *twins), look("h2")], world)

    assert world.compared == 1
    assert {a.yes for a in fits.values()} == {False}
    assert len(fits) == 5


def test_an_agent_is_asked_for_clock_paths_and_names() -> None:
    from rebalancerd.observe.agent import serve_agent
    from rebalancerd.observe.agent_surroundings import SurroundingsCollector

    surroundings = SurroundingsCollector(["/", "/no/such/path"], ["localhost", "no-such-host.invalid"])
    for kind, subject in (
        ("path", "/"),
        ("path", "/no/such/path"),
        ("name", "localhost"),
        ("name", "no-such-host.invalid"),
    ):
        surroundings.look(kind, subject)
    agent = serve_agent("127.0.0.1:0", [surroundings])
    world: Any = Hosts()
    try:
        (seen,) = look_at([settings("h1", agent_url=f"http://{agent.address}", migration_uri=None)], world, None, None)
        (deaf,) = look_at([settings("h1", agent_url="http://127.0.0.1:1", migration_uri=None)], world, None, None)
    finally:
        agent.close()

    assert seen.agent is not None
    assert seen.agent.paths == {"/": True, "/no/such/path": False}
    assert seen.agent.names == {"localhost": True, "no-such-host.invalid": False}
    assert seen.agent.skew_seconds is not None
    assert abs(seen.agent.skew_seconds) < 5
    assert deaf.agent is not None
    assert deaf.agent.error is not None
