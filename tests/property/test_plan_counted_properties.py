"""What is counted (memory granted, vCPUs, huge pages, pinned CPUs, topologies) over random clusters."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.host import Host, HugePages
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.admission import Admission
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.balance import balance
from rebalancerd.plan.constraints import first
from rebalancerd.plan.drain import drain
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.rules_fit import RULES as FIT_RULES
from rebalancerd.plan.rules_host import RULES as HOST_RULES
from rebalancerd.plan.rules_place import COUNTED, anti_affinity
from rebalancerd.plan.state import PlacementState
from tests.unit.plan.plan_random import random_inputs

seeds = st.integers(0, 2**32 - 1)
PAGE = 2 * MIB


def _host(rng: np.random.Generator, made: Host) -> Host:
    pool = HugePages(size_bytes=PAGE, total=int(rng.integers(0, 2000)), free=None)
    pool = replace(pool, free=None if rng.random() < 0.5 else int(rng.integers(0, pool.total + 1)))
    if made.facts is not None:
        told = rng.random() < 0.9
        shape = [None, "t1", "t1", "t2"][int(rng.integers(4))]
        made = replace(made, facts=replace(made.facts, hugepages=(pool,) if told else None, topology=shape))
    factor = [None, None, 0.5, 2.0][int(rng.integers(4))]
    mode = HostMode.QUARANTINED if rng.random() < 0.05 else made.mode
    return replace(made, memory_overcommit=factor, mode=mode)


def _vm(rng: np.random.Generator, made: Vm) -> Vm:
    changes: list[dict[str, object]] = [
        {},
        {},
        {"memory_bytes": int(rng.integers(1, 9)) * GIB},
        {"vcpus": int(rng.integers(1, 9))},
        {"hugepage_bytes": PAGE, "memory_bytes": int(rng.integers(1, 900)) * PAGE},
        {"hugepage_bytes": 0},
        {"hugepage_bytes": GIB},
        {"host_topology": ("numatune",)},
        {"host_topology": ("vcpupin",), "pinned_cpus": frozenset(int(c) for c in rng.integers(0, 8, size=2))},
    ]
    return replace(made, facts=replace(made.facts, **changes[int(rng.integers(len(changes)))]))  # type: ignore[arg-type]


def counted_inputs(seed: int, odd: float = 0.1) -> PlanInputs:
    """A random cluster whose hosts and VMs have what these rules read."""
    inputs, rng = random_inputs(seed, odd), np.random.default_rng(seed)
    hosts = tuple(_host(rng, h) for h in inputs.snapshot.hosts)
    vms = tuple(_vm(rng, v) for v in inputs.snapshot.vms)
    limits = replace(
        inputs.settings,
        memory_overcommit=float(rng.choice([0.8, 1.0, 1.5])),
        vcpus_per_core_max=float(rng.choice([0.0, 1.0, 3.0])),
    )
    return replace(inputs, snapshot=replace(inputs.snapshot, hosts=hosts, vms=vms), settings=limits)


def faults(inputs: PlanInputs, plan: Plan) -> list[str]:
    """What the plan breaks of these rules, walked through with plain sums that share no code with the planner."""
    shot, found = inputs.snapshot, []
    where = {v.uuid: {v.host} for v in shot.vms}
    for flight in shot.in_flight:
        if flight.vm_uuid in where:
            where[flight.vm_uuid] |= {flight.destination or h.name for h in shot.hosts} & set(shot.host_by_name)
    waves = defaultdict(list)
    for step in plan.steps:
        waves[step.wave].append(step.move)
        vm, here, there = (
            shot.vm(step.move.vm_uuid),
            shot.host(step.move.source).facts,
            shot.host(step.move.destination).facts,
        )
        if vm.facts.host_topology and not (here and there and here.topology and here.topology == there.topology):
            found.append(f"{vm.name}: topology")
    for _, moves in sorted(waves.items()):
        for move in moves:
            where[move.vm_uuid].add(move.destination)
        for name in {move.destination for move in moves}:
            target = shot.host(name)
            there_now = [v for v in shot.vms if name in where[v.uuid] and v.state.is_active]
            factor = target.memory_overcommit or inputs.settings.memory_overcommit
            granted = sum(v.facts.memory_bytes for v in there_now if v.facts.hugepage_bytes is None)
            if granted > factor * (target.capacity_memory_bytes or 0) * (1 + 1e-6):
                found.append(f"{name}: memory granted")
            cap = inputs.settings.vcpus_per_core_max
            vcpus = sum(v.facts.vcpus for v in there_now)
            if cap and vcpus > cap * ((target.cores or 0) - target.reserved_cores) + 1e-6:
                found.append(f"{name}: vCPUs")
            pages = sum(v.facts.memory_bytes // PAGE for v in there_now if v.facts.hugepage_bytes == PAGE)
            arrived = any(shot.vm(m.vm_uuid).facts.hugepage_bytes == PAGE for m in moves if m.destination == name)
            if arrived and pages > (target.huge_page_pools or {})[PAGE].total:
                found.append(f"{name}: huge pages")
            for move in moves:
                mine = shot.vm(move.vm_uuid).facts.pinned_cpus
                taken = Counter(c for v in there_now if v.uuid != move.vm_uuid for c in v.facts.pinned_cpus)
                together = {m.vm_uuid for m in moves if m.destination == name} - {move.vm_uuid}
                if move.destination == name and not together and any(taken[c] for c in mine):
                    found.append(f"{move.vm_name}: pinned CPUs")
        for move in moves:
            where[move.vm_uuid].discard(move.source)
    return found


@given(seeds)
@settings(max_examples=150, deadline=None)
def test_no_plan_breaks_a_rule_on_what_is_counted(seed: int) -> None:
    inputs = counted_inputs(seed)

    assert faults(inputs, balance(inputs)) == []
    assert faults(inputs, drain(inputs, [inputs.snapshot.hosts[0].name])) == []


@given(seeds, st.sampled_from([0.0, 0.3]))
@settings(max_examples=60, deadline=None)
def test_masks_and_figures_say_what_the_constraints_say_one_by_one(seed: int, odd: float) -> None:
    state = PlacementState(counted_inputs(seed, odd))
    admission = Admission(state)
    hosts = np.arange(len(state.hosts))

    for v in range(len(state.vms)):
        asked = [first((*HOST_RULES, *FIT_RULES), Ask(state, v, h, (v,))) is None for h in hosts]
        assert admission.of(v).tolist() == asked
        elsewhere = np.array([h for h in hosts if h not in state.presence[v]], dtype=np.intp)
        beside = [bool({h} & {p for m in state.groups.on_its_cpus(v) for p in state.presence[m]}) for h in elsewhere]
        one_by_one = [first(COUNTED, Ask(state, v, int(h), (v,))) is None for h in elsewhere]
        fits = state.figures.fits((v,), elsewhere) & ~np.array(beside, dtype=np.bool_)
        assert fits.tolist() == one_by_one


def test_the_random_clusters_reach_every_rule() -> None:
    """Each rule refuses something and lets something pass, or the properties above say nothing."""
    told: Counter[str] = Counter()
    for seed in range(40):
        state = PlacementState(counted_inputs(seed))
        for v in range(len(state.vms)):
            for h in range(len(state.hosts)):
                ask = Ask(state, v, h, (v,))
                told.update(rule.__name__ for rule in (*COUNTED, *FIT_RULES) if rule(ask) is not None)
                told["passed"] += first((*COUNTED, *FIT_RULES, anti_affinity), ask) is None

    names = ("memory_overcommit", "cpu_overcommit", "hugepages", "pinned_cpus", "topology", "passed")
    assert all(told[name] > 20 for name in names), told
