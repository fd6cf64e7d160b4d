"""What a mode may do is what it builds: without the write port no move is possible, for the object is not there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rebalancerd import config as configuration
from rebalancerd import daemon as daemon_module
from rebalancerd.act.executor import Executor
from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.policy import Mode
from rebalancerd.config import Config
from rebalancerd.daemon import Daemon, build_ports, standalone_inputs, standalone_plan
from rebalancerd.observe.libvirt_connection import HostLink, open_read_only, open_read_write
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from rebalancerd.observe.libvirt_read import LibvirtRead
from tests.reachable import of_kind


def config(directory: Path, mode: str, extra: str = "") -> tuple[Path, Config]:
    path = directory / "rebalancerd.toml"
    path.write_text(
        f'mode = "{mode}"\nstate_dir = "{directory}/state"\npause_file = "{directory}/pause"\n{extra}\n'
        + "".join(
            f'[[hosts]]\nname = "h{n}"\nuri = "qemu+unix:///system?socket={directory}/{n}"\n'
            f'peer_uri = "qemu+tcp://10.9.9.{n}/system"\nmigration_uri = "tcp://10.9.9.{n}"\n'
            for n in (1, 2)
        )
    )
    return path, configuration.load(path)


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def make(mode: str, extra: str = "") -> Daemon:
        made.append(Daemon(*config(tmp_path, mode, extra)))
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()


def openers(root: object) -> set[Callable[..., Any]]:
    """How every connection that the object can reach is opened."""
    return {link._opener for link in of_kind(root, HostLink)}


@pytest.mark.parametrize(
    ("mode", "probes", "writes"),
    [("observe", False, False), ("recommend", True, False), ("guarded", True, True), ("auto", True, True)],
)
def test_each_mode_builds_its_ports_and_no_more(tmp_path: Path, mode: str, *, probes: bool, writes: bool) -> None:
    """Observe the first, recommend the first two, guarded and auto all three."""
    _, cfg = config(tmp_path, mode)
    ports = build_ports(cfg, SystemClock())
    assert isinstance(ports.read, LibvirtRead)
    assert isinstance(ports.probe, LibvirtProbe) is probes
    assert (ports.probe is not None) is probes
    assert isinstance(ports.write, LibvirtWrite) is writes
    assert (ports.write is not None) is writes


@pytest.mark.parametrize("mode", ["observe", "recommend", "guarded", "auto"])
def test_probe_off_builds_no_probe_in_any_mode(tmp_path: Path, mode: str) -> None:
    """Where the operator forbids probing no mode opens a connection for it."""
    _, cfg = config(tmp_path, mode, '[observe]\nprobe = "off"')
    assert build_ports(cfg, SystemClock()).probe is None


@pytest.mark.parametrize("mode", ["observe", "recommend"])
def test_nothing_that_could_move_a_vm_can_be_reached(make_daemon: Callable[..., Daemon], mode: str) -> None:
    """Of all objects that hang together with the daemon none is the executor or the write port."""
    daemon = make_daemon(mode)
    assert daemon.executor is None
    assert daemon.ports.write is None
    assert of_kind(daemon, LibvirtWrite, Executor) == []


def test_observe_mode_can_open_read_only_connections_alone(make_daemon: Callable[..., Daemon]) -> None:
    """Neither probe nor write port, and every connection it can reach is opened read-only."""
    daemon = make_daemon("observe")
    assert of_kind(daemon, LibvirtProbe, LibvirtWrite, Executor) == []
    assert openers(daemon) == {open_read_only}


def test_recommend_mode_has_read_write_connections_in_the_probe_alone(make_daemon: Callable[..., Daemon]) -> None:
    """And the probe offers two questions, neither of which moves anything."""
    daemon = make_daemon("recommend")
    assert openers(daemon.ports.read) == {open_read_only}
    assert openers(daemon.ports.probe) == {open_read_write}
    offered = {name for name in dir(LibvirtProbe) if not name.startswith("_")}
    assert offered == {"start_dirty_rate", "cpu_fit", "close"}


def test_the_walk_finds_what_is_there(make_daemon: Callable[..., Daemon]) -> None:
    """In auto mode the same walk finds the executor and the write port: the tests above could fail."""
    daemon = make_daemon("auto")
    assert len(of_kind(daemon, Executor)) == 1
    assert len(of_kind(daemon, LibvirtWrite)) == 1
    assert openers(daemon) == {open_read_only, open_read_write}
    assert openers(daemon.ports.write) == {open_read_write}


def test_the_loop_of_a_mode_that_acts_cannot_be_built_without_an_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ports that lack the write port in auto mode are an error at the start, not a daemon that only seems to act."""
    path, cfg = config(tmp_path, "auto")
    real = build_ports

    def without_write(cfg: Config, clock: SystemClock) -> daemon_module.Ports:
        found = real(cfg, clock)
        return daemon_module.Ports(found.read, found.probe, None)

    monkeypatch.setattr("rebalancerd.daemon.build_ports", without_write)
    with pytest.raises(ValueError, match="needs an executor"):
        Daemon(path, cfg)


def test_the_default_mode_moves_nothing(tmp_path: Path) -> None:
    """A configuration without a mode is one of recommend mode."""
    path, _ = config(tmp_path, "observe")
    path.write_text(path.read_text().replace('mode = "observe"\n', ""))
    cfg = configuration.load(path)
    assert cfg.mode is Mode.RECOMMEND
    assert build_ports(cfg, SystemClock()).write is None


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """libvirt's calls that open read-write connections fail; read-only ones open libvirt's own test driver."""
    libvirt = pytest.importorskip("libvirt")
    opened: list[str] = []
    read_only = libvirt.openReadOnly

    def refuse(*words: object) -> None:
        opened.append(f"read-write {words}")
        raise AssertionError("a read-write connection was asked for")

    def test_driver(uri: str) -> object:
        opened.append(uri)
        return read_only("test:///default")

    monkeypatch.setattr(libvirt, "open", refuse)
    monkeypatch.setattr(libvirt, "openAuth", refuse)
    monkeypatch.setattr(libvirt, "openReadOnly", test_driver)
    return opened


def test_observe_mode_samples_and_decides_where_libvirt_opens_read_only_alone(
    make_daemon: Callable[..., Daemon], forbidden: list[str]
) -> None:
    """Sampling, probing and cycles with libvirt's test driver: each host is opened read-only and none otherwise."""
    daemon = make_daemon("observe")
    for _ in range(3):
        daemon.observer.sample()
    daemon.probe()
    record = daemon.loop.iterate()

    assert record.id == 1
    assert record.mode is Mode.OBSERVE
    assert len(forbidden) == 2, forbidden
    assert not [uri for uri in forbidden if uri.startswith("read-write")]
    snapshot = daemon.observer.snapshot(operator=OperatorState(), ours=())
    assert {host.name for host in snapshot.hosts} == {"h1", "h2"}
    assert {vm.name for vm in snapshot.vms} == {"test"}, "the test driver's guest was read"


def test_a_plan_without_a_daemon_opens_read_only_alone(tmp_path: Path, forbidden: list[str]) -> None:
    """`rebalancerd plan` beside a configuration of auto mode neither probes nor writes."""
    _, cfg = config(tmp_path, "auto")
    plan = standalone_plan(cfg, 0.01, tmp_path)
    assert plan.is_empty
    assert plan.refusals
    assert forbidden
    assert not [uri for uri in forbidden if uri.startswith("read-write")]


def test_a_snapshot_without_a_daemon_opens_read_only_alone(tmp_path: Path, forbidden: list[str]) -> None:
    _, cfg = config(tmp_path, "auto")
    kept = standalone_inputs(cfg, 0.01, tmp_path)
    assert {host.name for host in kept.snapshot.hosts} == {"h1", "h2"}
    assert kept.costs
    assert forbidden
    assert not [uri for uri in forbidden if uri.startswith("read-write")]
