"""Small odd clusters from a seed, and what a planner does on them when its plans are carried out to the end.

Shapes: mixed; tight in memory; hot everywhere; two or more full hosts of which only swaps relieve one; rules that
contradict each other; hosts being drained. In all of them hosts and VMs have odd modes, states, groups, pins, unknown
loads, no capacity, and migrations are in flight already.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.refusal import Code, about_host, about_vm
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.snapshot import CpuFitRow, InFlight, Snapshot
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.settings import PlanSettings
from tests.bench.planner_checker_plan import violations
from tests.bench.report import Report
from tests.unit.plan.plan_cluster import carried_out, cost_of, host, hotspots_of, measured, vm
from tests.unit.plan.plan_random import HelpedCosts, Rng, odd_host, odd_scenarios, odd_vm

SHAPES = ("mixed", "tight", "hot", "swap", "contradictory", "drained")
MOST_PLANS = 80  # plans in a row that are bounded by their settings before it counts as never ending
EXAMPLES = 5


def random_cluster(seed: int) -> PlanInputs:
    """The planning inputs of that seed: 2 to 12 hosts, 0 to 60 VMs."""
    rng = np.random.default_rng([seed, 2])
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    odd = float(rng.choice([0.0, 0.1, 0.3, 0.7]))
    hosts, vms = _swap(rng) if shape == "swap" else _mixed(rng, shape, odd)
    if shape == "contradictory":
        vms = [_contradicted(rng, v, [h.name for h in hosts]) for v in vms]
    return _inputs(rng, hosts, vms, odd, drained=shape == "drained" or rng.random() < 0.05)


def _mixed(rng: Rng, shape: str, odd: float) -> tuple[list[Host], list[Vm]]:
    hosts = [odd_host(rng, i, odd / 2) for i in range(int(rng.integers(2, 13)))]
    names = [h.name for h in hosts]
    if shape == "tight":
        hosts = [h if h.memory_bytes is None else replace(h, memory_bytes=h.memory_bytes // 2) for h in hosts]
    even = 20.0 if shape == "hot" else 0.8
    weights = rng.dirichlet(np.full(len(hosts), even))
    count = int(rng.integers(0, 61))
    vms = [odd_vm(rng, i, str(rng.choice(names, p=weights)), names, odd) for i in range(count)]
    if shape == "hot":
        vms = [replace(v, load=replace(v.load, cpu_cores=(v.load.cpu_cores or 1.0) * 1.7)) for v in vms]
    return hosts, vms


def _swap(rng: Rng) -> tuple[list[Host], list[Vm]]:
    """Few alike hosts with few big VMs, full in CPU, in memory or in both."""
    hosts = [host(f"h{i:02}") for i in range(int(rng.integers(2, 5)))]
    if rng.random() < 0.5:
        hosts.append(host("h99", cores=float(rng.choice([4, 16])), memory_gib=float(rng.choice([8, 28, 64]))))
    vms, tight = [], rng.random() < 0.5
    for h in hosts:
        room, memory = rng.uniform(8, 15), 54.0 if tight else 30.0
        while room > 1 and h.name != "h99":
            cores, gib = float(rng.uniform(1, 7)), float(rng.choice([1, 4, 13, 26]))
            if memory < gib:
                break
            vms.append(vm(f"v{len(vms):03}", h.name, min(cores, room), gib))
            room, memory = room - cores, memory - gib
    return hosts, vms


def _contradicted(rng: Rng, v: Vm, names: list[str]) -> Vm:
    """Some VMs get rules that no host can keep, or that the VM breaks where it stands."""
    one = frozenset({str(rng.choice(names))})
    rules = [
        VmPolicy(pin=one, avoid=one),
        VmPolicy(pin=one, anti_affinity=frozenset({"all"})),
        VmPolicy(affinity=frozenset({"x"}), anti_affinity=frozenset({"x"})),
        VmPolicy(affinity=frozenset({"x"}), pin=one),
        VmPolicy(avoid=frozenset(names)),
        VmPolicy(pin=frozenset({"no such host"})),
    ]
    return replace(v, policy=rules[int(rng.integers(len(rules)))]) if rng.random() < 0.4 else v


def _inputs(rng: Rng, hosts: list[Host], vms: list[Vm], odd: float, *, drained: bool) -> PlanInputs:
    names = [h.name for h in hosts]
    vms = [replace(v, policy=replace(v.policy, auto_converge=i % 2 == 0)) for i, v in enumerate(vms)]
    flights = tuple(
        InFlight(
            vm_uuid=v.uuid,
            source=v.host,
            destination=[*names, None, "stranger"][int(rng.integers(len(names) + 2))],
            ours=bool(rng.random() < 0.5),
        )
        for v in vms
        if rng.random() < odd / 10
    )
    fits = tuple(
        CpuFitRow(cpu_digest="c1", host=n, fit=list(CpuFit)[int(rng.integers(3))], detail="probed") for n in names
    )
    own_cores, own_gib = float(rng.uniform(0, 0.5)), float(rng.uniform(0, 1))
    shot = Snapshot(
        taken_at=1000.0,
        hosts=measured(hosts, vms, own_cores=own_cores, own_gib=own_gib),
        vms=tuple(vms),
        in_flight=flights,
        cpu_fits=fits,
    )
    scenarios = odd_scenarios(rng, shot)
    settings = PlanSettings(
        out_per_host=int(rng.integers(1, 3)),
        in_per_host=int(rng.integers(1, 3)),
        per_cluster=int(rng.integers(1, 5)),
        max_moves=int(rng.choice([1, 3, 8, 50])),
    )
    costs = {v.uuid: cost_of(float(rng.uniform(5, 60)), risk=float(rng.choice([0.0, 0.1, 0.5]))) for v in vms}
    odd_ones = [v for v in vms if rng.random() < odd / 10]
    return PlanInputs(
        snapshot=shot,
        scenarios=scenarios,
        hotspots=hotspots_of(shot, scenarios, settings),
        costs=HelpedCosts(costs),
        settings=settings,
        plan_id="p1",
        drained=frozenset(n for n in names if drained and rng.random() < 0.3),
        blocked_hosts={n: about_host(Code.QUARANTINED, n, "quarantined") for n in names if rng.random() < odd / 10},
        blocked_pairs={(v.uuid, names[0]): about_vm(Code.LIBVIRT_REFUSED, v.uuid, "refused") for v in odd_ones},
        resting_vms={v.uuid: about_vm(Code.COOLDOWN, v.uuid, "moved 3 min ago") for v in odd_ones},
    )


def bounded(inputs: PlanInputs, plan: Plan) -> bool:
    """Whether a plan says itself that it leaves something to the next one: its settings bound it."""
    full = len(plan.steps) >= inputs.settings.max_moves
    return full or any(r.code is Code.CLUSTER_CAP for r in plan.refusals)


@dataclass(slots=True)
class Tally:
    """What went over the clusters so far. ``broken``, ``unfinished``: (seed, what) of each."""

    clusters: int = 0
    with_steps: int = 0
    parked: int = 0
    bundled: int = 0
    broken: list[tuple[int, str]] = field(default_factory=list)
    unfinished: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seed: int) -> None:
        """Plan for one cluster, carry its plans out to the end and judge each."""
        inputs = random_cluster(seed)
        self.clusters += 1
        for number in range(MOST_PLANS):
            plan = decide(inputs)
            self.broken += [(seed, text) for text in violations(inputs, plan)]
            self.with_steps += number == 0 and bool(plan.steps)
            self.parked += len(plan.steps) - len({s.move.vm_uuid for s in plan.steps})
            self.bundled += any("; together, " in s.move.why for s in plan.steps)
            if not plan.steps:
                return
            # a host that could not be emptied is looked at again: the moves may have made room for its VMs
            goes_on = bounded(inputs, plan) or any(inputs.snapshot.vms_on[h] for h in inputs.drained)
            inputs = carried_out(inputs, plan)
            if not goes_on:
                break
        again = decide(inputs)
        if again.steps:
            self.unfinished.append((seed, again.why))


def run(seeds: Iterable[int], report: Report) -> None:
    """Judge the plans of those seeds and report the counts; what is wrong is printed."""
    tally = Tally()
    for seed in seeds:
        tally.add(seed)
    for label, rows in (("violation", tally.broken), ("not finished", tally.unfinished)):
        for seed, text in rows[:EXAMPLES]:
            print(f"{label}: seed {seed}: {text}")
    report.figure("random.clusters", tally.clusters)
    report.figure("random.violations", len(tally.broken))
    report.figure("random.with_steps", tally.with_steps)
    report.figure("random.not_finished", len(tally.unfinished))
    report.figure("random.with_bundles", tally.bundled)
    report.figure("random.parked", tally.parked)
