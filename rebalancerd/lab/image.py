"""The guest's kernel and initramfs: Debian's cloud kernel, its virtio modules and the workload program; built once and cached."""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rebalancerd.lab.commands import LabError, run

CACHE_DIR = Path("/var/cache/rebalancerd-lab")
MODULES = ("virtio_pci", "virtio_blk", "virtio_balloon", "virtio_console")
KERNEL_PACKAGE = "linux-image-cloud-amd64"


@dataclass(frozen=True)
class Image:
    """What a guest boots."""

    kernel: Path
    initramfs: Path


def build_image(cache_dir: Path = CACHE_DIR) -> Image:
    """Return the guest image from the cache, building what is not there (about 4 s, the download of the kernel included).

    The kernel comes from the cache, else from an installed cloud kernel, else from Debian's package, which is
    downloaded and unpacked but not installed, so that the machine's own boot is not touched.

    Raises:
        LabError: the kernel cannot be had, or the compiler fails.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _locked(cache_dir):
        kernel_dir = _kernel(cache_dir)
        source = (resources.files("rebalancerd.lab") / "guest" / "workload.c").read_bytes()
        key = hashlib.sha256(
            b"\0".join((source, kernel_dir.name.encode(), *(m.encode() for m in MODULES)))
        ).hexdigest()[:16]
        initramfs = cache_dir / f"initramfs-{key}.cpio"
        if not initramfs.exists():
            with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
                content = _initramfs(_compile(source, Path(scratch)), kernel_dir / "modules")
                part = Path(scratch) / "initramfs"
                part.write_bytes(content)
                part.replace(initramfs)
        return Image(kernel=kernel_dir / "vmlinuz", initramfs=initramfs)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _kernel(cache_dir: Path) -> Path:
    """Return a directory with ``vmlinuz`` and ``modules/*.ko``, uncompressed, named after the kernel's version."""
    cached = sorted(cache_dir.glob("kernel-*/vmlinuz"))
    if cached:
        return cached[-1].parent
    with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
        root = Path("/")
        if not _cloud_kernels(root):
            root = Path(scratch)
            _download_kernel(root)
        kernels = _cloud_kernels(root)
        if not kernels:
            raise LabError(f"no cloud kernel in package {KERNEL_PACKAGE}")
        vmlinuz = kernels[-1]
        version = vmlinuz.name.removeprefix("vmlinuz-")
        part = Path(scratch) / "part"
        (part / "modules").mkdir(parents=True)
        shutil.copyfile(vmlinuz, part / "vmlinuz")
        tree = root / "lib" / "modules" / version
        for path in (*tree.rglob("virtio*.ko"), *tree.rglob("virtio*.ko.xz")):
            data = path.read_bytes()
            name = path.name.removesuffix(".xz")
            (part / "modules" / name).write_bytes(lzma.decompress(data) if path.suffix == ".xz" else data)
        target = cache_dir / f"kernel-{version}"
        part.replace(target)
        return target


def _cloud_kernels(root: Path) -> list[Path]:
    return sorted(
        path
        for path in (root / "boot").glob("vmlinuz-*-cloud-amd64")
        if (root / "lib" / "modules" / path.name.removeprefix("vmlinuz-")).is_dir()
    )


def _download_kernel(root: Path) -> None:
    depends = run("apt-cache", "depends", KERNEL_PACKAGE)
    package = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", depends)
    if package is None:
        raise LabError(f"package {KERNEL_PACKAGE} is not known here; run apt-get update")
    # apt-get has no option for the target directory, and its sandbox user cannot write to ours
    option = ("-o", "APT::Sandbox::User=root")
    run("env", f"--chdir={root}", "apt-get", *option, "-qq", "download", package[1], timeout=600)
    for archive in root.glob("*.deb"):
        run("dpkg-deb", "-x", str(archive), str(root), timeout=300)


def _compile(source: bytes, scratch: Path) -> bytes:
    program, text = scratch / "workload", scratch / "workload.c"
    text.write_bytes(source)
    run("gcc", "-O2", "-static", "-s", "-pthread", "-o", str(program), str(text))
    return program.read_bytes()


def load_order(modules: dict[str, bytes], wanted: tuple[str, ...]) -> list[str]:
    """Order kernel modules so that each comes after those it depends on, by the ``depends=`` each file carries.

    Args:
        modules: content of each module file, by module name.
        wanted: names of the modules to load; one that is missing is taken to be built into the kernel.
    """
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order or name not in modules:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", modules[name])
        for needed in depends[1].decode().split(",") if depends else ():
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def _initramfs(program: bytes, module_dir: Path) -> bytes:
    modules = {path.stem: path.read_bytes() for path in module_dir.glob("*.ko")}
    order = load_order(modules, MODULES)
    return b"".join(
        (
            _entry("dev", stat.S_IFDIR | 0o755),
            _entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
            _entry("modules", stat.S_IFDIR | 0o755),
            *(_entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, modules[name]) for name in order),
            _entry("modules/order", stat.S_IFREG | 0o644, "".join(f"{name}.ko\n" for name in order).encode()),
            _entry("init", stat.S_IFREG | 0o755, program),
            _entry("TRAILER!!!", 0),
        )
    )


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One member of a cpio archive in the "newc" format of the kernel's initramfs."""
    # inode, mode, uid, gid, links, mtime, size, device of the file (2), device it is (2), length of the name, checksum
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
