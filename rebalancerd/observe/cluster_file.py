"""What the history cannot say of a cluster, in a file beside it: sizes, who stood where since when, what hosts have.

``cluster.json``, replaced in one step; written by the observer, read by a replay of what was recorded.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.policy import HostMode, Mode, VmPolicy
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.vm import VmFacts

FORMAT, VERSION = "rebalancerd-cluster", 1
FILE = "cluster.json"
WRITE_SECONDS = 300.0
FORGET_SECONDS = 35 * 86400.0  # as far back as the history goes
MOST_STAYS = 200


class ClusterFileError(Exception):
    """The file is not there or cannot be understood; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedHost:
    """A host as it was declared and as libvirt described it."""

    name: str
    cpus: float
    memory_bytes: int
    speed_factor: float = 1.0
    reserved_cores: float = 0.0
    reserved_memory_bytes: int = 0
    link_bytes_per_second: float = 125_000_000.0
    failure_domain: str | None = None
    mode: HostMode = HostMode.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedVm:
    """A VM and its stays: (epoch second, host from then on; None: gone), oldest first."""

    uuid: str
    name: str
    vcpus: int
    memory_bytes: int
    immovable: tuple[str, ...] = ()
    owner: str | None = None
    policy: VmPolicy = field(default_factory=VmPolicy)
    stays: tuple[tuple[float, str | None], ...] = ()

    def host_at(self, instant: float) -> str | None:
        """Where it stood then; where it was first seen if that was later. None: it was gone."""
        found = self.stays[0][1] if self.stays else None
        for since, host in self.stays:
            if since <= instant:
                found = host
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCluster:
    """What the file says; VMs by UUID."""

    hosts: tuple[RecordedHost, ...]
    vms: Mapping[str, RecordedVm]


class ClusterFile:
    """The writer's side. Not thread-safe: its owner locks. What cannot be read is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_at: float | None = None
        self._where: dict[str, str] = {}
        self._facts: dict[str, VmFacts] = {}
        self._written = False  # and nothing has changed since
        self._hosts: dict[str, RecordedHost] = {}
        self._vms: dict[str, RecordedVm] = {}
        self._stays: dict[str, list[tuple[float, str | None]]] = {}
        try:
            found = read_cluster(path)
        except (ClusterFileError, OSError):
            return
        self._hosts, self._vms = {host.name: host for host in found.hosts}, dict(found.vms)
        self._stays = {uuid: list(vm.stays) for uuid, vm in self._vms.items()}

    def stood(self, now: float, where: Mapping[str, str]) -> None:
        """Note where every VM is at that instant (epoch seconds)."""
        if where == self._where:
            return
        self._where, self._written = dict(where), False
        for uuid, host in where.items():
            self._note(uuid, now, host)
        for uuid in self._stays.keys() - where.keys():
            self._note(uuid, now, None)

    def stays(self) -> Stays:
        """Where every VM was since when, as noted so far."""
        return Stays({uuid: tuple(stays) for uuid, stays in self._stays.items()})

    def _note(self, uuid: str, now: float, host: str | None) -> None:
        stays = self._stays.setdefault(uuid, [])
        if stays and stays[-1][1] == host:
            return
        while stays and stays[-1][0] >= now:  # the clock went back: what lies in the future was not
            stays.pop()
        if not stays or stays[-1][1] != host:
            stays.append((now, host))
        del stays[:-MOST_STAYS]

    def due(self, now: float) -> bool:
        """Whether it is time to write again."""
        return self._written_at is None or not 0 <= now - self._written_at < WRITE_SECONDS

    def write(self, now: float, hosts: Sequence[Host], facts: Iterable[VmFacts]) -> None:
        """Bring it to the disk if it is not as it was. Raises OSError.

        ``hosts``: all that are declared; one of which nothing is known now stays as it was.
        """
        self._written_at = now
        told = {h.name: made for h in hosts if (made := _host(h) or self._hosts.get(h.name)) is not None}
        known = {f.uuid: f for f in facts if f.uuid in self._stays}
        oldest = now - FORGET_SECONDS
        over = [uuid for uuid, stays in self._stays.items() if stays[-1][1] is None and stays[-1][0] < oldest]
        if self._written and not over and told == self._hosts and known == self._facts:
            return
        self._vms |= {uuid: _recorded(f) for uuid, f in known.items() if self._facts.get(uuid) != f}
        self._hosts, self._facts, self._written = told, known, False
        for uuid in over:
            del self._stays[uuid]
        self._vms = {uuid: vm for uuid, vm in sorted(self._vms.items()) if uuid in self._stays}
        part = self._path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            file.write(_text(self._hosts.values(), self._vms.values(), self._stays))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        self._written = True


def read_cluster(path: Path) -> RecordedCluster:
    """The file's content. Raises ClusterFileError, OSError."""
    if not path.exists():
        raise ClusterFileError(f"{path} is not there: sizes and placement were not recorded")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ClusterFileError(f"{path} has format {content['format']!r} version {content['version']!r}")
        hosts = tuple(RecordedHost(**{**h, "mode": HostMode(h["mode"])}) for h in content["hosts"])
        vms = {uuid: _vm(uuid, vm) for uuid, vm in content["vms"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ClusterFileError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    for host in hosts:
        if not (host.cpus > 0 and host.memory_bytes > 0 and host.speed_factor > 0 and host.link_bytes_per_second > 0):
            raise ClusterFileError(f"{path} gives the host {host.name[:60]!r} no CPUs, memory, speed or link")
    for vm in vms.values():
        if not (isinstance(vm.vcpus, int) and vm.vcpus > 0 and vm.memory_bytes > 0):
            raise ClusterFileError(f"{path} gives the VM {vm.uuid[:60]!r} no CPUs or no memory")
    return RecordedCluster(hosts=hosts, vms=vms)


def _host(host: Host) -> RecordedHost | None:
    if not host.cores or not host.memory_bytes:
        return None
    return RecordedHost(
        name=host.name,
        cpus=host.cores,
        memory_bytes=host.memory_bytes,
        speed_factor=host.speed_factor,
        reserved_cores=host.reserved_cores,
        reserved_memory_bytes=host.reserved_memory_bytes,
        link_bytes_per_second=host.link_bytes_per_second,
        failure_domain=host.failure_domain,
        mode=host.mode,
    )


def _recorded(facts: VmFacts) -> RecordedVm:
    return RecordedVm(
        uuid=facts.uuid,
        name=facts.name,
        vcpus=max(1, facts.vcpus),
        memory_bytes=max(1, facts.memory_bytes),
        # what only some hosts can take stays in a replay: the file says nothing of huge pages and topologies
        immovable=(*facts.immovable, *facts.host_topology, *(() if facts.hugepage_bytes is None else ("huge pages",))),
        owner=None if facts.owner is None else facts.owner.name,
        policy=facts.policy,
    )


def _text(
    hosts: Iterable[RecordedHost],
    vms: Iterable[RecordedVm],
    stays: Mapping[str, list[tuple[float, str | None]]],
) -> str:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "hosts": [asdict(host) for host in sorted(hosts, key=lambda h: h.name)],
        "vms": {
            vm.uuid: {
                "name": vm.name,
                "vcpus": vm.vcpus,
                "memory_bytes": vm.memory_bytes,
                "immovable": vm.immovable,
                "owner": vm.owner,
                "policy": _told(vm.policy),
                "stays": stays[vm.uuid],
            }
            for vm in vms
        },
    }
    return json.dumps(content)


def _told(policy: VmPolicy) -> dict[str, Any]:
    """What of a policy differs from the default, sets as sorted lists."""
    default, found = VmPolicy(), {}
    for name in VmPolicy.__dataclass_fields__:
        value = getattr(policy, name)
        if value != getattr(default, name):
            found[name] = sorted(value) if isinstance(value, frozenset) else value
    return found


def _vm(uuid: str, content: Mapping[str, Any]) -> RecordedVm:
    policy: dict[str, Any] = {k: frozenset(v) if isinstance(v, list) else v for k, v in content["policy"].items()}
    if "mode" in policy:
        policy["mode"] = Mode(policy["mode"])
    return RecordedVm(
        uuid=uuid,
        name=str(content["name"]),
        vcpus=content["vcpus"],
        memory_bytes=int(content["memory_bytes"]),
        immovable=tuple(str(reason) for reason in content["immovable"]),
        owner=content["owner"],
        policy=VmPolicy(**policy),
        stays=tuple((float(since), None if host is None else str(host)) for since, host in content["stays"]),
    )
