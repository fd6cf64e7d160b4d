"""Answers in words: one line per fact, names from outside escaped, every instant in UTC."""

import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from rebalancerd.cluster.cost import Estimate
from rebalancerd.cluster.decision import CycleRecord, Decision, HostPressure
from rebalancerd.cluster.names import printable
from rebalancerd.cluster.refusal import SubjectKind
from rebalancerd.record.archive import Told
from rebalancerd.record.explain import Answer, CycleAnswer, HostAnswer, MoveAnswer, RefusalGroup, VmAnswer

SHOWN_GROUPS = 12
SHOWN_DECISIONS = 5
SHOWN_ALTERNATIVES = 5


def title(answer: Answer) -> str:
    """What the answer is about."""
    if isinstance(answer, VmAnswer):
        return f"VM {printable(answer.name)} ({printable(answer.uuid)})"
    if isinstance(answer, HostAnswer):
        return f"Host {printable(answer.name)}"
    if isinstance(answer, CycleAnswer):
        return f"Cycle {answer.record.id}"
    record = answer.record
    return f"Migration {printable(record.id)}: {_route(record.vm_name, record.source, record.destination)}"


def lines(answer: Answer) -> tuple[str, ...]:
    """The answer, line by line; none holds a line break or a control character."""
    if isinstance(answer, VmAnswer):
        return tuple(_vm(answer))
    if isinstance(answer, HostAnswer):
        return tuple(_host(answer))
    if isinstance(answer, CycleAnswer):
        return tuple(_cycle(answer))
    return tuple(_move(answer))


def _vm(answer: VmAnswer) -> Iterator[str]:
    for move in answer.moves:
        yield from _move(move)
    if not answer.moves:
        yield f"{printable(answer.name)} was never moved by rebalancerd."
    if answer.host is not None:
        yield f"Last known on {printable(answer.host)}."
    yield from _decided(answer.decisions)
    yield from _groups("Why it is not moved, asked of the planner now:", answer.live)
    yield from _groups("Refusals about it:", answer.own)
    if answer.host is not None:
        yield from _groups(f"Refusals about its host {printable(answer.host)}:", answer.about_host)
    yield from _groups("Refusals about the cluster:", answer.about_cluster)
    yield from _last(answer.last_cycle)


def _host(answer: HostAnswer) -> Iterator[str]:
    last = answer.last_cycle
    for pressure in last.hosts if last is not None else ():
        if pressure.host == answer.name and last is not None:
            yield f"Cycle {last.id}: {_pressure(pressure, hot=answer.name in last.hot_hosts)}"
    for move in answer.moves:
        yield _sentence(move)
    if not answer.moves:
        yield "No migration from or to it is on record."
    yield from _decided(answer.decisions)
    yield from _groups("Why nothing is moved, asked of the planner now:", answer.live)
    yield from _groups("Refusals about it:", answer.own)
    yield from _groups("Refusals about the cluster:", answer.about_cluster)
    yield from _last(last)


def _cycle(answer: CycleAnswer) -> Iterator[str]:
    record = answer.record
    yield (
        f"Began {instant(record.started_at)}, took {span(record.seconds)}, mode {record.mode.value}, "
        f"policy {printable(record.policy)}."
    )
    yield f"Outcome {record.outcome.value}: {printable(record.reason)}"
    for pressure in record.hosts:
        yield f"Host {printable(pressure.host)}: {_pressure(pressure, hot=pressure.host in record.hot_hosts)}"
    if answer.plan is not None:
        yield f"Plan {printable(answer.plan.id)} (digest {answer.plan.digest}): {printable(answer.plan.why)}"
    for decision in record.decisions:
        yield f"Step {decision.step}: {_decision(decision)}"
    yield from _groups("Refusals:", answer.refusals)
    if record.step_seconds:
        spent = ", ".join(f"{printable(name)} {span(seconds)}" for name, seconds in record.step_seconds)
        yield f"Time spent: {spent}."


def _move(answer: MoveAnswer) -> Iterator[str]:
    yield _sentence(answer)
    move, record = answer.move, answer.record
    if move is not None:
        payback = f", repaid after {span(move.payback_seconds)}" if move.payback_seconds is not None else ""
        yield f"  Why: {printable(move.why)}"
        yield f"  Gain {move.gain:.4g} core-seconds{payback}."
        for other in move.alternatives[:SHOWN_ALTERNATIVES]:
            yield (
                f"  Not chosen: {printable(other.vm_name)} to {printable(other.destination)} "
                f"(score {other.score:.4g}): {printable(other.reason)}"
            )
    elif record.plan_id is not None:
        yield f"  Its plan {printable(record.plan_id)} is not on record any more."
    predicted, done = record.predicted, record.completion
    if predicted is not None:
        missing = (
            f"; not measured: {printable(', '.join(predicted.inputs_missing))}" if predicted.inputs_missing else ""
        )
        yield f"  Predicted by {printable(predicted.basis)}{missing}:"
        yield f"    duration {_versus(predicted.seconds, record.seconds, span)}"
        yield f"    downtime {_versus(predicted.downtime_seconds, done.downtime_seconds if done else None, span)}"
        yield f"    bytes {_versus(predicted.bytes, done.transferred_bytes if done else None, size)}"
    if record.autostart:
        restored = {True: "set again on the destination", False: "NOT set again", None: "not set again yet"}
        yield f"  Autostart was on; {restored[record.autostart_restored]}."
    if len(answer.events) > 1:
        course = ", ".join(f"{event.state.value} {instant(event.at)}" for event in answer.events[-8:])
        yield f"  Course: {course}."


def _sentence(answer: MoveAnswer) -> str:
    record = answer.record
    took = f" in {span(record.seconds)}" if record.seconds is not None else ""
    tail = f" ({printable(record.reason)})" if record.reason else ""
    who = "" if record.ours else ", started by somebody else"
    adopted = ", adopted by a daemon that had not started it" if record.adopted else ""
    route = _route(record.vm_name, record.source, record.destination)
    return f"{instant(record.started_at or record.intent_at)}: {route}: {record.state.value}{took}{tail}{who}{adopted}."


def _versus(predicted: Estimate, actual: float | None, wording: Callable[[float | None], str]) -> str:
    ratio = ""
    if actual is not None and 0 < predicted.value < math.inf:
        ratio = f", {actual / predicted.value:.2f} of what was predicted"
    beyond = ", above its bound" if actual is not None and actual > predicted.upper else ""
    return (
        f"predicted {wording(predicted.value)} (at most {wording(predicted.upper)}), "
        f"actual {wording(actual)}{ratio}{beyond}."
    )


def _decided(decisions: Iterable[Told[Decision]]) -> Iterator[str]:
    shown = list(decisions)[:SHOWN_DECISIONS]
    if shown:
        yield "Last decisions:"
    for told in shown:
        yield f"  cycle {told.cycle_id} ({instant(told.at)}): {_decision(told.what)}"


def _decision(decision: Decision) -> str:
    why = f": {decision.refusal.code.value}, {printable(decision.refusal.detail)}" if decision.refusal else ""
    return f"{_route(decision.vm_name, decision.source, decision.destination)} {decision.outcome.value}{why}"


def _groups(heading: str, groups: tuple[RefusalGroup, ...]) -> Iterator[str]:
    if groups:
        yield heading
    for group in groups[:SHOWN_GROUPS]:
        to = f" to {printable(group.destination)}" if group.destination else ""
        about = f" {printable(group.subject)}" if group.kind is SubjectKind.HOST else ""
        when = ""
        if group.last_at is not None and group.cycles > 1:
            when = f" ({group.count}× in {group.cycles} cycles, last {instant(group.last_at)})"
        elif group.last_at is not None:
            when = f" ({instant(group.last_at)})"
        yield f"  {group.code.value}{about}{to}: {printable(group.detail)}{when}"
    if len(groups) > SHOWN_GROUPS:
        yield f"  and {len(groups) - SHOWN_GROUPS} kinds more."


def _last(record: CycleRecord | None) -> Iterator[str]:
    if record is not None:
        yield f"Last cycle {record.id} ({instant(record.started_at)}): {record.outcome.value}, {printable(record.reason)}"


def _pressure(pressure: HostPressure, *, hot: bool) -> str:
    if pressure.unusable is not None:
        return f"unusable, {printable(pressure.unusable)}"
    return (
        f"{'hot' if hot else 'not hot'}, {pressure.vms} VMs, CPU {share(pressure.cpu_now)} now and "
        f"{share(pressure.cpu_p95)} at its p95 peak, memory {share(pressure.memory_now)} and {share(pressure.memory_p95)}"
    )


def _route(vm_name: str, source: str, destination: str) -> str:
    return f"{printable(vm_name)} {printable(source)} → {printable(destination)}"


def instant(at: float) -> str:
    """UTC, to the second."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"epoch second {at:g}"


def span(seconds: float | None) -> str:
    """A duration in a unit that suits it."""
    if seconds is None or math.isnan(seconds):
        return "unknown"
    if math.isinf(seconds):
        return "unbounded"
    for unit, factor in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if abs(seconds) >= factor * (2 if factor > 1 else 1):
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1000:.3g} ms"


def size(count: float | None) -> str:
    """Bytes in a unit that suits them."""
    if count is None or math.isnan(count):
        return "unknown"
    if math.isinf(count):
        return "unbounded"
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def share(value: float | None) -> str:
    """A share as per cent."""
    return "unknown" if value is None or math.isnan(value) else f"{value * 100:.0f} %"
