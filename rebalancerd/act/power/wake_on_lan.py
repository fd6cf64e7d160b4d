"""Wake-on-LAN: six bytes of ones and sixteen times the hardware address, sent as UDP to the host's network (AMD, 1995)."""

import ipaddress
import socket

from rebalancerd.act.power.address import WAKE_PORT, host_port, mac_bytes
from rebalancerd.cluster.power import PowerFault
from rebalancerd.ports import PowerError

COPIES = 3  # a datagram may be lost, and a second one does no harm


def magic_packet(mac: str) -> bytes:
    """The 102 bytes that wake the network card of that address. Raises ValueError."""
    return b"\xff" * 6 + mac_bytes(mac) * 16


def send_magic_packet(host: str, mac: str, broadcast: str) -> None:
    """Send it. Nobody answers, so that all that can fail is the sending. Raises PowerError."""
    try:
        packet, (address, port) = magic_packet(mac), host_port(broadcast, WAKE_PORT)
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    except ValueError as error:
        raise PowerError(host, PowerFault.SETUP, f"Wake-on-LAN: {error}") from None
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for _ in range(COPIES):
                sender.sendto(packet, (address, port))
    except OSError as error:
        raise PowerError(host, PowerFault.UNREACHABLE, f"Wake-on-LAN to {broadcast}: {error}") from None
