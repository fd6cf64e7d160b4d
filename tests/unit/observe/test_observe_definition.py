"""What only the host of a shut-off domain has of it: found in the XML and beside it, and unknown is not nothing."""

from dataclasses import dataclass
from typing import Any

import pytest

from rebalancerd.observe.definition_xml import kept_files, read_definition
from rebalancerd.observe.safe_xml import parse

libvirt = pytest.importorskip("libvirt")

UUID = "c01d0000-0000-4000-8000-000000000001"
XML = f"""<domain type='qemu'><name>cold</name><uuid>{UUID}</uuid><memory unit='MiB'>64</memory>
<os{{os}}><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>{{nvram}}</os><devices>{{devices}}</devices></domain>"""


def xml(os: str = "", nvram: str = "", devices: str = "") -> str:
    return XML.format(os=os, nvram=nvram, devices=devices)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (xml(), []),
        (xml(nvram="<nvram>/var/lib/libvirt/qemu/nvram/cold_VARS.fd</nvram>"), ["UEFI variables (NVRAM)"]),
        (xml(os=" firmware='efi'"), ["UEFI variables (NVRAM)"]),
        (xml(devices="<tpm><backend type='emulator' version='2.0'/></tpm>"), ["the state of its TPM"]),
        (xml(devices="<tpm><backend type='passthrough'/></tpm>"), []),  # immovable anyway
    ],
)
def test_files_of_the_host(text: str, kept: list[str]) -> None:
    assert list(kept_files(parse(text, "domain"))) == kept


def denied() -> Any:
    error = libvirt.libvirtError("denied")
    error.err = (88, 10, "access denied", 2, None, None, None, -1, -1)
    raise error


@dataclass
class FakeDomain:
    saved: Any = 0
    snapshots: Any = 0
    checkpoints: Any = 0

    def XMLDesc(self, _flags: int) -> str:
        return xml()

    def isPersistent(self) -> int:
        return 1

    def autostart(self) -> int:
        return 1

    def hasManagedSaveImage(self, _flags: int) -> Any:
        return denied() if self.saved is None else self.saved

    def snapshotNum(self, _flags: int) -> Any:
        return denied() if self.snapshots is None else self.snapshots

    def listAllCheckpoints(self, _flags: int) -> Any:
        return [None] * self.checkpoints


@pytest.mark.parametrize(
    ("domain", "kept"),
    [
        (FakeDomain(), ()),
        (FakeDomain(saved=1), ("a managed-save image",)),
        (FakeDomain(saved=None), ("maybe a managed-save image (unreadable)",)),
        (FakeDomain(snapshots=2), ("2 snapshots",)),
        (FakeDomain(snapshots=None), ("maybe snapshots (unreadable)",)),
        (FakeDomain(checkpoints=1), ("1 checkpoints",)),
    ],
)
def test_what_libvirt_keeps_beside_the_xml(domain: FakeDomain, kept: tuple[str, ...]) -> None:
    found = read_definition(domain)
    assert (found.facts.uuid, found.facts.autostart, found.kept) == (UUID, True, kept)
