"""What a lab looks like at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rebalancerd.lab.heartbeat import Heartbeat


@dataclass(frozen=True)
class HostStatus:
    """One host.

    Args:
        name: ``h1``, ``h2``, ...
        up: its namespaces are there.
        libvirtd_pid: process id of its libvirtd, None if that is not running.
        responsive: its libvirtd runs and is not stopped.
        connected: its cable is plugged in.
        cpu_seconds: CPU time it has used, guests and libvirtd together.
    """

    name: str
    up: bool
    libvirtd_pid: int | None
    responsive: bool
    connected: bool
    cpu_seconds: float


@dataclass(frozen=True)
class GuestStatus:
    """One guest.

    Args:
        name: domain name.
        host: where it runs, or where it is defined if it runs nowhere; None if no libvirtd that answers knows it.
        state: ``running``, ``paused``, ``shut off`` or ``unknown``.
        heartbeat: what it said last, None before its first.
    """

    name: str
    host: str | None
    state: str
    heartbeat: Heartbeat | None


@dataclass(frozen=True)
class LabStatus:
    """A lab.

    Args:
        name: of the lab.
        state_dir: where its state is.
        accelerator: ``kvm`` or ``tcg``; None while the lab is not up.
        hosts: in order.
        guests: in the order in which they were added.
    """

    name: str
    state_dir: Path
    accelerator: str | None
    hosts: tuple[HostStatus, ...]
    guests: tuple[GuestStatus, ...]

    @property
    def up(self) -> bool:
        """Whether every host is up and its libvirtd answers."""
        return bool(self.hosts) and all(host.up and host.responsive for host in self.hosts)
