"""Who is at the other end of a UNIX socket, as the kernel saw it when it connected (SO_PEERCRED, unix(7))."""

import pwd
import socket
import struct
from dataclasses import dataclass

_UCRED = struct.Struct("3i")
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Peer:
    """The connecting process. ``uid`` −1: the kernel did not say, which no list of allowed users contains."""

    pid: int
    uid: int
    gid: int

    @property
    def name(self) -> str:
        """User name where the machine knows one, else ``uid 1234``: what the ledger notes as who asked."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except (KeyError, OverflowError):
            return f"uid {self.uid}"


def peer_of(connection: object) -> Peer:
    """Credentials of the peer of a connected UNIX socket; uid −1 where they cannot be had (then: refuse)."""
    ask = getattr(connection, "getsockopt", None)
    if ask is None or getattr(connection, "family", None) != socket.AF_UNIX:
        return Peer(0, NOBODY, NOBODY)
    try:
        return Peer(*_UCRED.unpack(ask(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
    except (OSError, struct.error):
        return Peer(0, NOBODY, NOBODY)
