"""Why: answers about a VM, a host, a cycle or a move, out of the ledger alone. ``explain_text`` puts them into words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rebalancerd.cluster.decision import CycleRecord, Decision, Outcome
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.plan import Alternative, Move, Plan
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.archive import BACK_CYCLES, Archive, Event, Told

CLUSTER = "cluster"
SHOWN_MOVES = 5
SHOWN_DECISIONS = 5


class NotOnRecordError(LookupError):
    """The ledger knows nothing of it; the message says what was asked."""


class AmbiguousNameError(LookupError):
    """Several VMs bear the name; ``candidates`` are their UUIDs with their names."""

    def __init__(self, given: str, candidates: Sequence[tuple[str, str]]) -> None:
        super().__init__(f"{len(candidates)} VMs are called {given!r}: {', '.join(uuid for uuid, _ in candidates)}")
        self.candidates = tuple(candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalGroup:
    """Refusals alike (code, subject, destination) over several cycles; ``detail`` is the newest one's.

    ``count`` adds up what each stands for; ``cycles``: in how many cycles; instants are epoch seconds, None for one
    that was asked live and is in no cycle.
    """

    code: Code
    kind: SubjectKind
    subject: str
    destination: str | None
    detail: str
    count: int
    cycles: int
    first_at: float | None
    last_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionGroup:
    """Decisions alike (VM, route, outcome, refusal) over several cycles; ``newest`` is the last of them.

    ``move``: what its plan proposed, None if that is not on record.
    """

    newest: Told[Decision]
    cycles: int
    first_at: float
    move: Move | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A move of the VM that the last plan looked at, and the move that it preferred."""

    instead: Move
    alternative: Alternative


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveAnswer:
    """One migration: record, the move that its plan proposed (None if that is not on record), and its course."""

    record: MigrationRecord
    move: Move | None
    plan: Plan | None
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmAnswer:
    """A VM: its last moves, its last decisions, and why it was not moved.

    ``own``, ``about_host``, ``about_cluster``: refusals of the last cycles about it, its host, the cluster; ``live``:
    those that the caller has just asked of the planner; ``weighed``: moves of it that the last cycle's plan passed over.
    """

    uuid: str
    name: str
    host: str | None
    moves: tuple[MoveAnswer, ...]
    decisions: tuple[DecisionGroup, ...]
    own: tuple[RefusalGroup, ...]
    about_host: tuple[RefusalGroup, ...]
    about_cluster: tuple[RefusalGroup, ...]
    live: tuple[RefusalGroup, ...]
    weighed: tuple[Weighed, ...]
    last_cycle: CycleRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAnswer:
    """A host: moves from and to it, decisions, refusals about it and about the cluster, and the last cycle."""

    name: str
    moves: tuple[MoveAnswer, ...]
    decisions: tuple[DecisionGroup, ...]
    own: tuple[RefusalGroup, ...]
    about_cluster: tuple[RefusalGroup, ...]
    live: tuple[RefusalGroup, ...]
    last_cycle: CycleRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleAnswer:
    """A cycle and its plan (None: it made none, or it is no longer kept)."""

    record: CycleRecord
    plan: Plan | None
    refusals: tuple[RefusalGroup, ...]


Answer = VmAnswer | HostAnswer | CycleAnswer | MoveAnswer


def explain_vm(
    archive: Archive, given: str, *, host: str | None = None, live: Iterable[Refusal] = (), uuid: str | None = None
) -> VmAnswer:
    """A VM by name or UUID. ``host``: where it runs now, if the caller knows; ``uuid``: if the caller knows that too,
    and that ``given`` is its name.

    Raises NotOnRecordError, AmbiguousNameError, LedgerUnavailableError.
    """
    known = archive.vms_called(uuid if uuid is not None else given)
    if len(known) > 1:
        raise AmbiguousNameError(given, known)
    told_live = tuple(live)
    if not known and uuid is None:
        raise NotOnRecordError(f"nothing is on record about a VM {given!r}: it was never moved, nor proposed to be")
    found, name = known[0] if known else (str(uuid), given)
    if uuid is not None:
        name = given  # what the caller sees is what it is called now
    place = host if host is not None else archive.last_host_of(found)
    decided = archive.decisions(vm_uuid=found, limit=BACK_CYCLES)
    last = archive.cycle()
    return VmAnswer(
        uuid=found,
        name=name,
        host=place,
        moves=tuple(_move(archive, r) for r in archive.ledger.migrations(vm_uuid=found, limit=SHOWN_MOVES)),
        decisions=_decided(archive, decided),
        own=grouped(_of_decisions(decided), archive.refusals([found])),
        about_host=grouped(archive.refusals([place])) if place is not None else (),
        about_cluster=grouped(archive.refusals([CLUSTER])),
        live=grouped(Told(0, 0.0, refusal) for refusal in told_live),
        weighed=_weighed(archive, last, found),
        last_cycle=last,
    )


def explain_host(archive: Archive, name: str, *, live: Iterable[Refusal] = ()) -> HostAnswer:
    """A host. Raises NotOnRecordError, LedgerUnavailableError."""
    decided = archive.decisions(host=name, limit=BACK_CYCLES)
    told = archive.refusals([name])
    moves = [r for r in archive.ledger.migrations(limit=1000) if name in (r.source, r.destination)][:SHOWN_MOVES]
    last = archive.cycle()
    seen = last is not None and any(pressure.host == name for pressure in last.hosts)
    if not (decided or told or moves or seen):
        raise NotOnRecordError(f"nothing is on record about a host {name!r}")
    return HostAnswer(
        name=name,
        moves=tuple(_move(archive, record) for record in moves),
        decisions=_decided(archive, decided),
        own=grouped(told),
        about_cluster=grouped(archive.refusals([CLUSTER])),
        live=grouped(Told(0, 0.0, refusal) for refusal in live),
        last_cycle=last,
    )


def explain_cycle(archive: Archive, number: int | None = None) -> CycleAnswer:
    """A cycle by number, without one the last. Raises NotOnRecordError, LedgerUnavailableError."""
    record = archive.cycle(number)
    if record is None:
        raise NotOnRecordError("no cycle is on record yet" if number is None else f"no cycle {number} is on record")
    told = [Told(record.id, record.started_at, refusal) for refusal in record.refusals]
    made = [Told(record.id, record.started_at, decision) for decision in record.decisions]
    return CycleAnswer(record=record, plan=_plan(archive, record.plan_id), refusals=grouped(told, _of_decisions(made)))


def explain_move(archive: Archive, given: str) -> MoveAnswer:
    """A migration by its id or an unmistakable beginning of it. Raises NotOnRecordError, LedgerUnavailableError."""
    record = archive.migration(given)
    if record is None:
        raise NotOnRecordError(f"no migration {given!r} is on record, or several begin so")
    return _move(archive, record)


def grouped(*sources: Iterable[Told[Refusal]]) -> tuple[RefusalGroup, ...]:
    """Refusals put together by code, subject and destination, the one told last first."""
    groups: dict[tuple[Code, str, str | None], list[Told[Refusal]]] = {}
    for source in sources:
        for told in source:
            groups.setdefault((told.what.code, told.what.subject, told.what.destination), []).append(told)
    made = [_group(members) for members in groups.values()]
    return tuple(sorted(made, key=lambda g: (-(g.last_at or 0.0), -g.count, g.code, g.subject, g.destination or "")))


def _group(members: list[Told[Refusal]]) -> RefusalGroup:
    newest = max(members, key=lambda told: told.cycle_id)
    cycles = {told.cycle_id for told in members} - {0}
    instants = [told.at for told in members if told.cycle_id]
    return RefusalGroup(
        code=newest.what.code,
        kind=newest.what.kind,
        subject=newest.what.subject,
        destination=newest.what.destination,
        detail=newest.what.detail,
        count=sum(told.what.count for told in members),
        cycles=len(cycles),
        first_at=min(instants, default=None),
        last_at=max(instants, default=None),
    )


def _of_decisions(decided: Iterable[Told[Decision]]) -> list[Told[Refusal]]:
    """The refusals of single steps."""
    return [Told(d.cycle_id, d.at, d.what.refusal) for d in decided if d.what.refusal is not None]


def _decided(archive: Archive, decided: Iterable[Told[Decision]]) -> tuple[DecisionGroup, ...]:
    """The last decisions that differ, newest first."""
    groups: dict[tuple[str, str, str, Outcome, Code | None], list[Told[Decision]]] = {}
    for told in decided:
        d = told.what
        why = d.refusal.code if d.refusal is not None else None
        groups.setdefault((d.vm_uuid, d.source, d.destination, d.outcome, why), []).append(told)
    newest_first = sorted(groups.values(), key=lambda members: -max(told.cycle_id for told in members))
    return tuple(_decision_group(archive, members) for members in newest_first[:SHOWN_DECISIONS])


def _decision_group(archive: Archive, members: list[Told[Decision]]) -> DecisionGroup:
    newest = max(members, key=lambda told: told.cycle_id)
    plan = _plan(archive, newest.what.plan_id)
    return DecisionGroup(
        newest=newest,
        cycles=len({told.cycle_id for told in members}),
        first_at=min(told.at for told in members),
        move=_move_of(plan, newest.what.step),
    )


def _weighed(archive: Archive, last: CycleRecord | None, vm_uuid: str) -> tuple[Weighed, ...]:
    """What the last cycle's plan says of other moves that were preferred to one of this VM."""
    plan = _plan(archive, last.plan_id) if last is not None else None
    return tuple(
        Weighed(instead=step.move, alternative=other)
        for step in (plan.steps if plan is not None else ())
        for other in step.move.alternatives
        if other.vm_uuid == vm_uuid
    )


def _move(archive: Archive, record: MigrationRecord) -> MoveAnswer:
    plan = _plan(archive, record.plan_id)
    return MoveAnswer(record=record, plan=plan, move=_move_of(plan, record.step), events=archive.events(record.id))


def _move_of(plan: Plan | None, number: int | None) -> Move | None:
    return next((s.move for s in plan.steps if s.number == number), None) if plan is not None else None


def _plan(archive: Archive, plan_id: str | None) -> Plan | None:
    """The plan, None if it is not kept any more or cannot be read: the rest of the answer is still worth giving."""
    try:
        return archive.ledger.plan(plan_id) if plan_id is not None else None
    except LedgerUnavailableError:
        return None
