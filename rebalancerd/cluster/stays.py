"""Stays: which VM was on which host since when, as the observer saw it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Stays:
    """By VM UUID: (epoch second, host from then on; None: on no host), oldest first."""

    of: Mapping[str, tuple[tuple[float, str | None], ...]]

    @cached_property
    def ever_on(self) -> dict[str, tuple[str, ...]]:
        """UUIDs of the VMs that ever were on a host, sorted, by host."""
        found: dict[str, list[str]] = {}
        for uuid in sorted(self.of):
            for host in {host for _, host in self.of[uuid] if host is not None}:
                found.setdefault(host, []).append(uuid)
        return {host: tuple(uuids) for host, uuids in found.items()}

    def host_at(self, vm_uuid: str, instant: float) -> str | None:
        """Where it was then; None: on no host, or not seen yet."""
        found = None
        for since, host in self.of.get(vm_uuid, ()):
            if since > instant:
                break
            found = host
        return found

    def changes(self, vm_uuid: str, start: float, end: float) -> tuple[tuple[float, str | None], ...]:
        """Its changes of host after ``start`` up to ``end``."""
        return tuple(stay for stay in self.of.get(vm_uuid, ()) if start < stay[0] <= end)

    def guests(self, host: str, start: float, end: float) -> tuple[str, ...]:
        """UUIDs of the VMs that were on the host at any time from ``start`` to ``end``, sorted."""
        return tuple(
            uuid
            for uuid in self.ever_on.get(host, ())
            if self.host_at(uuid, start) == host or any(h == host for _, h in self.changes(uuid, start, end))
        )

    def left(self, host: str, start: float, end: float) -> tuple[str, ...]:
        """UUIDs of the VMs that were on the host at ``start`` and on another one later, up to ``end``, sorted."""
        return tuple(
            uuid
            for uuid in self.ever_on.get(host, ())
            if self.host_at(uuid, start) == host
            and any(h not in (host, None) for _, h in self.changes(uuid, start, end))
        )
