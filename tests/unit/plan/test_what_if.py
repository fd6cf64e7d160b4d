"""What-ifs: each change of the inputs, the plan that follows from it, and every wording that is refused."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.snapshot import CpuFitRow, InFlight
from rebalancerd.cluster.units import GIB
from rebalancerd.offline import changed
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.what_if import apply
from rebalancerd.plan.what_if_text import AddHost, WhatIfError, parse
from tests.unit.plan.plan_cluster import host, inputs_of, vm


def cluster(**changes: object) -> PlanInputs:
    """h1 with three guests, h2 with one and twice as fast, h3 empty; nothing is hot."""
    hosts = (host("h1", 8.0), host("h2", 8.0, speed_factor=2.0), host("h3", 8.0))
    vms = (vm("a", "h1", 2.0), vm("b", "h1", 1.5), vm("c", "h1", 1.0), vm("d", "h2", 1.0))
    return inputs_of(hosts, vms, own_cores=0.5, own_gib=1.0, **changes)  # type: ignore[arg-type]


def what_if(inputs: PlanInputs, *texts: str) -> PlanInputs:
    return changed(inputs, map(parse, texts))


@pytest.mark.parametrize("word", ["down", "drain"])
def test_a_host_that_is_down_or_drained_is_emptied(word: str) -> None:
    inputs = cluster()
    assert decide(inputs).is_empty

    then = what_if(inputs, f"host h1 {word}")
    plan = decide(then)

    assert then.snapshot.host("h1").mode is HostMode.DRAIN
    assert then.drained == {"h1"}
    assert plan.policy == "drain"
    assert {step.move.vm_name for step in plan.steps} == {"a", "b", "c"}
    assert plan.id.startswith("w-")
    assert plan.expires_at == plan.created_at, "it can never be applied"
    assert then.hotspots == inputs.hotspots, "a mode is no load"


def test_what_cannot_leave_a_host_that_is_down_is_named() -> None:
    inputs = inputs_of((host("h1"), host("h2")), (vm("a", "h1", facts={"immovable": ("a PCI device",)}),))

    plan = decide(what_if(inputs, "host h1 down"))

    assert plan.is_empty
    assert {Code.NO_DESTINATION, Code.IMMOVABLE} <= {refusal.code for refusal in plan.refusals}


def test_a_vm_takes_its_load_along() -> None:
    inputs = cluster()

    then = what_if(inputs, "vm a on h2")

    moved, before = then.snapshot.vm("u-a"), inputs.snapshot
    assert moved.host == "h2"
    assert moved.load.cpu_cores == 1.0, "in the cores of a host twice as fast"
    assert moved.load.steal_cores is None
    for name, cores in (("h1", -2.0), ("h2", 1.0)):
        load, was = then.snapshot.host(name).load, before.host(name).load
        assert load.cpu_cores == pytest.approx((was.cpu_cores or 0) + cores)
        assert load.psi_cpu is None
        assert abs((load.memory_used_bytes or 0) - (was.memory_used_bytes or 0)) == 2 * GIB
    assert then.snapshot.host("h3") == before.host("h3")
    assert inputs.snapshot is before and before.vm("u-a").host == "h1", "the inputs given stay as they are"


def test_vms_put_onto_a_host_make_it_hot_and_there_is_a_plan_for_it() -> None:
    inputs = inputs_of(
        (host("h1", 8.0), host("h2", 8.0), host("h3", 8.0)),
        tuple(vm(f"v{n}", "h1" if n % 2 else "h2", 2.4) for n in range(4)),
    )
    assert decide(inputs).is_empty

    then = what_if(inputs, "vm v0 on h1", "vm v2 on h1")
    plan = decide(then)

    assert [spot.host for spot in then.hotspots] == ["h1"]
    assert plan.hot_hosts == ("h1",)
    assert not plan.is_empty


def test_a_vm_that_is_gone_cools_its_host() -> None:
    inputs = inputs_of((host("h1", 8.0), host("h2", 8.0)), tuple(vm(f"v{n}", "h1", 1.9) for n in range(4)))
    assert decide(inputs).hot_hosts == ("h1",)

    then = what_if(inputs, "vm v0 gone", "vm u-v1 gone")

    assert [v.name for v in then.snapshot.vms] == ["v2", "v3"]
    assert then.snapshot.host("h1").load.cpu_cores == pytest.approx(3.8)
    assert then.hotspots == ()
    assert decide(then).is_empty


def test_one_more_host_takes_load() -> None:
    inputs = inputs_of((host("h1", 8.0),), tuple(vm(f"v{n}", "h1", 1.9) for n in range(4)), own_cores=0.2)
    assert decide(inputs).is_empty

    plan = decide(what_if(inputs, "add host h9 like h1"))

    assert {step.move.destination for step in plan.steps} == {"h9"}


def test_one_more_host_is_like_its_model_but_for_its_figures() -> None:
    fits = (CpuFitRow(cpu_digest="x", host="h2", fit=CpuFit.COMPATIBLE, detail=""),)
    inputs = cluster(snapshot={"cpu_fits": fits})

    shot = what_if(inputs, "add host h9 cores=16 memory=1.5TiB like h2").snapshot

    made, model = shot.host("h9"), shot.host("h2")
    assert (made.cores, made.memory_bytes) == (16.0, 1536 * GIB)
    assert made.facts is not None and model.facts is not None
    assert (made.facts.cpus, made.facts.memory_bytes) == (16, 1536 * GIB)
    assert made.facts.uuid != model.facts.uuid
    assert (made.speed_factor, made.cpu_group) == (2.0, "g1")
    assert made.peer_uri != model.peer_uri, "no step could ever go there"
    assert made.load.cpu_cores == pytest.approx(0.5)
    assert made.load.memory_used_bytes == GIB
    assert shot.cpu_fit["x", "h9"].fit is CpuFit.COMPATIBLE
    assert shot.vms_on["h9"] == ()


def test_changes_follow_one_another() -> None:
    shot = what_if(cluster(), "add host h9 like h3", "vm a on h9", "vm b gone").snapshot

    assert [v.name for v in shot.vms_on["h9"]] == ["a"]
    assert [v.name for v in shot.vms_on["h1"]] == ["c"]


def test_no_change_leaves_the_inputs_alone() -> None:
    inputs = cluster()

    assert changed(inputs, []) is inputs


def test_names_with_spaces_stand_in_quotes() -> None:
    inputs = inputs_of((host("h1"), host("h2")), (vm("my vm", "h1"),))

    assert what_if(inputs, "vm 'my vm' on h2").snapshot.vms[0].host == "h2"


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("", "is not understood", "host NAME down; host NAME drain; vm NAME on HOST"),
        ("host h1", "“host h1” is not understood", "host NAME down"),
        ("host h1 up", "is not understood", "host NAME down"),
        ("vm a to h2", "is not understood", "vm NAME on HOST"),
        ("add host h9", "is not understood", "like HOST"),
        ("add host '' like h1", "is not understood", "like HOST"),
        ("vm 'a on h2", "cannot be read: No closing quotation", "vm NAME on HOST"),
        ("add host h9 disk=3 like h1", "“disk=3” is no figure of a host", "cores=N"),
        ("add host h9 cores like h1", "“cores” is no figure of a host", "cores=N"),
        ("add host h9 cores=no like h1", "cores=no is no number of cores", "cores=16"),
        ("add host h9 cores=-1 like h1", "cores=-1 is no number", "cores=16"),
        ("add host h9 cores=inf like h1", "cores=inf is no number", "cores=16"),
        ("add host h9 memory=64 like h1", "memory=64 is no size", "memory=64GiB"),
        ("add host h9 memory=64XB like h1", "memory=64XB is no size", "units: KiB"),
        ("add host h9 memory=0GiB like h1", "memory=0GiB is no size", "memory=64GiB"),
        ("add host h9 cores=1 cores=2 like h1", "cores is given twice", ""),
        ("host h4 down", "there is no host “h4”", "known are: h1, h2, h3"),
        ("host zebra drain", "there is no host “zebra”", "known are: h1, h2, h3"),
        ("vm x on h2", "there is no VM “x”", "known are: a, b, c, d"),
        ("vm a on h7", "there is no host “h7”", "known are: h1, h2, h3"),
        ("vm x gone", "there is no VM “x”", "known are: a, b, c, d"),
        ("vm a on h1", "VM “a” is on h1 already", ""),
        ("add host h1 like h2", "there is a host “h1” already", ""),
        ("add host h9 like h7", "there is no host “h7”", "known are: h1, h2, h3"),
    ],
)
def test_what_makes_no_sense_is_told_with_what_is_known(text: str, words: str, hint: str) -> None:
    with pytest.raises(WhatIfError) as refused:
        what_if(cluster(), text)

    assert words in str(refused.value)
    assert hint in refused.value.hint


def test_two_vms_of_one_name_need_the_uuid() -> None:
    inputs = inputs_of((host("h1"), host("h2")), (vm("a", "h1"), vm("b", "h1", facts={"name": "a"})))

    with pytest.raises(WhatIfError, match="2 VMs are called “a”") as refused:
        what_if(inputs, "vm a gone")
    assert refused.value.hint == "give the UUID: u-a, u-b"


def test_a_vm_on_the_move_is_left_alone() -> None:
    flight = InFlight(vm_uuid="u-a", source="h1", destination="h2", ours=True)

    with pytest.raises(WhatIfError, match="is being migrated"):
        what_if(cluster(snapshot={"in_flight": (flight,)}), "vm a gone")


def test_an_unusable_host_is_no_model() -> None:
    inputs = cluster()
    hosts = tuple(replace(h, unusable="stale") if h.name == "h2" else h for h in inputs.snapshot.hosts)
    inputs = replace(inputs, snapshot=replace(inputs.snapshot, hosts=hosts))

    with pytest.raises(WhatIfError, match="“h2” cannot serve as a model: stale"):
        apply(inputs, AddHost("h9", "h2"))


def test_what_is_spelt_alike_is_named_first() -> None:
    inputs = inputs_of((host("host-one"), host("host-two")), ())

    with pytest.raises(WhatIfError) as refused:
        what_if(inputs, "host host-tow down")
    assert refused.value.hint.startswith("did you mean host-two")
