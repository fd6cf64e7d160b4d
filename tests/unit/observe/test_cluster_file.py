"""Sizes and placement beside the history: what is noted when, what survives a restart, what is refused."""

import json
from pathlib import Path

import pytest

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.policy import HostMode, Mode, Owner, VmPolicy
from rebalancerd.cluster.units import GIB
from rebalancerd.observe.cluster_file import (
    FILE,
    FORGET_SECONDS,
    MOST_STAYS,
    WRITE_SECONDS,
    ClusterFile,
    ClusterFileError,
    read_cluster,
)
from rebalancerd.observe.history import History
from rebalancerd.observe.observer import Observer
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from tests.unit.observe.observe_world import UUIDS, Guest, HandClock, HandRead, facts_of

A, B = UUIDS[0], UUIDS[1]
NOW = 1_700_000_000.0
HOSTS = (
    Host(name="h1", facts=None, cores=8.0, memory_bytes=64 * GIB, speed_factor=1.25, failure_domain="r1"),
    Host(name="h2", facts=None, cores=4.0, memory_bytes=32 * GIB, mode=HostMode.NO_INBOUND, reserved_cores=0.5),
)


def written(path: Path, *stands: tuple[float, dict[str, str]]) -> ClusterFile:
    file = ClusterFile(path)
    for now, where in stands:
        file.stood(now, where)
    file.write(stands[-1][0], HOSTS, [facts_of(A), facts_of(B, vcpus=4)])
    return file


def test_sizes_hosts_and_stays_are_read_as_they_were_noted(tmp_path: Path) -> None:
    path = tmp_path / FILE
    written(path, (NOW, {A: "h1", B: "h2"}), (NOW + 10, {A: "h1", B: "h2"}), (NOW + 20, {A: "h2", B: "h2"}))
    found = read_cluster(path)

    assert [(h.name, h.cpus, h.memory_bytes) for h in found.hosts] == [("h1", 8.0, 64 * GIB), ("h2", 4.0, 32 * GIB)]
    assert (found.hosts[0].speed_factor, found.hosts[0].failure_domain) == (1.25, "r1")
    assert (found.hosts[1].mode, found.hosts[1].reserved_cores) == (HostMode.NO_INBOUND, 0.5)
    assert found.vms[A].stays == ((NOW, "h1"), (NOW + 20, "h2"))
    assert (found.vms[B].vcpus, found.vms[B].memory_bytes, found.vms[B].stays) == (4, GIB, ((NOW, "h2"),))
    assert [found.vms[A].host_at(NOW + s) for s in (-5, 0, 19, 20, 900)] == ["h1", "h1", "h1", "h2", "h2"]


def test_what_a_vm_may_not_is_kept(tmp_path: Path) -> None:
    policy = VmPolicy(mode=Mode.OBSERVE, pin=frozenset({"h1", "h2"}), anti_affinity=frozenset({"db"}), priority=3)
    facts = facts_of(A, policy=policy, immovable=("hostdev",), owner=Owner(name="nova", evidence="metadata"))
    file = ClusterFile(tmp_path / FILE)
    file.stood(NOW, {A: "h1"})
    file.write(NOW, HOSTS, [facts])
    vm = read_cluster(tmp_path / FILE).vms[A]

    assert (vm.policy, vm.immovable, vm.owner) == (policy, ("hostdev",), "nova")


def test_what_only_some_hosts_can_take_stays_in_a_replay(tmp_path: Path) -> None:
    facts = facts_of(A, hugepage_bytes=0, host_topology=("CPU pinning (vcpupin)",), pinned_cpus=frozenset({1}))
    file = ClusterFile(tmp_path / FILE)
    file.stood(NOW, {A: "h1"})
    file.write(NOW, HOSTS, [facts])

    assert read_cluster(tmp_path / FILE).vms[A].immovable == ("CPU pinning (vcpupin)", "huge pages")


def test_a_restart_goes_on_with_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / FILE
    written(path, (NOW, {A: "h1", B: "h1"}))
    written(path, (NOW + 500, {A: "h1", B: "h2"}))
    vms = read_cluster(path).vms
    assert vms[A].stays == ((NOW, "h1"),)
    assert vms[B].stays == ((NOW, "h1"), (NOW + 500, "h2"))


def test_a_vm_that_is_gone_is_known_to_be_gone_and_forgotten_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / FILE
    file = written(path, (NOW, {A: "h1", B: "h1"}), (NOW + 60, {B: "h1"}))
    assert read_cluster(path).vms[A].host_at(NOW + 100) is None
    assert read_cluster(path).vms[A].host_at(NOW + 30) == "h1"
    file.write(NOW + 61 + FORGET_SECONDS, HOSTS, [])
    assert set(read_cluster(path).vms) == {B}


def test_a_clock_that_went_back_leaves_no_stay_in_the_future(tmp_path: Path) -> None:
    file = written(tmp_path / FILE, (NOW, {A: "h1"}), (NOW + 100, {A: "h2"}), (NOW - 50, {A: "h1"}))
    assert read_cluster(tmp_path / FILE).vms[A].stays == ((NOW - 50, "h1"),)
    assert file.due(NOW - 1000), "a clock that went back must not put off the next writing"


def test_stays_are_bounded(tmp_path: Path) -> None:
    written(tmp_path / FILE, *((NOW + i, {A: f"h{i % 2 + 1}"}) for i in range(MOST_STAYS + 50)))
    stays = read_cluster(tmp_path / FILE).vms[A].stays
    assert len(stays) == MOST_STAYS
    assert stays[-1][0] == NOW + MOST_STAYS + 49


def test_a_host_of_which_nothing_is_known_now_stays_as_it_was_and_one_no_longer_declared_goes(tmp_path: Path) -> None:
    file = written(tmp_path / FILE, (NOW, {A: "h1"}))
    file.write(NOW + 1, [Host(name="h1", facts=None)], [])
    assert [(h.name, h.cpus) for h in read_cluster(tmp_path / FILE).hosts] == [("h1", 8.0)]


def test_nothing_new_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / FILE
    file = written(path, (NOW, {A: "h1"}))
    before = path.stat()
    file.stood(NOW + 10, {A: "h1"})
    assert not file.due(NOW + 10)
    assert file.due(NOW + WRITE_SECONDS)
    file.write(NOW + 10, HOSTS, [facts_of(A)])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_could_not_be_written_is_written_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "later" / FILE
    file = ClusterFile(path)
    file.stood(NOW, {A: "h1"})
    for _ in range(2):
        with pytest.raises(OSError):
            file.write(NOW, HOSTS, [facts_of(A)])
    path.parent.mkdir()
    file.write(NOW + 1, HOSTS, [facts_of(A)])
    assert read_cluster(path).vms[A].stays == ((NOW, "h1"),)
    file.stood(NOW + 2, {A: "h2"})
    file.write(NOW + 2, HOSTS, [facts_of(A)])
    assert read_cluster(path).vms[A].host_at(NOW + 3) == "h2"
    file.write(NOW + 3, HOSTS, [facts_of(A, vcpus=8)])
    assert read_cluster(path).vms[A].vcpus == 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "format 'rebalancerd-cluster' version 2"),
        ({"format": "other"}, "format 'other'"),
        ({"vms": {A: {"name": "x"}}}, "cannot be read"),
        ({"hosts": [{"name": "h1", "cpus": 0, "memory_bytes": 1, "mode": "active"}]}, "no CPUs"),
        ({"hosts": [{"name": "h1", "cpus": 8, "memory_bytes": 1, "mode": "sleeping"}]}, "cannot be read"),
    ],
)
def test_what_cannot_be_a_cluster_is_refused_and_begun_anew_by_the_writer(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / FILE
    written(path, (NOW, {A: "h1"}))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ClusterFileError, match=reason):
        read_cluster(path)
    written(path, (NOW + 5, {A: "h2"}))
    assert read_cluster(path).vms[A].stays == ((NOW + 5, "h2"),)


@pytest.mark.parametrize("vcpus", [0, -1, 2.5, "4", None])
def test_a_vm_without_cpus_is_refused(tmp_path: Path, vcpus: object) -> None:
    path = tmp_path / FILE
    written(path, (NOW, {A: "h1"}))
    content = json.loads(path.read_text())
    content["vms"][A]["vcpus"] = vcpus
    path.write_text(json.dumps(content))
    with pytest.raises(ClusterFileError, match=r"no CPUs|cannot be read"):
        read_cluster(path)


def test_a_file_that_is_cut_short_or_absent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with pytest.raises(ClusterFileError, match="not there"):
        read_cluster(path)
    written(path, (NOW, {A: "h1"}))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ClusterFileError, match="cannot be read"):
        read_cluster(path)


def test_an_observer_notes_where_guests_stand_and_that_one_moved(tmp_path: Path) -> None:
    clock = HandClock()
    read = HandRead(clock, guests=[Guest(A, "h1"), Guest(B, "h2")])
    hosts = tuple(HostSettings(name=name, uri=f"qemu+tcp://{name}/system") for name in read.names)
    observer = Observer(
        hosts=hosts,
        settings=ObserveSettings(),
        read=read,
        history=History(tmp_path),
        clock=clock,
        concurrent=False,
    )
    observer.sample()
    assert read_cluster(tmp_path / FILE).vms[A].host_at(clock.wall()) == "h1"
    clock.sleep(10)
    read.guests[0].host = "h3"
    observer.sample()
    observer.flush()
    found = read_cluster(tmp_path / FILE)
    assert [host for _, host in found.vms[A].stays] == ["h1", "h3"]
    assert [host for _, host in found.vms[B].stays] == ["h2"]
    assert [h.name for h in found.hosts] == list(read.names)
    observer.close()
