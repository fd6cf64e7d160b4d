"""What is said of a VM that no allowed options let move now: what it dirties, what was tried, and when it is quieter."""

from collections.abc import Iterable

from rebalancerd.cluster.demand import sane
from rebalancerd.cluster.quiet import NoQuietHour, QuietHour, QuietSpell, present_dirty_rate
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.costbook import link_share
from rebalancerd.plan.options import others
from rebalancerd.plan.state import PlacementState
from rebalancerd.plan.wording import listed, shown, size, span

DEFERRED = frozenset({Code.WILL_NOT_CONVERGE, Code.COST_TOO_HIGH})


def dirtying(ask: Ask) -> str:
    """What the VM dirties now against what the link carries, e.g. "it dirties 600 MiB/s now, the link carries 119 MiB/s"."""
    now = present_dirty_rate(ask.guest.dirty)
    dirties = "its dirty rate is not known" if now is None else f"it dirties {size(now)}/s now"
    ends = [sane(h.link_bytes_per_second) for h in (ask.source, ask.target)]
    known = [rate for rate in ends if rate is not None]
    if len(known) < len(ends):
        return f"{dirties}, what the link carries is not known"
    share = link_share(ask.state.settings)
    part = "the link" if share == 1 else "its part of the link"
    return f"{dirties}, {part} carries {size(min(known) * share)}/s at most"


def tried(ask: Ask) -> str:
    """What else was asked of the cost model in vain, e.g. "450 ms of downtime would not help, auto-converge is not allowed"."""
    longest = max(o.max_downtime_seconds for o in others(ask.guest, ask.state.settings))
    if ask.guest.policy.auto_converge:
        return f"neither {span(longest)} of downtime nor auto-converge would help"
    return f"{span(longest)} of downtime would not help, auto-converge is not allowed"


def deferral(ask: Ask) -> str:
    """When it is quieter, e.g. "deferred: its dirty rate is 3 MiB/s around 03:00 UTC (p75 of 12 days), 80 MiB/s now"."""
    outlook = ask.state.inputs.quiet.get(ask.guest.uuid)
    if outlook is None or isinstance(outlook, NoQuietHour):
        why = "no dirty rate of it is on record" if outlook is None else outlook.reason
        return f"no quiet hour is known yet: {why}"
    return f"deferred: {quieter(outlook, ask.guest)}"


def quieter(quiet: QuietSpell | QuietHour, vm: Vm) -> str:
    """When it is quiet and what the VM dirties now."""
    now = present_dirty_rate(vm.dirty)
    against = "" if now is None else f", {size(now)}/s now"
    expected = "expected to be " if isinstance(quiet, QuietSpell) else ""
    return f"its dirty rate is {expected}{least(quiet)}{against}"


def least(quiet: QuietSpell | QuietHour) -> str:
    """Its rate, when, and how that is known, e.g. "3 MiB/s in 20 min (p75, ewma)"."""
    rate = f"{size(quiet.rate_bytes_per_second)}/s"
    if isinstance(quiet, QuietSpell):
        return f"{rate} in {span(quiet.starts_in_seconds)} (p75, {quiet.basis})"
    return f"{rate} around {quiet.hour_utc:02d}:00 UTC (p75 of {quiet.seen_days} days)"


def known_quiet(state: PlacementState, vm: Vm) -> QuietSpell | QuietHour | None:
    """The quiet spell or hour of a VM, if one is known."""
    outlook = state.inputs.quiet.get(vm.uuid)
    return None if isinstance(outlook, NoQuietHour) else outlook


def awaited(state: PlacementState, refusals: Iterable[Refusal]) -> str:
    """The VMs among those refusals that are deferred until they are quiet, as the end of a sentence; empty if there are none."""
    waiting = dict.fromkeys(r.subject for r in refusals if r.code in DEFERRED and r.subject in state.vm_index)
    times = [
        f"{shown(vm.name)} {_until(quiet)}"
        for vm in (state.vms[state.vm_index[uuid]] for uuid in waiting)
        if (quiet := known_quiet(state, vm)) is not None
    ]
    return f"; deferred: {listed(times)}" if times else ""


def _until(quiet: QuietSpell | QuietHour) -> str:
    if isinstance(quiet, QuietSpell):
        return f"for about {span(quiet.starts_in_seconds)}"
    return f"to about {quiet.hour_utc:02d}:00 UTC"
