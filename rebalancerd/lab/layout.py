"""The parts of a lab, all found by names that follow from its specification and its directory, whether they are there or not."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from rebalancerd.lab import network
from rebalancerd.lab.cgroup import Cgroup, Hierarchy, mounted_hierarchies
from rebalancerd.lab.commands import LabError
from rebalancerd.lab.domain import CONSOLE_DIR, console_file
from rebalancerd.lab.host import LabHost
from rebalancerd.lab.image import CACHE_DIR
from rebalancerd.lab.spec import GuestSpec, LabSpec
from rebalancerd.lab.state import LabState, load_state
from rebalancerd.lab.storage import Disk

SOCKET_PATH_BYTES = 107


class Layout:
    """Names and places of a lab.

    Args:
        spec: what it consists of.
        state_dir: its directory.
        cache_dir: where the guest image is kept.

    Raises:
        LabError: the path of the directory is too long for a socket in it, or has a character that a libvirt URI cannot have.
    """

    def __init__(self, spec: LabSpec, state_dir: Path, *, cache_dir: Path = CACHE_DIR) -> None:
        self.spec = spec
        self.state_dir = Path(state_dir).resolve()
        self.cache_dir = cache_dir
        longest = len(os.fsencode(self.state_dir / "h9" / "run" / "libvirt-sock-ro"))
        if longest > SOCKET_PATH_BYTES:
            raise LabError(f"{self.state_dir} is {longest - SOCKET_PATH_BYTES} characters too long for sockets in it")
        if any(character in str(self.state_dir) for character in "?&#%,= \n\\"):
            raise LabError(f"{self.state_dir}: a lab's directory has no blank and none of ? & # % , = \\")

    @property
    def bridge(self) -> str:
        """Interface name of the lab's bridge."""
        return f"rl-{self.spec.name}-br"

    @cached_property
    def hosts(self) -> tuple[LabHost, ...]:
        """The hosts in order, whether up or not."""
        return tuple(
            LabHost(
                name=name,
                number=number,
                address=self.spec.address(number),
                directory=self.state_dir / name,
                host_uuid=self.spec.host_uuid(name),
                cpu_quota_cores=self.spec.cpu_quota_cores,
                memory_limit_bytes=self.spec.memory_limit_mib << 20,
                cgroup=self._cgroup(f"/{name}"),
                port=f"rl-{self.spec.name}-{name}",
            )
            for number, name in enumerate(self.spec.host_names, start=1)
        )

    def host(self, name: str) -> LabHost:
        """Return a host by name.

        Raises:
            LabError: there is none of that name.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"no host {name} in lab {self.spec.name}")

    @property
    def cgroup(self) -> Cgroup:
        """All processes of the lab."""
        return self._cgroup()

    @property
    def guests(self) -> tuple[GuestSpec, ...]:
        """The guests the lab has, those added later included."""
        return self._state().guests

    def guest(self, name: str) -> GuestSpec:
        """Return a guest's specification by name.

        Raises:
            LabError: there is none of that name.
        """
        for guest in self.guests:
            if guest.name == name:
                return guest
        raise LabError(f"no guest {name} in lab {self.spec.name}")

    @cached_property
    def _hierarchies(self) -> tuple[Hierarchy, ...]:
        return mounted_hierarchies()

    def _cgroup(self, part: str = "") -> Cgroup:
        return Cgroup(f"rebalancerd-lab-{self.spec.name}{part}", self._hierarchies)

    @cached_property
    def _services(self) -> Cgroup:
        return self._cgroup("/services")

    def _state(self) -> LabState:
        return load_state(self.state_dir) or LabState(spec=self.spec, guests=self.spec.guests)

    def _disk(self, guest: GuestSpec, state: LabState) -> Disk | None:
        if guest.name not in state.disk_ports:
            return None
        address, port = self.spec.address(network.MACHINE_NUMBER), state.disk_ports[guest.name]
        return Disk(guest=guest.name, directory=self.state_dir / "disks", address=address, port=port)

    def _console(self, host: LabHost, guest: str) -> Path:
        return host.directory / "log" / Path(CONSOLE_DIR).name / console_file(guest)
