"""May this cycle start anything at all? One function per reason; each gives a refusal or None."""

from collections.abc import Callable

from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, Refusal, about_cluster
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.windows import blackout, describe, open_window, zone

CycleCheck = Callable[[GuardContext], Refusal | None]


def warmed_up(ctx: GuardContext) -> Refusal | None:
    """Rates need several samples."""
    return about_cluster(Code.WARMING_UP, "not enough samples yet") if ctx.snapshot.warming_up else None


def telemetry_sane(ctx: GuardContext) -> Refusal | None:
    """A cluster-wide jump of all loads is a fault of the telemetry until proven otherwise."""
    frozen = ctx.snapshot.frozen
    return None if frozen is None else about_cluster(Code.TELEMETRY_INSANE, frozen)


def cluster_visible(ctx: GuardContext) -> Refusal | None:
    """Enough hosts must be usable; hosts the operator set to observe, or that carry nothing and sleep or rise, do not count."""
    snapshot = ctx.snapshot
    risen = [h for h in snapshot.hosts if h.usable or h.name not in ctx.away or snapshot.vms_on[h.name]]
    hosts = [h for h in risen if h.mode is not HostMode.OBSERVE]
    if not hosts:
        return about_cluster(Code.CLUSTER_PARTLY_UNKNOWN, "no host takes part")
    unusable = [h for h in hosts if not h.usable]
    if len(unusable) / len(hosts) <= ctx.unknown_share_max:
        return None
    named = ", ".join(f"{h.name!r} ({h.unusable or 'facts unknown'})" for h in unusable[:4])
    detail = f"{len(unusable)} of {len(hosts)} hosts are not usable, limit {ctx.unknown_share_max:.0%}: {named}"
    return about_cluster(Code.CLUSTER_PARTLY_UNKNOWN, detail)


def lease_held(ctx: GuardContext) -> Refusal | None:
    """Only the controller that holds the lease may start."""
    return (
        None if ctx.lease_held else about_cluster(Code.LEASE_LOST, "another controller holds the lease, or nobody does")
    )


def not_paused(ctx: GuardContext) -> Refusal | None:
    """No pause by command (which may have an end) or by file."""
    if ctx.pause_reason is not None:
        return about_cluster(Code.PAUSED, ctx.pause_reason)
    command = ctx.operator.paused
    if command is None or (command.until is not None and command.until <= ctx.now):
        return None
    return about_cluster(Code.PAUSED, f"paused by {command.by!r}: {command.reason or 'no reason given'}")


def breaker_closed(ctx: GuardContext) -> Refusal | None:
    """The breaker stays open until an operator closes it."""
    reason = ctx.memory.breaker.reason
    return None if reason is None else about_cluster(Code.BREAKER_OPEN, reason)


def nothing_doubled(ctx: GuardContext) -> Refusal | None:
    """No VM runs on two hosts, whatever the breaker says."""
    twice = ctx.snapshot.doubled
    if not twice:
        return None
    named = ", ".join(f"{ctx.snapshot.vm(d.vm_uuid).name!r} on {' and '.join(d.hosts)}" for d in twice[:4])
    return about_cluster(Code.DUPLICATE_VM, f"running on several hosts at once: {named}")


def no_blackout(ctx: GuardContext) -> Refusal | None:
    """No blackout now. An unknown zone forbids, if there is any blackout."""
    try:
        on = blackout(ctx.settings.blackouts, zone(ctx.settings.timezone), ctx.now) if ctx.settings.blackouts else None
    except ValueError as error:
        return about_cluster(Code.BLACKOUT, str(error))
    return None if on is None else about_cluster(Code.BLACKOUT, f"blackout {describe(on)} {ctx.settings.timezone}")


def in_window(ctx: GuardContext) -> Refusal | None:
    """Some window is open, if any is set."""
    windows = ctx.settings.windows
    try:
        if not windows or open_window(windows, zone(ctx.settings.timezone), ctx.now) is not None:
            return None
    except ValueError as error:
        return about_cluster(Code.OUTSIDE_WINDOW, str(error))
    named = "; ".join(describe(w) for w in windows[:4])
    return about_cluster(Code.OUTSIDE_WINDOW, f"no window is open; windows: {named} {ctx.settings.timezone}")


CYCLE_CHECKS: tuple[CycleCheck, ...] = (
    warmed_up,
    telemetry_sane,
    cluster_visible,
    lease_held,
    not_paused,
    nothing_doubled,
    breaker_closed,
    no_blackout,
)
"""Checks that hold for every policy."""

WINDOW_CHECKS: tuple[CycleCheck, ...] = (in_window,)
"""Checks that a drain, an operator's command, ignores."""
