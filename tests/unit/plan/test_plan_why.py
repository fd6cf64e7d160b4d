"""Facts a start compares, and answers to why and why not."""

from dataclasses import replace

from rebalancerd.cluster.host import HostLoad
from rebalancerd.cluster.policy import HostMode, VmPolicy
from rebalancerd.cluster.refusal import Code, about_vm
from rebalancerd.plan.aggregate import grouped, tally
from rebalancerd.plan.balance import balance
from rebalancerd.plan.facts import differing, move_facts
from rebalancerd.plan.why_not import why_not, why_not_host
from tests.unit.plan.plan_cluster import carried_out, host, inputs_of, vm


def hot():
    guests = [vm(f"a{i}", "h1", 5.0) for i in range(3)] + [vm("b", "h2", 1.0)]
    return inputs_of([host("h1"), host("h2"), host("h3", mode=HostMode.NO_INBOUND)], guests)


def edited(snapshot, **by_name):
    """The snapshot with fields of single VMs or hosts replaced."""
    return replace(
        snapshot,
        hosts=tuple(replace(h, **by_name.get(h.name, {})) for h in snapshot.hosts),
        vms=tuple(replace(v, **by_name.get(v.name, {})) for v in snapshot.vms),
    )


def test_facts_that_hold_differ_in_nothing_though_loads_change():
    inputs = hot()
    step = balance(inputs).steps[0]
    later = edited(inputs.snapshot, h2={"load": HostLoad(cpu_cores=3.0, memory_used_bytes=1), "age_seconds": 9.0})

    assert differing(step, inputs.snapshot) == ()
    assert differing(step, later) == ()


def test_what_differs_is_named_with_was_and_is():
    inputs = hot()
    step = balance(inputs).steps[0]
    name = step.move.vm_name
    shot = inputs.snapshot

    assert differing(step, carried_out(inputs, balance(inputs)).snapshot) == (f"vm {name}: host was h1, is h2",)
    assert differing(step, edited(shot, h2={"mode": HostMode.DRAIN})) == ("host h2: mode was active, is drain",)
    assert differing(step, edited(shot, h2={"unusable": "stale"})) == ("host h2: usable was true, is false",)
    assert differing(step, edited(shot, h2={"peer_uri": "x"})) == ("host h2: peer_uri was qemu+ssh://h2/system, is x",)
    changed = differing(step, edited(shot, **{name: {"policy": VmPolicy(pin=frozenset({"h1"}))}}))
    assert [text.split(" was ")[0] for text in changed] == [f"vm {name}: policy"]


def test_a_vm_or_host_that_is_gone_is_named():
    inputs = hot()
    step = balance(inputs).steps[0]
    without_vm = replace(inputs.snapshot, vms=tuple(v for v in inputs.snapshot.vms if v.uuid != step.move.vm_uuid))
    without_host = replace(
        inputs.snapshot,
        hosts=tuple(h for h in inputs.snapshot.hosts if h.name != "h2"),
        vms=tuple(v for v in inputs.snapshot.vms if v.host != "h2"),
    )

    assert differing(step, without_vm) == (f"vm {step.move.vm_name}: is gone",)
    assert "host h2: mode was active, is absent" in differing(step, without_host)
    assert move_facts(without_vm, step.move.vm_uuid, "h2")[0] == ("vm.host", "absent")


def test_why_not_is_silent_for_a_vm_that_moves():
    inputs = hot()
    moved = balance(inputs).steps[0].move.vm_uuid

    assert why_not(inputs, moved) == ()
    assert why_not_host(inputs, "h1") == ()


def test_why_not_on_a_calm_host_names_the_figures_and_the_bars():
    told = why_not(hot(), "u-b")

    assert told[0].code is Code.BALANCED
    assert "h2 is at 6 % CPU (headroom 80 %)" in told[0].detail
    assert {(r.code, r.destination) for r in told[1:]} == {
        (Code.WOULD_BE_HOT, "h1"),
        (Code.HOST_MODE, "h3"),
    }


def test_why_not_says_what_moves_instead():
    inputs = hot()
    other = next(v.uuid for v in inputs.snapshot.vms if v.name == "a1")
    told = why_not(inputs, other)

    assert Code.GAIN_TOO_SMALL in {r.code for r in told}
    assert "moving a0 to h2" in " ".join(r.detail for r in told)


def test_why_not_of_one_that_stays_or_is_unknown():
    inputs = replace(hot(), resting_vms={"u-a1": about_vm(Code.COOLDOWN, "u-a1", "moved 3 min ago")})

    assert [r.code for r in why_not(inputs, "u-a1")] == [Code.COOLDOWN]
    assert [r.code for r in why_not(inputs, "nobody")] == [Code.VM_GONE]


def test_why_not_host():
    inputs = hot()
    stuck = replace(
        inputs, blocked_pairs={(f"u-a{i}", "h2"): about_vm(Code.LIBVIRT_REFUSED, f"u-a{i}", "no") for i in range(3)}
    )
    told = why_not_host(stuck, "h1")

    assert [r.code for r in why_not_host(inputs, "h2")] == [Code.BALANCED]
    assert [r.code for r in why_not_host(inputs, "h9")] == [Code.HOST_UNREACHABLE]
    assert told[0].code is Code.NO_DESTINATION
    assert {r.code for r in told[1:]} == {Code.LIBVIRT_REFUSED, Code.HOST_MODE}


def test_refusals_are_grouped_and_counted():
    rows = [
        about_vm(Code.PINNED, "a", "x", "h1"),
        about_vm(Code.PINNED, "a", "y", "h2"),
        about_vm(Code.AVOIDED, "b", "z"),
    ]
    found = grouped(rows)

    assert [(r.code, r.count, r.detail, r.destination) for r in found] == [
        (Code.PINNED, 2, "x", None),
        (Code.AVOIDED, 1, "z", None),
    ]
    assert tally([*rows, about_vm(Code.PINNED, "c", "x")]) == "2 pinned, 1 avoided"
