"""Definitions of shut-off domains on real hosts: moved by libvirt's offline migration, or not, and never lost."""

from __future__ import annotations

import subprocess
import uuid as uuids
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.act.power.book import PowerBook
from rebalancerd.act.power.definitions import Definitions
from rebalancerd.act.power.emptiness import ask_if_empty
from rebalancerd.act.power.hands import Hands
from rebalancerd.act.power.settings import PowerSettings
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.sample import Definition
from rebalancerd.cluster.vm import DomainState
from rebalancerd.lab import GuestSpec, Lab
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.settings import ObserveSettings
from rebalancerd.ports import HostRefusedError
from rebalancerd.record.sql_ledger import SqlLedger
from tests.lab.test_act_lab import host_settings

XML = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os><devices>{disk}</devices></domain>"""
DISK = "<disk type='file'><driver name='qemu' type='qcow2'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>"


class Rig:
    """What moves definitions, on the lab's hosts."""

    def __init__(self, lab: Lab) -> None:
        clock, hosts = SystemClock(), host_settings(lab)
        self.lab, self.names = lab, [h.name for h in hosts]
        self.read = LibvirtRead(hosts, ObserveSettings(), clock)
        self.write = LibvirtWrite(hosts, ObserveSettings())
        self.ledger = SqlLedger("sqlite://", clock)
        self.book = PowerBook(self.ledger, clock)
        self.hands = Hands(
            power=None,  # type: ignore[arg-type]  nothing is powered off here
            read=self.read,
            book=self.book,
            clock=clock,
            settings=PowerSettings(move_shut_off_definitions=True),
            moving=lambda _host: None,
            held_back=lambda: None,
            answers=lambda _host: True,
        )
        self.definitions = Definitions(self.hands, self.write, self.homes)
        self.uuid = str(uuids.uuid4())

    def homes(self, host: str, _definition: Definition) -> tuple[str, ...]:
        return tuple(name for name in self.names if name != host)

    def define(self, host: str, *, autostart: bool, disk: str = "") -> None:
        with self.lab.host(host).connected() as connection:
            domain = connection.defineXML(XML.format(name=f"cold-{self.uuid[:8]}", uuid=self.uuid, disk=disk))
            domain.setAutostart(int(autostart))

    def step(self, host: str) -> Refusal | None:
        asked = ask_if_empty(self.read, host, lambda _host: None)
        assert asked.refusal is not None and asked.refusal.code is Code.SHUT_OFF_DEFINITIONS
        return self.definitions.instead_of(asked, self.book.of(host))

    def where(self) -> dict[str, bool]:
        """Hosts on which it is defined, and its autostart flag there."""
        found = {}
        for host in self.names:
            facts = self.read.domain_facts(host, self.uuid)
            if facts is not None:
                found[host] = bool(facts.autostart)
        return found

    def close(self) -> None:
        for host in self.names:
            with self.lab.host(host).connected() as connection:
                for domain in connection.listAllDomains(0):
                    if domain.UUIDString() == self.uuid:
                        for snapshot in domain.listAllSnapshots(0):
                            snapshot.delete(2)  # VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY
                        domain.undefine()
        self.write.close()
        self.read.close()
        self.ledger.close()


@pytest.fixture
def rig(lab: Lab) -> Iterator[Rig]:
    made = Rig(lab)
    yield made
    made.close()


@pytest.mark.parametrize("autostart", [True, False])
def test_a_definition_is_moved_with_its_flag(rig: Rig, autostart: bool) -> None:
    rig.define("h1", autostart=autostart)
    assert rig.step("h1") is None
    assert rig.where() == {"h2": autostart}
    assert rig.read.locate("h2", rig.uuid) is DomainState.SHUTOFF
    assert rig.book.of("h1").definition is None


def test_one_with_a_snapshot_stays_and_libvirt_would_not_have_moved_it_either(rig: Rig, tmp_path: Path) -> None:
    image = tmp_path / "cold.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    rig.define("h1", autostart=True, disk=DISK.format(image))
    with rig.lab.host("h1").connected() as connection:
        connection.lookupByUUIDString(rig.uuid).snapshotCreateXML("<domainsnapshot><name>s</name></domainsnapshot>", 0)
    definition = rig.read.definition("h1", rig.uuid)
    assert definition is not None and "1 snapshots" in definition.kept
    with pytest.raises(HostRefusedError):
        rig.write.move_definition("h1", "h2", rig.uuid)
    assert rig.where() == {"h1": True}


def test_a_running_guest_is_not_touched(rig: Rig, make_guest: Callable[..., GuestSpec]) -> None:
    guest = make_guest(host="h1")
    with pytest.raises(HostRefusedError, match="started meanwhile"):
        rig.write.move_definition("h1", "h2", rig.lab.spec.guest_uuid(guest.name))
    assert rig.lab.find(guest.name) == "h1"
