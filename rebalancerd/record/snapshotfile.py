"""Snapshot files: all that planning looks at, with format and digest, so that a file edited or cut short is found out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rebalancerd.cluster.digest import ADDED_LATER, digest
from rebalancerd.cluster.power import PowerLimits
from rebalancerd.cluster.quiet import NoQuietHour, QuietHour, QuietSpell
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.cluster.scenarios import Hotspot
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.record.codec import Codec, CodecError
from rebalancerd.record.jsonfile import JsonFileError, read_tree, write_whole
from rebalancerd.record.matrices import PackedScenarios

KIND = "rebalancerd snapshot"
SNAPSHOT_FORMAT = 1
MAX_BYTES = 256 * 1024 * 1024
Settings = dict[str, int | float | str | tuple[tuple[str, float], ...]]


class SnapshotFileError(ValueError):
    """Not a snapshot that may be used; the message says what is wrong, ``read_snapshot`` puts the file's name before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedPair:
    """A move that was refused lately, and why."""

    vm_uuid: str
    destination: str
    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptInputs:
    """The inputs of one planning run, fit for a codec. ``plan`` and ``predict``: settings by name.

    ``costs``: who predicted what migrations cost, a model's id or "physics".
    """

    snapshot: Snapshot
    scenarios: PackedScenarios
    hotspots: tuple[Hotspot, ...]
    plan_id: str
    plan: Settings
    predict: Settings
    costs: str
    drained: tuple[str, ...] = ()
    blocked_hosts: dict[str, Refusal] = field(default_factory=dict)
    blocked_pairs: tuple[BlockedPair, ...] = ()
    resting_vms: dict[str, Refusal] = field(default_factory=dict)
    quiet_spells: tuple[QuietSpell, ...] = ()
    quiet_hours: tuple[QuietHour, ...] = ()
    no_quiet_hours: tuple[NoQuietHour, ...] = ()
    policy: str | None = None
    window_seconds: float | None = None
    returned: dict[str, float] = field(default_factory=dict)
    arrived: dict[str, int] = field(default_factory=dict)
    underway: tuple[tuple[str, str], ...] = ()
    no_sleep: dict[str, Refusal] = field(default_factory=dict, metadata=ADDED_LATER)
    homes: dict[str, str] = field(default_factory=dict, metadata=ADDED_LATER)
    homes_may_return: bool = field(default=False, metadata=ADDED_LATER)
    day: PackedScenarios | None = field(default=None, metadata=ADDED_LATER)
    power: PowerLimits | None = field(default=None, metadata=ADDED_LATER)


INPUTS: Codec[KeptInputs] = Codec(KeptInputs)


def document(kept: KeptInputs) -> dict[str, Any]:
    """The inputs as JSON's own types, with format and digest around them.

    Text that is not Unicode (lone surrogates in a hostile name) becomes question marks: it must not spoil the whole.
    """
    text = INPUTS.write_lossy(kept)
    return {
        "kind": KIND,
        "format": SNAPSHOT_FORMAT,
        "digest": digest(INPUTS.read(text)),
        "inputs": json.loads(text),
    }


def parse_document(tree: Mapping[str, Any]) -> KeptInputs:
    """The inputs of a document. Raises SnapshotFileError and nothing else, whatever the document holds."""
    if not isinstance(tree, Mapping) or tree.get("kind") != KIND:
        raise SnapshotFileError(f"is not a snapshot file: it does not say kind {KIND!r}")
    if tree.get("format") != SNAPSHOT_FORMAT or isinstance(tree.get("format"), bool):
        raise SnapshotFileError(f"has format {tree.get('format')!r:.40}; this version reads format {SNAPSHOT_FORMAT}")
    unknown = sorted(map(str, set(tree) - {"kind", "format", "digest", "inputs"}))
    if unknown:
        raise SnapshotFileError(f"holds something unknown: {unknown[0][:60]!r}")
    try:
        kept = INPUTS.read(json.dumps(tree.get("inputs"), allow_nan=False))
        found = digest(kept)
    except (CodecError, ValueError, TypeError, RecursionError) as error:
        raise SnapshotFileError(f"does not hold a snapshot: {error}") from error
    if found != tree.get("digest"):
        raise SnapshotFileError(
            f"was changed after it was written: its content has digest {found}, "
            f"but it says {str(tree.get('digest'))[:40]!r}"
        )
    return kept


def write_snapshot(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a document to a file whole or not at all, readable by its owner only. Raises OSError."""
    text = json.dumps(tree, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
    write_whole(path, text, 0o600)


def read_snapshot(path: Path) -> KeptInputs:
    """The inputs of a file. Raises SnapshotFileError naming it: unreadable, cut short, edited, or of another format."""
    try:
        tree = read_tree(path, MAX_BYTES)
    except JsonFileError as error:
        raise SnapshotFileError(str(error)) from error
    try:
        return parse_document(tree)
    except SnapshotFileError as error:
        raise SnapshotFileError(f"{path}: {error}") from error
