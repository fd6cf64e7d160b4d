"""Destinations that lack something, rights and ways that are missing, rules that leave no room, and post-copy."""

import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rebalancerd.cli.exits import CliError
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.lab import Lab, LabHost
from tests.lab.after import assert_whole, until
from tests.lab.daemon_on_lab import DaemonOnLab
from tests.lab.strike import ACT, GUARD, STEADY, Strike, Struck

pytestmark = pytest.mark.lab_full
LIBVIRT_PORT = "16509"
FAILED_SECONDS = 15.0  # longer than what is indefinite has to hold (`strike.ACT`)


def variant(strike: Strike, name: str, change: str) -> str:
    """Start a second guest like the traveller with one more device; returns its host."""
    source = strike.guest()
    with strike.lab.host(source).connected() as connection:
        root = ET.fromstring(connection.lookupByName("traveller").XMLDesc(1 << 1))
        devices = root.find("devices")
        assert devices is not None
        for tag, text in (("name", name), ("uuid", strike.uuid(name))):
            element = root.find(tag)
            assert element is not None
            element.text = text
        for element in list(devices):
            if element.tag in ("serial", "channel", "console"):
                devices.remove(element)
        devices.append(ET.fromstring(change))
        connection.createXML(ET.tostring(root, encoding="unicode"))
    return source


def end(strike: Strike, name: str) -> None:
    for host in strike.lab.hosts:
        strike.virsh(host.name, "destroy", name)


def refused(strike: Strike, name: str, words: str) -> None:
    """The drain of its host names this reason for it, and it is not moved, while the traveller is."""
    strike.ready()
    known = {r.id for r in strike.daemon.migrations()}

    def told() -> object:
        try:
            text = str(strike.daemon.get("explain/vm", subject=name))
        except CliError as error:  # it was not seen yet
            return str(error)
        return None if words in text else text

    until(f"{name} is seen", lambda: "is known" in str(told()))
    strike.order()

    until(f"{words} is told", told)
    until("the other guest goes", lambda: None if arrived(strike, known) else "not yet")
    moved = [r for r in strike.since(known) if r.vm_name == name and r.state is not MigrationState.ABANDONED]
    assert moved == []


def arrived(strike: Strike, known: set[str]) -> bool:
    return any(r.state is MigrationState.SUCCEEDED and r.vm_name == "traveller" for r in strike.since(known))


def test_fault_26_destination_without_the_disk(strike: Strike) -> None:
    """A disk in a directory that only this host has."""
    source = strike.guest()
    before = {"traveller": strike.lab.counter("traveller")}
    file = strike.lab.host(source).directory / "lib" / "own.img"
    file.write_bytes(bytes(1 << 20))
    disk = "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>"
    disk += "<source file='/var/lib/libvirt/own.img'/><target dev='vda' bus='virtio'/></disk>"
    variant(strike, "rooted", disk)
    try:
        refused(strike, "rooted", "storage_unreachable")
    finally:
        end(strike, "rooted")
    strike.whole(before)


def test_fault_26_destination_without_the_network(strike: Strike) -> None:
    """A bridge that only this host has."""
    source = strike.guest()
    before = {"traveller": strike.lab.counter("traveller")}
    link = strike.lab.host(source).link
    subprocess.run(link.in_host("ip", "link", "add", "own0", "type", "bridge"), check=True)
    subprocess.run(link.in_host("ip", "link", "set", "own0", "up"), check=True)
    variant(strike, "wired", "<interface type='bridge'><source bridge='own0'/><model type='virtio'/></interface>")
    try:
        refused(strike, "wired", "network_missing")
    finally:
        end(strike, "wired")
        subprocess.run(link.in_host("ip", "link", "del", "own0"), check=True)
    strike.whole(before)


def postcopy(strike: Strike) -> Struck:
    """A migration of ours that somebody switched to post-copy."""
    struck = strike.under_way(0.2, mbit=12, postcopy=True)
    switched = strike.virsh(struck.source, "migrate-postcopy", "traveller")
    assert switched.returncode == 0, switched.stderr
    until("it is in post-copy", lambda: None if strike.record(struck).postcopy else str(strike.record(struck)), 60)
    return struck


@contextmanager
def refusing(strike: Strike, struck: Struck, ports: str) -> Iterator[None]:
    """Between the two hosts every connection to or from these ports is reset."""
    one, two = strike.lab.host(struck.source), strike.lab.host(struck.destination)
    for host, peer in ((one, two), (two, one)):
        what = ("-p", "tcp", "-d", peer.address, "-m", "multiport", "--ports", ports)
        rule = ("iptables", "-A", "OUTPUT", *what, "-j", "REJECT", "--reject-with", "tcp-reset")
        subprocess.run(host.link.in_host(*rule), check=True)
    try:
        yield
    finally:
        for host in (one, two):
            subprocess.run(host.link.in_host("iptables", "-F"), check=True)


def test_fault_06_way_of_libvirt_cut_in_postcopy(strike: Strike) -> None:
    """libvirt calls it failed, and QEMU goes on unattended: it is waited for, and judged by where it runs."""
    struck = postcopy(strike)
    with refusing(strike, struck, LIBVIRT_PORT):
        until(
            "libvirt calls it failed",
            lambda: None if "failed" in reason(strike, struck) else reason(strike, struck),
            60,
        )
        time.sleep(FAILED_SECONDS)
        assert strike.record(struck).state is MigrationState.RUNNING, strike.record(struck)
        strike.lab.shape(struck.source)
        record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    assert "VM_IN_DANGER" not in strike.codes()
    # libvirt ends what nobody attends without removing the definition that was left
    assert strike.virsh(struck.source, "undefine", "traveller").returncode == 0
    assert strike.whole(struck, by_hand=["traveller"])["traveller"] == record.destination


def reason(strike: Strike, struck: Struck) -> str:
    """State of the guest on its source, with libvirt's reason."""
    return strike.virsh(struck.source, "domstate", "--reason", "traveller").stdout.strip()


class OnSockets(DaemonOnLab):
    """One host is reached by its read-only socket, on which libvirt refuses every change."""

    read_only = "h1"

    def uri(self, host: LabHost) -> str:
        return host.ro_uri if host.name == self.read_only else host.uri


class TlsPeers(DaemonOnLab):
    """The hosts are to reach each other by TLS, for which they have no certificates."""

    def configure(self, *words: Any, **more: Any) -> None:
        super().configure(*words, **more)
        text = self.config.read_text()
        assert 'peer_uri = "qemu+tcp://' in text
        self.config.write_text(text.replace('peer_uri = "qemu+tcp://', 'peer_uri = "qemu+tls://'))


@pytest.fixture
def resting(strike: Strike) -> Strike:
    """The file's own daemon is down for the length of the test."""
    strike.guest()
    if strike.daemon.process is not None and strike.daemon.process.poll() is None:
        assert strike.daemon.stop() == 0
    return strike


def other_daemon(kind: type[DaemonOnLab], lab: Lab, directory: Path) -> DaemonOnLab:
    return kind(lab, directory, extra=GUARD, act=ACT)


def test_fault_28_no_way_from_host_to_host(resting: Strike, tmp_path: Path) -> None:
    """Their TLS fails: the way between them is in quarantine and told, and it is not tried again and again."""
    lab = resting.lab
    before = {"traveller": lab.counter("traveller")}
    daemon = other_daemon(TlsPeers, lab, tmp_path).start()
    try:
        daemon.wait(lambda: daemon.get("status")["cycle"] is not None, 60, "a cycle")
        daemon.post("drain", host=lab.find("traveller"))
        until("both ways are in quarantine", lambda: None if len(links(daemon)) == 2 else str(daemon.get("status")))
        time.sleep(10)
        failed = [r for r in daemon.migrations() if r.state is MigrationState.FAILED]
        assert len(failed) == 2, failed
        assert all(r.reason.startswith("transport") for r in failed), failed
        daemon.post("undrain", host=lab.find("traveller"))
        assert_whole(daemon, before, autostart=["traveller"])
        assert daemon.stop() == 0
    finally:
        daemon.close()


def links(daemon: DaemonOnLab) -> list[str]:
    return [c["subject"] for c in daemon.get("status")["checks"] if c["code"] == "LINK_QUARANTINED"]


def test_fault_56_the_right_to_migrate_is_missing(resting: Strike, tmp_path: Path) -> None:
    """Two guests whose host lets us only read: none is asked for twice on the same way, then the host is read-only."""
    lab = resting.lab
    resting.guest("second", host=lab.find("traveller") or "", phases=STEADY)
    here = lab.find("traveller")
    if lab.find("second") != here:
        assert resting.virsh(lab.find("second") or "", *words_to_move("second", lab.host(here or ""))).returncode == 0
    before = {name: lab.counter(name) for name in ("traveller", "second")}
    OnSockets.read_only = here or ""
    daemon = other_daemon(OnSockets, lab, tmp_path).start()
    try:
        daemon.wait(lambda: daemon.get("status")["cycle"] is not None, 60, "a cycle")
        daemon.post("drain", host=here)
        until(
            "it is told", lambda: None if "HOST_READ_ONLY" in str(daemon.get("status")) else str(daemon.get("status"))
        )
        asked = daemon.migrations()
        ways = [(r.vm_uuid, r.destination) for r in asked]
        assert len(set(ways)) == len(ways)
        assert len({vm for vm, _ in ways}) == 2
        time.sleep(8)
        assert len(daemon.migrations()) == len(asked)
        daemon.post("undrain", host=here)
        places = assert_whole(daemon, before, autostart=list(before) if flagged(lab, "second") else ["traveller"])
        assert places == {"traveller": here, "second": here}
        assert daemon.stop() == 0
    finally:
        daemon.close()
        lab.remove_guest("second")


def flagged(lab: Lab, name: str) -> bool:
    with lab.host(lab.find(name) or "").connected() as connection:
        return bool(connection.lookupByName(name).autostart())


def words_to_move(name: str, to: LabHost) -> tuple[str, ...]:
    flags = ("--live", "--p2p", "--persistent", "--undefinesource")
    return ("migrate", *flags, name, to.peer_uri, f"tcp://{to.migration_address}")
