"""The parts of the lab that need no root: specifications, texts it writes and texts it reads."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from rebalancerd.lab import GuestSpec, Lab, LabError, LabSpec, Phase, can_run, required_packages
from rebalancerd.lab.cgroup import Cgroup, Hierarchy, mounted_hierarchies
from rebalancerd.lab.commands import run
from rebalancerd.lab.cpuview import stat_text, write_once
from rebalancerd.lab.domain import domain_xml
from rebalancerd.lab.heartbeat import last_heartbeat, parse_heartbeats
from rebalancerd.lab.image import Image, load_order
from rebalancerd.lab.spec import encode_schedule
from rebalancerd.lab.state import LabState, load_state, save_state
from rebalancerd.lab.storage import Disk

LINE = (
    "LAB boot=ab8a41ba-a637-4cc6-8a5f-e0c6722259d6 count=42 work_ms=1500 late_ms=250 dirtied_kib=1024 resident_kib=512"
    " phase=1 load=5:20:16:1:s disk=ok\n"
)
IMAGE = Image(kernel=Path("/cache/vmlinuz"), initramfs=Path("/cache/initramfs"))


class TestSpec:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"seconds": 0}, "seconds must be"),
            ({"seconds": 1, "cpu_percent": 101}, "cpu_percent must be"),
            ({"seconds": 1, "working_set_mib": -1}, "working_set_mib must be"),
            ({"seconds": 1, "working_set_mib": 1, "dirty_mib_per_second": 1e6}, "dirty_mib_per_second must be"),
            ({"seconds": 1, "dirty_mib_per_second": 1}, "needs a working set"),
            ({"seconds": 1, "order": "backwards"}, "order must be"),
            ({"seconds": float("nan")}, "seconds must be"),
        ],
    )
    def test_phase_out_of_bounds(self, fields: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Phase(**fields)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"name": "Big"}, "1 to 32 characters"),
            ({"memory_mib": 64}, "memory_mib must be"),
            ({"vcpus": 0}, "vcpus must be"),
            ({"disk_mib": -1}, "disk_mib must be"),
            ({"persistent": False, "autostart": True}, "only a persistent guest"),
            ({"phases": ()}, "1 to 4000 phases"),
            ({"phases": (Phase(1, 0, 150),)}, "room for a working set of 88 MiB"),
            ({"phases": (Phase(1),) * 400}, "kernel command line"),
            ({"metadata_xml": "<a>"}, "not XML"),
            ({"metadata_xml": "<a/>"}, "namespace of its own"),
        ],
    )
    def test_guest_out_of_bounds(self, fields: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            GuestSpec(**{"name": "g", **fields})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"name": "much-too-long"}, "1 to 6 characters"),
            ({"hosts": 0}, "hosts must be"),
            ({"subnet": "10.0.0.0/16"}, "must be a /24"),
            ({"cpu_quota_cores": 0}, "cpu_quota_cores must be"),
            ({"memory_limit_mib": 1}, "memory_limit_mib must be"),
            ({"guests": (GuestSpec("a"), GuestSpec("a"))}, "names must differ"),
            ({"guests": (GuestSpec("a", host="h4"),)}, "no host h4"),
        ],
    )
    def test_lab_out_of_bounds(self, fields: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            LabSpec(**fields)  # type: ignore[arg-type]

    def test_identities_follow_from_names(self) -> None:
        assert LabSpec(name="a").guest_uuid("g") == LabSpec(name="a").guest_uuid("g")
        assert LabSpec(name="a").guest_uuid("g") != LabSpec(name="b").guest_uuid("g")
        assert LabSpec(name="a").guest_uuid("h1") != LabSpec(name="a").host_uuid("h1")

    def test_schedule_text(self) -> None:
        phases = (Phase(2.5, 40, 16, 8, "random"), Phase(60))

        assert encode_schedule(phases, repeat=True) == "repeat;2.5:40:16:8:r,60:0:0:0:s"

    def test_lab_reads_back_as_json(self) -> None:
        spec = LabSpec(guests=(GuestSpec("g", phases=(Phase(1, 2, 3, 4, "random"),), disk_mib=4),))

        assert TypeAdapter(LabSpec).validate_json(TypeAdapter(LabSpec).dump_json(spec)) == spec

    def test_directory_that_sockets_do_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(LabError, match="too long for sockets"):
            Lab(LabSpec(), tmp_path / ("x" * 100))
        with pytest.raises(LabError, match="has no blank"):
            Lab(LabSpec(), Path("/tmp/a b"))


class TestState:
    def test_reads_back(self, tmp_path: Path) -> None:
        state = LabState(LabSpec(), (GuestSpec("g"),), "tcg", {"g": 10809}, ("/run/x",))

        save_state(tmp_path, state)

        assert load_state(tmp_path) == state
        assert load_state(tmp_path / "none") is None

    def test_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "lab.json").write_text("{")

        with pytest.raises(LabError, match="not the state of a lab"):
            load_state(tmp_path)


class TestHeartbeat:
    @pytest.mark.parametrize("cut", [60, LINE.index(" disk=") + 1, len(LINE) - 1])
    def test_reads_complete_lines_only(self, cut: int) -> None:
        beats = parse_heartbeats("noise\r\n" + LINE + LINE.replace("count=42", "count=43")[:cut], at=7.0)

        assert [beat.count for beat in beats] == [42]
        assert (beats[0].work_seconds, beats[0].late_seconds) == (1.5, 0.25)
        assert (beats[0].dirtied_bytes, beats[0].resident_bytes) == (1 << 20, 1 << 19)
        assert (beats[0].phase, beats[0].load, beats[0].disk, beats[0].at) == (1, "5:20:16:1:s", "ok", 7.0)

    def test_last_of_a_long_log(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        assert last_heartbeat(log) is None
        log.write_text("x" * 50_000 + "\n" + LINE + LINE.replace("count=42", "count=43"))

        beat = last_heartbeat(log)

        assert beat is not None
        assert beat.count == 43


class TestCgroup:
    V1 = (
        "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    )

    def test_finds_v1(self) -> None:
        found = mounted_hierarchies(self.V1)

        assert {(str(row.mount), row.version) for row in found} == {
            ("/sys/fs/cgroup/cpu,cpuacct", 1),
            ("/sys/fs/cgroup/memory", 1),
        }

    def test_finds_v2(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")

        found = mounted_hierarchies(f"30 25 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")

        assert found == (Hierarchy(tmp_path, 2, frozenset({"cpu", "cpuset", "memory"})),)

    def test_needs_both_controllers(self) -> None:
        with pytest.raises(LabError, match="the memory controller"):
            mounted_hierarchies(self.V1.splitlines()[0])

    def test_limits_v2(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
        group = Cgroup("lab-x", (Hierarchy(tmp_path, 2, frozenset({"cpu", "memory"})),))

        group.create()
        group.limit(0.6, 2 << 30)

        assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
        assert (tmp_path / "lab-x" / "cpu.max").read_text() == "60000 100000"
        assert (tmp_path / "lab-x" / "memory.max").read_text() == str(2 << 30)

    def test_cpu_time_of_both_versions(self, tmp_path: Path) -> None:
        for name, file, text in (("v1", "cpuacct.usage", "2500000000\n"), ("v2", "cpu.stat", "usage_usec 2500000\n")):
            (tmp_path / name / "g").mkdir(parents=True)
            (tmp_path / name / "g" / file).write_text(text)
            assert Cgroup("g", (Hierarchy(tmp_path / name, 1, frozenset()),)).cpu_seconds() == 2.5

    def test_siblings_are_other_labs(self, tmp_path: Path) -> None:
        for name in ("rebalancerd-lab-a", "rebalancerd-lab-b", "other"):
            (tmp_path / name).mkdir()

        assert Cgroup("rebalancerd-lab-a", (Hierarchy(tmp_path, 2, frozenset()),)).siblings() == {"rebalancerd-lab-b"}


class TestCpuView:
    MACHINE = "cpu  9 0 9 9\ncpu0 5 0 5 5\ncpu1 4 0 4 4\nintr 5\nctxt 9\nbtime 7\n"

    def test_time_is_spread_over_cpus(self) -> None:
        rows = [line.split() for line in stat_text(self.MACHINE, 30.0, 10.0, 100.0, 100).splitlines()]

        assert rows[0][:5] == ["cpu", "3000", "0", "1000", "16000"]
        assert rows[1][:5] == ["cpu0", "1500", "0", "500", "8000"]
        assert [row[0] for row in rows] == ["cpu", "cpu0", "cpu1", "ctxt", "btime"]

    def test_rewrites_in_place(self, tmp_path: Path) -> None:
        (tmp_path / "machine").write_text(self.MACHINE)
        (tmp_path / "cpu.stat").write_text("usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n")
        file = tmp_path / "stat"
        write_once({file: tmp_path}, tmp_path / "machine")
        before = (file.stat().st_ino, file.stat().st_size)

        write_once({file: tmp_path, tmp_path / "gone": tmp_path / "nowhere"}, tmp_path / "machine")

        assert (file.stat().st_ino, file.stat().st_size) == before


class TestDomain:
    def test_network_disk_and_names_in_xml(self) -> None:
        guest = GuestSpec("web", disk_mib=8, metadata_xml="<o xmlns='https://example.org/o'>a&amp;b</o>")
        disk = Disk("web", Path("/d"), "10.77.0.254", 10810)

        root = ET.fromstring(domain_xml(guest, "some-uuid", IMAGE, disk, kvm=False))

        assert root.get("type") == "qemu"
        assert root.findtext("metadata/{https://example.org/o}o") == "a&b"
        host = root.find("devices/disk/source/host")
        assert host is not None
        assert host.attrib == {"name": "10.77.0.254", "port": "10810"}
        assert root.find("devices/disk/driver").get("cache") == "none"  # type: ignore[union-attr]
        assert root.find("devices/serial/source").get("append") == "on"  # type: ignore[union-attr]

    def test_kvm_without_a_disk(self) -> None:
        root = ET.fromstring(domain_xml(GuestSpec("web"), "some-uuid", IMAGE, None, kvm=True))

        assert root.get("type") == "kvm"
        assert root.find("devices/disk") is None
        assert root.find("features/tcg") is None


def test_modules_load_after_what_they_need() -> None:
    modules = {
        "virtio_blk": b"\0depends=virtio,virtio_ring\0",
        "virtio": b"\0depends=virtio_ring\0",
        "virtio_ring": b"\0depends=\0",
    }

    assert load_order(modules, ("virtio_blk", "builtin")) == ["virtio_ring", "virtio", "virtio_blk"]


def test_commands_fail_with_their_message() -> None:
    with pytest.raises(LabError, match="exit 3: oops"):
        run("sh", "-c", "echo oops >&2; exit 3")
    with pytest.raises(LabError, match="cannot run no-such-program"):
        run("no-such-program")
    with pytest.raises(LabError, match="no end after"):
        run("sleep", "5", timeout=0.05)


def test_requirements_name_packages_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rebalancerd.lab.requirements.shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("rebalancerd.lab.requirements.os.geteuid", lambda: 0)

    assert {"lxcfs", "qemu-utils", "iproute2"} <= set(required_packages())
    assert "apt-get install" in (can_run() or "")

    monkeypatch.setattr("rebalancerd.lab.requirements.os.geteuid", lambda: 1000)
    assert "needs root" in (can_run() or "")


def test_import_needs_no_libvirt() -> None:
    code = "import sys; sys.modules['libvirt'] = None; import rebalancerd.lab"

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
