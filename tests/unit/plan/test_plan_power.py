"""Who must wake and who may sleep: the upper bound of the cluster's demand against what is on with a host dead."""

from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.power import PowerLimits, PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.scenarios import Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import Vm, VmFacts
from rebalancerd.plan.consolidate_reserve import without_asleep
from rebalancerd.plan.power import PowerDecision, PowerInputs, decide, demand_of
from rebalancerd.plan.settings import PlanSettings
from tests.unit.plan.plan_cluster import host as plan_host
from tests.unit.plan.plan_cluster import inputs_of
from tests.unit.plan.plan_cluster import vm as plan_vm

NOW, STEP, STEPS, PATHS = 1_700_000_000.0, 300.0, 12, 8
LIMITS = PowerLimits(
    boot_seconds=300, unfold_seconds=300, margin_seconds=300, hosts_on_min=1, cpu_headroom=0.5, memory_headroom=0.9
)


def host(name: str, *, cores: float | None = 10.0, **more: object) -> Host:
    facts = HostFacts(uuid=name, cpus=10, memory_bytes=64 * GIB)
    values = {"load": HostLoad(cpu_cores=0.0, memory_used_bytes=0), "cores": cores, "memory_bytes": 64 * GIB, **more}
    return Host(name=name, facts=facts, **values)  # type: ignore[arg-type]


def vm(index: int, on: str) -> Vm:
    facts = VmFacts(uuid=f"{index}", name=f"vm{index}", vcpus=4, memory_bytes=GIB)
    from rebalancerd.cluster.vm import DomainState

    return Vm(facts=facts, host=on, state=DomainState.RUNNING)


def scenarios(*cores: list[float], memory: float = 0.0) -> Scenarios:
    """One VM per list: its demand step by step, the same in every path."""
    rows = np.array([np.tile(np.resize(c, STEPS), PATHS) for c in cores], np.float32).reshape(-1, PATHS * STEPS)
    return Scenarios(
        vm_uuids=tuple(str(i) for i in range(len(cores))),
        paths=PATHS,
        steps=STEPS,
        step_seconds=STEP,
        cpu_cores=rows,
        memory_bytes=np.full_like(rows, memory),
        known=np.ones(len(cores), bool),
        basis="given",
    )


def sleeper(name: str, **changes: object) -> PowerRecord:
    made = PowerRecord(host=name, phase=PowerPhase.ASLEEP, cpus=10, memory_bytes=64 * GIB, tested_at=1.0)
    return replace(made, **changes)  # type: ignore[arg-type]


def decided(
    hosts: list[Host], demand: Scenarios, *records: PowerRecord, vms: tuple[Vm, ...] = (), **more: object
) -> PowerDecision:
    snapshot = Snapshot(taken_at=NOW, hosts=tuple(hosts), vms=vms)
    given = {"limits": LIMITS, **more}
    return decide(
        PowerInputs(snapshot=snapshot, scenarios=demand, records={r.host: r for r in records}, **given)  # type: ignore[arg-type]
    )


AWAY = {"unusable": "no answer", "cores": None, "memory_bytes": None, "load": HostLoad()}
ON = [host("a"), host("b")]
DARK = [host("c", **AWAY), host("d", **AWAY)]


def names(pairs: tuple[tuple[str, str], ...]) -> list[str]:
    return [name for name, _ in pairs]


def test_a_host_is_woken_as_long_before_the_crossing_as_it_takes_to_be_back() -> None:
    """Two hosts on, one of them spare, half of it usable: 5 cores. Lead is 300 + 300 + 300 s, three steps.

    The fourth step begins three steps after the recorded load ended, which is less than that from now.
    """
    for crossing, woken in ((5, []), (4, []), (3, ["c"]), (2, ["c"]), (0, ["c"])):
        demand = [2.0] * crossing + [7.0] * (STEPS - crossing)
        assert names(decided([*ON, *DARK], scenarios(demand), sleeper("c"), sleeper("d")).wake) == woken, crossing


def test_a_slow_booter_is_woken_earlier() -> None:
    demand = scenarios([2.0] * 5 + [7.0] * 7)
    assert decided([*ON, *DARK], demand, sleeper("c", boots=(290.0, 300.0, 310.0))).wake == ()
    assert names(decided([*ON, *DARK], demand, sleeper("c", boots=(1290.0, 1300.0, 1310.0))).wake) == ["c"]


def test_as_many_are_woken_as_are_lacking_and_those_that_come_count() -> None:
    demand = scenarios([9.0])
    fast = sleeper("d", boots=(100.0,))
    assert names(decided([*ON, *DARK], demand, sleeper("c"), fast).wake) == ["d"]
    assert names(decided([*ON, *DARK], scenarios([14.0]), sleeper("c"), fast).wake) == ["d", "c"]
    coming = replace(fast, phase=PowerPhase.WAKING)
    assert decided([*ON, *DARK], demand, sleeper("c"), coming).wake == ()
    failed = replace(fast, phase=PowerPhase.FAILED)
    assert names(decided([*ON, *DARK], demand, sleeper("c"), failed).wake) == ["c"]


def test_a_host_that_came_up_a_moment_ago_counts_before_its_first_samples() -> None:
    demand = scenarios([9.0])
    fresh = PowerRecord(host="d", up_since=NOW - 30, cpus=10, memory_bytes=64 * GIB)
    assert decided([*ON, *DARK], demand, sleeper("c"), fresh).wake == ()
    assert names(decided([*ON, *DARK], demand, sleeper("c"), replace(fresh, up_since=NOW - 600)).wake) == ["c"]


def test_a_dead_host_breaks_n_plus_one_at_once() -> None:
    hosts = [host("a"), host("b", unusable="no answer"), *DARK]
    decision = decided(hosts, scenarios([0.5]), sleeper("c"))
    assert names(decision.wake) == ["c"]


def test_what_surprises_wakes_though_it_would_still_be_carried() -> None:
    busy = [host("a", load=HostLoad(cpu_cores=4.0)), host("b")]
    assert decided([*busy, *DARK], scenarios([1.0]), sleeper("c"), foreseen_cores=3.9).wake == ()
    decision = decided([*busy, *DARK], scenarios([1.0]), sleeper("c"), foreseen_cores=1.5)
    assert names(decision.wake) == ["c"] and "foreseen" in decision.wake[0][1]


def test_memory_wakes_as_well() -> None:
    demand = scenarios([0.1], memory=60.0 * GIB)
    decision = decided([*ON, *DARK], demand, sleeper("c"))
    assert names(decision.wake) == ["c"] and "memory" in decision.wake[0][1]


def test_only_empty_hosts_may_sleep_and_only_as_far_as_the_whole_forecast_allows() -> None:
    hosts = [host(n) for n in "abcd"]
    vms = (vm(0, "a"),)
    decision = decided(hosts, scenarios([2.0] * 11 + [6.0]), vms=vms)
    assert names(decision.sleep) == ["b"], "with two left, one is spare and the other carries 5 of 6 cores"
    assert [(r.subject, r.code) for r in decision.kept] == [
        ("c", Code.NEEDED_FOR_DEMAND),
        ("d", Code.NEEDED_FOR_DEMAND),
    ]
    assert names(decided(hosts, scenarios([1.0]), vms=vms).sleep) == ["b", "c"]


def test_so_many_hosts_stay_on_at_any_rate() -> None:
    limits = replace(LIMITS, hosts_on_min=3)
    decision = decided([host(n) for n in "abcd"], scenarios([0.0]), limits=limits)
    assert len(decision.sleep) == 1
    assert {r.code for r in decision.kept} == {Code.HOSTS_ON_MIN}


def test_nobody_sleeps_while_somebody_must_wake() -> None:
    hosts = [host("a"), host("b"), *DARK]
    assert decided(hosts, scenarios([9.0]), sleeper("c"), vms=(vm(0, "a"),)).sleep == ()


@pytest.mark.parametrize("mode", [HostMode.DRAIN, HostMode.OBSERVE, HostMode.NO_INBOUND])
def test_what_takes_nothing_in_carries_nothing(mode: HostMode) -> None:
    hosts = [host("a"), host("b", mode=mode), *DARK]
    assert names(decided(hosts, scenarios([0.5]), sleeper("c")).wake) == ["c"]


def test_the_bound_is_of_the_sum_not_the_sum_of_bounds() -> None:
    """Two VMs that never peak together: each path one of them, so that their sum is always 4."""
    half = PATHS // 2
    cores = np.zeros((2, PATHS, STEPS), np.float32)
    cores[0, :half], cores[1, half:] = 4.0, 4.0
    flat = cores.reshape(2, -1)
    made = replace(scenarios([0.0], [0.0]), cpu_cores=flat)
    bound = demand_of(made, Snapshot(taken_at=NOW, hosts=(), vms=()), 0.95)
    assert bound.cores == pytest.approx(np.full(STEPS, 4.0))


def test_a_cluster_without_vms_has_no_demand() -> None:
    assert decided([host("a"), host("b"), host("c")], scenarios()).sleep != ()


def test_equal_inputs_give_equal_decisions() -> None:
    inputs = ([*ON, *DARK], scenarios([9.0]), sleeper("c"), sleeper("d"))
    assert decided(*inputs) == decided(*inputs)


def test_an_empty_host_without_which_another_could_not_die_stays_on() -> None:
    """Demand is small; what the guests were given is not."""
    hosts = (plan_host("a"), plan_host("b"), plan_host("c"), plan_host("d"))
    given = {"memory_bytes": 40 * GIB}
    vms = tuple(plan_vm(f"v{h}", h, 0.1, 1.0, facts=given) for h in "ab")
    asked = inputs_of(hosts, vms, settings=PlanSettings(n_plus_one="memory"))
    limits = replace(LIMITS, hosts_on_min=1)

    def may(spare: object) -> PowerDecision:
        inputs = PowerInputs(snapshot=asked.snapshot, scenarios=asked.scenarios, records={}, limits=limits)
        return decide(replace(inputs, n_plus_one=spare))  # type: ignore[arg-type]

    assert without_asleep(replace(asked, settings=PlanSettings())) is None
    assert names(may(None).sleep) == ["c", "d"]
    kept = may(without_asleep(asked))
    assert names(kept.sleep) == ["c"]
    assert [(r.subject, r.code) for r in kept.kept] == [("d", Code.N_PLUS_ONE)]
    assert "could not die afterwards" in kept.kept[0].detail
