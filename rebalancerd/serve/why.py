"""Why: explanations of a VM, a host, a cycle or a move, from the last cycle's view and the ledger."""

from collections.abc import Iterable

from rebalancerd.cluster.decision import CycleRecord, HostPressure
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.plan import Move, Plan
from rebalancerd.cluster.refusal import Refusal, SubjectKind
from rebalancerd.cluster.scenarios import Hotspot
from rebalancerd.cluster.vm import Vm
from rebalancerd.loop import LoopView
from rebalancerd.plan.constraints import check, movable
from rebalancerd.plan.state import PlacementState
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.serve.control import Control, ledger_away
from rebalancerd.serve.problem import ProblemError, did_you_mean
from rebalancerd.serve.rows import cycle_row, migration_row
from rebalancerd.serve.schemas import Explanation
from rebalancerd.serve.wording import cores, counted, instant, share, size, span

KINDS = ("vm", "host", "cycle", "move")
SHOWN_MOVES = 3
SHOWN_REFUSALS = 12
LAST = "last"


def explain(control: Control, kind: str, subject: str) -> Explanation:
    """The explanation. ``subject``: VM name or UUID, host name, cycle number or "last", migration id. ProblemError."""
    if kind == "vm":
        return _vm(control, subject)
    if kind == "host":
        return _host(control, subject)
    if kind == "cycle":
        return _cycle(control, subject)
    if kind == "move":
        return _move(control, subject)
    raise ProblemError("UNKNOWN_KIND", f"cannot explain a “{kind}”", f"one of: {', '.join(KINDS)}", status=404)


# a VM


def _vm(control: Control, given: str) -> Explanation:
    uuid, now = control.vm_uuid(given), control.clock.wall()
    view = control.loop.view
    vm = view.snapshot.vm_by_uuid.get(uuid) if view is not None else None
    moves = control.migrations(vm_uuid=uuid, limit=SHOWN_MOVES)
    name = vm.name if vm is not None else (moves[0].vm_name if moves else given)
    lines = [*_vm_now(vm, name), *(_moved(control, record, now) for record in moves)]
    if not moves:
        lines.append("rebalancerd has never moved it.")
    if vm is not None and view is not None:
        lines += _vm_in_cycle(view, vm)
    facts = {"uuid": uuid, "migrations": [migration_row(r, now=now).model_dump(mode="json") for r in moves]}
    return Explanation(kind="vm", subject=uuid, title=f"VM {name} ({uuid})", lines=tuple(lines), facts=facts)


def _vm_now(vm: Vm | None, name: str) -> list[str]:
    if vm is None:
        return [f"{name} is on no host that the last cycle saw."]
    line = (
        f"It is {vm.state.value} on {vm.host}, uses {cores(vm.load.cpu_cores)} ({counted(vm.facts.vcpus, 'vCPU')}) "
        f"and holds {size(vm.load.memory_bytes)} of the host's memory (its own: {size(vm.facts.memory_bytes)})."
    )
    lines = [line]
    owner = vm.owner or vm.facts.owner
    if owner is not None:
        lines.append(f"It belongs to {owner.name} ({owner.evidence}): counted in the load, never moved.")
    if vm.facts.immovable:
        lines.append(f"It cannot be migrated live: {'; '.join(vm.facts.immovable)}.")
    policy = []
    if vm.policy.mode is not None:
        policy.append(f"mode {vm.policy.mode.value}")
    groups = (("pinned to", vm.policy.pin), ("avoids", vm.policy.avoid))
    policy += [f"{label} {', '.join(sorted(names))}" for label, names in groups if names]
    groups = (("affinity", vm.policy.affinity), ("anti-affinity", vm.policy.anti_affinity))
    policy += [f"{label} group {', '.join(sorted(names))}" for label, names in groups if names]
    if policy:
        lines.append(f"Its policy: {'; '.join(policy)}.")
    return lines


def _vm_in_cycle(view: LoopView, vm: Vm) -> list[str]:
    """What the last cycle made of it, and what every other host would have said."""
    record, plan = view.record, view.plan
    cycle = f"cycle {record.id} ({instant(record.started_at)})"
    for decision in record.decisions:
        if decision.vm_uuid == vm.uuid and plan is not None:
            move = plan.step(decision.step).move
            why = f": {decision.refusal}" if decision.refusal is not None else ""
            head = f"In {cycle} its move to {decision.destination} was {decision.outcome.value}{why}."
            return [head, f"It was chosen because {_clause(move.why)}", *_cost(move), *_alternatives(move)]
    if plan is None:
        return [f"It was not moved in {cycle}, which made no plan: {record.reason}."]
    lines = [f"It was not moved in {cycle}: {plan.why}."]
    lines.append(_host_line(vm.host, _pressure(view, vm.host), view.hotspots))
    lines += [f"{r.code}: {_towards(r)}{r.detail}" for r in plan.refusals if r.subject == vm.uuid]
    for step in plan.steps:
        for other in step.move.alternatives:
            if other.vm_uuid == vm.uuid:
                instead = f"moving {step.move.vm_name} to {step.move.destination} was preferred"
                lines.append(f"Moving it to {other.destination} was weighed, but {instead}: {other.reason}")
    return [*lines, *_destinations(view, vm)]


def _destinations(view: LoopView, vm: Vm) -> list[str]:
    """The binding hard constraint towards every other host, asked of the planner's own rules."""
    if view.inputs is None:
        return []
    state = PlacementState(view.inputs)
    index = state.vm_index[vm.uuid]
    stays = movable(state, index)
    if stays is not None:
        return [f"It stays wherever it is: {stays}."]
    told = {r.destination for r in view.plan.refusals if r.subject == vm.uuid} if view.plan is not None else set()
    lines = []
    for number, host in enumerate(state.hosts):
        if host.name == vm.host or host.name in told:
            continue
        refusal = check(state, index, number)
        free = "nothing forbids it as things stand; no gain would pay for it, or another move came first"
        lines.append(f"To {host.name}: {free}." if refusal is None else f"To {host.name}: no, {refusal}.")
    return lines


# a host


def _host(control: Control, name: str) -> Explanation:
    known = control.host_names()
    if name not in known:
        raise ProblemError("UNKNOWN_HOST", f"no host “{name}”", did_you_mean(name, known), status=404)
    view, now = control.loop.view, control.clock.wall()
    if view is None:
        lines = ["No cycle has looked at it yet."]
        return Explanation(kind="host", subject=name, title=f"Host {name}", lines=tuple(lines))
    lines = _host_now(view, name)
    guests = sorted(view.snapshot.vms_on.get(name, ()), key=lambda vm: -(vm.load.cpu_cores or 0.0))
    for vm in guests[:8]:
        lines.append(f"VM {vm.name}: {cores(vm.load.cpu_cores)}, {size(vm.load.memory_bytes)}.")
    if len(guests) > 8:
        lines.append(f"and {counted(len(guests) - 8, 'VM')} more.")
    told = control.remembered()
    if name in told.operator.drained:
        lines.append("An operator asked to drain it (`rebalancerd undrain` takes that back).")
    if name in told.memory.quarantined:
        lines.append(f"It may not receive: {told.memory.quarantined[name]}.")
    lines += _host_in_plan(view, name, {vm.uuid: vm.name for vm in guests})
    recent = [r for r in control.migrations(limit=50) if name in (r.source, r.destination)][:SHOWN_MOVES]
    lines += [_moved(control, r, now) for r in recent]
    return Explanation(kind="host", subject=name, title=f"Host {name}", lines=tuple(lines))


def _host_now(view: LoopView, name: str) -> list[str]:
    host = view.snapshot.host_by_name.get(name)
    if host is None:
        return ["The last cycle did not see it."]
    lines = []
    if host.unusable is not None:
        lines.append(f"It is neither source nor destination: {host.unusable}.")
    lines.append(_host_line(name, _pressure(view, name), view.hotspots))
    names = {vm.uuid: vm.name for vm in view.snapshot.vms}
    for spot in view.hotspots:
        if spot.host == name and spot.causes:
            most = ", ".join(names.get(uuid, uuid) for uuid in spot.causes)
            lines.append(f"Most of its {spot.resource} comes from {most}.")
    if host.mode.value != "active":
        lines.append(f"Its mode is {host.mode.value}.")
    return lines


def _host_line(name: str, pressure: HostPressure | None, spots: Iterable[Hotspot]) -> str:
    if pressure is None:
        return f"How loaded {name} is, is not known."
    figures = (
        f"CPU {share(pressure.cpu_now)} now and {share(pressure.cpu_p95)} at its predicted peak (p95), "
        f"memory {share(pressure.memory_now)} and {share(pressure.memory_p95)}"
    )
    mine = [s for s in spots if s.host == name]
    if not mine:
        return f"Host {name} is not hot: {figures}."
    return f"Host {name} is hot ({'; '.join(_hot(s) for s in mine)}): {figures}."


def _hot(spot: Hotspot) -> str:
    if spot.contention is not None:
        return f"{spot.resource}: {spot.contention}"
    when = "already" if spot.lead_seconds == 0 else (f"in {span(spot.lead_seconds)}" if spot.lead_seconds else "soon")
    return f"{spot.resource} above {share(spot.headroom)} {when}, with probability {share(spot.probability)}"


def _pressure(view: LoopView, name: str) -> HostPressure | None:
    return next((p for p in view.pressures if p.host == name), None)


def _host_in_plan(view: LoopView, name: str, guests: dict[str, str]) -> list[str]:
    plan = view.plan
    if plan is None:
        return [f"The last cycle made no plan: {view.record.reason}."]
    steps = [s.move for s in plan.steps if name in (s.move.source, s.move.destination)]
    lines = [f"Planned: {m.vm_name} {m.source}→{m.destination}, because {_clause(m.why)}" for m in steps]
    if not steps:
        lines.append(f"The plan moves nothing from or to it: {plan.why}.")
    about = [r for r in plan.refusals if name in (r.subject, r.destination) or r.subject in guests]
    lines += [f"{r.code}: {_towards(r)}{r.detail}" for r in about[:SHOWN_REFUSALS]]
    if len(about) > SHOWN_REFUSALS:
        lines.append(f"and {len(about) - SHOWN_REFUSALS} refusals more.")
    return lines


# a cycle


def _cycle(control: Control, given: str) -> Explanation:
    record = _find_cycle(control, given)
    lines = [
        f"It began at {instant(record.started_at)}, took {span(record.seconds)}, in mode {record.mode.value}.",
        f"Outcome {record.outcome.value}: {record.reason}",
    ]
    hot = set(record.hot_hosts)
    for host in record.hosts:
        state = "unusable: " + host.unusable if host.unusable else ("hot" if host.host in hot else "fine")
        lines.append(
            f"Host {host.host} ({state}): {counted(host.vms, 'VM')}, CPU {share(host.cpu_now)} now, {share(host.cpu_p95)} p95, "
            f"memory {share(host.memory_now)} now, {share(host.memory_p95)} p95."
        )
    for d in record.decisions:
        why = f" ({d.refusal})" if d.refusal is not None else ""
        lines.append(f"Step {d.step}: {d.vm_name} {d.source}→{d.destination} {d.outcome.value}{why}")
    for refusal in record.refusals[:SHOWN_REFUSALS]:
        times = f" (×{refusal.count})" if refusal.count > 1 else ""
        lines.append(f"{refusal.code}: {_towards(refusal)}{refusal.detail}{times}")
    if len(record.refusals) > SHOWN_REFUSALS:
        lines.append(f"and {len(record.refusals) - SHOWN_REFUSALS} refusals more.")
    if record.step_seconds:
        lines.append("Time spent: " + ", ".join(f"{step} {span(s)}" for step, s in record.step_seconds) + ".")
    facts = cycle_row(record).model_dump(mode="json")
    return Explanation(
        kind="cycle", subject=str(record.id), title=f"Cycle {record.id}", lines=tuple(lines), facts=facts
    )


def _find_cycle(control: Control, given: str) -> CycleRecord:
    try:
        newest = list(control.ledger.cycles(limit=1))
        if given == LAST and newest:
            return newest[0]
        number = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None
        found = list(control.ledger.cycles(limit=1, before=number + 1)) if number is not None else []
    except LedgerUnavailableError as error:
        raise ledger_away(error) from error
    if found and found[0].id == number:
        return found[0]
    hint = f"the newest is {newest[0].id}; a number, or `{LAST}`" if newest else "no cycle is on record yet"
    raise ProblemError("UNKNOWN_CYCLE", f"no cycle “{given}”", hint, status=404)


# a move


def _move(control: Control, given: str) -> Explanation:
    now = control.clock.wall()
    records = control.migrations(limit=1000)
    record = next((r for r in records if r.id == given), None)
    if record is None:
        near = [r for r in records if r.id.startswith(given)] if given else []
        if len(near) != 1:
            hint = "see `rebalancerd history` for migration ids; `rebalancerd explain vm NAME` shows a VM's last moves"
            raise ProblemError("UNKNOWN_MOVE", f"no migration “{given}”", hint, status=404)
        record = near[0]
    lines = [_moved(control, record, now)]
    move = _move_of(control, record)
    if move is not None:
        lines += [*_cost(move), *_alternatives(move)]
    lines += _predicted_and_actual(record)
    if record.autostart is not None:
        restored = {True: "was set again on the destination", False: "was NOT set again", None: "is not set again yet"}
        lines.append(
            f"Autostart {restored[record.autostart_restored]}." if record.autostart else "It had no autostart."
        )
    if record.adopted:
        lines.append("It was adopted: a daemon that did not start it watched it to the end.")
    facts = migration_row(record, now=now).model_dump(mode="json")
    title = f"Migration {record.id}: {record.vm_name} {record.source}→{record.destination}"
    return Explanation(kind="move", subject=record.id, title=title, lines=tuple(lines), facts=facts)


def _plan_of(control: Control, record: MigrationRecord) -> Plan | None:
    try:
        return control.ledger.plan(record.plan_id) if record.plan_id is not None else None
    except LedgerUnavailableError as error:
        raise ledger_away(error) from error


def _move_of(control: Control, record: MigrationRecord) -> Move | None:
    plan = _plan_of(control, record)
    if plan is None:
        return None
    return next((s.move for s in plan.steps if s.number == record.step), None)


def _moved(control: Control, record: MigrationRecord, now: float) -> str:
    """One sentence about a past or running migration, with the reason its plan gave."""
    at = record.started_at or record.intent_at
    head = f"{instant(at)} ({span(max(0.0, now - at))} ago): {record.vm_name} {record.source}→{record.destination}"
    took = f" in {span(record.seconds)}" if record.seconds is not None else ""
    tail = f" ({record.reason})" if record.reason else ""
    move = _move_of(control, record)
    why = f", because {_clause(move.why)}" if move is not None else "."
    who = "" if record.ours else ", started by somebody else"
    return f"{head}: {record.state.value}{took}{tail}{who}{why}"


def _predicted_and_actual(record: MigrationRecord) -> list[str]:
    done, predicted = record.completion, record.predicted
    if predicted is None:
        return []
    rows = (
        ("duration", span(predicted.seconds.value), span(predicted.seconds.upper), span(record.seconds)),
        (
            "downtime",
            span(predicted.downtime_seconds.value),
            span(predicted.downtime_seconds.upper),
            span(done.downtime_seconds if done else None),
        ),
        (
            "bytes",
            size(predicted.bytes.value),
            size(predicted.bytes.upper),
            size(done.transferred_bytes if done else None),
        ),
    )
    lines = [
        f"{label}: predicted {value} (upper bound {upper}), actual {actual}." for label, value, upper, actual in rows
    ]
    return [f"Prediction by {predicted.basis}:", *lines]


def _cost(move: Move) -> list[str]:
    cost = move.cost
    missing = f"; not measured: {', '.join(cost.inputs_missing)}" if cost.inputs_missing else ""
    seconds = f"{span(cost.seconds.value)} (at most {span(cost.seconds.upper)})"
    rest = f"downtime {span(cost.downtime_seconds.value)}, {size(cost.bytes.value)} sent{missing}"
    return [f"Predicted cost ({cost.basis}): {seconds}, {rest}."]


def _alternatives(move: Move) -> list[str]:
    return [f"Not chosen: {a.vm_name} to {a.destination}, {_clause(a.reason)}" for a in move.alternatives[:5]]


def _towards(refusal: Refusal) -> str:
    return f"to {refusal.destination}: " if refusal.destination and refusal.kind is SubjectKind.VM else ""


def _clause(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
