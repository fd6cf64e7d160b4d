"""Traps other balancers fell into, each as a test that would have caught it.

| trap | where it is caught |
|---|---|
| room is checked on one host, another rule then picks another | test_trap_capacity_is_judged_for_the_destination_that_is_taken |
| CPU and memory swapped | test_trap_cpu_and_memory_are_not_swapped |
| threshold OR difference where AND was meant | test_trap_unbalanced_but_below_the_threshold_is_not_a_reason |
| a mean over no samples becomes NaN and a decision | test_trap_no_samples_do_not_become_nan_decisions |
| an incompatible destination is only penalised | test_trap_an_incompatible_destination_never_wins_however_full_the_rest_is |
| what a dry run leaves out cannot be reviewed | scenario recommend-never-moves |
| what is migrated orphans a reader | guard, act and record: scenario name-clash |
| a cooldown that a restart forgets | tests/unit/guard/test_memory.py::test_failures_and_running_ones_count_too |
| moves that failed or never began count as moves | tests/unit/guard/test_memory.py::test_what_never_began_does_not_count |
| a timeout forgets the job | scenario non-converging-aborted, scenario abort-has-no-effect |
| one failure ends the rest | test_trap_a_step_that_failed_costs_only_itself, scenario failed-migration-goes-elsewhere |
| one unmovable VM ends the rest | test_trap_one_passthrough_vm_does_not_kill_the_plan, test_trap_one_unmovable_vm_costs_only_itself |
| anti-affinity is read from where the VM was | test_trap_anti_affinity_is_read_from_the_planned_placement |
| random choices make plans unrepeatable | test_trap_plans_are_repeatable_and_do_not_hang_on_input_order |
| a dirty rate is sampled of what migrates | tests/unit/observe/test_observe_observer.py::test_a_migrating_vm_is_never_probed |
| what cannot migrate live is restarted elsewhere | test_trap_what_cannot_migrate_live_is_never_restarted_elsewhere |
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cluster.host import HostLoad
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.cluster.scenarios import Hotspot
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import Disk, DiskKind, DomainState
from rebalancerd.plan.balance import balance
from rebalancerd.plan.constraints import check
from rebalancerd.plan.drain import drain
from rebalancerd.plan.state import PlacementState
from tests.bench.planner_checker_plan import violations
from tests.unit.plan.plan_cluster import FixedCosts, carried_out, cost_of, host, inputs_of, vm


def hot(*others, guests=(), **changes):
    """h1 at 15 of 16 cores by three guests of 5, and what else is given."""
    return inputs_of([host("h1"), *others], [vm(f"a{i}", "h1", 5.0) for i in range(3)] + list(guests), **changes)


def test_trap_capacity_is_judged_for_the_destination_that_is_taken():
    """Least used by CPU is h2, but anti-affinity forbids it; h3 is then judged itself, and has no memory left."""
    apart = VmPolicy(anti_affinity=frozenset({"db"}))
    guests = [vm(f"a{i}", "h1", 5.0, 4.0, policy=apart if i else VmPolicy(pin=frozenset({"h1"}))) for i in range(3)]
    guests += [vm("b", "h2", 0.5, 1.0, policy=apart), vm("full", "h3", 1.0, 61.0)]
    inputs = inputs_of([host("h1"), host("h2"), host("h3")], guests)
    plan = balance(inputs)

    assert plan.is_empty
    assert {(r.subject, r.code) for r in plan.refusals} >= {
        ("u-a1", Code.ANTI_AFFINITY),
        ("u-a1", Code.MEMORY_CAPACITY),
    }


def test_trap_cpu_and_memory_are_not_swapped():
    """A CPU-heavy, memory-light guest fits the host with free cores and little memory, and not the other way round."""
    few_bytes, few_cores = host("h2", cores=16, memory_gib=4), host("h3", cores=4, memory_gib=256)
    inputs = inputs_of([host("h1"), few_bytes, few_cores], [vm(f"a{i}", "h1", 5.0, 1.0) for i in range(3)])

    assert [s.move.destination for s in balance(inputs).steps] == ["h2"]


def test_trap_unbalanced_but_below_the_threshold_is_not_a_reason():
    """Threshold and difference are not joined by an OR: 70 % against 5 % is uneven and fine."""
    plan = balance(inputs_of([host("h1"), host("h2")], [vm("a", "h1", 11.2), vm("b", "h2", 0.8)]))

    assert plan.is_empty


def test_trap_no_samples_do_not_become_nan_decisions():
    """A host whose use is unknown is neither empty nor a destination; no figure of the plan is NaN."""
    silent = replace(host("h2"), load=replace(host("h2").load, memory_used_bytes=1 * GIB))
    plan = balance(hot(silent))

    assert plan.is_empty
    assert Code.HOST_LOAD_UNKNOWN in {r.code for r in plan.refusals}
    assert all(np.isfinite([plan.before.total, plan.before.unmet, plan.before.imbalance]))


def test_trap_a_host_reporting_no_cpus_starts_no_mass_migration():
    """Zero cores make a host neither hot by division nor a destination."""
    inputs = hot(host("h0", cores=0.0), guests=[vm(f"z{i}", "h0", 1.0) for i in range(5)])
    plan = balance(inputs)

    assert plan.is_empty
    assert np.isfinite(plan.before.total)


def test_trap_an_incompatible_destination_never_wins_however_full_the_rest_is():
    """Storage is a constraint and no penalty: with only a wrong host free, nothing moves."""
    disk = Disk(target="vda", kind=DiskKind.FILE, source="/shared/a.qcow2", writable=True)
    guests = [vm(f"a{i}", "h1", 5.0, facts={"disks": (disk,)}) for i in range(3)]
    plan = balance(inputs_of([host("h1"), host("h2", cores=64, storage_domains=frozenset({"/other"}))], guests))

    assert plan.is_empty
    assert Code.STORAGE_UNREACHABLE in {r.code for r in plan.refusals}


def test_trap_anti_affinity_is_read_from_the_planned_placement():
    """Two members on one hot host: once the first is planned to h2, the second sees it there and goes to h3."""
    apart = VmPolicy(anti_affinity=frozenset({"db"}))
    guests = [vm(f"a{i}", "h1", 8.0, policy=apart) for i in range(2)]
    guests += [vm("c", "h1", 9.0, facts={"immovable": ("hostdev",)})]
    inputs = inputs_of([host("h1"), host("h2"), host("h3")], guests)
    plan = balance(inputs)

    assert sorted(s.move.destination for s in plan.steps) == ["h2", "h3"]
    assert violations(inputs, plan) == []


def test_trap_room_a_planned_move_takes_is_gone_for_the_next():
    """h2 has room for one of the guests; the plan does not send it two."""
    guests = [vm(f"a{i}", "h1", 6.0) for i in range(4)]
    inputs = inputs_of([host("h1"), host("h2", 8)], guests)
    plan = balance(inputs)

    assert len(plan.steps) == 1
    assert violations(inputs, plan) == []


def test_trap_plans_are_repeatable_and_do_not_hang_on_input_order():
    inputs = hot(host("h2"), host("h3"))
    shot = replace(inputs.snapshot, hosts=inputs.snapshot.hosts[::-1], vms=inputs.snapshot.vms[::-1])

    assert balance(inputs).digest == balance(replace(inputs, snapshot=shot)).digest


def test_trap_a_finished_plan_is_not_redone():
    """Needless moves redone on the next run: after the plan the trigger is gone."""
    inputs = hot(host("h2"), host("h3"))

    assert balance(carried_out(inputs, balance(inputs))).is_empty


def test_trap_a_pinned_vm_does_not_move_every_round():
    """A guest that stands outside its pin is not moved for that; on a hot host it may only go where it is pinned."""
    pin = VmPolicy(pin=frozenset({"h3"}))
    calm = inputs_of([host("h1"), host("h3")], [vm("a", "h1", 1.0, policy=pin)])
    plan = balance(
        inputs_of([host("h1"), host("h2"), host("h3")], [vm(f"a{i}", "h1", 5.0, policy=pin) for i in range(3)])
    )

    assert balance(calm).is_empty
    assert {s.move.destination for s in plan.steps} == {"h3"}


def test_trap_balancing_one_resource_does_not_overshoot_the_other():
    """CPU is hot; the host with idle cores is at 80 % of memory and stays below its memory headroom."""
    guests = [vm(f"a{i}", "h1", 5.0, 8.0) for i in range(3)] + [vm("b", "h2", 0.5, 51.0), vm("c", "h3", 6.0, 2.0)]
    plan = balance(inputs_of([host("h1"), host("h2"), host("h3")], guests))

    assert {s.move.destination for s in plan.steps} == {"h3"}


def test_trap_emptying_a_host_never_overfills_another():
    """Packing 70 GB on a host of 58.75 GB killed guests: what does not fit stays, and is named."""
    guests = [vm(f"a{i}", "h1", 0.5, 10.0) for i in range(7)]
    inputs = inputs_of([host("h1", memory_gib=128), host("h2", memory_gib=58.75)], guests)
    plan = drain(inputs, ["h1"])

    assert len(plan.steps) == 4
    assert violations(replace(inputs, drained=frozenset({"h1"})), plan) == []
    assert len({r.subject for r in plan.refusals if r.code in (Code.MEMORY_CAPACITY, Code.WOULD_BE_HOT)}) == 3


def test_trap_one_passthrough_vm_does_not_kill_the_plan():
    stuck = vm("gpu", "h1", 1.0, facts={"immovable": ("hostdev 0000:01:00.0",)})

    assert len(balance(hot(host("h2"), guests=[stuck])).steps) == 1


def test_trap_stopped_vms_are_not_in_the_plan():
    off = vm("off", "h1", 5.0, state=DomainState.SHUTOFF)
    plan = drain(inputs_of([host("h1"), host("h2")], [off, vm("a", "h1", 1.0)]), ["h1"])

    assert [s.move.vm_name for s in plan.steps] == ["a"]
    assert [r.code for r in plan.refusals if r.subject == "u-off"] == [Code.VM_NOT_RUNNING]


def test_trap_what_cannot_migrate_live_is_never_restarted_elsewhere():
    """A paused guest and one with a local disk stay, even in a drain."""
    local = Disk(target="vda", kind=DiskKind.FILE, source="/var/lib/libvirt/images/a.qcow2", writable=True)
    guests = [vm("a", "h1", state=DomainState.PAUSED), vm("b", "h1", facts={"disks": (local,)})]
    plan = drain(inputs_of([host("h1"), host("h2")], guests), ["h1"])

    assert plan.is_empty
    assert {r.code for r in plan.refusals} == {Code.NO_DESTINATION, Code.VM_NOT_RUNNING, Code.STORAGE_UNREACHABLE}


def test_trap_an_iso_in_the_drive_is_seen():
    """A read-only image must be covered by shared storage too; an empty drive needs nothing."""
    iso = Disk(target="sda", kind=DiskKind.FILE, source="/isos/debian.iso", writable=False, removable=True)
    empty = replace(iso, source=None)
    state = PlacementState(
        inputs_of(
            [host("h1"), host("h2")], [vm("a", "h1", facts={"disks": (iso,)}), vm("b", "h1", facts={"disks": (empty,)})]
        )
    )

    assert check(state, 0, 1).code is Code.STORAGE_UNREACHABLE
    assert check(state, 1, 1) is None


def test_trap_more_vcpus_than_the_host_has():
    state = PlacementState(inputs_of([host("h1"), host("h2", 4)], [vm("a", "h1", 1.0, facts={"vcpus": 8})]))

    assert check(state, 0, 1).code is Code.CPU_CAPACITY


def test_trap_a_write_heavy_vm_is_vetoed_by_its_cost_and_another_is_taken():
    costs = FixedCosts(by_vm={"u-a0": cost_of(risk=0.9)})

    assert [s.move.vm_name for s in balance(hot(host("h2"), costs=costs)).steps] == ["a1"]


def test_trap_the_load_after_the_move_is_projected_on_the_destination():
    """The destination is judged with the guest on it; a move that only moves the trouble is refused."""
    plan = balance(hot(host("h2", 8), guests=[vm("b", "h2", 5.0)]))

    assert plan.is_empty
    assert "h2 would need" in " ".join(r.detail for r in plan.refusals) or Code.WOULD_BE_HOT in {
        r.code for r in plan.refusals
    }


def test_trap_the_forecast_changes_a_decision():
    """Same present, other forecast, other plan: the predictor is not decoration."""
    guests = [vm("b", "h2", 1.0, facts={"vcpus": 12}), vm("c", "h3", 3.0)]
    rows = {"u-b": [1.0, 12.0, 12.0] * 4}
    calm = balance(hot(host("h2"), host("h3", 12), guests=guests))
    rising = balance(hot(host("h2"), host("h3", 12), guests=guests, rows=rows))

    assert [s.move.destination for s in calm.steps] == ["h2"]
    assert [s.move.destination for s in rising.steps] == ["h3"]


def test_trap_a_hotspot_is_no_destination():
    """A host that the forecast room calls hot for reasons of its own receives nothing."""
    inputs = hot(host("h2"))
    felt = Hotspot(
        host="h2", resource="cpu", now=0.1, peak_p95=0.1, headroom=0.8, probability=0.0, lead_seconds=None,
        causes=(), contention="psi_memory 0.30",
    )  # fmt: skip
    plan = balance(replace(inputs, hotspots=(*inputs.hotspots, felt)))

    assert plan.is_empty


@pytest.mark.parametrize("absurd", [float("nan"), float("inf"), -1.0])
def test_trap_absurd_figures_never_make_a_host_look_free(absurd):
    """NaN, infinite and negative loads or capacities are unknown, and unknown receives nothing."""
    inputs = hot(host("h2"))
    for change in ({"load": HostLoad(cpu_cores=absurd, memory_used_bytes=0)}, {"cores": absurd}):
        hosts = tuple(replace(h, **change) if h.name == "h2" else h for h in inputs.snapshot.hosts)
        plan = balance(replace(inputs, snapshot=replace(inputs.snapshot, hosts=hosts)))

        assert plan.is_empty
        assert {r.code for r in plan.refusals} & {Code.HOST_LOAD_UNKNOWN, Code.CPU_CAPACITY}
        assert np.isfinite(plan.before.total)


@pytest.mark.parametrize("absurd", [float("nan"), float("inf"), -1.0])
def test_trap_an_absurd_load_of_a_vm_is_an_unknown_one(absurd):
    """The VM itself is not moved for balance, others are, and no figure of the plan is NaN."""
    odd = vm("odd", "h1", 1.0)
    odd = replace(odd, load=replace(odd.load, cpu_cores=absurd))
    inputs = hot(host("h2"), guests=[vm("odd", "h1", 1.0)])
    plan = balance(replace(inputs, snapshot=replace(inputs.snapshot, vms=(*inputs.snapshot.vms[:-1], odd))))

    assert len(plan.steps) == 1
    assert plan.steps[0].move.vm_name != "odd"
    assert np.isfinite([plan.before.total, plan.after.total]).all()


def test_the_table_of_traps_names_what_there_is():
    """Every test and scenario in it exists, so that none is dropped unnoticed."""
    root, table = Path(__file__).parents[2], str(__doc__)
    mine = set(re.findall(r"(?<!::)\b(test_trap_\w+)", table))
    elsewhere = re.findall(r"tests/(\S+\.py)::(test_\w+)", table)
    scenarios = re.findall(r"scenario ([\w-]+)", table)

    assert mine <= globals().keys()
    assert len(mine) >= 10 and len(elsewhere) >= 3 and len(scenarios) >= 4
    assert all(f"def {name}(" in (root / path).read_text(encoding="utf-8") for path, name in elsewhere)
    assert all((root / "scenarios" / name / "expect.log").exists() for name in scenarios)


def test_trap_a_step_that_failed_costs_only_itself():
    """Its pair is blocked: the VM's next best host is taken, or another VM; the rest of the plan is as it was."""
    inputs = inputs_of(
        [host("h1"), host("h2"), host("h3"), host("h4")],
        [vm(f"{n}{i}", h, 5.0) for n, h in (("a", "h1"), ("b", "h2")) for i in range(3)],
    )
    plan = balance(inputs)
    failed, other = plan.steps[0].move, plan.steps[1].move
    refused = about_vm(Code.LIBVIRT_REFUSED, failed.vm_uuid, "refused")
    again = balance(replace(inputs, blocked_pairs={(failed.vm_uuid, failed.destination): refused}))

    assert len(again.steps) == len(plan.steps) == 2
    assert {failed.source, other.source} == {s.move.source for s in again.steps} == {"h1", "h2"}
    assert (failed.vm_uuid, failed.destination) not in {(s.move.vm_uuid, s.move.destination) for s in again.steps}


def test_trap_one_unmovable_vm_costs_only_itself():
    """In a drain: all the others leave."""
    guests = [vm("gpu", "h1", 1.0, facts={"immovable": ("hostdev",)}), *(vm(f"a{i}", "h1", 1.0) for i in range(4))]
    plan = drain(inputs_of([host("h1"), host("h2")], guests), ["h1"])

    assert sorted(s.move.vm_name for s in plan.steps) == ["a0", "a1", "a2", "a3"]
    assert {r.subject for r in plan.refusals if r.code is Code.IMMOVABLE} == {"u-gpu"}


def test_trap_everything_is_hot_and_contradicted_yet_the_rest_is_planned():
    """One hot host's VMs have rules that no host keeps; the other hot host is relieved all the same, and both are told."""
    nowhere = VmPolicy(pin=frozenset({"h3"}), avoid=frozenset({"h3"}))
    guests = [vm(f"a{i}", "h1", 5.0, policy=nowhere) for i in range(3)] + [vm(f"b{i}", "h2", 5.0) for i in range(3)]
    plan = balance(inputs_of([host("h1"), host("h2"), host("h3")], guests))

    assert [s.move.source for s in plan.steps] == ["h2"]
    assert {"u-a0", "u-a1", "u-a2"} <= {r.subject for r in plan.refusals if r.code in (Code.AVOIDED, Code.PINNED)}
