"""Units: constants and the few conversions between libvirt's units and ours."""

KIB = 1024
MIB = 1024**2
GIB = 1024**3
NS_PER_SECOND = 1_000_000_000
PAGE_BYTES = 4096


def mib(count: float) -> int:
    """Bytes in ``count`` MiB."""
    return int(count * MIB)


def gib(count: float) -> int:
    """Bytes in ``count`` GiB."""
    return int(count * GIB)


def mbit_per_second(count: float) -> float:
    """Bytes per second carried by ``count`` Mbit/s (decimal, as links are rated)."""
    return count * 1e6 / 8
