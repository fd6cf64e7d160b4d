"""GuardMemory: what past migrations forbid now. Computed from the ledger each time, so restarts forget nothing.

What counts: a migration that was begun, however it ended, ours or not, is a move of its VM and lengthens its cooldown.
An intent that never became a job (ABANDONED) is none, but where
another job held the VM it rests a while (and the pair, for drains), so that a backup is not asked every minute whether it has ended. A failure is held against the destination, but not where libvirt
refused that VM there or lacked the right (the pair is blocked instead), where we aborted, or where the guest itself went away.
Where only the way between two hosts failed, that link is in quarantine and not the hosts. A source on which the right to
migrate was lacking for several VMs is read-only for a while.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.migration import CRITICAL_STATES, MOVED_NOTE, MigrationRecord, MigrationState
from rebalancerd.cluster.refusal import Code, Refusal, about_host, about_vm
from rebalancerd.guard.breaker import Breaker, breaker
from rebalancerd.guard.settings import GuardSettings

ARRIVED = frozenset({MigrationState.SUCCEEDED, MigrationState.DEGRADED})
DESTINATION_AT_FAULT = frozenset({MigrationState.FAILED, MigrationState.DEGRADED}) | CRITICAL_STATES
REFUSED_PAIR = (Code.LIBVIRT_REFUSED, Code.RIGHTS)
DENIED_VMS = 2  # one VM may be left out by name; two that may not be migrated mean that the host lost the right
DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3600.0
BUSY_RETRY_SECONDS = 600.0

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardMemory:
    """What is forbidden at the instant it was recalled for; every refusal says until when and why.

    ``resting``: VM UUID to its cooldown. ``tabu_pairs``: (VM UUID, destination) that would undo its last move.
    ``blocked_pairs``: (VM UUID, destination) that libvirt refused. ``quarantined``: hosts that may not receive.
    ``links``: pairs of hosts, in order of name, between which nothing may be migrated. ``read_only``: hosts off which
    nothing may be migrated, for want of the right.
    ``recent_starts``: ids of the migrations begun within the last hour. ``succeeded_steps``: (plan id, step).
    """

    resting: Mapping[str, Refusal] = field(default_factory=dict)
    tabu_pairs: Mapping[Pair, Refusal] = field(default_factory=dict)
    blocked_pairs: Mapping[Pair, Refusal] = field(default_factory=dict)
    quarantined: Mapping[str, Refusal] = field(default_factory=dict)
    links: Mapping[Pair, Refusal] = field(default_factory=dict)
    read_only: Mapping[str, Refusal] = field(default_factory=dict)
    breaker: Breaker = field(default_factory=Breaker)
    recent_starts: frozenset[str] = frozenset()
    succeeded_steps: frozenset[tuple[str, int]] = frozenset()

    def describe(self) -> tuple[str, ...]:
        """What is forbidden, in words, the gravest first; empty if nothing is."""
        lines = [] if self.breaker.reason is None else [f"breaker open: {self.breaker.reason}"]
        lines += [f"quarantined {host}: {refusal.detail}" for host, refusal in sorted(self.quarantined.items())]
        lines += [
            f"quarantined link {one}-{two}: {refusal.detail}" for (one, two), refusal in sorted(self.links.items())
        ]
        lines += [f"read-only {host}: {refusal.detail}" for host, refusal in sorted(self.read_only.items())]
        lines += [f"blocked {vm} to {to}: {refusal.detail}" for (vm, to), refusal in sorted(self.blocked_pairs.items())]
        if self.resting:
            lines.append(f"cooldown: {len(self.resting)} VMs rest")
        return tuple(lines)


def recall(
    records: Collection[MigrationRecord], *, operator: OperatorState, now: float, settings: GuardSettings
) -> GuardMemory:
    """What ``records`` imply at ``now`` (epoch seconds). Pass those since ``needed_since``; order and repeats do not matter.

    An instant that lies in the future of ``now`` is a clock that stepped: it is read as just now, which lengthens what
    it forbids.
    """
    begun = sorted(
        (r for r in {r.id: r for r in records}.values() if r.state is not MigrationState.ABANDONED),
        key=lambda r: (_instant(r, now), r.id),
    )
    busy = [r for r in records if r.state is MigrationState.ABANDONED and r.reason.startswith(Code.VM_BUSY.value)]
    denied = [r for r in records if r.state is MigrationState.ABANDONED and r.reason.startswith(Code.RIGHTS.value)]
    by_vm: dict[str, list[MigrationRecord]] = {}
    for record in begun:
        by_vm.setdefault(record.vm_uuid, []).append(record)
    return GuardMemory(
        resting={vm: refusal for (vm, _), refusal in _busy(busy, now).items()} | _resting(by_vm, now, settings),
        tabu_pairs=_tabu(by_vm, now, settings),
        blocked_pairs=_busy(busy, now) | _blocked([*begun, *denied], now, settings),
        quarantined=_quarantined(begun, operator, now, settings),
        links=_links(begun, operator, now, settings),
        read_only=_read_only(records, now, settings),
        breaker=breaker([(r, _instant(r, now)) for r in begun], operator.breaker_closed_at, settings),
        recent_starts=frozenset(r.id for r in begun if now - _start(r, now) < HOUR_SECONDS),
        succeeded_steps=frozenset(
            (r.plan_id, r.step)
            for r in begun
            if r.state is MigrationState.SUCCEEDED and r.plan_id is not None and r.step is not None
        ),
    )


def needed_since(settings: GuardSettings, operator: OperatorState, now: float) -> float:
    """How far back (epoch seconds) the records must reach.

    An open breaker lets nothing start, so what opened it stays among the newest records; but it must not close by
    itself because they grew old. So all since an operator last closed it are needed, or all there are.
    """
    horizon = max(
        settings.cooldown_memory_seconds + settings.cooldown_max_seconds,
        settings.quarantine_max_seconds * 2,
        settings.blocked_pair_seconds,
        settings.reverse_tabu_seconds,
        settings.breaker_window_seconds,
        HOUR_SECONDS,
    )
    return max(0.0, min(now - horizon, operator.breaker_closed_at or 0.0))


def cooldown_seconds(moves: int, settings: GuardSettings) -> float:
    """Cooldown after the last of ``moves`` moves: base × growth^(moves − 1), at most the maximum."""
    if moves < 1:
        return 0.0
    grown, most = settings.cooldown_seconds, settings.cooldown_max_seconds
    for _ in range(moves - 1):
        grown *= max(1.0, settings.cooldown_growth)
        if grown >= most:
            break
    return min(grown, most)


def _instant(record: MigrationRecord, now: float) -> float:
    """When it last mattered: its end, or now while it runs."""
    return now if record.state.is_open else min(now, record.ended_at or record.started_at or record.intent_at)


def _start(record: MigrationRecord, now: float) -> float:
    return min(now, record.started_at or record.intent_at)


def _resting(by_vm: Mapping[str, list[MigrationRecord]], now: float, settings: GuardSettings) -> dict[str, Refusal]:
    """Cooldowns: the latest end of any move's own, which counts the moves up to it. So one more move never shortens it."""
    found = {}
    for vm, moves in by_vm.items():
        at = [_instant(r, now) for r in moves]
        counts = [i + 1 - bisect_left(at, t - settings.cooldown_memory_seconds) for i, t in enumerate(at)]
        until = max(t + cooldown_seconds(count, settings) for t, count in zip(at, counts, strict=True))
        if now < until:
            last = now - at[-1]
            detail = f"moved {counts[-1]} times lately, last {last:.0f} s ago: rests for {until - now:.0f} s more"
            found[vm] = about_vm(Code.COOLDOWN, vm, detail)
        elif (full := _budget_left(at, now, settings)) is not None:
            found[vm] = about_vm(Code.COOLDOWN, vm, full)
    return found


def _budget_left(at: list[float], now: float, settings: GuardSettings) -> str | None:
    """Why a VM with moves at these instants, in order, has had its day's worth of them; None if it has not."""
    today = [t for t in at if now - t < DAY_SECONDS]
    if len(today) < max(1, settings.per_vm_per_day):
        return None
    rest = today[-max(1, settings.per_vm_per_day)] + DAY_SECONDS - now
    return f"moved {len(today)} times within a day, {settings.per_vm_per_day} allowed: rests for {rest:.0f} s more"


def _tabu(by_vm: Mapping[str, list[MigrationRecord]], now: float, settings: GuardSettings) -> dict[Pair, Refusal]:
    """Moves that would take a VM back to a host it left lately."""
    found = {}
    for vm, moves in by_vm.items():
        for record in moves:
            left = now - _instant(record, now)
            if record.state in ARRIVED and left < settings.reverse_tabu_seconds:
                detail = (
                    f"left {record.source} {left:.0f} s ago; may go back after {settings.reverse_tabu_seconds:.0f} s"
                )
                found[vm, record.source] = about_vm(Code.REVERSE_MOVE, vm, detail, record.source)
    return found


def _refusal_code(record: MigrationRecord) -> Code | None:
    """The refusal that a failure amounts to, with which the executor's reason then begins; None if it is none."""
    if record.state not in (MigrationState.FAILED, MigrationState.ABANDONED):
        return None
    return next((code for code in REFUSED_PAIR if record.reason.startswith(code.value)), None)


def _blocked(begun: Iterable[MigrationRecord], now: float, settings: GuardSettings) -> dict[Pair, Refusal]:
    found = {}
    for record in begun:
        code, ago = _refusal_code(record), now - _instant(record, now)
        if code is not None and ago < settings.blocked_pair_seconds:
            more = settings.blocked_pair_seconds - ago
            detail = f"{record.reason} ({ago:.0f} s ago, tried again in {more:.0f} s)"
            pair = (record.vm_uuid, record.destination)
            found[pair] = about_vm(code, record.vm_uuid, detail, record.destination)
    return found


def _busy(abandoned: Iterable[MigrationRecord], now: float) -> dict[Pair, Refusal]:
    """Pairs that found another job on the VM."""
    found = {}
    for record in sorted(abandoned, key=lambda r: (_instant(r, now), r.id)):
        ago = now - _instant(record, now)
        if ago < BUSY_RETRY_SECONDS:
            detail = f"{record.reason} ({ago:.0f} s ago, tried again in {BUSY_RETRY_SECONDS - ago:.0f} s)"
            pair = (record.vm_uuid, record.destination)
            found[pair] = about_vm(Code.VM_BUSY, record.vm_uuid, detail, record.destination)
    return found


def _quarantined(
    begun: Iterable[MigrationRecord], operator: OperatorState, now: float, settings: GuardSettings
) -> dict[str, Refusal]:
    """Hosts that failed as a destination, or died as a source. ``begun`` in the order of time."""
    cleared: dict[str, float] = {}
    for host, at in operator.quarantine_cleared:
        cleared[host] = max(at, cleared.get(host, 0.0))
    strikes: dict[str, tuple[int, float]] = {}
    for record in begun:
        if not record.ours or record.state.is_open:
            continue
        at = _instant(record, now)
        if record.state is MigrationState.SUCCEEDED:
            strikes.pop(record.destination, None)
            continue
        blamed = _host_at_fault(record)
        if blamed is not None and at > cleared.get(blamed, 0.0):
            strikes[blamed] = (strikes.get(blamed, (0, 0.0))[0] + 1, at)
    found = {}
    for host, (count, at) in strikes.items():
        length = _quarantine_length(count, settings)
        if now < at + length:
            detail = f"failed {count} migrations in a row, last {now - at:.0f} s ago: free in {at + length - now:.0f} s"
            found[host] = about_host(Code.QUARANTINED, host, detail)
    return found


def _host_at_fault(record: MigrationRecord) -> str | None:
    if MOVED_NOTE in record.reason:
        return None
    if record.state is MigrationState.LOST_SOURCE:
        return record.source
    if record.state in DESTINATION_AT_FAULT and _refusal_code(record) is None and not _link_at_fault(record):
        return record.destination
    return None


def _link_at_fault(record: MigrationRecord) -> bool:
    return record.state is MigrationState.FAILED and record.reason.startswith(Code.TRANSPORT.value)


def _between(record: MigrationRecord) -> Pair:
    one, two = sorted((record.source, record.destination))
    return one, two


def _links(
    begun: Iterable[MigrationRecord], operator: OperatorState, now: float, settings: GuardSettings
) -> dict[Pair, Refusal]:
    """Links that failed, either way round, with the same doubling as hosts; clearing either host clears them."""
    cleared: dict[str, float] = {}
    for host, at in operator.quarantine_cleared:
        cleared[host] = max(at, cleared.get(host, 0.0))
    strikes: dict[Pair, tuple[int, float]] = {}
    for record in begun:
        if not record.ours or record.state.is_open:
            continue
        at, link = _instant(record, now), _between(record)
        if record.state is MigrationState.SUCCEEDED:
            strikes.pop(link, None)
        elif _link_at_fault(record) and at > max(cleared.get(host, 0.0) for host in link):
            strikes[link] = (strikes.get(link, (0, 0.0))[0] + 1, at)
    found = {}
    for (one, two), (count, at) in strikes.items():
        left = at + _quarantine_length(count, settings) - now
        if left > 0:
            detail = f"the way between {one} and {two} failed {count} times in a row, last {now - at:.0f} s ago: free in {left:.0f} s"
            found[one, two] = about_host(Code.QUARANTINED, two, detail)
    return found


def _quarantine_length(count: int, settings: GuardSettings) -> float:
    return min(settings.quarantine_max_seconds, settings.quarantine_seconds * 2.0 ** min(count - 1, 60))


def _read_only(records: Iterable[MigrationRecord], now: float, settings: GuardSettings) -> dict[str, Refusal]:
    """Sources on which libvirt denied several VMs their migration lately, whether at the call or after it."""
    denied: dict[str, dict[str, float]] = {}
    for record in {r.id: r for r in records}.values():
        if record.state not in (MigrationState.FAILED, MigrationState.ABANDONED):
            continue
        at = _instant(record, now)
        if record.reason.startswith(Code.RIGHTS.value) and now - at < settings.blocked_pair_seconds:
            vms = denied.setdefault(record.source, {})
            vms[record.vm_uuid] = max(at, vms.get(record.vm_uuid, at))
    found = {}
    for host, vms in denied.items():
        if len(vms) >= DENIED_VMS:
            more = settings.blocked_pair_seconds - (now - max(vms.values()))
            detail = (
                f"read-only: the right to migrate was denied for {len(vms)} of its VMs; tried again in {more:.0f} s"
            )
            found[host] = about_host(Code.RIGHTS, host, detail)
    return found
