"""The checks of one step: each gives the reason why it may not start now, or None."""

from collections.abc import Callable
from dataclasses import dataclass

from rebalancerd.cluster.decision import Command
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import HostMode, Mode, stricter
from rebalancerd.cluster.refusal import Code, Refusal, about_cluster, about_host, about_plan, about_vm
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.hold import held

UNHURRIED = ("consolidate", "rebalance", "unfold")  # policies that move VMs off hosts that are not hot
ALL_STEPS = 0
CLOCK_TOLERANCE_SECONDS = 60.0  # within a cycle the clock may be corrected a little


@dataclass(frozen=True, slots=True)
class Ask:
    """May this step of this plan start in this context?"""

    ctx: GuardContext
    plan: Plan
    step: Step


StepCheck = Callable[[Ask], Refusal | None]


# the plan


def not_expired(ask: Ask) -> Refusal | None:
    """The plan is not past its expiry, nor from the future (a clock that stepped)."""
    plan, now = ask.plan, ask.ctx.now
    if not now < plan.expires_at:  # NaN is expired
        return about_plan(Code.PLAN_EXPIRED, plan.id, f"expired {now - plan.expires_at:.0f} s ago")
    if not plan.created_at <= now + CLOCK_TOLERANCE_SECONDS:
        return about_plan(
            Code.PLAN_EXPIRED, plan.id, f"made {plan.created_at - now:.0f} s in the future: clock stepped"
        )
    return None


def facts_unchanged(ask: Ask) -> Refusal | None:
    """Every fact the step relied on is as it was."""
    if ask.ctx.stale is None:
        return about_plan(Code.PLAN_STALE, ask.plan.id, f"facts of step {ask.step.number} were not compared")
    return about_plan(Code.PLAN_STALE, ask.plan.id, "; ".join(ask.ctx.stale[:4])) if ask.ctx.stale else None


def not_used(ask: Ask) -> Refusal | None:
    """A step starts once, and an approval is used once."""
    if (ask.plan.id, ask.step.number) in ask.ctx.used_steps:
        return about_plan(Code.PLAN_STALE, ask.plan.id, f"step {ask.step.number} was started already")
    return None


def earlier_waves_done(ask: Ask) -> Refusal | None:
    """Every step of every earlier wave has succeeded: later waves rely on where they left the VMs."""
    done = ask.ctx.memory.succeeded_steps
    open_steps = [s.number for s in ask.plan.steps if s.wave < ask.step.wave and (ask.plan.id, s.number) not in done]
    if not open_steps:
        return None
    return about_plan(Code.EARLIER_WAVE, ask.plan.id, f"steps {open_steps} of earlier waves have not succeeded")


# modes and approvals


def mode_allows(ask: Ask) -> Refusal | None:
    """The stricter of the cluster's and the VM's mode is one that moves."""
    if not ask.ctx.mode.may_act:
        return about_cluster(Code.CLUSTER_MODE, f"mode {ask.ctx.mode} only proposes")
    vm = ask.ctx.snapshot.vm_by_uuid.get(ask.step.move.vm_uuid)
    if vm is not None and not stricter(ask.ctx.mode, vm.policy.mode).may_act:
        return about_vm(Code.VM_MODE, vm.uuid, f"this VM's mode is {vm.policy.mode}")
    return None


def approved(ask: Ask) -> Refusal | None:
    """Nobody rejected the step since it was last approved; in guarded mode somebody with a name approved it."""
    operator, vm = ask.ctx.operator, ask.ctx.snapshot.vm_by_uuid.get(ask.step.move.vm_uuid)
    guarded = stricter(ask.ctx.mode, vm.policy.mode if vm else None) is Mode.GUARDED
    if not guarded and not (operator.approved or operator.applied or operator.rejected):
        return None  # a digest reads the whole plan: for every step of a large one that takes minutes
    digest = ask.plan.digest
    mine = [
        c for c in operator.approved + operator.applied if c.by and _covers(c, digest, ask.step.number, ask.ctx.now)
    ]
    against = [c for c in operator.rejected if _covers(c, digest, ask.step.number, ask.ctx.now)]
    last, veto = _latest(mine), _latest(against)
    if veto is not None and (last is None or last.id < veto.id):
        return about_plan(
            Code.REJECTED, ask.plan.id, f"step {ask.step.number} rejected by {veto.by!r}: {veto.reason or 'no reason'}"
        )
    if not guarded or last is not None:
        return None
    return about_plan(Code.NOT_APPROVED, ask.plan.id, f"step {ask.step.number} waits for approval (digest {digest})")


def _covers(command: Command, digest: str, step: int, now: float) -> bool:
    """Whether a command speaks of that step of the plan of that digest, and still counts."""
    in_time = command.until is None or command.until > now
    return command.digest == digest and command.step in (None, ALL_STEPS, step) and in_time


def _latest(commands: list[Command]) -> Command | None:
    return max(commands, key=lambda c: c.id, default=None)


# the VM and the hosts as they are now


def vm_on_source(ask: Ask) -> Refusal | None:
    """The VM is there, runs, is ours to move and stands on the source."""
    move = ask.step.move
    vm = ask.ctx.snapshot.vm_by_uuid.get(move.vm_uuid)
    if vm is None:
        return about_vm(Code.VM_GONE, move.vm_uuid, f"{move.vm_name!r} is not in the cluster")
    if vm.host != move.source:
        return about_vm(Code.NOT_ON_SOURCE, vm.uuid, f"runs on {vm.host!r}, not on {move.source!r}", move.destination)
    if not vm.state.is_running:
        return about_vm(Code.VM_NOT_RUNNING, vm.uuid, f"is {vm.state}")
    owner = vm.owner or vm.facts.owner
    if owner is not None:
        return about_vm(Code.FOREIGN_OWNER, vm.uuid, f"belongs to {owner.name!r} ({owner.evidence})")
    return None


def vm_idle(ask: Ask) -> Refusal | None:
    """No migration of the VM is under way, ours or foreign, nor any other job."""
    job = ask.ctx.under_way().get(ask.step.move.vm_uuid)
    if job is not None:
        whose = "ours" if job.ours else "somebody else's"
        return about_vm(
            Code.VM_BUSY, job.vm_uuid, f"a migration from {job.source!r} to {job.destination!r} runs ({whose})"
        )
    vm = ask.ctx.snapshot.vm_by_uuid.get(ask.step.move.vm_uuid)
    return about_vm(Code.VM_BUSY, vm.uuid, f"busy: {vm.busy}") if vm is not None and vm.busy else None


def hosts_usable(ask: Ask) -> Refusal | None:
    """Both hosts have fresh, sane figures and take part; the destination takes VMs."""
    for name in (ask.step.move.source, ask.step.move.destination):
        host = ask.ctx.snapshot.host_by_name.get(name)
        if host is None:
            return about_host(Code.HOST_UNREACHABLE, name, "is not among the hosts")
        if not host.usable:
            return about_host(Code.HOST_STALE, name, host.unusable or "facts unknown")
        if host.mode is HostMode.OBSERVE:
            return about_host(Code.HOST_MODE, name, f"mode {host.mode}")
    target = ask.ctx.snapshot.host(ask.step.move.destination)
    if target.mode is not HostMode.ACTIVE:
        return about_host(Code.HOST_MODE, target.name, f"mode {target.mode}: takes no VMs")
    if target.name in ask.ctx.operator.drained:
        return about_host(Code.HOST_MODE, target.name, "is being drained: takes no VMs")
    if target.name == ask.step.move.source:
        return about_vm(Code.SAME_HOST, ask.step.move.vm_uuid, f"is on {target.name!r} already")
    return None


def hosts_untroubled(ask: Ask) -> Refusal | None:
    """No migration of ours that is stuck or out of sight touches either host."""
    ends = {ask.step.move.source, ask.step.move.destination}
    for record in ask.ctx.active:
        troubled = record.state in (MigrationState.STUCK, MigrationState.UNOBSERVED)
        if troubled and ends & {record.source, record.destination}:
            host = min(ends & {record.source, record.destination})
            return about_host(Code.HOST_CAP, host, f"migration {record.id} is {record.state}: nothing new on its hosts")
    return None


def not_quarantined(ask: Ask) -> Refusal | None:
    """Neither destination nor link is in quarantine, the source may be written to, libvirt did not refuse this VM there."""
    memory, move = ask.ctx.memory, ask.step.move
    one, two = sorted((move.source, move.destination))
    return (
        memory.quarantined.get(move.destination)
        or memory.links.get((one, two))
        or memory.read_only.get(move.source)
        or memory.blocked_pairs.get((move.vm_uuid, move.destination))
    )


# caps


def caps_left(ask: Ask) -> Refusal | None:
    """Caps of both hosts, the cluster and the hour, over all that is under way, foreign migrations included.

    A migration whose destination is not known counts as inbound on every host but its source.
    """
    jobs, limits, move = list(ask.ctx.under_way().values()), ask.ctx.settings, ask.step.move
    out = sum(job.source == move.source for job in jobs)
    if out >= limits.out_per_host:
        return about_host(Code.HOST_CAP, move.source, f"{out} outgoing, cap {limits.out_per_host}")
    to = move.destination
    inbound = sum(job.destination == to or (job.destination is None and job.source != to) for job in jobs)
    if inbound >= limits.in_per_host:
        return about_host(Code.HOST_CAP, to, f"{inbound} incoming, cap {limits.in_per_host}")
    if len(jobs) >= limits.per_cluster:
        return about_cluster(Code.CLUSTER_CAP, f"{len(jobs)} under way, cap {limits.per_cluster}")
    hour = ask.ctx.starts_last_hour()
    if hour >= limits.per_hour:
        return about_cluster(Code.HOURLY_CAP, f"{hour} begun within the last hour, cap {limits.per_hour}")
    return None


# what a drain ignores


def long_enough_hot(ask: Ask) -> Refusal | None:
    """The reason for the move has held for enough rounds. Off a host that is not hot, by a policy that does that, none is needed."""
    if ask.plan.policy in UNHURRIED and ask.step.move.source not in ask.plan.hot_hosts:
        return None
    rounds = held(ask.ctx.holds, ask.step.move.source, ask.plan.hot_hosts)
    if rounds >= ask.ctx.settings.hold_rounds:
        return None
    return about_host(
        Code.HOLD, ask.step.move.source, f"hot for {rounds} rounds, {ask.ctx.settings.hold_rounds} needed"
    )


def rested(ask: Ask) -> Refusal | None:
    """The VM's cooldown is over."""
    return ask.ctx.memory.resting.get(ask.step.move.vm_uuid)


def not_reverse(ask: Ask) -> Refusal | None:
    """The move does not undo one of the VM's last moves."""
    return ask.ctx.memory.tabu_pairs.get((ask.step.move.vm_uuid, ask.step.move.destination))


def gains_enough(ask: Ask) -> Refusal | None:
    """The plan lowers the score, by at least the minimum share of what its own moves can change.

    One step may only make room for another, so the plan counts as a whole; but hosts that no move can relieve do not
    make a good move small, so the share is taken of the score without what remains after the plan.
    """
    before, gain = ask.plan.before.total, ask.plan.before.total - ask.plan.after.total
    relieved = gain + max(0.0, ask.plan.after.cost)
    if before > 0 and gain > 0 and gain >= ask.ctx.settings.min_gain * relieved:
        return None
    share = f"{gain / relieved:.1%}" if relieved > 0 else "nothing"
    return about_plan(
        Code.GAIN_TOO_SMALL,
        ask.plan.id,
        f"gains {share} of what it relieves once its cost is paid, {ask.ctx.settings.min_gain:.1%} needed",
    )


def pays_back(ask: Ask) -> Refusal | None:
    """The step repays its cost in time; one without a payback of its own needs another step of the plan that has one."""
    limit = ask.ctx.settings.payback_max_seconds
    mine = ask.step.move.payback_seconds
    told = [mine] if mine is not None else [p for s in ask.plan.steps if (p := s.move.payback_seconds) is not None]
    if told and min(told) <= limit:
        return None
    detail = f"repays after {min(told):.0f} s, limit {limit:.0f} s" if told else "never repays its cost"
    return about_vm(Code.PAYBACK_TOO_LONG, ask.step.move.vm_uuid, detail, ask.step.move.destination)


STEP_CHECKS: tuple[StepCheck, ...] = (
    not_expired,
    facts_unchanged,
    not_used,
    vm_on_source,
    vm_idle,
    hosts_usable,
    hosts_untroubled,
    not_quarantined,
    earlier_waves_done,
    mode_allows,
    approved,
    caps_left,
)
REST_CHECKS: tuple[StepCheck, ...] = (long_enough_hot, rested, not_reverse, gains_enough, pays_back)
