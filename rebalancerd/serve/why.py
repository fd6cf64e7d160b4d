"""Why: explanations of a VM, a host, a cycle or a move. The ledger tells the past, the last cycle's view the present.

Without a view, or where the last cycle did not see the VM or the host, the ledger answers alone.
"""

from collections.abc import Iterable

from rebalancerd.cluster.decision import HostPressure
from rebalancerd.cluster.names import printable
from rebalancerd.cluster.quiet import QuietHour, QuietOutlook, QuietSpell, present_dirty_rate
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.cluster.scenarios import Hotspot
from rebalancerd.cluster.vm import Vm
from rebalancerd.cycle import LoopView
from rebalancerd.plan.deferral import least
from rebalancerd.plan.why_not import why_not, why_not_host
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.archive import Archive
from rebalancerd.record.explain import (
    AmbiguousNameError,
    NotOnRecordError,
    explain_cycle,
    explain_host,
    explain_move,
    explain_vm,
)
from rebalancerd.record.explain_text import lines
from rebalancerd.serve.control import Control, ledger_away
from rebalancerd.serve.problem import ProblemError, did_you_mean
from rebalancerd.serve.rows import cycle_row, migration_row
from rebalancerd.serve.schemas import Explanation
from rebalancerd.serve.wording import cores, counted, share, size, span

KINDS = ("vm", "host", "cycle", "move")
SHOWN_GUESTS = 8
LAST = "last"
NOT_SEEN = "The last cycle did not see it."
NO_CYCLE = "No cycle has looked at it yet."


def explain(control: Control, kind: str, subject: str) -> Explanation:
    """The explanation. ``subject``: VM name or UUID, host name, cycle number or "last", migration id. ProblemError."""
    kinds = {"vm": _vm, "host": _host, "cycle": _cycle, "move": _move}
    if kind not in kinds:
        raise ProblemError("UNKNOWN_KIND", f"cannot explain a “{kind}”", f"one of: {', '.join(KINDS)}", status=404)
    try:
        return kinds[kind](control, Archive(control.ledger), subject)
    except LedgerUnavailableError as error:
        raise ledger_away(error) from error


# a VM


def _vm(control: Control, archive: Archive, given: str) -> Explanation:
    view = control.loop.view
    vm = _seen(view, given)
    live: tuple[Refusal, ...] = ()
    if vm is not None and view is not None and view.inputs is not None:
        live = why_not(view.inputs, vm.uuid)
    try:
        if vm is None:
            answer = explain_vm(archive, given)
        else:
            answer = explain_vm(archive, vm.name, uuid=vm.uuid, host=vm.host, live=live)
    except AmbiguousNameError as error:
        raise _ambiguous(given, [uuid for uuid, _ in error.candidates]) from error
    except NotOnRecordError as error:
        names = {v.name for v in view.snapshot.vms} if view is not None else set()
        names |= {record.vm_name for record in archive.ledger.migrations(limit=1000)}
        raise ProblemError("UNKNOWN_VM", f"no VM “{given}” is known", did_you_mean(given, names), status=404) from error
    name = vm.name if vm is not None else answer.name
    quiet = view.inputs.quiet.get(vm.uuid) if vm is not None and view is not None and view.inputs is not None else None
    told = lines(answer, _vm_now(vm, quiet) if vm is not None else ())
    if vm is None and view is not None:
        told = ("It is on no host that the last cycle saw.", *told)
    rows = [migration_row(m.record, now=control.clock.wall()).model_dump(mode="json") for m in answer.moves]
    facts = {"uuid": answer.uuid, "migrations": rows}
    return Explanation(kind="vm", subject=answer.uuid, title=f"VM {name} ({answer.uuid})", lines=told, facts=facts)


def _seen(view: LoopView | None, given: str) -> Vm | None:
    """The VM of that UUID or name in the last cycle's view. ProblemError if several bear the name."""
    if view is None:
        return None
    known = view.snapshot.vm_by_uuid.get(given.lower())
    found = [known] if known is not None else [vm for vm in view.snapshot.vms if vm.name == given]
    if len(found) > 1:
        raise _ambiguous(given, [vm.uuid for vm in found])
    return found[0] if found else None


def _ambiguous(given: str, uuids: Iterable[str]) -> ProblemError:
    several = sorted(uuids)
    hint = f"give the UUID: {', '.join(several)}"
    return ProblemError("AMBIGUOUS_VM", f"{len(several)} VMs are called “{given}”", hint, status=409)


def _vm_now(vm: Vm, quiet: QuietOutlook | None) -> list[str]:
    line = (
        f"It is {vm.state.value} on {vm.host}, uses {cores(vm.load.cpu_cores)} ({counted(vm.facts.vcpus, 'vCPU')}) "
        f"and holds {size(vm.load.memory_bytes)} of the host's memory (its own: {size(vm.facts.memory_bytes)})."
    )
    found = [line, *_dirtying(vm, quiet)]
    owner = vm.owner or vm.facts.owner
    if owner is not None:
        found.append(f"It belongs to {owner.name} ({owner.evidence}): counted in the load, never moved.")
    if vm.facts.immovable:
        found.append(f"It cannot be migrated live: {'; '.join(vm.facts.immovable)}.")
    policy = []
    if vm.policy.mode is not None:
        policy.append(f"mode {vm.policy.mode.value}")
    groups = (("pinned to", vm.policy.pin), ("avoids", vm.policy.avoid))
    policy += [f"{label} {', '.join(sorted(names))}" for label, names in groups if names]
    groups = (("affinity", vm.policy.affinity), ("anti-affinity", vm.policy.anti_affinity))
    policy += [f"{label} group {', '.join(sorted(names))}" for label, names in groups if names]
    if vm.policy.max_downtime_seconds is not None:
        policy.append(f"downtime at most {span(vm.policy.max_downtime_seconds)}")
    allowed = (("auto-converge", vm.policy.auto_converge), ("post-copy", vm.policy.postcopy))
    policy += [f"{what} allowed" for what, granted in allowed if granted]
    if policy:
        found.append(f"Its policy: {'; '.join(policy)}.")
    return found


def _dirtying(vm: Vm, quiet: QuietOutlook | None) -> list[str]:
    """How much memory it dirties, now and when it is quiet if that is known; nothing where that was not measured."""
    now = present_dirty_rate(vm.dirty)
    if now is None:
        return []
    if isinstance(quiet, QuietSpell):
        return [f"It dirties {size(now)}/s of its memory now; expected are {least(quiet)}."]
    if isinstance(quiet, QuietHour):
        return [f"It dirties {size(now)}/s of its memory now; it is quietest with {least(quiet)}."]
    return [f"It dirties {size(now)}/s of its memory now."]


# a host


def _host(control: Control, archive: Archive, name: str) -> Explanation:
    view = control.loop.view
    here = view.snapshot.host_by_name.get(name) if view is not None else None
    live: tuple[Refusal, ...] = ()
    if here is not None and view is not None and view.inputs is not None:
        live = why_not_host(view.inputs, name)
    now = _host_now(view, name) if here is not None and view is not None else ()
    try:
        told = lines(explain_host(archive, name, live=live), now)
    except NotOnRecordError as error:
        known = control.host_names()
        if name not in known:
            raise ProblemError("UNKNOWN_HOST", f"no host “{name}”", did_you_mean(name, known), status=404) from error
        told = (*map(printable, now), "Nothing is on record about it yet.")
    first = [] if here is not None else [NO_CYCLE if view is None else NOT_SEEN]
    told = (*first, *map(printable, _host_told(control, name)), *told)
    return Explanation(kind="host", subject=name, title=f"Host {name}", lines=told)


def _host_told(control: Control, name: str) -> list[str]:
    """What holds for the host by an operator's word or by its own failures."""
    told = control.remembered()
    found = []
    if name in told.operator.drained:
        found.append("An operator asked to drain it (`rebalancerd undrain` takes that back).")
    if name in told.memory.quarantined:
        found.append(f"It may not receive: {told.memory.quarantined[name]}.")
    return found


def _host_now(view: LoopView, name: str) -> list[str]:
    host = view.snapshot.host(name)
    found = []
    if host.unusable is not None:
        found.append(f"It is neither source nor destination: {host.unusable}.")
    found.append(_host_line(name, _pressure(view, name), view.hotspots))
    names = {vm.uuid: vm.name for vm in view.snapshot.vms}
    for spot in view.hotspots:
        if spot.host == name and spot.causes:
            causes = ", ".join(names.get(uuid, uuid) for uuid in spot.causes)
            found.append(f"Most of its {spot.resource} comes from {causes}.")
    if host.mode.value != "active":
        found.append(f"Its mode is {host.mode.value}.")
    guests = sorted(view.snapshot.vms_on.get(name, ()), key=lambda vm: -(vm.load.cpu_cores or 0.0))
    most = guests[:SHOWN_GUESTS]
    found += [f"VM {vm.name}: {cores(vm.load.cpu_cores)}, {size(vm.load.memory_bytes)}." for vm in most]
    if len(guests) > SHOWN_GUESTS:
        found.append(f"and {counted(len(guests) - SHOWN_GUESTS, 'VM')} more.")
    return found


def _host_line(name: str, pressure: HostPressure | None, spots: Iterable[Hotspot]) -> str:
    if pressure is None or pressure.unusable is not None:
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


# a cycle


def _cycle(_control: Control, archive: Archive, given: str) -> Explanation:
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None
    try:
        if number is None and given != LAST:
            raise NotOnRecordError(f"no cycle {given!r}")
        answer = explain_cycle(archive, number)
    except NotOnRecordError as error:
        newest = archive.cycle()
        hint = f"the newest is {newest.id}; a number, or `{LAST}`" if newest else "no cycle is on record yet"
        raise ProblemError("UNKNOWN_CYCLE", f"no cycle “{given}”", hint, status=404) from error
    record = answer.record
    facts = cycle_row(record).model_dump(mode="json")
    title = f"Cycle {record.id}"
    return Explanation(kind="cycle", subject=str(record.id), title=title, lines=lines(answer), facts=facts)


# a move


def _move(control: Control, archive: Archive, given: str) -> Explanation:
    try:
        answer = explain_move(archive, given)
    except NotOnRecordError as error:
        hint = "see `rebalancerd history` for migration ids; `rebalancerd explain vm NAME` shows a VM's last moves"
        raise ProblemError("UNKNOWN_MOVE", f"no migration “{given}”", hint, status=404) from error
    record = answer.record
    facts = migration_row(record, now=control.clock.wall()).model_dump(mode="json")
    title = f"Migration {record.id}: {record.vm_name} {record.source}→{record.destination}"
    return Explanation(kind="move", subject=record.id, title=title, lines=lines(answer), facts=facts)
