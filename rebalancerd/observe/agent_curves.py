"""Dirty curves told by the hosts' agents: what of an answer can be true, and whether it is used for a VM.

An agent's word can only replace libvirt's readings where it is sound, fresh, about that VM on that host, and does not make
the VM look much quieter than libvirt saw it; else libvirt's readings stand, and the reason is an Unknown.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog

from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.sample import AgentCurve, AgentSample
from rebalancerd.cluster.snapshot import Unknown
from rebalancerd.observe.dirty_pool import MOST_READINGS, least_error
from rebalancerd.observe.memory_pages import BY_PAGES

log = structlog.get_logger(__name__)

FORMAT = 1
MOST_VMS, MOST_POINTS, MOST_REASON = 2048, 16, 200
SHORTEST_PERIOD, LONGEST_PERIOD = 0.001, 3600.0
REACH_SECONDS = 1.0  # a curve that ends before says too little of how a copy goes on
MOST_BYTES = 2.0**50
MOST_AGE = 1e9
SAME_MEMORY = 1 / 64
CONTRADICTED = 2.0  # times as much seen by libvirt, beyond what both readings' errors allow
DEVIATIONS = 4.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_curves(body: bytes) -> tuple[AgentCurve, ...]:
    """What an agent's ``/dirty`` says, at most one of each VM. Raises ValueError for an answer that is none.

    A VM of whom it says what cannot be true has a ``fault`` and no curve; so has one of whom it speaks twice.
    """
    try:
        answer = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {str(error)[:MOST_REASON]}") from error
    if not isinstance(answer, dict) or answer.get("format") != FORMAT or not isinstance(answer.get("vms"), list):
        raise ValueError(f"not an answer of format {FORMAT}")
    if len(answer["vms"]) > MOST_VMS:
        raise ValueError(f"more than {MOST_VMS} VMs")
    told = [_of_vm(vm) for vm in answer["vms"]]
    times = Counter(curve.uuid for curve in told)
    once = {c.uuid: replace(c, curve=None, fault="told twice") if times[c.uuid] > 1 else c for c in told}
    return tuple(once.values())


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _of_vm(vm: object) -> AgentCurve:
    """Raises ValueError where not even the VM is named."""
    uuid = vm.get("uuid") if isinstance(vm, dict) else None
    if not isinstance(vm, dict) or not isinstance(uuid, str) or not _UUID.fullmatch(uuid.lower()):
        raise ValueError("a VM without a UUID")
    reason = vm.get("reason")
    try:
        if vm.get("points") == [] and isinstance(reason, str):
            return AgentCurve(uuid=uuid.lower(), memory_bytes=0, curve=None, fault=_printable(reason))
        memory = _number(vm, "memory_bytes", 1.0, MOST_BYTES)
        return AgentCurve(uuid=uuid.lower(), memory_bytes=int(memory), curve=_curve(vm, memory))
    except ValueError as error:
        return AgentCurve(uuid=uuid.lower(), memory_bytes=0, curve=None, fault=str(error))


def _curve(vm: Mapping[str, object], memory: float) -> DirtyCurve:
    points = vm.get("points")
    sound = isinstance(points, list) and all(isinstance(point, dict) for point in points)
    if not sound or not isinstance(points, list) or not 2 <= len(points) <= MOST_POINTS:
        raise ValueError(f"not 2 to {MOST_POINTS} points")
    curve = DirtyCurve(
        points=tuple(_point(point, memory) for point in points), age_seconds=_number(vm, "age_seconds", 0.0, MOST_AGE)
    )
    if curve.points[-1].period_seconds < REACH_SECONDS:
        raise ValueError(f"no period of {REACH_SECONDS:g} s or more")
    return curve


def _point(point: dict[str, object], memory: float) -> DirtyPoint:
    """A point, no surer of itself than that many looks at that many pages can be."""
    unique = _number(point, "unique_bytes", 0.0, memory)
    readings = min(int(_number(point, "readings", 1.0, MOST_BYTES)), MOST_READINGS)
    error = _number(point, "standard_error_bytes", 0.0, memory)
    return DirtyPoint(
        period_seconds=_number(point, "period_seconds", SHORTEST_PERIOD, LONGEST_PERIOD),
        unique_bytes=unique,
        standard_error_bytes=max(error, least_error(unique, int(memory), BY_PAGES) / math.sqrt(readings)),
        readings=readings,
    )


def _number(told: Mapping[str, object], name: str, least: float, most: float) -> float:
    value = told.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{name} is not from {least:g} to {most:g}")
    return float(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:MOST_REASON])


@dataclass(slots=True)
class _Told:
    """What one host's agent said last; ``at`` on the monotonic clock."""

    at: float
    curves: dict[str, AgentCurve] = field(default_factory=dict)
    fault: str | None = None


class AgentCurves:
    """The last answer of each host's agent. Not thread-safe."""

    def __init__(self, keep_seconds: float) -> None:
        self._keep = keep_seconds
        self._hosts: dict[str, _Told] = {}
        self._logged: set[tuple[str, str]] = set()  # VM, kind of doubt

    def take(self, host: str, sample: AgentSample | None, now: float) -> None:
        """Of an agent that is silent, or that cannot give its curves, the last ones are kept while they are fresh."""
        if sample is None:
            return
        if sample.curves_fault is None:
            self._hosts[host] = _Told(now, {curve.uuid: curve for curve in sample.curves})
        else:
            self._hosts.setdefault(host, _Told(now)).fault = sample.curves_fault

    def choose(
        self, uuid: str, host: str, memory_bytes: int, libvirt: DirtyCurve | None, now: float
    ) -> tuple[DirtyCurve | None, str | None]:
        """The curve of a VM on that host, and why it is not the agent's although that speaks of the VM."""
        told = self._hosts.get(host)
        entry = None if told is None else told.curves.get(uuid.lower())
        if told is None or entry is None:
            return libvirt, None
        age = (0.0 if entry.curve is None else entry.curve.age_seconds) + max(0.0, now - told.at)
        doubt = self._doubt(entry, age, memory_bytes, libvirt)
        if doubt is not None:
            kind, detail = doubt
            if (uuid, kind) not in self._logged:
                self._logged.add((uuid, kind))
                log.info("agent_curve_not_used", vm=uuid, host=host, reason=detail, told="once")
            return libvirt, f"by its host's agent: {detail}"
        assert entry.curve is not None
        inside = (replace(p, unique_bytes=min(p.unique_bytes, float(memory_bytes))) for p in entry.curve.points)
        return DirtyCurve(points=tuple(inside), age_seconds=age), None

    def _doubt(
        self, entry: AgentCurve, age: float, memory_bytes: int, libvirt: DirtyCurve | None
    ) -> tuple[str, str] | None:
        """Kind and detail of what speaks against a curve."""
        if entry.curve is None:
            return "fault", str(entry.fault)
        if age > self._keep:
            return "stale", "the curve is stale"
        if abs(entry.memory_bytes - memory_bytes) > SAME_MEMORY * memory_bytes:
            return "memory", f"measured {entry.memory_bytes} of {memory_bytes} bytes"
        if libvirt is not None and _contradicted(entry.curve, libvirt):
            return "contradicted", "libvirt saw far more written"
        return None

    def keep(self, uuids: frozenset[str]) -> None:
        """Forget what was logged of every other VM."""
        self._logged = {(uuid, kind) for uuid, kind in self._logged if uuid in uuids}

    def unknowns(self) -> list[Unknown]:
        """Hosts whose agents could not give their curves."""
        return [
            Unknown(subject=host, field="dirty", reason=f"by its agent: {told.fault}")
            for host, told in self._hosts.items()
            if told.fault is not None
        ]


def _contradicted(curve: DirtyCurve, libvirt: DirtyCurve) -> bool:
    """Whether libvirt saw so much more in an equal period that the agent must have looked at something else."""
    by_period = {point.period_seconds: point for point in curve.points}
    for seen in libvirt.points:
        told = by_period.get(seen.period_seconds)
        if told is not None:
            more = seen.unique_bytes - told.unique_bytes
            allowed = DEVIATIONS * math.hypot(seen.standard_error_bytes, told.standard_error_bytes)
            if more > allowed and seen.unique_bytes > CONTRADICTED * told.unique_bytes:
                return True
    return False
