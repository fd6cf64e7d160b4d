"""Heartbeats of the guests: a count that goes on for as long as the same guest lives."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_TAIL_BYTES = 16_384
_LINE = re.compile(
    r"LAB boot=(?P<boot>[0-9a-f-]{36}) count=(?P<count>\d+) work_ms=(?P<work>\d+) late_ms=(?P<late>\d+)"
    r" dirtied_kib=(?P<dirtied>\d+) resident_kib=(?P<resident>\d+) phase=(?P<phase>\d+) load=(?P<load>\S+)(?: disk=(?P<disk>\w+))?\r?\n"
)


@dataclass(frozen=True)
class Heartbeat:
    """What a guest said last. A migration that restarted it would change `boot_id`; one that rolled it back, lower `count`.

    Args:
        boot_id: the guest kernel's boot id.
        count: beats since the boot, one a second if the guest gets its time.
        at: when it was written, seconds since the epoch by this machine's clock.
        work_seconds: CPU demand served since the boot, seconds.
        late_seconds: CPU demand not served yet, seconds, at most a second's worth.
        dirtied_bytes: memory rewritten by the schedule since the boot.
        resident_bytes: working set at the moment.
        phase: number of the phase of the schedule, from 0.
        load: that phase as ``seconds:cpu:working set:dirty rate:order``.
        disk: ``ok``, ``error``, or ``none`` without a disk; '' in a heartbeat read from the disk.
    """

    boot_id: str
    count: int
    at: float
    work_seconds: float
    late_seconds: float
    dirtied_bytes: int
    resident_bytes: int
    phase: int
    load: str
    disk: str


def parse_heartbeats(text: str, at: float) -> list[Heartbeat]:
    """Find the complete heartbeat lines in a console log, oldest first; `at` is when its last line was written."""
    return [
        Heartbeat(
            boot_id=m["boot"],
            count=int(m["count"]),
            at=at,
            work_seconds=int(m["work"]) / 1e3,
            late_seconds=int(m["late"]) / 1e3,
            dirtied_bytes=int(m["dirtied"]) << 10,
            resident_bytes=int(m["resident"]) << 10,
            phase=int(m["phase"]),
            load=m["load"],
            disk=m["disk"] or "",
        )
        for m in _LINE.finditer(text)
    ]


def last_heartbeat(console: Path) -> Heartbeat | None:
    """Return the last heartbeat in a console log, or None if there is none yet."""
    try:
        with console.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read().decode(errors="replace")
            at = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    beats = parse_heartbeats(tail, at)
    return beats[-1] if beats else None


def console_panicked(console: Path) -> bool:
    """Whether a kernel panic stands in a console log; False if there is no log."""
    try:
        return b"Kernel panic - not syncing" in console.read_bytes()
    except OSError:
        return False
