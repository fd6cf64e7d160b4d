"""Gives a running guest a new schedule through its virtio port, a unix socket of its QEMU."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from rebalancerd.lab.commands import LabError

ANSWER_SECONDS = 4.0


def send_schedule(find_socket: Callable[[], Path | None], schedule: str, timeout: float) -> None:
    """Send a schedule and wait until the guest has taken it.

    A migration may drop the connection, or the message in it, at any time: the message is sent again, to wherever the
    guest is by then, until it is answered. The guest may so take it twice, and start over with its first phase.

    Args:
        find_socket: says where the socket of the guest is now; None while that is not known.
        schedule: text in the form that `encode_schedule` writes.
        timeout: seconds after which to give up.

    Raises:
        LabError: the guest refused the schedule, or did not answer in time.
    """
    tag = uuid4().hex[:12]
    message = f"\nload {tag} {schedule}\n".encode()
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        path = find_socket()
        answer = None if path is None else _ask(path, message, tag, min(ANSWER_SECONDS, deadline - time.monotonic()))
        if answer == "ok":
            return
        if answer == "bad":
            raise LabError("the guest did not understand the schedule")
        time.sleep(0.2)
    raise LabError(f"no answer from the guest within {timeout:g} s")


def _ask(path: Path, message: bytes, tag: str, seconds: float) -> str | None:
    try:
        directory = os.open(path.parent, os.O_PATH)
    except OSError:
        return None
    heard = b""
    deadline = time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(max(0.1, seconds))
            peer.connect(
                f"/proc/self/fd/{directory}/{path.name}"
            )  # the path itself may be too long for a socket address
            peer.sendall(message)
            while time.monotonic() < deadline:
                heard += peer.recv(4096)
                for line in heard.decode(errors="replace").splitlines(keepends=True):
                    if line.endswith(f" {tag}\n"):
                        return line.split()[0]
                if not heard:
                    return None
    except OSError:
        return None
    finally:
        os.close(directory)
    return None
