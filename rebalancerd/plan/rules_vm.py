"""Constraints on the VM alone, whatever the destination: one small function each."""

from rebalancerd.cluster.policy import HostMode, Mode
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.wording import listed, shown


def not_running(ask: Ask) -> Refusal | None:
    """Only a running VM can be migrated live; nothing is ever moved by a restart."""
    if ask.guest.state.is_running:
        return None
    return ask.refuse(Code.VM_NOT_RUNNING, f"its state is {ask.guest.state.value}, only a running VM is moved")


def busy(ask: Ask) -> Refusal | None:
    """At most one migration per VM, and none beside another job on it."""
    if ask.vm in ask.state.flying:
        return ask.refuse(Code.VM_BUSY, "a migration of it is under way")
    if ask.guest.busy is not None:
        return ask.refuse(Code.VM_BUSY, f"a job runs on it: {shown(ask.guest.busy)}")
    return None


def foreign_owner(ask: Ask) -> Refusal | None:
    """What another controller owns stays where that controller put it."""
    owner = ask.guest.owner or ask.guest.facts.owner
    if owner is None:
        return None
    return ask.refuse(Code.FOREIGN_OWNER, f"owned by {shown(owner.name)} ({shown(owner.evidence)})")


def vm_mode(ask: Ask) -> Refusal | None:
    """A VM in observe mode is watched and never proposed; the stricter modes are the guard's."""
    if ask.guest.policy.mode is Mode.OBSERVE:
        faults = ask.guest.facts.faults
        because = f": {listed(shown(fault) for fault in faults)}" if faults else ""
        return ask.refuse(Code.VM_MODE, f"its mode is observe{because}")
    return None


def immovable(ask: Ask) -> Refusal | None:
    """Passthrough devices and the like forbid a live migration."""
    causes = ask.guest.facts.immovable
    return ask.refuse(Code.IMMOVABLE, listed(shown(c) for c in causes)) if causes else None


def source_usable(ask: Ask) -> Refusal | None:
    """The figures of the host it runs on must be fit to decide on."""
    source = ask.source
    if source.usable:
        return None
    why = source.unusable or "its facts are unknown"
    return ask.refuse(Code.HOST_STALE, f"its host {shown(source.name)} is not usable: {shown(why)}")


def source_mode(ask: Ask) -> Refusal | None:
    """A host in observe mode is neither source nor destination."""
    if ask.source.mode is HostMode.OBSERVE:
        return ask.refuse(Code.HOST_MODE, f"its host {shown(ask.source.name)} is in mode observe")
    return None


RULES = (not_running, busy, foreign_owner, vm_mode, immovable, source_usable, source_mode)
