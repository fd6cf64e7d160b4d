"""The migration network of a lab: a bridge on this machine and one veth pair per host, with link shaping."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.lab.cgroup import Cgroup
from rebalancerd.lab.commands import LabError, run, succeeds

MACHINE_NUMBER = 254
_ALIAS_CHARS = 255


@dataclass(frozen=True)
class Link:
    """Cable between a host and the bridge.

    Args:
        port: interface on the bridge's side.
        holder_pid: a process in the host's network namespace, where the other end is called eth0.
    """

    port: str
    holder_pid: int

    def in_host(self, *argv: str) -> tuple[str, ...]:
        """Prefix a command so that it runs in the host's network namespace."""
        return ("nsenter", f"--target={self.holder_pid}", "--net", "--", *argv)

    def attach(self, bridge: str, address: str, services: Cgroup) -> None:
        """Make the cable if it is not there, and give the host's end its IPv4 address in the /24.

        It is made by a process of the lab's cgroup: should this one be killed now, `Lab.down` ends that one before it looks.
        """
        if succeeds(self.in_host("ip", "link", "show", "eth0")):
            return
        succeeds(("ip", "link", "del", self.port))  # left by a host that died
        peer = ("peer", "name", "eth0", "netns", str(self.holder_pid))
        run(*services.command_in("ip", "link", "add", self.port, "type", "veth", *peer))
        run("ip", "link", "set", self.port, "master", bridge, "up")
        run(*self.in_host("ip", "addr", "add", f"{address}/24", "dev", "eth0"))
        run(*self.in_host("ip", "link", "set", "eth0", "up"))

    def shape(self, rate_mbit: float | None, delay_ms: float | None) -> None:
        """Limit both directions to `rate_mbit` (10^6 bit/s) and delay each by `delay_ms`; None lifts a limit.

        The limit also holds for the last pages sent while the guest is stopped, unlike libvirt's bandwidth parameter.

        Raises:
            LabError: a figure is out of bounds, or this kernel has no tbf or (for a delay) no netem.
        """
        if rate_mbit is not None and not 0.1 <= rate_mbit <= 100_000:
            raise LabError(f"rate_mbit must be 0.1 to 100000, not {rate_mbit:g}")
        if delay_ms is not None and not 0 < delay_ms <= 10_000:
            raise LabError(f"delay_ms must be above 0 and at most 10000, not {delay_ms:g}")
        for device, prefix in ((self.port, ()), ("eth0", self.in_host())):
            succeeds((*prefix, "tc", "qdisc", "del", "dev", device, "root"))
            where: tuple[str, ...] = ("root", "handle", "1:")
            if rate_mbit is not None:
                burst_bytes = max(65_536, round(rate_mbit * 1e6 / 8 * 0.01))
                limits = ("rate", f"{round(rate_mbit * 1e6)}bit", "burst", str(burst_bytes), "latency", "100ms")
                run(*prefix, "tc", "qdisc", "add", "dev", device, *where, "tbf", *limits)
                where = ("parent", "1:1", "handle", "2:")
            if delay_ms is not None:
                queue = ("limit", "100000")
                run(*prefix, "tc", "qdisc", "add", "dev", device, *where, "netem", "delay", f"{delay_ms:g}ms", *queue)

    def set_up(self, connected: bool) -> None:
        """Plug the cable in or pull it out."""
        run("ip", "link", "set", self.port, "up" if connected else "down")


def is_up(port: str) -> bool:
    """Whether the cable at this port of a bridge is there and plugged in."""
    try:
        return bool(int(Path(f"/sys/class/net/{port}/flags").read_text(), 16) & 1)
    except OSError:
        return False


def delay_available() -> bool:
    """Whether this kernel can delay packets (netem; Debian's can, small kernels of virtual machines often cannot)."""
    probe = "rlprobe0"
    succeeds(("ip", "link", "add", probe, "type", "bridge"))
    try:
        return succeeds(("tc", "qdisc", "add", "dev", probe, "root", "netem", "delay", "1ms"))
    finally:
        succeeds(("ip", "link", "del", probe))


def ensure_bridge(bridge: str, address: str, owner: Path, services: Cgroup) -> None:
    """Make the bridge with this machine's address in the /24, marked with the state directory of its lab.

    Raises:
        LabError: another lab of the same name is up, or the subnet is in use on this machine.
    """
    if owner_of(bridge) is None:
        for row in json.loads(run("ip", "-json", "addr")):
            for item in row.get("addr_info", ()):
                if item["family"] == "inet" and item["local"].rsplit(".", 1)[0] == address.rsplit(".", 1)[0]:
                    raise LabError(f"subnet of {address} is in use on {row['ifname']}; give the lab another subnet")
        run(*services.command_in("ip", "link", "add", bridge, "type", "bridge"))
    check_owner(bridge, owner)
    run("ip", "link", "set", bridge, "alias", str(owner)[-_ALIAS_CHARS:])
    run("ip", "addr", "replace", f"{address}/24", "dev", bridge)
    run("ip", "link", "set", bridge, "up")


def owner_of(bridge: str) -> str | None:
    """State directory the bridge is marked with ('' before it is marked), or None if there is no such bridge."""
    try:
        return Path(f"/sys/class/net/{bridge}/ifalias").read_text().strip()
    except OSError:
        return None


def check_owner(bridge: str, owner: Path) -> None:
    """Make sure that the bridge, if there is one, is of the lab with this state directory.

    Raises:
        LabError: it is of another lab.
    """
    marked = owner_of(bridge)
    if marked and marked != str(owner)[-_ALIAS_CHARS:]:
        raise LabError(f"a lab of this name is up with its state in {marked}")


def remove_link(name: str, timeout: float = 10.0) -> None:
    """Delete an interface of this machine, if it is there.

    Raises:
        LabError: it is still there after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while Path(f"/sys/class/net/{name}").exists():
        succeeds(("ip", "link", "del", name))
        if time.monotonic() > deadline:
            raise LabError(f"interface {name} cannot be deleted")
        time.sleep(0.02)
