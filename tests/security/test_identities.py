"""Two identities towards libvirt: one that can only look, one that may act, each built only where it is needed."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rebalancerd import config
from rebalancerd.clock import SystemClock
from rebalancerd.config import ConfigError
from rebalancerd.daemon import build_ports
from rebalancerd.observe import libvirt_connection
from rebalancerd.observe.libvirt_connection import open_read_only, open_read_write
from rebalancerd.observe.settings import HostSettings

LOOK, ACT = "qemu+ssh://rebalancerd-observe@h1/system", "qemu+ssh://rebalancerd@h1/system"
HOSTS = f"""[[hosts]]
name = "h1"
uri = "{LOOK}"
act_uri = "{ACT}"
"""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of libvirt."""
    calls: list[tuple[str, str]] = []
    fake = SimpleNamespace(
        open=lambda uri: calls.append(("open", uri)), openReadOnly=lambda uri: calls.append(("openReadOnly", uri))
    )
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    monkeypatch.setattr(libvirt_connection, "start_event_loop", lambda: None)
    return calls


def test_each_identity_by_its_own_uri(opened: list[tuple[str, str]]) -> None:
    """The observer is opened read-only on `uri`, the actor on `act_uri`, or on `uri` where there is no other."""
    (host,) = config.parse(HOSTS).host_settings()

    open_read_only(host)
    open_read_write(host)
    open_read_write(HostSettings(name="h2", uri=LOOK))

    assert opened == [("openReadOnly", LOOK), ("open", ACT), ("open", LOOK)]


@pytest.mark.parametrize(
    ("mode", "built"), [("observe", (0, 0)), ("recommend", (1, 0)), ("guarded", (1, 1)), ("auto", (1, 1))]
)
def test_who_is_built_in_which_mode(mode: str, built: tuple[int, int]) -> None:
    """What is not built has no connection that could change anything."""
    cfg = config.parse(f'mode = "{mode}"\n{HOSTS}')

    ports = build_ports(cfg, SystemClock())

    assert (int(ports.probe is not None), int(ports.write is not None)) == built


def test_a_wrong_acting_uri_is_told() -> None:
    with pytest.raises(ConfigError, match=r"line 4: hosts\[0\]\.act_uri: unknown URI scheme 'http'"):
        config.parse(HOSTS.replace(ACT, "http://h1/system"))


def test_the_observing_rooms_open_read_only() -> None:
    """`libvirt.open` stands in one function, which only the probe and the writer import."""
    package = Path(libvirt_connection.__file__).parents[1]
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "open_read_write" in path.read_text() or "libvirt.open(" in path.read_text()
    }

    outside = {name for name in users if not name.startswith("lab/")}
    assert outside == {"observe/libvirt_connection.py", "observe/libvirt_probe.py", "act/libvirt_write.py"}
