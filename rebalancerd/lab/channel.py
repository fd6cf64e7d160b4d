"""Gives a running guest a new schedule, and asks how far it is, through its virtio port, a unix socket of its QEMU."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from rebalancerd.lab.commands import LabError

ANSWER_SECONDS = 4.0


@dataclass(frozen=True)
class GuestProgress:
    """What a guest has done since its boot; all three only grow.

    Args:
        at: when it answered, seconds on this process's monotonic clock.
        slices: turns of its main loop, twenty a second where nothing holds the guest up.
        dirtied_bytes: memory rewritten (or read, by a reader) by its schedule.
        work_seconds: CPU demand served.
    """

    at: float
    slices: int
    dirtied_bytes: int
    work_seconds: float


def send_schedule(find_socket: Callable[[], Path | None], schedule: str, timeout: float) -> None:
    """Send a schedule and wait until the guest has taken it. It may take it twice, and start over with its first phase.

    Args:
        find_socket: says where the socket of the guest is now; None while that is not known.
        schedule: text in the form that `encode_schedule` writes.
        timeout: seconds after which to give up.

    Raises:
        LabError: the guest refused the schedule, or did not answer in time.
    """
    if _request(find_socket, "load", schedule, timeout) != "ok":
        raise LabError("the guest did not understand the schedule")


def ask_progress(find_socket: Callable[[], Path | None], timeout: float) -> GuestProgress:
    """Ask the guest how far it is.

    Raises:
        LabError: it did not answer in time, or with something else.
    """
    answer = _request(find_socket, "progress", "", timeout)
    at = time.monotonic()
    try:
        slices, dirtied_kib, work_ms = (int(part) for part in answer.split(":"))
    except ValueError as error:
        raise LabError(f"the guest answered {answer!r} where it was asked for its progress") from error
    return GuestProgress(at, slices, dirtied_kib << 10, work_ms / 1e3)


def _request(find_socket: Callable[[], Path | None], verb: str, text: str, timeout: float) -> str:
    """The first word of the guest's answer.

    A migration may drop the connection, or the message in it, at any time: the message is sent again, to wherever the
    guest is by then, until it is answered.
    """
    tag = uuid4().hex[:12]
    message = f"\n{verb} {tag} {text}\n".encode()
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        path = find_socket()
        answer = None if path is None else _ask(path, message, tag, min(ANSWER_SECONDS, deadline - time.monotonic()))
        if answer is not None:
            return answer
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
