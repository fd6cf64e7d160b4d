"""The policy that travels with a VM, in its own <metadata>, and its merging with the configuration.

    <metadata>
      <policy xmlns="urn:rebalancerd:policy:1" mode="guarded" priority="5" max-downtime="0.3" post-copy="no" auto-converge="no">
        <pin host="h1"/> <avoid host="h3"/> <affinity group="web"/> <anti-affinity group="db"/>
        <prefer host="h2"/> <soft-affinity group="app"/> <soft-anti-affinity group="cache"/>
      </policy>
    </metadata>

Whoever may define a VM may write this, so it can only restrict: the stricter mode wins, the configuration wins over the
metadata, and the metadata alone never grants post-copy.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from rebalancerd.cluster.policy import Mode, VmPolicy, stricter
from rebalancerd.observe.settings import PolicyRule

NAMESPACE = "urn:rebalancerd:policy:1"
LISTS = {
    "pin": "host",
    "avoid": "host",
    "affinity": "group",
    "anti-affinity": "group",
    "prefer": "host",
    "soft-affinity": "group",
    "soft-anti-affinity": "group",
}
ATTRIBUTES = frozenset({"mode", "priority", "max-downtime", "post-copy", "auto-converge"})
MAX_ENTRIES = 256
MAX_PRIORITY = 1000
MAX_DOWNTIME_SECONDS = 60.0
YES_NO = {"yes": True, "no": False, "true": True, "false": False}
_INTEGER = re.compile(r"-?[0-9]{1,6}")


def read_policy(metadata: ET.Element | None) -> tuple[VmPolicy, tuple[str, ...]]:
    """The policy in the metadata and what is wrong with it, in words.

    A policy that cannot be read as a whole is not read in part: the VM is then only observed, and the fault named.
    """
    elements = [] if metadata is None else [e for e in metadata if e.tag.startswith(f"{{{NAMESPACE}}}")]
    if not elements:
        return VmPolicy(), ()
    try:
        if len(elements) > 1:
            raise ValueError(f"there are {len(elements)} policies")
        return _read(elements[0]), ()
    except ValueError as error:
        return VmPolicy(mode=Mode.OBSERVE), (f"policy in the metadata is malformed, so it is only observed: {error}",)


def _read(element: ET.Element) -> VmPolicy:
    if element.tag != f"{{{NAMESPACE}}}policy":
        raise ValueError(f"<{element.tag.partition('}')[2][:40]}> is not <policy>")
    unknown = sorted(set(element.attrib) - ATTRIBUTES)
    if unknown:
        raise ValueError(f"unknown attribute {unknown[0][:40]!r}")
    lists = {name: _entries(element, name) for name in LISTS}
    for child in element:
        namespace, _, name = child.tag.rpartition("}")
        if name not in LISTS or namespace != f"{{{NAMESPACE}":
            raise ValueError(f"unknown element <{name[:40]}>")
    mode = element.get("mode")
    if mode is not None and mode not in set(Mode):
        raise ValueError(f"mode {mode[:40]!r} is none of {', '.join(Mode)}")
    return VmPolicy(
        mode=None if mode is None else Mode(mode),
        pin=lists["pin"],
        avoid=lists["avoid"],
        affinity=lists["affinity"],
        anti_affinity=lists["anti-affinity"],
        priority=_priority(element.get("priority", "0")),
        postcopy=_flag(element, "post-copy"),
        auto_converge=_flag(element, "auto-converge"),
        max_downtime_seconds=_downtime(element.get("max-downtime")),
        prefer=lists["prefer"],
        soft_affinity=lists["soft-affinity"],
        soft_anti_affinity=lists["soft-anti-affinity"],
    )


def _entries(element: ET.Element, name: str) -> frozenset[str]:
    children = element.findall(f"{{{NAMESPACE}}}{name}")
    if len(children) > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES} entries <{name}>")
    values = [child.get(LISTS[name], "").strip() for child in children]
    if not all(values) or any(len(value) > 255 for value in values):
        raise ValueError(f"<{name}> without a {LISTS[name]} of 1 to 255 characters")
    return frozenset(values)


def _priority(text: str) -> int:
    if not _INTEGER.fullmatch(text) or abs(int(text)) > MAX_PRIORITY:
        raise ValueError(f"priority {text[:20]!r} is no whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}")
    return int(text)


def _flag(element: ET.Element, name: str) -> bool:
    text = element.get(name, "no")
    if text not in YES_NO:
        raise ValueError(f"{name} {text[:20]!r} is neither yes nor no")
    return YES_NO[text]


def _downtime(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_DOWNTIME_SECONDS:
        raise ValueError(f"max-downtime {text[:20]!r} is no number of seconds up to {MAX_DOWNTIME_SECONDS:g}")
    return seconds


def effective_policy(name: str, metadata: VmPolicy, rules: Sequence[PolicyRule]) -> VmPolicy:
    """The policy in force for a VM of that name.

    The strictest mode of all wins. For the rest, what the matching rules set replaces what the metadata say: of several
    rules the groups and hosts to avoid add up, the first pin, preference and priority count, the smallest downtime counts. Post-copy
    comes from rules only.
    """
    matching = [rule.policy for rule in rules if fnmatchcase(name, rule.name)]
    postcopy = any(p.postcopy for p in matching)
    policy = metadata if metadata.postcopy is postcopy else replace(metadata, postcopy=postcopy)
    if not matching:
        return policy
    modes = [p.mode for p in (metadata, *matching) if p.mode is not None]
    downtimes = [p.max_downtime_seconds for p in matching if p.max_downtime_seconds is not None]
    return replace(
        policy,
        mode=stricter(*modes) if modes else None,
        pin=next((p.pin for p in matching if p.pin), metadata.pin),
        avoid=frozenset().union(*(p.avoid for p in matching)) or metadata.avoid,
        affinity=frozenset().union(*(p.affinity for p in matching)) or metadata.affinity,
        anti_affinity=frozenset().union(*(p.anti_affinity for p in matching)) or metadata.anti_affinity,
        priority=next((p.priority for p in matching if p.priority), metadata.priority),
        auto_converge=any(p.auto_converge for p in matching) or metadata.auto_converge,
        max_downtime_seconds=min(downtimes) if downtimes else metadata.max_downtime_seconds,
        prefer=next((p.prefer for p in matching if p.prefer), metadata.prefer),
        soft_affinity=frozenset().union(*(p.soft_affinity for p in matching)) or metadata.soft_affinity,
        soft_anti_affinity=frozenset().union(*(p.soft_anti_affinity for p in matching)) or metadata.soft_anti_affinity,
    )
