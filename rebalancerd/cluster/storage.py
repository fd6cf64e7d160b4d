"""Whether a disk lies on storage that hosts share, as the operator declares it."""

from posixpath import isabs, normpath

from rebalancerd.cluster.vm import Disk, DiskKind


def covered(disk: Disk, shared: frozenset[str]) -> bool:
    """Whether storage that both hosts declare covers a disk.

    Network disks are reached over the network by any host; an empty drive needs nothing. A path is covered by a
    declared path at a component boundary, after ``..`` is resolved; a volume by ``pool:NAME``.
    """
    if disk.kind is DiskKind.NETWORK or (disk.source is None and disk.pool is None):
        return True
    if disk.kind is DiskKind.VOLUME or disk.source is None:
        return disk.pool is not None and f"pool:{disk.pool}" in shared
    if disk.kind not in (DiskKind.FILE, DiskKind.BLOCK) or not isabs(disk.source):
        return False
    path = normpath(disk.source)
    prefixes = (normpath(d) for d in shared if isabs(d))
    return any(path == p or path.startswith(p.rstrip("/") + "/") for p in prefixes)
