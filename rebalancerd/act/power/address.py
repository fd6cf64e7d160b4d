"""Addresses of management controllers: read once, told apart, so that no two hosts share one switch."""

import re
from urllib.parse import urlsplit

from rebalancerd.act.power.settings import HostPower

IPMI_PORT, WAKE_PORT = 623, 9
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-]?)(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}")


def host_port(text: str, port: int) -> tuple[str, int]:
    """ADDRESS, ADDRESS:PORT, [V6] or [V6]:PORT. Raises ValueError."""
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in text or not text.isprintable():
        raise ValueError(f"{text!r} is not ADDRESS or ADDRESS:PORT")
    return parts.hostname, parts.port or port


def redfish_url(text: str) -> tuple[str, str, int]:
    """Scheme, host and port of a Redfish address. Raises ValueError."""
    parts = urlsplit(text)
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare or not text.isprintable():
        raise ValueError(f"{text!r} is not https://ADDRESS[:PORT]")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address holds no name and no password; use username_file and password_file")
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def mac_bytes(text: str) -> bytes:
    """Six bytes of a hardware address. Raises ValueError."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is no hardware address such as 52:54:00:12:34:56")
    value = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if value[0] & 1 or not any(value):
        raise ValueError(f"{text!r} is a group's or nobody's hardware address")
    return value


def identity(power: HostPower) -> tuple[str, str] | None:
    """What no two hosts may share: (controller, system on it, "" for the only one); None where nothing identifies it.

    Redfish and IPMI of one controller are one controller, whatever the ports, unless Redfish names a system on it.
    Raises ValueError for an address that is none.
    """
    if power.kind == "redfish" and power.address:
        _, host, port = redfish_url(power.address)
        # several emulated or shared controllers may stand behind one address, told apart by port or system
        place = host if port in (80, 443) else f"{host}:{port}"
        return f"bmc {place}", (power.system or "").rstrip("/")
    if power.kind == "ipmi" and power.address:
        host, port = host_port(power.address, IPMI_PORT)
        return f"bmc {host if port == IPMI_PORT else f'{host}:{port}'}", ""
    if power.kind == "wake_on_lan" and power.mac:
        return f"mac {mac_bytes(power.mac).hex(':')}", ""
    return None


def clash(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether both stand for the same switch: the same controller, and not two systems that it names apart."""
    return one[0] == other[0] and (one[1] == other[1] or not one[1] or not other[1])
