"""Scenario files: ``cluster.toml`` (hosts, guests, settings) and ``cmdlist`` (what happens when), read strictly."""

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

from rebalancerd.act.power.settings import PowerSettings
from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.policy import HostMode, Mode, VmPolicy
from rebalancerd.cluster.power import PowerLimits
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.guard.settings import GuardSettings, PolicyWindow, Window
from rebalancerd.observe.settings import ObserveSettings
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec

T = TypeVar("T")
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DEMAND = {
    "cpu": "base",
    "amplitude": "amplitude",
    "noise": "noise",
    "period": "period_seconds",
    "phase": "phase_seconds",
}
_SHORT = {
    "rss_gib": ("rss_bytes", GIB),
    "memory_gib": ("memory_bytes", GIB),
    "dirty_mib_s": ("dirty_bytes_per_second", MIB),
    "working_set_mib": ("working_set_bytes", MIB),
    "link_mbit": ("link_bytes_per_second", 125_000),
    "reserved_memory_gib": ("reserved_memory_bytes", GIB),
}


MOST_VMS = 100_000


class ScenarioError(ValueError):
    """A scenario's file is wrong; the message names file and key or line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptLine:
    """Something that happens at a virtual second."""

    at: float
    verb: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSpec:
    """A simulated cluster, the daemon's settings on it, and the script. ``past_days``: how far back its history goes.

    ``power``: None for a daemon without host power; ``folding``: it may put hosts to sleep without being told to.
    """

    cluster: ClusterSpec
    mode: Mode = Mode.AUTO
    run_seconds: float = 3600.0
    decide_seconds: float = 60.0
    start_wall: float | None = None
    past_days: float = 0.0
    observe: ObserveSettings = ObserveSettings()
    predict: PredictSettings = PredictSettings()
    plan: PlanSettings = PlanSettings()
    guard: GuardSettings = GuardSettings()
    act: ActSettings = ActSettings()
    power: PowerSettings | None = None
    limits: PowerLimits = PowerLimits()
    folding: bool = False
    script: tuple[ScriptLine, ...] = field(default_factory=tuple)


def seconds(text: str | float) -> float:
    """Seconds of ``90``, ``"90s"``, ``"1h30m"`` or ``"HH:MM:SS"``. Raises ScenarioError."""
    if isinstance(text, int | float):
        return float(text)
    if len(text) <= 100 and re.fullmatch(r"\d+(:\d\d){1,2}", text):
        parts = [int(p) for p in text.split(":")]
        return float(sum(p * 60**i for i, p in enumerate(reversed(parts))))
    if len(text) > 100 or not re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        raise ScenarioError(f"not a duration: {text[:100]!r}")
    return sum(float(n) * _UNITS[u] for n, u in re.findall(r"([\d.]+)([dhms])", text))


def load(directory: Path) -> WorldSpec:
    """The scenario of a directory. Raises ScenarioError, OSError."""
    path = directory / "cluster.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{path}: {error}") from None
    script = directory / "cmdlist"
    lines = parse_script(script.read_text(encoding="utf-8"), str(script)) if script.exists() else ()
    try:
        return replace(parse_world(table), script=lines)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def parse_script(text: str, name: str = "cmdlist") -> tuple[ScriptLine, ...]:
    """Lines ``TIME VERB ARGUMENTS…``; ``#`` begins a comment. Raises ScenarioError for a line out of order."""
    lines: list[ScriptLine] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ScenarioError(f"{name}:{number}: {error}") from None
        if not words:
            continue
        if len(words) < 2:
            raise ScenarioError(f"{name}:{number}: a line is TIME VERB ARGUMENTS")
        try:
            at = seconds(words[0])
        except ScenarioError as error:
            raise ScenarioError(f"{name}:{number}: {error}") from None
        if lines and at < lines[-1].at:
            raise ScenarioError(f"{name}:{number}: {words[0]} is before the line above it")
        lines.append(ScriptLine(at=at, verb=words[1], arguments=tuple(words[2:])))
    return tuple(lines)


def parse_world(table: Mapping[str, Any]) -> WorldSpec:
    """A world from the table of a TOML file. Raises ScenarioError naming the key, and nothing else."""
    try:
        return _world(table)
    except ScenarioError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise ScenarioError(f"something is not of its kind: {type(error).__name__}: {error}") from error


def _world(table: Mapping[str, Any]) -> WorldSpec:
    rest = dict(table)
    hosts = tuple(_host(t, rest.get("host_defaults", {})) for t in rest.pop("host", []))
    vms = tuple(vm for t in rest.pop("vm", []) for vm in _vms(t, rest.get("vm_defaults", {})))
    rest.pop("host_defaults", None)
    rest.pop("vm_defaults", None)
    sections: dict[str, Any] = {
        "observe": settings(ObserveSettings, rest.pop("observe", {}), "observe"),
        "predict": settings(PredictSettings, rest.pop("predict", {}), "predict"),
        "plan": settings(PlanSettings, rest.pop("plan", {}), "plan"),
        "guard": settings(GuardSettings, rest.pop("guard", {}), "guard"),
        "act": settings(ActSettings, rest.pop("act", {}), "act"),
        **_power(rest.pop("power", None)),
    }
    try:
        cluster = ClusterSpec(hosts=hosts, vms=vms, seed=int(rest.pop("seed", 1)))
        mode = Mode(rest.pop("mode", "auto"))
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    start = rest.pop("start", None)
    spec = WorldSpec(
        cluster=cluster,
        mode=mode,
        run_seconds=seconds(rest.pop("run", 3600.0)),
        decide_seconds=seconds(rest.pop("decide", 60.0)),
        start_wall=None if start is None else start.timestamp(),
        past_days=float(rest.pop("past_days", 0.0)),
        **sections,
    )
    if rest:
        raise ScenarioError(f"unknown key {sorted(rest)[0]!r}")
    return spec


def _power(table: Mapping[str, Any] | None) -> dict[str, Any]:
    """``[power]``: times of the sequences and limits in one table, as in the configuration; ``folding``."""
    if table is None:
        return {}
    times = {f.name for f in fields(PowerSettings)}
    rest = {k: v for k, v in table.items() if k not in times and k != "folding"}
    return {
        "power": settings(PowerSettings, {k: v for k, v in table.items() if k in times}, "power"),
        "limits": settings(PowerLimits, rest, "power"),
        "folding": bool(table.get("folding", False)),
    }


def settings(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """A settings dataclass from a table, lists made tuples, windows made Windows. Raises ScenarioError."""
    known = {f.name: f for f in fields(cast("Any", kind))}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ScenarioError(f"{where}: unknown key {key!r}")
        if key == "policy_windows":
            values[key] = tuple(_made(PolicyWindow, _timed(w)) for w in value)
        elif key in ("windows", "blackouts"):
            values[key] = tuple(_window(w) for w in value)
        else:
            values[key] = _coerced(known[key].default, value)
    return kind(**values)


def _timed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A policy window's table with its time as written in the configuration."""
    values = dict(table)
    if "unfold" in values:
        values["unfold_seconds"] = seconds(values.pop("unfold"))
    return values


def _window(table: Mapping[str, Any]) -> Window:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return _made(Window, values)


def _coerced(default: object, value: Any) -> Any:
    """The value as the field's default wants it: tuples and sets for lists, enums for names, seconds for durations."""
    if isinstance(value, list):
        return frozenset(value) if isinstance(default, frozenset) else tuple(value)
    if isinstance(default, Enum):
        return type(default)(value)
    if isinstance(default, float) and isinstance(value, str):
        return seconds(value)
    return value


def _scaled(table: Mapping[str, Any]) -> dict[str, Any]:
    """Human units of the file as the base units of the code."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        name, factor = _SHORT.get(key, (key, 1))
        out[name] = (
            int(value * factor)
            if isinstance(value, int | float) and not isinstance(value, bool) and factor > 1
            else value
        )
    return out


def _host(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> HostSpec:
    values = {**_scaled(defaults), **_scaled(table)}
    for key in ("networks", "storage", "secrets", "nwfilters", "machine_types"):
        if key in values:
            values[key] = frozenset(values[key])
    if "mode" in values:
        values["mode"] = HostMode(values["mode"])
    return _made(HostSpec, values)


def _vms(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[VmSpec, ...]:
    """One guest, or ``count`` of them numbered from 1."""
    values = {**_scaled(defaults), **_scaled(table)}
    count = values.pop("count", None)
    if count is not None and not (isinstance(count, int) and 0 <= count <= MOST_VMS):
        raise ScenarioError(f"count: {count!r} is no number up to {MOST_VMS}")
    wave = {
        _DEMAND[k]: seconds(values.pop(k)) if k in ("period", "phase") else values.pop(k)
        for k in list(values)
        if k in _DEMAND
    }
    values["demand"] = _made(Demand, wave)
    if "policy" in values:
        values["policy"] = _policy(values["policy"])
    for key in ("disks", "networks", "immovable", "past_dirty_mib_s"):
        if key in values:
            values[key] = tuple(values[key])
    if "secrets" in values:
        values["secrets"] = frozenset(values["secrets"])
    if count is None:
        return (_made(VmSpec, values),)
    return tuple(_made(VmSpec, {**values, "name": f"{values['name']}-{i + 1}"}) for i in range(count))


def _policy(table: Mapping[str, Any]) -> VmPolicy:
    values: dict[str, Any] = {k: frozenset(v) if isinstance(v, list) else v for k, v in table.items()}
    if "mode" in values:
        values["mode"] = Mode(values["mode"])
    return _made(VmPolicy, values)


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    unknown = sorted(set(values) - {f.name for f in fields(cast("Any", kind))})
    if unknown:
        raise ScenarioError(f"{kind.__name__}: unknown key {unknown[0]!r}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"{kind.__name__} {values.get('name', '')}: {error}") from None
