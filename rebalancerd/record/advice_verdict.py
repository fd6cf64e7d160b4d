"""The verdict on a piece of advice: right, needless, harmful; or overtaken, or unknown, which count for nothing.

Harm needs one measured step, praise needs every step: a gap is never read as a cool host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from rebalancerd.cluster.advice import Advice, AdviceScore, HostTerms, Verdict
from rebalancerd.cluster.names import printable
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.record.hindsight import Flags, Floats, Hindsight, Past, look_back, window

TOLERANCE = 1e-6  # of a limit: what is kept as float32 is not exact


@dataclass(frozen=True, slots=True)
class _Figures:
    """What a window comes to; ``without`` and ``with_move``: of the source and of the destination. Shares of headroom."""

    known: Flags
    hot: Flags  # the source, the VM not moved
    spilt: Flags  # the destination, the VM moved
    relief: float
    harm: float
    source_peak: float | None
    destination_peak: float | None


def judge(advice: Advice, past: Past, now: Snapshot, *, at: float) -> AdviceScore:
    """How it turned out. ``now``: the cluster as it is; ``at``: the present (epoch seconds), after the advice's window."""
    if advice.proposed_at > at:
        return _score(advice, at, Verdict.UNKNOWN, "the clock went back: it was proposed in what is now the future")
    changed = _changed(advice, past, now)
    if changed is not None:
        return _score(advice, at, Verdict.OVERTAKEN, changed)
    if not window(advice, past.step_seconds).size:
        return _score(advice, at, Verdict.UNKNOWN, f"its window is shorter than a step of {past.step_seconds:g} s")
    seen = look_back(advice, past, {vm.uuid: vm.facts.vcpus for vm in now.vms})
    figures = _figures(advice, seen, past.step_seconds)
    verdict, reason = _verdict(advice, past, seen, figures)
    followed = [since for since, host in _stays(advice, past) if host == advice.move.destination]
    hot = np.flatnonzero(figures.hot)
    return AdviceScore(
        advice_id=advice.id,
        scored_at=at,
        verdict=verdict,
        reason=reason,
        followed_at=followed[0] if followed else None,
        relief=figures.relief,
        harm=figures.harm,
        source_peak=figures.source_peak,
        destination_peak=figures.destination_peak,
        hot_after_seconds=(
            max(0.0, float(seen.ends[hot[0]]) - past.step_seconds - advice.proposed_at) if hot.size else None
        ),
    )


def unjudged(advice_id: int, at: float, reason: str) -> AdviceScore:
    """The score of advice that cannot be judged at all."""
    return AdviceScore(advice_id=advice_id, scored_at=at, verdict=Verdict.UNKNOWN, reason=reason)


def _score(advice: Advice, at: float, verdict: Verdict, reason: str) -> AdviceScore:
    return AdviceScore(advice_id=advice.id, scored_at=at, verdict=verdict, reason=reason)


def _stays(advice: Advice, past: Past) -> tuple[tuple[float, str | None], ...]:
    return past.stays.changes(advice.move.vm_uuid, advice.proposed_at, advice.due_at)


def _changed(advice: Advice, past: Past, now: Snapshot) -> str | None:
    """What changed so that the advice cannot be judged, in words."""
    for name in (advice.move.source, advice.move.destination):
        host, relied = now.host_by_name.get(name), advice.terms(name)
        if host is None:
            return f"{printable(name)} is not in the cluster any more"
        terms = HostTerms.of(host)
        if terms is not None and terms != relied:
            return f"{printable(name)} is another size than it was"
    places = {host for _, host in _stays(advice, past)}
    elsewhere = places - {advice.move.source, advice.move.destination, None}
    if elsewhere:
        return f"{printable(advice.vm_name)} was moved to {_names(sorted(str(h) for h in elsewhere))}"
    if past.stays.host_at(advice.move.vm_uuid, advice.due_at) is None:
        return f"{printable(advice.vm_name)} is gone"
    vm = now.vm_by_uuid.get(advice.move.vm_uuid)
    if vm is not None and (vm.facts.vcpus, vm.facts.memory_bytes) != (advice.vcpus, advice.memory_bytes):
        return f"{printable(advice.vm_name)} was resized"
    return None


def _figures(advice: Advice, seen: Hindsight, step_seconds: float) -> _Figures:
    own, other = (_limits(advice, advice.terms(host)) for host in (advice.move.source, advice.move.destination))
    source_known = _known(seen.source_without, seen.source_with)
    destination_known = _known(seen.destination_without, seen.destination_with)
    here, there = source_known & seen.counted, destination_known & seen.counted
    relief = _unmet(advice, seen.source_without, own) - _unmet(advice, seen.source_with, own)
    harm = _unmet(advice, seen.destination_with, other) - _unmet(advice, seen.destination_without, other)
    headrooms = np.array([advice.cpu_headroom, advice.memory_headroom])
    return _Figures(
        known=(source_known & destination_known) | ~seen.counted,
        hot=_above(seen.source_without, own) & here,
        spilt=_above(seen.destination_with, other) & there & seen.moved,
        relief=float(relief[here].sum()) * step_seconds,
        harm=float(harm[there].sum()) * step_seconds,
        source_peak=_peak(seen.source_without[here], own, headrooms),
        destination_peak=_peak(seen.destination_with[there & seen.moved], other, headrooms),
    )


def _known(*loads: Floats) -> Flags:
    """Steps in which all of these are measured."""
    found: Flags = np.all(np.isfinite(np.hstack(loads)), axis=1)
    return found


def _limits(advice: Advice, host: HostTerms) -> Floats:
    return np.array(
        [advice.cpu_headroom * host.capacity_cores, advice.memory_headroom * host.capacity_memory_bytes],
        dtype=np.float64,
    )


def _above(load: Floats, limits: Floats) -> Flags:
    """Steps in which a load is above a limit; an unknown one is not."""
    found: Flags = np.any(load > limits * (1 + TOLERANCE), axis=1)
    return found


def _unmet(advice: Advice, load: Floats, limits: Floats) -> Floats:
    """(T,) cores above the headroom, memory as the cores that go with it; NaN where unknown."""
    found: Floats = np.maximum(load - limits, 0.0) @ np.array([1.0, advice.cores_per_byte])
    return found


def _peak(load: Floats, limits: Floats, headrooms: Floats) -> float | None:
    """The load nearest its headroom, as a share of capacity."""
    if not load.size:
        return None
    ratios = load / limits
    resource = int(np.argmax(ratios.max(axis=0)))
    return float(ratios[:, resource].max() * headrooms[resource])


def _verdict(advice: Advice, past: Past, seen: Hindsight, figures: _Figures) -> tuple[Verdict, str]:
    move, cost = advice.move, advice.cost
    source, destination = printable(move.source), printable(move.destination)
    if figures.spilt.any():
        return Verdict.HARMFUL, f"{destination} would have been hot{_at(figures.destination_peak)}"
    if not seen.counted.any() or 2 * int(seen.counted.sum()) < len(seen.ends):
        return Verdict.UNKNOWN, "most of its window was spent moving"
    missing = int((~figures.known).sum())
    if missing:
        return Verdict.UNKNOWN, f"{missing} of {len(seen.ends)} steps were not measured"
    plan = {m.vm_uuid for m in (*advice.before, move)}
    by_others = {h: _left(past, h, advice, plan) for h in (move.source, move.destination)}
    worth = figures.relief - figures.harm
    if worth > cost and isfinite(cost):
        if by_others[move.destination]:
            return Verdict.OVERTAKEN, f"{destination} was relieved of {_names(by_others[move.destination])} meanwhile"
        return Verdict.RIGHT, f"{source} got hot{_at(figures.source_peak)}: {worth:.0f} core-s relieved for {cost:.0f}"
    if by_others[move.source]:
        return Verdict.OVERTAKEN, f"{source} was relieved of {_names(by_others[move.source])} meanwhile"
    if figures.hot.any():
        price = f"{cost:.0f} core-s" if cost < inf else "without bound"
        return (
            Verdict.NEEDLESS,
            f"{source} got hot, but its relief of {worth:.0f} core-s was not worth a cost of {price}",
        )
    return Verdict.NEEDLESS, f"{source} never got hot{_at(figures.source_peak)}"


def _left(past: Past, host: str, advice: Advice, plan: set[str]) -> list[str]:
    return [uuid for uuid in past.stays.left(host, advice.proposed_at, advice.due_at) if uuid not in plan]


def _at(peak: float | None) -> str:
    return "" if peak is None else f" ({peak * 100:.0f} %)"


def _names(items: Sequence[str], most: int = 3) -> str:
    head = ", ".join(printable(item) for item in items[:most])
    return head if len(items) <= most else f"{head} and {len(items) - most} more"
