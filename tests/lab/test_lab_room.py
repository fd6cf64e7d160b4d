"""The lab itself: hosts that differ, migrations that keep the guest, loads that follow, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from rebalancerd.lab import GuestSpec, Lab, LabError, LabHost, LabSpec, Phase, delay_available

BUSY = (Phase(seconds=600, cpu_percent=50, working_set_mib=24, dirty_mib_per_second=4, order="random"),)
CALM = (Phase(seconds=600, cpu_percent=5, working_set_mib=8),)


def migrate(lab: Lab, guest: str, target: str) -> float:
    """Migrate as a client of libvirt would; seconds it took."""
    source, peer = lab.host(lab.find(guest) or ""), lab.host(target)
    flags = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_LIVE
    flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    started = time.monotonic()
    with source.connected() as connection:
        domain = connection.lookupByName(guest)
        uri = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{peer.migration_address}"}
        domain.migrateToURI3(peer.peer_uri, uri, flags)
    return time.monotonic() - started


def wait_for(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.1)


def remains(lab: Lab) -> list[str]:
    """Whatever on this machine has to do with a lab."""
    found = [f"interface {path.name}" for path in Path("/sys/class/net").glob(f"rl-{lab.spec.name}-*")]
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"**/rebalancerd-lab-{lab.spec.name}*")]
    if lab.state_dir.exists():
        found.append(f"directory {lab.state_dir}")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "mountinfo").read_text() + (process / "cmdline").read_text()
        except OSError:
            continue  # ended, or a zombie that init has not collected yet
        if str(lab.state_dir) in text and process.name != str(os.getpid()):
            found.append(f"process {process.name} {text.splitlines()[-1]}")
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(lab.state_dir) in line]
    return found


class TestHosts:
    def test_up_again_returns_the_same_lab(self, lab: Lab) -> None:
        before = [host.libvirtd_pid() for host in lab.hosts]
        started = time.monotonic()

        status = lab.up()

        assert status.up
        assert before == [host.libvirtd_pid for host in status.hosts]
        assert time.monotonic() - started < 5

    def test_each_host_is_one_of_its_own(self, lab: Lab) -> None:
        names, uuids = [], []
        for host in lab.hosts:
            with host.connected() as connection:
                names.append(connection.getHostname())
                uuids.append(connection.getCapabilities().split("<uuid>")[1].split("<")[0])
                assert connection.getMemoryStats(-1)["total"] << 10 == host.memory_limit_bytes

        assert names == ["h1", "h2", "h3"]
        assert uuids == [host.host_uuid for host in lab.hosts]
        assert len(set(uuids)) == 3

    def test_read_only_socket_refuses_changes(self, lab: Lab) -> None:
        connection = libvirt.openReadOnly(lab.hosts[0].ro_uri)
        try:
            assert connection.getHostname() == "h1"
        finally:
            connection.close()
        connection = libvirt.open(lab.hosts[0].ro_uri)  # by a client that does not ask for a read-only connection
        try:
            with pytest.raises(libvirt.libvirtError) as refused:
                connection.defineXML("<domain type='qemu'><name>x</name></domain>")
            assert refused.value.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED
        finally:
            connection.close()

    def test_cpu_time_is_the_hosts_own(self, lab: Lab, make_guest: Callable[..., GuestSpec]) -> None:
        make_guest(host="h2", phases=BUSY)

        def used(host: LabHost) -> float:
            with host.connected() as connection:
                stats = connection.getCPUStats(-1)
            return (stats["user"] + stats["kernel"]) / 1e9

        before = [used(host) for host in lab.hosts]
        cgroup_before = lab.host("h2").cgroup.cpu_seconds()
        time.sleep(4)
        spent = [used(host) - start for host, start in zip(lab.hosts, before, strict=True)]
        by_cgroup = lab.host("h2").cgroup.cpu_seconds() - cgroup_before

        assert spent[1] > 1.0
        assert spent[1] == pytest.approx(by_cgroup, abs=0.5)
        assert max(spent[0], spent[2]) < 0.4

    def test_command_on_host_sees_the_host(self, lab: Lab) -> None:
        argv = lab.command_on("h2", "sh", "-c", "hostname; ip -4 -brief addr show eth0; grep MemTotal /proc/meminfo")

        text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout

        assert text.splitlines()[0] == "h2"
        assert lab.host("h2").address in text
        assert str(lab.host("h2").memory_limit_bytes >> 10) in text

    def test_guests_survive_their_libvirtd(self, lab: Lab, make_guest: Callable[..., GuestSpec]) -> None:
        guest = make_guest(host="h3")
        before = lab.counter(guest.name)

        lab.kill_libvirtd("h3", signal.SIGKILL)
        assert not lab.status().up
        lab.up()

        assert lab.find(guest.name) == "h3"
        wait_for(lambda: lab.counter(guest.name).count > before.count + 2)
        assert lab.counter(guest.name).boot_id == before.boot_id

    def test_stopped_libvirtd_does_not_block_the_lab(self, lab: Lab) -> None:
        lab.kill_libvirtd("h1", signal.SIGSTOP)
        try:
            assert [host.responsive for host in lab.status().hosts] == [False, True, True]
        finally:
            lab.kill_libvirtd("h1", signal.SIGCONT)
        assert lab.status().up


class TestGuests:
    def test_migrates_without_a_disk(self, lab: Lab, make_guest: Callable[..., GuestSpec]) -> None:
        guest = make_guest(host="h1", phases=BUSY)
        lab.set_load(guest.name, CALM)
        wait_for(lambda: lab.counter(guest.name).load.startswith("600:5:8"))
        before = lab.counter(guest.name)

        took = migrate(lab, guest.name, "h2")

        assert took < 30
        assert lab.find(guest.name) == "h2"
        wait_for(lambda: lab.counter(guest.name).count > before.count + 2 and lab.wait_booted(guest.name).count > 0)
        assert lab.counter(guest.name).boot_id == before.boot_id
        lab.set_load(guest.name, BUSY)
        wait_for(lambda: lab.counter(guest.name).load == "600:50:24:4:r")
        assert lab.counter(guest.name).boot_id == before.boot_id

    def test_migrates_with_its_network_disk(self, lab: Lab, make_guest: Callable[..., GuestSpec]) -> None:
        guest = make_guest(host="h3", disk_mib=16, phases=CALM)
        wait_for(lambda: lab.counter(guest.name).disk == "ok")
        before = lab.disk_counter(guest.name)

        migrate(lab, guest.name, "h1")

        assert lab.find(guest.name) == "h1"
        wait_for(lambda: lab.disk_counter(guest.name).count > before.count + 2)
        after = lab.disk_counter(guest.name)
        assert after.boot_id == before.boot_id == lab.counter(guest.name).boot_id
        assert lab.counter(guest.name).disk == "ok"

    def test_follows_its_schedule(self, lab: Lab, make_guest: Callable[..., GuestSpec]) -> None:
        guest = make_guest(host="h2", phases=(Phase(2, 40, 16, 8), Phase(2, 0, 4)), repeat=True)
        seen: dict[int, set[int]] = {0: set(), 1: set()}
        loads = set()

        def both_twice() -> bool:
            beat = lab.counter(guest.name)
            seen[beat.phase].add(beat.count)
            loads.add(beat.load)
            return all(len(counts) >= 3 for counts in seen.values())

        wait_for(both_twice)

        assert loads == {"2:40:16:8:s", "2:0:4:0:s"}
        dirtied = lab.counter(guest.name).dirtied_bytes
        assert dirtied > 8 << 20

    def test_has_the_domain_asked_for(self, lab: Lab, make_guest: Callable[..., GuestSpec]) -> None:
        note = "<owner xmlns='https://example.org/owner'>team-a</owner>"
        guest = make_guest(host="h2", machine="q35", metadata_xml=note, autostart=True, boot=False)
        brief = make_guest(host="h2", persistent=False, boot=False)

        with lab.host("h2").connected() as connection:
            domain = connection.lookupByName(guest.name)
            assert domain.UUIDString() == lab.spec.guest_uuid(guest.name)
            assert (domain.isPersistent(), domain.autostart()) == (1, 1)
            assert "team-a" in domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "https://example.org/owner")
            assert connection.lookupByName(brief.name).isPersistent() == 0
            assert "q35" in domain.XMLDesc()

    def test_reports_memory_and_dirty_rate(self, lab: Lab, make_guest: Callable[..., GuestSpec]) -> None:
        guest = make_guest(host="h2", phases=BUSY)

        with lab.host("h2").connected() as connection:
            domain = connection.lookupByName(guest.name)
            domain.startDirtyRateCalc(2, 0)
            time.sleep(3)
            wait_for(lambda: rates(connection, domain)["dirtyrate.calc_status"] == 2)
            stats = rates(connection, domain)
            memory = domain.memoryStats()

        assert 1 <= stats["dirtyrate.megabytes_per_second"] <= 16
        assert memory["usable"] > 0

    def test_unknown_names_are_errors(self, lab: Lab) -> None:
        with pytest.raises(LabError, match="no guest nobody"):
            lab.set_load("nobody", CALM)
        with pytest.raises(LabError, match="no host h9"):
            lab.cut("h9")
        with pytest.raises(ValueError, match="no host h9"):
            lab.add_guest(GuestSpec("stray", host="h9"))


def rates(connection: libvirt.virConnect, domain: libvirt.virDomain) -> dict[str, int]:
    return connection.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_DIRTYRATE)[0][1]


class TestLinks:
    def test_rate_holds(self, lab: Lab) -> None:
        size = 1_500_000
        lab.shape("h2", rate_mbit=8)
        try:
            assert send(lab, "h2", size) > 0.8 * size * 8 / 8e6
        finally:
            lab.shape("h2")
        assert send(lab, "h2", size) < 0.5

    def test_delay_or_a_clear_error(self, lab: Lab) -> None:
        if delay_available():
            lab.shape("h2", delay_ms=50)
            lab.shape("h2")
        else:
            with pytest.raises(LabError, match="netem"):
                lab.shape("h2", delay_ms=50)

    def test_cut_cable_leaves_the_sockets(self, lab: Lab) -> None:
        address = (lab.host("h3").address, 16509)
        lab.cut("h3")
        try:
            with pytest.raises(OSError):
                socket.create_connection(address, timeout=1)
            assert lab.status().hosts[2].responsive
            assert not lab.status().hosts[2].connected
        finally:
            lab.heal("h3")
        wait_for(lambda: reachable(address))


def reachable(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def send(lab: Lab, host: str, size: int) -> float:
    """Seconds to send `size` bytes from this machine to a host."""
    code = (
        "import socket; s = socket.create_server(('', 5001)); print('ready', flush=True); c = s.accept()[0]\n"
        f"n = {size}\n"
        "while n > 0: n -= len(c.recv(65536))\n"
        "c.sendall(b'x'); c.close(); s.close()\n"
    )
    argv = lab.command_on(host, sys.executable, "-c", code)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        with socket.create_connection((lab.host(host).address, 5001), timeout=20) as peer:
            started = time.monotonic()
            peer.sendall(bytes(size))
            assert peer.recv(1) == b"x"
            return time.monotonic() - started


SECOND_PROCESS = """
import os, signal, sys, threading
from pathlib import Path
from rebalancerd.lab import Lab
from rebalancerd.lab.state import LabState
from pydantic import TypeAdapter
from rebalancerd.lab.spec import LabSpec
spec = TypeAdapter(LabSpec).validate_json(sys.argv[1])
left, delay = int(sys.argv[3]), float(sys.argv[4])
def progress(step):
    global left
    left -= 1
    if left == 0 and delay:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    elif left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
Lab(spec, Path(sys.argv[2])).up(progress)
"""


class TestDown:
    def up_elsewhere(self, lab: Lab, crash_at: int, delay: float) -> int:
        from pydantic import TypeAdapter

        spec = TypeAdapter(LabSpec).dump_json(lab.spec).decode()
        argv = [sys.executable, "-c", SECOND_PROCESS, spec, str(lab.state_dir), str(crash_at), str(delay)]
        return subprocess.run(argv, check=False).returncode

    @pytest.mark.parametrize("crash_at", range(1, 12))
    def test_cleans_up_after_a_crash_at_any_step(
        self, make_spec: Callable[..., LabSpec], tmp_path: Path, crash_at: int
    ) -> None:
        guest = GuestSpec("victim", disk_mib=8)
        room = Lab(make_spec(hosts=2, guests=(guest,), accelerator="auto"), tmp_path / "state")
        try:
            code = self.up_elsewhere(room, crash_at, delay=0.03 * (crash_at % 3))

            assert code == (-signal.SIGKILL if crash_at < 11 else 0)
        finally:
            Lab(room.spec, room.state_dir).down()
        assert remains(room) == []

    def test_leaves_nothing_with_guests_running_and_libvirtd_killed(
        self, make_spec: Callable[..., LabSpec], tmp_path: Path
    ) -> None:
        guests = (GuestSpec("disk", disk_mib=8), GuestSpec("plain", host="h2"))
        room = Lab(make_spec(hosts=2, guests=guests), tmp_path / "state")
        try:
            assert self.up_elsewhere(room, 0, 0) == 0
            found = Lab.open(room.state_dir)
            assert found.spec == room.spec
            assert found.find("disk") == "h1"
            assert remains(room)
            room.kill_libvirtd("h1", signal.SIGKILL)
        finally:
            room.down()

        assert remains(room) == []
        room.down()  # nothing happens
        with pytest.raises(LabError, match="no lab in"):
            Lab.open(room.state_dir)

    def test_two_labs_of_one_name_keep_apart(self, lab: Lab, tmp_path: Path) -> None:
        twin = Lab(lab.spec, tmp_path / "twin")

        with pytest.raises(LabError, match="a lab of this name is up"):
            twin.up()
        with pytest.raises(LabError, match="a lab of this name is up"):
            twin.down()

        assert lab.status().up

    def test_a_directory_of_something_else_is_left_alone(
        self, make_spec: Callable[..., LabSpec], tmp_path: Path
    ) -> None:
        (tmp_path / "precious").write_text("x")
        room = Lab(make_spec(), tmp_path)

        with pytest.raises(LabError, match="not empty"):
            room.up()
        room.down()

        assert (tmp_path / "precious").exists()

    def test_a_subnet_in_use_is_refused(self, lab: Lab, make_spec: Callable[..., LabSpec], tmp_path: Path) -> None:
        spec = make_spec()
        room = Lab(LabSpec(name=spec.name, subnet=lab.spec.subnet), tmp_path / "state")
        try:
            with pytest.raises(LabError, match="in use on"):
                room.up()
        finally:
            room.down()
        assert remains(room) == []
