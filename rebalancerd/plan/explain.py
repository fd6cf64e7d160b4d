"""Why a hot host keeps its VMs, and how a host looks, in words and refusals."""

from collections.abc import Callable
from functools import partial
from math import isnan

import numpy as np

from rebalancerd.cluster.plan import Alternative
from rebalancerd.cluster.refusal import Code, Refusal, about_host, about_vm
from rebalancerd.plan import soft
from rebalancerd.plan.aggregate import grouped, tally
from rebalancerd.plan.constraints import check_unit
from rebalancerd.plan.costbook import Priced
from rebalancerd.plan.deferral import awaited
from rebalancerd.plan.options import downtime_limit, options, told
from rebalancerd.plan.relief import unready, useless, worth_it
from rebalancerd.plan.search import Candidate, Search, Unit
from rebalancerd.plan.state import PlacementState, triggers
from rebalancerd.plan.vetoes import may_not_converge, may_take_too_long
from rebalancerd.plan.wording import listed, percent, shown, span

EXAMINED = 8  # VMs of one host whose every destination is gone through
EXAMINED_PAIRS = 2000  # and pairs in one plan: reasons must not cost more than the search
ALTERNATIVES = 3

Judge = Callable[[Candidate], Refusal | None]


def pressure(state: PlacementState, host: int) -> str:
    """E.g. "h1 is at 96 % CPU (headroom 80 %), p95 110 % within 30 min"; the resource nearer to its headroom."""
    (cpu, memory), settings = state.relative(host), state.settings
    rows = [("CPU", cpu, settings.cpu_headroom), ("memory", memory, settings.memory_headroom)]
    known = [row for row in rows if not isnan(row[1][1])]
    if not known:
        return f"{shown(state.hosts[host].name)} has an unknown capacity"
    label, (now, peak), headroom = max(known, key=lambda row: max(row[1]) / row[2])
    horizon = span(state.demand.steps * state.demand.step_seconds)
    return (
        f"{shown(state.hosts[host].name)} is at {percent(now)} {label} (headroom {percent(headroom)}), "
        f"p{settings.quantile * 100:.0f} {percent(peak)} within {horizon}"
    )


def contention(state: PlacementState, host: int) -> str:
    """What is already felt on a hotspot besides its figures, "" if nothing."""
    felt = sorted({h.contention for h in triggers(state.inputs) if h.host == state.hosts[host].name and h.contention})
    return f"; contention: {', '.join(map(shown, felt))}" if felt else ""


def hottest(state: PlacementState) -> str:
    """The pressure of the host nearest to its headroom, of those whose figures can be trusted."""
    settings = state.settings

    def closeness(host: int) -> float:
        cpu, memory = state.relative(host)
        return float(
            np.nan_to_num(max(max(cpu) / settings.cpu_headroom, max(memory) / settings.memory_headroom), nan=-1)
        )

    if not state.hosts:
        return "there are no hosts"
    known = [h for h, host in enumerate(state.hosts) if host.usable] or range(len(state.hosts))
    return pressure(state, max(known, key=lambda h: (closeness(h), -h)))


def unknown_hosts(state: PlacementState) -> str:
    """The hosts of which nothing can be said, as the end of a sentence; empty if there are none."""
    names = [shown(host.name) for host in state.hosts if not host.usable]
    return f"; nothing is known of {listed(names)}" if names else ""


def unit_refusals(search: Search, unit: tuple[int, ...], judge: Judge) -> list[Refusal]:
    """Each destination's refusal of a unit; where no constraint refuses, what ``judge`` has against it."""
    state, found = search.state, []
    rows = Unit.of(state, unit)
    relief = search.relief_at_source(rows)
    for h in range(len(state.hosts)):
        if h in rows.sources:
            continue
        search.explained += 1
        refusal = check_unit(state, unit, h)
        if refusal is None:
            gains = search.objective.imbalance_gain(rows.sources, np.array([h]))
            scored = search.scored(rows, np.array([h]), gains, relief)
            refusal = judge(scored[0]) if scored else None
        found.append(refusal or _not_chosen(state, unit, h))
    return found or [no_other_host(state, unit[0])]


def no_other_host(state: PlacementState, vm: int) -> Refusal:
    """The refusal of a VM whose host is the only one."""
    guest = state.vms[vm]
    return about_vm(
        Code.NO_DESTINATION, guest.uuid, f"{shown(guest.name)}: there is no other host than {shown(guest.host)}"
    )


def _not_chosen(state: PlacementState, unit: tuple[int, ...], host: int) -> Refusal:
    """A possible move that the plan leaves out: only the bounds of the plan can be the reason."""
    vm, settings = state.vms[unit[0]], state.settings
    bounds = f"{settings.max_moves} moves or {settings.work_budget} evaluations"
    detail = f"{shown(vm.name)}: possible, but one plan is bounded to {bounds}"
    return about_vm(Code.CLUSTER_CAP, vm.uuid, detail, state.hosts[host].name)


def why_still_hot(search: Search, host: int) -> tuple[Refusal, ...]:
    """For a host that the plan leaves hot: its VMs' refusals, counted and grouped, under one that sums them up."""
    state, found, useful = search.state, [], []
    here = state.settled_on(host)
    done: set[int] = set()
    for v in here:
        if v in done:
            continue
        unit = state.groups.unit(v, here)
        done.update(unit)
        refusal = unready(state, unit)
        if refusal is None:
            rows = Unit.of(state, unit)
            relief = search.relief_at_source(rows)
            refusal = useless(search, rows, relief)
            if refusal is None:
                useful.append((-relief, unit))
        if refusal is not None:
            found.append(refusal)
    examined = 0
    for _, unit in sorted(useful)[:EXAMINED]:
        if search.explained >= EXAMINED_PAIRS:
            break
        found += unit_refusals(search, unit, partial(worth_it, search))
        examined += 1
    left = len(useful) - examined
    more = f"; {left} more were not gone through one by one" if left > 0 else ""
    reasons = tally(found) or ("no destination has room" if useful else "it has no VMs")
    summary = (
        f"{pressure(state, host)}{contention(state, host)}; none of its {len(here)} VMs can relieve it: "
        f"{reasons}{awaited(state, found)}{more}"
    )
    return (about_host(Code.NO_DESTINATION, state.hosts[host].name, summary), *grouped(found))


def unusual_options(state: PlacementState, unit: tuple[int, ...], destination: int) -> str:
    """Which VMs of a move run with other than the usual options and why, as the end of a sentence; empty if none does."""
    return "".join(unusual(state, v, state.costs.priced(v, destination)) for v in unit)


def unusual(state: PlacementState, vm: int, priced: Priced) -> str:
    """The same of one VM and a move of it that was priced already."""
    settings, guest = state.settings, state.vms[vm]
    if priced.vetoed is None:
        return ""
    usual, cost = options(guest, settings), priced.vetoed
    if may_not_converge(cost, settings):
        trouble = f"it may not converge (probability up to {percent(cost.non_convergence.upper)})"
    elif may_take_too_long(cost, settings):
        trouble = f"it may take {span(cost.seconds.upper)}, limit {span(settings.max_migration_seconds)}"
    else:
        limit = span(downtime_limit(guest, settings))
        trouble = f"its downtime may be {span(cost.downtime_seconds.upper)}, limit {limit}"
    given = told(priced.candidate.options, usual)
    return (
        f"; {shown(guest.name)} is allowed {given}, for with {span(usual.max_downtime_seconds)} of downtime {trouble}"
    )


def alternatives(search: Search, taken: Candidate, others: list[Candidate]) -> tuple[Alternative, ...]:
    """The next best candidates that were evaluated beside the one taken."""
    ranked = sorted(others, key=lambda c: (-c.gain, c.unit.vms, c.destination))
    base = search.objective.score().total
    return tuple(
        Alternative(
            vm_uuid=search.state.vms[c.unit.vms[0]].uuid,
            vm_name=search.state.vms[c.unit.vms[0]].name,
            destination=search.state.hosts[c.destination].name,
            score=base - c.gain,
            reason=f"gains {c.gain:.0f} core-s, {_compared(taken.gain - c.gain)}: relieves {c.relief:.0f}, costs {c.cost:.0f}"
            f"{soft.told(search.state, c.unit.vms, c.destination)}",
        )
        for c in ranked[:ALTERNATIVES]
    )


def _compared(less: float) -> str:
    """E.g. "3 less"; "2 more" for one that is left out for the wishes it breaks."""
    return f"{less:.0f} less" if less >= 0 else f"{-less:.0f} more"
