"""Which libvirt URIs a host may have, and how the read-only socket takes the place of the other one."""

from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

SCHEMES = ("qemu", "qemu+ssh", "qemu+tls", "qemu+tcp", "qemu+unix")
LOCAL = ("qemu", "qemu+unix")


class HostUriError(ValueError):
    """A host's URI that is not one of those that can be observed; the message names the host."""


def check_uri(host: str, uri: str) -> None:
    """Raise HostUriError unless ``uri`` is qemu:///, qemu+unix:///, qemu+ssh://, qemu+tls:// or qemu+tcp:// with a path.

    Plain ``qemu`` with a host name means TLS to libvirt and is allowed as such.
    """
    if not uri.isprintable() or " " in uri:
        raise HostUriError(f"host {host}: the URI has blanks or control characters: {uri[:200]!r}")
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise HostUriError(f"host {host}: {uri[:200]!r} is not a URI: {error}") from error
    if parts.scheme not in SCHEMES:
        shown = parts.scheme or uri.partition(":")[0]
        raise HostUriError(
            f"host {host}: unknown URI scheme {shown[:40]!r} in {uri[:200]!r}; one of {', '.join(SCHEMES)} is needed"
        )
    if parts.path not in ("/system", "/session"):
        raise HostUriError(
            f"host {host}: the path of {uri[:200]!r} must be /system or /session, not {parts.path[:40]!r}"
        )
    remote = parts.scheme in ("qemu+ssh", "qemu+tls", "qemu+tcp")
    if remote and not parts.hostname:
        raise HostUriError(f"host {host}: {uri[:200]!r} names no host; write {parts.scheme}://NAME{parts.path}")
    if parts.scheme == "qemu+unix" and parts.hostname:
        raise HostUriError(f"host {host}: {uri[:200]!r} is local, so it cannot name a host")


def read_only_uri(uri: str, ro_socket: str | None) -> str:
    """The URI for read-only connections: its ``socket`` replaced by ``ro_socket``, or by SOCKET-ro where that exists.

    A URI without an explicit socket needs no change: libvirt picks the read-only one itself.
    """
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    given = query.get("socket")
    if ro_socket is not None:
        query["socket"] = ro_socket
        scheme = "qemu+unix" if parts.scheme == "qemu" and not parts.netloc else parts.scheme
    elif given is not None and not given.endswith("-ro") and parts.scheme in LOCAL and Path(f"{given}-ro").exists():
        query["socket"] = f"{given}-ro"
        scheme = parts.scheme
    else:
        return uri
    # urlunsplit drops the empty authority of qemu+unix:///system for schemes it does not know
    path = urlunsplit(("", "", parts.path, urlencode(query, safe="/:", quote_via=quote), ""))
    return f"{scheme}://{parts.netloc}{path}"
