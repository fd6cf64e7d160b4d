"""N+1: any one host may die and its VMs find room on the others; moves that would end that are refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import Disk, DiskKind, Vm
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.balance import balance
from rebalancerd.plan.constraints import check
from rebalancerd.plan.drain import drain
from rebalancerd.plan.figures import GRANTED
from rebalancerd.plan.n_plus_one import SpareRoom, n_plus_one, spare_room
from rebalancerd.plan.rules_fit import RULES as FIT_RULES
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.state import PlacementState
from tests.property.test_plan_counted_properties import counted_inputs
from tests.unit.plan.plan_cluster import host, inputs_of, vm


def state_of(hosts: object, vms: object, mode: str = "memory", **changes: Any) -> PlacementState:
    return PlacementState(inputs_of(hosts, vms, settings=PlanSettings(n_plus_one=mode, **changes)))  # type: ignore[arg-type]


def given_gib(name: str, on: str, gib: float, **changes: Any) -> Vm:
    """A VM that was given that much and uses one GiB and hardly any CPU."""
    return vm(name, on, 0.1, 1.0, facts={"memory_bytes": int(gib * GIB)}, **changes)


def short(state: PlacementState) -> list[float]:
    """GiB of each host's VMs that would find no room."""
    spare = spare_room(state)
    assert spare is not None
    spare.follow(state)
    return [way.short / GIB for way in spare.ways]


HOSTS = (host("h1"), host("h2"), host("h3"))  # 64 GiB each


def test_nothing_is_asked_unless_it_is_switched_on() -> None:
    state = state_of(HOSTS[:2], (given_gib("a", "h1", 40), given_gib("b", "h2", 40)), mode="off")

    assert spare_room(state) is None
    assert n_plus_one(Ask(state, 0, 1, (0,))) is None


def test_a_move_after_which_a_host_could_no_longer_die_is_refused() -> None:
    """With d on h3 the 40 GiB of h1, or those of h2, fit nowhere else."""
    vms = (given_gib("a", "h1", 40), given_gib("b", "h2", 40), given_gib("c", "h3", 20), given_gib("d", "h1", 24))
    state = state_of(HOSTS, vms)
    assert short(state) == [0, 0, 0]

    told = check(state, 3, 2)
    assert told is not None
    assert (told.code, told.detail) == (
        Code.N_PLUS_ONE,
        "d: h1 could not die afterwards: 1 of its VMs (40.0 GiB) would find no room on the others (now all do)",
    )
    assert check(state_of(HOSTS, vms, mode="off"), 3, 2) is None
    assert check(state, 2, 1) is None  # h3 is empty then and takes whatever dies


def test_balance_relieves_a_host_where_all_may_still_die() -> None:
    """The idlest host, h3, has what is free for 40 GiB in one piece."""
    hosts = (host("h1", 8), host("h2", 8), host("h3", 8))
    vms = (
        vm("a", "h1", 3.5, 1.0, facts={"memory_bytes": 40 * GIB}, policy=VmPolicy(pin=frozenset({"h1"}))),
        vm("d", "h1", 3.5, 1.0, facts={"memory_bytes": 24 * GIB}),
        vm("b", "h2", 0.5, 1.0, facts={"memory_bytes": 40 * GIB}),
        given_gib("c", "h3", 20),
    )

    def plan(mode: str) -> list[str]:
        made = balance(inputs_of(hosts, vms, settings=PlanSettings(n_plus_one=mode)))
        return [s.move.destination for s in made.steps]

    assert plan("off") == ["h3"]
    assert plan("memory") == ["h2"]


def test_a_cluster_that_cannot_lose_a_host_is_not_frozen() -> None:
    """What makes the worst no worse is allowed, what makes something worse than the worst is not."""
    hosts = (*HOSTS, host("h4", mode=HostMode.NO_INBOUND))
    vms = (given_gib("a", "h1", 40), given_gib("b", "h2", 40), given_gib("c", "h3", 30), given_gib("x", "h4", 25))
    state = state_of(hosts, vms)
    assert short(state) == [40, 40, 30, 0]

    told = check(state, 3, 2)
    assert told is not None
    assert told.detail == (
        "x: h3 could not die afterwards: 2 of its VMs (55.0 GiB) would find no room on the others (now 30.0 GiB)"
    )
    small = state_of(hosts, (*vms[:3], given_gib("x", "h4", 20)))
    assert check(small, 3, 2) is None


def test_what_no_other_host_may_run_is_not_counted() -> None:
    local = Disk(target="vda", kind=DiskKind.FILE, source="/var/lib/a.img", writable=True)
    vms = (
        vm("a", "h1", 0.1, 1.0, facts={"memory_bytes": 64 * GIB, "disks": (local,)}),
        given_gib("b", "h2", 60),
        given_gib("c", "h1", 1, policy=VmPolicy(pin=frozenset({"h1"}))),
    )

    assert short(state_of(HOSTS, vms)) == [0, 0, 0]


@pytest.mark.parametrize("mode", [HostMode.NO_INBOUND, HostMode.DRAIN, HostMode.OBSERVE, HostMode.QUARANTINED])
def test_hosts_that_take_nothing_in_are_no_spare_room(mode: HostMode) -> None:
    hosts = (host("h1"), host("h2"), host("h3", mode=mode))

    assert short(state_of(hosts, (given_gib("a", "h1", 40), given_gib("b", "h2", 40)))) == [40, 40, 0]


def test_members_of_a_group_that_stays_apart_need_a_host_each() -> None:
    apart = VmPolicy(anti_affinity=frozenset({"db"}))
    vms = [given_gib(f"v{i}", f"h{i}", 1, policy=apart) for i in (1, 2, 3)]

    assert short(state_of(HOSTS, vms)) == [1, 1, 1]
    assert short(state_of((*HOSTS, host("h4")), vms)) == [0, 0, 0, 0]


def test_what_is_bound_together_is_started_together() -> None:
    bound = VmPolicy(affinity=frozenset({"web"}))
    vms = (
        *(given_gib(f"v{i}", "h1", 20, policy=bound) for i in (1, 2)),
        given_gib("b", "h2", 40),
        given_gib("c", "h3", 40),
    )

    assert short(state_of(HOSTS, vms)) == [40, 40, 40]
    assert short(state_of(HOSTS, [replace(v, policy=VmPolicy()) for v in vms])) == [0, 40, 40]


def test_cpu_counts_where_it_is_asked_for() -> None:
    hosts = (host("h1", 8), host("h2", 8))
    vms = (vm("a", "h1", 5.0, 1.0), vm("b", "h2", 5.0, 1.0))

    assert short(state_of(hosts, vms)) == [0, 0]
    assert short(state_of(hosts, vms, mode="memory_and_cpu")) == [1, 1]
    told = n_plus_one(
        Ask(state_of((*hosts, host("h3", 8)), (*vms, vm("c", "h3", 2.9, 1)), "memory_and_cpu"), 2, 0, (2,))
    )
    assert told is None  # h3 is empty then


def test_a_drain_leaves_what_the_others_could_not_lose() -> None:
    vms = (given_gib("a", "h1", 30), given_gib("b", "h2", 30), given_gib("c", "h3", 30))
    inputs = inputs_of(HOSTS, vms, settings=PlanSettings(n_plus_one="memory"))
    plan = drain(inputs, ["h1"])

    assert plan.steps == ()
    assert Code.N_PLUS_ONE in [r.code for r in plan.refusals]
    assert len(drain(replace(inputs, settings=PlanSettings()), ["h1"]).steps) == 1


def valid(state: PlacementState, spare: SpareRoom) -> list[str]:
    """What is wrong with the ways out, by plain sums over the placement they are for."""
    found = []
    active = [v for v in range(len(state.vms)) if state.demand.active[v]]
    place = {v: int(state.place[v]) if state.place[v] >= 0 else state.host_index[state.vms[v].host] for v in active}
    need = state.figures.need[GRANTED]
    for f, way in enumerate(spare.ways):
        goes = {v: h for block, h in way.goes.items() for v in block}
        left = {v for block in way.left for v in block}
        if not {v for v in active if place[v] == f} >= goes.keys() | left or goes.keys() & left:
            found.append(f"h{f}: not its VMs")
        after = {**{v: h for v, h in place.items() if h != f}, **goes}
        for h in set(goes.values()):
            granted = sum(need[v] for v, where in after.items() if where == h) + state.figures.own[h]
            used = sum(state.demand.hard_memory[v] for v, where in after.items() if where == h) + state.figures.own[h]
            if granted > state.figures.limit[GRANTED, h] * (1 + 1e-6) or used > state.capacity_memory[h] * (1 + 1e-6):
                found.append(f"h{f}: no room on {h}")
        for v, h in goes.items():
            group = state.vms[v].policy.anti_affinity
            clash = [w for w, at in after.items() if w != v and at == h and group & state.vms[w].policy.anti_affinity]
            if clash and group and any(w in goes or state.vms[w].policy.anti_affinity for w in clash):
                found.append(f"h{f}: group")
            home = state.host_index[state.vms[v].host]
            if h != home and any(rule(Ask(state, v, h, (v,))) for rule in FIT_RULES):
                found.append(f"h{f}: {v} does not fit {h}")
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from(["memory", "memory_and_cpu"]))
@settings(max_examples=60, deadline=None)
def test_every_way_out_is_a_real_one_whatever_has_moved(seed: int, mode: str) -> None:
    rng = np.random.default_rng(seed)
    inputs = counted_inputs(seed, 0.3)
    inputs = replace(inputs, settings=replace(inputs.settings, n_plus_one=mode))
    state = PlacementState(inputs)
    spare = spare_room(state)
    assert spare is not None
    assert valid(state, spare) == []
    for _ in range(6):
        if state.vms and len(state.hosts) > 1:
            v = int(rng.integers(len(state.vms)))
            if state.place[v] >= 0:
                state.apply(v, int(rng.integers(len(state.hosts))))
        spare.follow(state)
        assert valid(state, spare) == []


@given(st.integers(0, 2**32 - 1), st.sampled_from(["memory", "memory_and_cpu"]))
@settings(max_examples=60, deadline=None)
def test_no_plan_takes_from_a_host_the_way_out_that_it_had(seed: int, mode: str) -> None:
    inputs = counted_inputs(seed, 0.1)
    inputs = replace(inputs, settings=replace(inputs.settings, n_plus_one=mode))
    for plan in (balance(inputs), drain(inputs, [inputs.snapshot.hosts[-1].name])):
        state = PlacementState(inputs)
        spare = spare_room(state)
        assert spare is not None
        worst = spare.worst
        for step in plan.steps:
            before = [way.short for way in spare.ways]
            state.apply(state.vm_index[step.move.vm_uuid], state.host_index[step.move.destination])
            spare.follow(state)
            if plan.policy == "balance":
                assert all(w.short == 0 or b or w.short <= worst for w, b in zip(spare.ways, before, strict=True))
            assert max(w.short for w in spare.ways) <= max(worst, 0.0) * (1 + 1e-6) or plan.policy == "drain"
