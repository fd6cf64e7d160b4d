"""Health: a stable code per condition, how bad it is, and what to do about it. Pure: facts in, checks out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from rebalancerd.cluster.decision import CycleRecord, Outcome
from rebalancerd.cluster.migration import CRASHED_NOTE, CRITICAL_STATES, MigrationRecord, MigrationState
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.power import PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.demand.keeper import DemandModelState
from rebalancerd.predict.keeper import ModelState
from rebalancerd.serve.schemas import Check

OK: Literal["HEALTH_OK"] = "HEALTH_OK"
WARN: Literal["HEALTH_WARN"] = "HEALTH_WARN"
ERR: Literal["HEALTH_ERR"] = "HEALTH_ERR"
LATE_CYCLES = 5.0
LATE_CYCLE_SECONDS = 180.0
LOST_TOLD_SECONDS = 3600.0


class HealthCode(StrEnum):
    """Every health condition. Codes are for scripts and alerts, so they stay."""

    WARMING_UP = "WARMING_UP"
    CYCLE_LATE = "CYCLE_LATE"
    CYCLE_FAILED = "CYCLE_FAILED"
    HOST_STALE = "HOST_STALE"
    HOST_UNREACHABLE = "HOST_UNREACHABLE"
    HOST_UNUSABLE = "HOST_UNUSABLE"
    HOST_HOT = "HOST_HOT"
    HOST_QUARANTINED = "HOST_QUARANTINED"
    LINK_QUARANTINED = "LINK_QUARANTINED"
    HOST_READ_ONLY = "HOST_READ_ONLY"
    NO_ROOM = "NO_ROOM"
    TELEMETRY_FROZEN = "TELEMETRY_FROZEN"
    CLUSTER_PARTLY_UNKNOWN = "CLUSTER_PARTLY_UNKNOWN"
    BREAKER_OPEN = "BREAKER_OPEN"
    PAUSED = "PAUSED"
    STUCK_MIGRATION = "STUCK_MIGRATION"
    UNOBSERVED_MIGRATION = "UNOBSERVED_MIGRATION"
    FOREIGN_MIGRATION = "FOREIGN_MIGRATION"
    VM_IN_DANGER = "VM_IN_DANGER"
    VM_PAUSED_AFTER_MOVE = "VM_PAUSED_AFTER_MOVE"
    SOURCE_LOST = "SOURCE_LOST"
    VM_CRASHED = "VM_CRASHED"
    LEDGER_UNAVAILABLE = "LEDGER_UNAVAILABLE"
    LEASE_LOST = "LEASE_LOST"
    CONFIG_RELOAD_FAILED = "CONFIG_RELOAD_FAILED"
    MODEL_UNTRUSTED = "MODEL_UNTRUSTED"
    DEMAND_MODEL_UNTRUSTED = "DEMAND_MODEL_UNTRUSTED"
    HOST_POWER = "HOST_POWER"


# conditions of the whole cluster that a cycle's refusals carry: code, how bad, what to do
_FROM_REFUSALS: dict[Code, tuple[HealthCode, Literal["warn", "err"], str]] = {
    Code.WARMING_UP: (HealthCode.WARMING_UP, "warn", "wait for a few samples; nothing is moved until then"),
    Code.TELEMETRY_INSANE: (
        HealthCode.TELEMETRY_FROZEN,
        "err",
        "compare `rebalancerd status` with virt-top on a host; decisions go on by themselves once figures are sane",
    ),
    Code.CLUSTER_PARTLY_UNKNOWN: (
        HealthCode.CLUSTER_PARTLY_UNKNOWN,
        "err",
        "bring the unreachable hosts back, or take them out of the configuration",
    ),
    Code.BREAKER_OPEN: (
        HealthCode.BREAKER_OPEN,
        "err",
        "see `rebalancerd history` for what failed, mend it, then `rebalancerd close-breaker`",
    ),
    Code.LEASE_LOST: (HealthCode.LEASE_LOST, "err", "another controller may be at work: see which one runs"),
    Code.LEDGER_UNAVAILABLE: (
        HealthCode.LEDGER_UNAVAILABLE,
        "err",
        "see that the disk of the state directory is writable and not full; nothing is started until then",
    ),
    Code.NO_DESTINATION: (
        HealthCode.NO_ROOM,
        "warn",
        "see `rebalancerd explain host NAME`: add capacity, or loosen the constraint that binds",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What health is judged by. ``cycle_seconds``: the configured time between two cycles.

    ``standby``: several controllers share the ledger and this one does not lead; ``leader``: who does.
    """

    now: float
    started_at: float
    cycle: CycleRecord | None = None
    snapshot: Snapshot | None = None
    open_migrations: Sequence[MigrationRecord] = ()
    recent: Sequence[MigrationRecord] = ()
    paused: str | None = None
    breaker_open: str | None = None
    quarantined: dict[str, Refusal] = field(default_factory=dict)
    links: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    read_only: dict[str, Refusal] = field(default_factory=dict)
    ledger_error: str | None = None
    reload_error: str | None = None
    lease_held: bool = True
    standby: bool = False
    leader: str | None = None
    cycle_seconds: float = 60.0
    model: ModelState | None = None
    demand: DemandModelState | None = None
    power: tuple[PowerRecord, ...] = ()


def checks(facts: Facts) -> tuple[Check, ...]:
    """Every condition that holds, errors first, each code and subject once."""
    found = [
        *_of_daemon(facts),
        *_of_model(facts),
        *_of_demand(facts),
        *_of_cycle(facts),
        *_of_hosts(facts),
        *_of_power(facts),
        *_of_migrations(facts),
    ]
    unique = {(c.code, c.subject): c for c in reversed(found)}
    return tuple(sorted(unique.values(), key=lambda c: (c.severity != "err", c.code, c.subject or "")))


def verdict(found: Sequence[Check]) -> Literal["HEALTH_OK", "HEALTH_WARN", "HEALTH_ERR"]:
    """The worst of the checks."""
    if any(c.severity == "err" for c in found):
        return ERR
    return WARN if found else OK


def _check(
    code: HealthCode, severity: Literal["warn", "err"], message: str, hint: str, subject: str | None = None
) -> Check:
    return Check(code=code.value, severity=severity, message=message, hint=hint, subject=subject)


def _of_daemon(facts: Facts) -> list[Check]:
    found = []
    if facts.ledger_error is not None:
        hint = _FROM_REFUSALS[Code.LEDGER_UNAVAILABLE][2]
        found.append(_check(HealthCode.LEDGER_UNAVAILABLE, "err", facts.ledger_error, hint))
    if facts.reload_error is not None:
        hint = "mend the file, see `rebalancerd config check`, then reload; the old configuration stays in force"
        found.append(_check(HealthCode.CONFIG_RELOAD_FAILED, "warn", facts.reload_error, hint))
    if facts.standby:
        if facts.leader is None:
            message = "no controller leads: nothing is started"
            hint = "one takes over within two lease times; if none does, see whether PostgreSQL answers"
            found.append(_check(HealthCode.LEASE_LOST, "err", message, hint))
    elif not facts.lease_held:
        hint = _FROM_REFUSALS[Code.LEASE_LOST][2]
        found.append(_check(HealthCode.LEASE_LOST, "err", "the lock on the state directory is not ours any more", hint))
    if facts.paused is not None:
        file = facts.paused.startswith("pause file")
        hint = "remove the file when you are done" if file else "`rebalancerd resume` when you are done"
        found.append(_check(HealthCode.PAUSED, "warn", facts.paused, hint))
    if facts.breaker_open is not None:
        hint = _FROM_REFUSALS[Code.BREAKER_OPEN][2]
        found.append(_check(HealthCode.BREAKER_OPEN, "err", facts.breaker_open, hint))
    return found


def _of_model(facts: Facts) -> list[Check]:
    """A learned model is wanted, and there is none, it lost its trust, or a better one was refused."""
    model = facts.model
    if model is None or not model.wanted or (model.trusted and not model.problems):
        return []
    refused = "; ".join(model.problems[:3])
    if model.id is None:
        message = f"physics predicts what migrations cost: {refused or model.reason}"
        hint = "see `rebalancerd models verify`; bounds are wider until a model can be used"
        return [_check(HealthCode.MODEL_UNTRUSTED, "warn", message, hint)]
    found = []
    if not model.trusted:
        message = f"physics predicts what migrations cost, for {model.id} is not trusted: {model.reason}"
        hint = "nothing to do: it is used again once it is right, or when a training promotes a better one"
        found.append(_check(HealthCode.MODEL_UNTRUSTED, "warn", message, hint, model.id))
    if refused:
        hint = "see `rebalancerd models verify`; the next training makes a new one"
        found.append(_check(HealthCode.MODEL_UNTRUSTED, "warn", f"a model was refused: {refused}", hint))
    return found


def _of_demand(facts: Facts) -> list[Check]:
    """A learned demand model is wanted, and there is none, it was demoted, or a better one was refused."""
    model = facts.demand
    if model is None or not model.wanted or (model.trusted and not model.problems):
        return []
    refused = "; ".join(model.problems[:3])
    code = HealthCode.DEMAND_MODEL_UNTRUSTED
    if model.id is None:
        message = f"{model.basis} forecasts demand: {refused or model.reason}"
        hint = "see `rebalancerd models verify`; hotspots are seen later until a model can be used"
        return [_check(code, "warn", message, hint)]
    found = []
    if not model.trusted:
        message = f"{model.basis} forecasts demand, for {model.id} is not trusted: {model.reason}"
        hint = "nothing to do: it is used again once it wins, or when a training promotes a better one"
        found.append(_check(code, "warn", message, hint, model.id))
    if refused:
        hint = "see `rebalancerd models verify`; the next training makes a new one"
        found.append(_check(code, "warn", f"a demand model was refused: {refused}", hint))
    return found


def _of_cycle(facts: Facts) -> list[Check]:
    cycle, found = facts.cycle, []
    last = cycle.started_at if cycle is not None else facts.started_at
    patience = max(LATE_CYCLE_SECONDS, LATE_CYCLES * facts.cycle_seconds)
    if facts.now - last > patience:
        message = f"no cycle has ended for {facts.now - last:.0f} s"
        found.append(_check(HealthCode.CYCLE_LATE, "err", message, "see the daemon's log; a host or the disk may hang"))
    if cycle is None:
        if not found:
            hint = "the first cycle comes within a minute or two of the start"
            found.append(_check(HealthCode.WARMING_UP, "warn", "no cycle has ended yet", hint))
        return found
    if cycle.outcome is Outcome.FAILED:
        found.append(_check(HealthCode.CYCLE_FAILED, "err", cycle.reason, "please report it, with the daemon's log"))
    draining = {h.name for h in facts.snapshot.hosts if h.mode is HostMode.DRAIN} if facts.snapshot else set()
    for refusal in cycle.refusals:
        if refusal.code not in _FROM_REFUSALS or (refusal.code is Code.LEASE_LOST and facts.standby):
            continue
        code, severity, hint = _FROM_REFUSALS[refusal.code]
        if code is HealthCode.NO_ROOM and not cycle.hot_hosts and refusal.subject not in draining:
            continue
        about = refusal.subject if refusal.kind is SubjectKind.HOST else None
        found.append(_check(code, severity, refusal.detail, hint.replace("NAME", about or "NAME"), about))
    return found


def _of_power(facts: Facts) -> list[Check]:
    """Hosts that did not go down or come back as they were told, and those that may not be powered off since."""
    known = facts.snapshot.host_by_name if facts.snapshot is not None else {}
    found = []
    for record in facts.power:
        hint = f"see `rebalancerd power status`; once it is mended: `rebalancerd power test {record.host}`"
        if record.phase in (PowerPhase.STUCK, PowerPhase.FAILED):
            message = f"host {record.host} is {record.phase}: {record.reason}"
            found.append(_check(HealthCode.HOST_POWER, "err", message, hint, record.host))
        elif record.disabled is not None:
            message = f"power-off of host {record.host} is disabled: {record.disabled}"
            found.append(_check(HealthCode.HOST_POWER, "warn", message, hint, record.host))
        elif known and record.host not in known and record.phase is not PowerPhase.AWAKE:
            message = f"host {record.host} is {record.phase} and not configured any more"
            found.append(_check(HealthCode.HOST_POWER, "warn", message, "configure it again to wake it", record.host))
    return found


def _of_hosts(facts: Facts) -> list[Check]:
    away = {record.host for record in facts.power if record.phase.is_away or record.is_arriving(facts.now)}
    found = []
    for host in facts.snapshot.hosts if facts.snapshot is not None else ():
        if host.unusable is not None and host.name not in away:
            code, hint = _unusable(host.unusable)
            found.append(_check(code, "warn", f"host {host.name}: {host.unusable}", hint, host.name))
    for name in facts.cycle.hot_hosts if facts.cycle is not None else ():
        hint = f"see `rebalancerd explain host {name}`"
        found.append(_check(HealthCode.HOST_HOT, "warn", f"host {name} is or will be above its headroom", hint, name))
    for name, refusal in facts.quarantined.items():
        hint = "it ends by itself; it receives nothing until then"
        found.append(_check(HealthCode.HOST_QUARANTINED, "warn", f"host {name}: {refusal.detail}", hint, name))
    for link, refusal in facts.links.items():
        hint = "see network, ports, TLS or ssh keys between the two: `rebalancerd doctor`; it ends by itself"
        found.append(_check(HealthCode.LINK_QUARANTINED, "warn", refusal.detail, hint, "-".join(link)))
    for name, refusal in facts.read_only.items():
        hint = "give the daemon's user its rights back there: `rebalancerd doctor`; nothing leaves it until then"
        found.append(_check(HealthCode.HOST_READ_ONLY, "warn", f"host {name}: {refusal.detail}", hint, name))
    return found


def _unusable(reason: str) -> tuple[HealthCode, str]:
    """The code of a host that can be neither source nor destination, by the words of its reason."""
    text = reason.lower()
    if "stale" in text or " old" in text:
        return HealthCode.HOST_STALE, "see whether libvirtd answers: `rebalancerd doctor`"
    if any(word in text for word in ("unreachable", "connect", "no answer", "does not answer", "timed out", "never")):
        return HealthCode.HOST_UNREACHABLE, "see network, libvirtd and rights: `rebalancerd doctor`"
    return HealthCode.HOST_UNUSABLE, "see `rebalancerd doctor`"


def _of_migrations(facts: Facts) -> list[Check]:
    found = []
    for record in facts.open_migrations:
        what = f"{record.vm_name} {record.source}→{record.destination}"
        if record.state is MigrationState.STUCK:
            hint = "see the job with `virsh domjobinfo` on the source; it holds its slots until it ends"
            found.append(
                _check(HealthCode.STUCK_MIGRATION, "err", f"{what} is stuck: {record.reason}", hint, record.id)
            )
        elif record.state is MigrationState.UNOBSERVED:
            hint = "bring the host back; nothing is assumed until both hosts have answered"
            message = f"{what}: a host does not answer"
            found.append(_check(HealthCode.UNOBSERVED_MIGRATION, "warn", message, hint, record.id))
    for record in facts.recent:
        if record.state in CRITICAL_STATES:
            how = f"after {record.source}→{record.destination}: {record.state}" if record.ours else record.reason
            what = f"{record.vm_name} ({record.vm_uuid}) {how}"
            hint = _by_hand(facts, record) + "; rebalancerd does not touch the VM"
            found.append(_check(HealthCode.VM_IN_DANGER, "err", what, hint, record.id))
        elif record.state is MigrationState.DEGRADED and _still_paused(facts, record):
            what = f"{record.vm_name} ({record.vm_uuid}) arrived on {record.destination} and stands there paused"
            hint = f"if nobody paused it on purpose, on {record.destination}: `virsh resume {record.vm_uuid}`"
            found.append(_check(HealthCode.VM_PAUSED_AFTER_MOVE, "err", what, hint, record.id))
        elif record.state is MigrationState.LOST_SOURCE and facts.now - (record.ended_at or 0.0) < LOST_TOLD_SECONDS:
            what = f"{record.vm_name} ({record.vm_uuid}): its host {record.source} was lost while it moved away"
            hint = f"on {record.destination}: `virsh domstate {record.vm_uuid}`; starting it anew is up to you"
            found.append(_check(HealthCode.SOURCE_LOST, "err", what, hint, record.id))
        elif _crashed(record) and facts.now - (record.ended_at or 0.0) < LOST_TOLD_SECONDS:
            what = f"{record.vm_name} ({record.vm_uuid}) crashed while it moved from {record.source}"
            hint = f"on {record.source}: `virsh domstate --reason {record.vm_uuid}`; starting it anew is up to you"
            found.append(_check(HealthCode.VM_CRASHED, "err", what, hint, record.id))
    if facts.snapshot is not None:
        for flight in facts.snapshot.in_flight:
            if not flight.ours:
                vm = facts.snapshot.vm_by_uuid.get(flight.vm_uuid)
                message = f"{vm.name if vm else flight.vm_uuid} is being migrated from {flight.source} by somebody else"
                hint = "counted in the caps; nothing to do"
                found.append(_check(HealthCode.FOREIGN_MIGRATION, "warn", message, hint, flight.vm_uuid))
    return found


def _by_hand(facts: Facts, record: MigrationRecord) -> str:
    """What a person should do about a VM in danger, as a command where there is one."""
    if record.state is not MigrationState.POSTCOPY_BROKEN:
        return f"look at both hosts now: `virsh domstate {record.vm_uuid}` on {record.source} and {record.destination}"
    host = facts.snapshot.host_by_name.get(record.destination) if facts.snapshot is not None else None
    uri = (
        host.peer_uri
        if host is not None and host.peer_uri
        else f"<URI of {record.destination} as {record.source} sees it>"
    )
    flags = "--live --p2p --postcopy --postcopy-resume"
    if record.persistent:  # what the resuming call does not ask for is not done at its end
        flags = f"{flags} --persistent --undefinesource"
    way = f" {host.migration_uri}" if host is not None and host.migration_uri else ""
    return f"once the link is back, on {record.source}: `virsh migrate {flags} {record.vm_uuid} {uri}{way}`"


def _crashed(record: MigrationRecord) -> bool:
    return record.state is MigrationState.VM_STOPPED and CRASHED_NOTE in record.reason


def _still_paused(facts: Facts, record: MigrationRecord) -> bool:
    """Whether nobody has resumed it since, as far as is known."""
    vm = facts.snapshot.vm_by_uuid.get(record.vm_uuid) if facts.snapshot is not None else None
    return vm is None or not vm.state.is_running
