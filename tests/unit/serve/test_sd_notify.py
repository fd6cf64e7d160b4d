"""systemd's notification protocol over a real datagram socket."""

import socket
from pathlib import Path

import pytest

from rebalancerd.serve import sd_notify
from rebalancerd.serve.sd_notify import Notifier, sender


def test_messages_reach_the_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        notifier = Notifier(sender(str(tmp_path / "notify")))
        notifier.ready()
        notifier.status("auto · last: evil\nREADY=0\x1b[31m")
        notifier.cycle_finished()
        notifier.extend(2)
        got = [manager.recv(2000) for _ in range(4)]

    assert got[0] == b"READY=1"
    assert got[1].startswith(b"STATUS=auto") and b"\n" not in got[1] and b"\x1b" not in got[1]
    assert got[2:] == [b"WATCHDOG=1", b"EXTEND_TIMEOUT_USEC=2000000"]


def test_nobody_listening_is_not_an_error(tmp_path: Path) -> None:
    Notifier(sender(str(tmp_path / "gone"))).ready()
    Notifier(sender("")).stopping()


def test_a_manager_that_reads_nothing_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sd_notify, "PATIENCE_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier(sender(str(tmp_path / "notify")))
        kept = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
        for _ in range(kept + 3):
            notifier.ready()
