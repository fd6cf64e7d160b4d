"""What an error of the libvirt call says about the cause of a failure. Never about where the VM is.

Only libvirt's error codes are read, never its texts: those are data for people.
"""

from rebalancerd.cluster.refusal import Code
from rebalancerd.ports import HostError, HostRefusedError

INTERNAL_ERROR, NO_SUPPORT, INVALID_ARG, OPERATION_FAILED, XML_ERROR = 1, 3, 8, 9, 27
OPERATION_DENIED, NO_DOMAIN, NO_NETWORK, AUTH_FAILED = 29, 42, 43, 45
NO_STORAGE_POOL, NO_STORAGE_VOL, OPERATION_INVALID, NO_NWFILTER = 49, 50, 55, 62
NO_SECRET, CONFIG_UNSUPPORTED, OPERATION_TIMEOUT, ARGUMENT_UNSUPPORTED = 66, 67, 68, 74
OPERATION_ABORTED, MIGRATE_UNSAFE, OPERATION_UNSUPPORTED, ACCESS_DENIED, CPU_INCOMPATIBLE = 78, 81, 84, 88, 91

# libvirt or QEMU would not have this VM on that destination: trying the same again is of no use
REFUSED_CODES = frozenset(
    {
        INTERNAL_ERROR,
        NO_SUPPORT,
        INVALID_ARG,
        OPERATION_FAILED,
        XML_ERROR,
        NO_NETWORK,
        NO_STORAGE_POOL,
        NO_STORAGE_VOL,
        NO_NWFILTER,
        NO_SECRET,
        CONFIG_UNSUPPORTED,
        ARGUMENT_UNSUPPORTED,
        MIGRATE_UNSAFE,
        OPERATION_UNSUPPORTED,
        CPU_INCOMPATIBLE,
    }
)
# the source could not talk to the destination, or was not let in by it: TLS, ssh, ports, certificates
NO_CONNECT, SYSTEM_ERROR, RPC, GNUTLS_ERROR, AUTH_CANCELLED = 5, 38, 39, 40, 79
SSH, AUTH_UNAVAILABLE, LIBSSH = 85, 94, 98
TRANSPORT_CODES = frozenset(
    {
        NO_CONNECT,
        SYSTEM_ERROR,
        RPC,
        GNUTLS_ERROR,
        AUTH_FAILED,
        AUTH_CANCELLED,
        SSH,
        AUTH_UNAVAILABLE,
        LIBSSH,
    }
)
LINK_SILENT_SECONDS = 10.0  # nothing sent for that long before it broke: libvirt's keepalive ran out on a dead link
RIGHTS_CODES = frozenset({OPERATION_DENIED, AUTH_FAILED, ACCESS_DENIED})
GUEST_ENDED_CODES = frozenset({OPERATION_FAILED, OPERATION_INVALID})  # "domain is not running", once it ran


def error_code(error: HostError | None) -> int | None:
    """libvirt's code, None if there was no answer or no error."""
    return error.code if isinstance(error, HostRefusedError) else None


def cause(error: HostError | None, *, flowed: bool) -> Code | None:
    """Which refusal an error amounts to, None if it is none (a transfer that broke, a lost connection).

    ``flowed``: guest memory was transferred, so that it was no refusal whatever the code.
    """
    code = error_code(error)
    if code is None or flowed:
        return None
    if code in RIGHTS_CODES:
        return Code.RIGHTS
    if code == OPERATION_TIMEOUT:
        return Code.VM_BUSY  # the domain's job lock was not had: a backup, a snapshot, another migration
    return Code.LIBVIRT_REFUSED if code in REFUSED_CODES else None


def way_failed(error: HostError | None, *, flowed: bool, still_seconds: float) -> bool:
    """Whether a migration that was rolled back tells of the way between its hosts, given that both answer us.

    It never began to flow because the source did not get through, or it broke after nothing had been sent for a while.
    """
    if flowed:
        return error is not None and still_seconds >= LINK_SILENT_SECONDS
    return error_code(error) in TRANSPORT_CODES
