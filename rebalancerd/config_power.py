"""What no single setting of host power can tell: two hosts on one switch, addresses, and ways that could not work."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rebalancerd.act.power.address import IPMI_PORT, WAKE_PORT, clash, host_port, identity, mac_bytes, redfish_url
from rebalancerd.act.power.settings import HostPower
from rebalancerd.config_errors import Key, Problem

if TYPE_CHECKING:
    from rebalancerd.config import Config


def problems(cfg: "Config") -> Iterator[Problem]:
    """Everything wrong with how the power of hosts is controlled, and between hosts."""
    seen: list[tuple[str, tuple[str, str]]] = []
    powers = cfg.host_power()
    for index, host in enumerate(cfg.hosts):
        if host.name not in powers or host.power is None:
            continue
        power, key = powers[host.name], ("hosts", index, "power")
        found = list(_one(HostPower(**host.power.values()), key))
        yield from found
        if found or (mine := identity(power)) is None:
            continue
        field = "mac" if power.kind == "wake_on_lan" else "address"
        for other, theirs in seen:
            if clash(mine, theirs):
                reason = f"it is the switch of {other!r} as well: whoever powers one down powers the other down"
                hint = "hosts behind one Redfish controller each name their own `system`" if "bmc" in mine[0] else ""
                yield Problem(key=(*key, field), reason=reason, hint=hint)
        seen.append((host.name, mine))


def _one(power: HostPower, key: Key) -> Iterator[Problem]:
    yield from _needed(power, key)
    yield from _addresses(power, key)
    for field in ("username_file", "password_file"):
        path = getattr(power, field)
        if path is not None and "/" in path and not Path(path).is_absolute():
            reason = f"{path!r} is neither an absolute path nor the name of a systemd credential"
            yield Problem(key=(*key, field), reason=reason)
    for field in ("on_command", "off_command", "state_command"):
        argv = getattr(power, field)
        if argv and (not Path(argv[0]).is_absolute() or any("\0" in word for word in argv)):
            yield Problem(key=(*key, field), reason=f"{argv[0]!r} is not the absolute path of a program")


def _needed(power: HostPower, key: Key) -> Iterator[Problem]:
    by_kind = {
        "redfish": ("address", "username_file", "password_file"),
        "ipmi": ("address", "username_file", "password_file"),
        "wake_on_lan": ("mac", "off_command"),
        "command": ("on_command", "off_command"),
    }
    for field in by_kind[power.kind]:
        if not getattr(power, field):
            yield Problem(key=(*key, field), reason=f"is required for kind {power.kind!r}")


def _addresses(power: HostPower, key: Key) -> Iterator[Problem]:
    checks = (
        ("address", lambda: redfish_url(power.address or ""), power.kind == "redfish" and power.address),
        ("address", lambda: host_port(power.address or "", IPMI_PORT), power.kind == "ipmi" and power.address),
        ("mac", lambda: mac_bytes(power.mac or ""), power.mac is not None),
        ("broadcast", lambda: host_port(power.broadcast, WAKE_PORT), power.kind == "wake_on_lan"),
    )
    for field, check, applies in checks:
        if not applies:
            continue
        try:
            check()
        except ValueError as error:
            yield Problem(key=(*key, field), reason=str(error))
    if power.kind == "redfish" and power.address and power.address.startswith("http://") and power.tls_verify:
        reason = "http:// shows name and password to the network"
        hint = "use https://, or say with `tls_verify = false` that this is meant"
        yield Problem(key=(*key, "address"), reason=reason, hint=hint)
    if power.ca_file is not None and not Path(power.ca_file).is_absolute():
        yield Problem(key=(*key, "ca_file"), reason=f"{power.ca_file!r} is not an absolute path")
