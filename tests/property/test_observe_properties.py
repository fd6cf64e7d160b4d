"""Properties of observing: no rate is negative or NaN, no text breaks the parser, history equals its model."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint, DirtyReading
from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.policy import Mode, VmPolicy
from rebalancerd.cluster.sample import AgentSample, DomainSample, HostSample
from rebalancerd.cluster.vm import DomainState, VmFacts
from rebalancerd.observe.agent_curves import AgentCurves, parse_curves
from rebalancerd.observe.dirty_pool import BY_LIBVIRT, DirtyPool, Sampling
from rebalancerd.observe.domain_stats import completion_of, dirty_status, domain_sample, progress_of
from rebalancerd.observe.domain_xml import parse_domain
from rebalancerd.observe.history import VM_CPU, History, Tier
from rebalancerd.observe.host_uri import HostUriError, check_uri
from rebalancerd.observe.memory_pages import BY_PAGES
from rebalancerd.observe.placement import Sighting, place
from rebalancerd.observe.policy_xml import effective_policy
from rebalancerd.observe.qemu_processes import of_command
from rebalancerd.observe.rates import Rates
from rebalancerd.observe.safe_xml import DomainXmlError
from rebalancerd.observe.settings import PolicyRule

counters = st.none() | st.integers(-(2**64), 2**70)
memory = st.none() | st.integers(-(2**40), 2**60)
states = st.sampled_from(list(DomainState))


@st.composite
def host_samples(draw: st.DrawFn) -> HostSample:
    domains = tuple(
        DomainSample(
            uuid=f"u{n}",
            name=draw(st.text(max_size=5)),
            state=draw(states),
            facts=None,
            vcpus=draw(st.none() | st.integers(1, 64)),
            cpu_time_ns=draw(counters),
            vcpu_delay_ns=draw(counters),
            balloon_bytes=draw(memory),
            rss_bytes=draw(memory),
            block_bytes=draw(counters),
            network_bytes=draw(counters),
        )
        for n in draw(st.sets(st.integers(0, 3)))
    )
    return HostSample(
        host="h",
        taken_at=draw(st.floats(-1e6, 1e6)),
        facts=HostFacts(uuid="u", cpus=draw(st.integers(0, 256)), memory_bytes=draw(st.integers(0, 2**44))),
        cpu_busy_ns=draw(counters),
        memory_total_bytes=draw(memory),
        memory_available_bytes=draw(memory),
        domains=domains,
    )


@given(st.lists(host_samples(), min_size=1, max_size=5))
def test_no_rate_is_ever_negative_nan_or_more_than_can_be(samples: list[HostSample]) -> None:
    rates = Rates(longest_seconds=60.0)
    for sample in samples:
        found = rates.update(sample)
        loads = [found.load, *found.vms.values()]
        figures = [getattr(load, name) for load in loads for name in type(load).__slots__]
        assert all(f is None or (math.isfinite(f) and f >= 0) for f in figures)
        assert found.load.cpu_cores is None or found.load.cpu_cores <= sample.facts.cpus
        for domain in sample.domains:
            cores = found.vms[domain.uuid].cpu_cores
            assert cores is None or cores <= max(domain.vcpus or 0, sample.facts.cpus) * 1.1 + 1.0
        assert found.vms.keys() == {d.uuid for d in sample.domains}


tags = st.sampled_from(["domain", "name", "uuid", "memory", "vcpu", "devices", "disk", "source", "cpu", "metadata", "os", "type", "interface", "policy", "hostdev", "secret"])  # fmt: skip
attributes = st.dictionaries(
    st.sampled_from(["type", "file", "mode", "unit", "current", "xmlns", "uuid", "listen"]),
    st.text("ab1<&'\"-9", max_size=4),
)


@st.composite
def almost_xml(draw: st.DrawFn, depth: int = 3) -> str:
    from xml.sax.saxutils import escape, quoteattr

    tag = draw(tags)
    inside = "".join(draw(st.lists(almost_xml(depth - 1), max_size=3))) if depth else escape(draw(st.text(max_size=6)))
    attrs = "".join(f" {k}={quoteattr(v)}" for k, v in draw(attributes).items())
    return f"<{tag}{attrs}>{inside}</{tag}>"


def parsed(xml: str) -> VmFacts | None:
    try:
        return parse_domain(xml, persistent=True, autostart=None, has_managed_save=None)
    except DomainXmlError:
        return None


BASE = "<uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid><memory>1024</memory>"


@given(st.text() | almost_xml() | st.binary().map(lambda b: b.decode("latin-1")))
@settings(max_examples=300)
def test_no_text_makes_the_parser_raise_anything_but_its_own_error(xml: str) -> None:
    parsed(xml)


@given(almost_xml())
@settings(max_examples=200)
def test_odd_parts_in_a_domain_give_facts_or_the_parsers_own_error(part: str) -> None:
    facts = parsed(f"<domain><name>n</name>{BASE}{part}<metadata><x xmlns='y'>{part}</x></metadata></domain>")
    assert facts is None or (facts.vcpus >= 1 and facts.memory_bytes > 0)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40))
def test_names_come_through_unchanged(name: str) -> None:
    from xml.sax.saxutils import escape

    facts = parsed(f"<domain><name>{escape(name)}</name>{BASE}</domain>")
    if facts is not None:  # XML itself forbids a few characters
        assert facts.name == name


stats_values = st.none() | st.booleans() | st.integers(-5, 2**66) | st.floats() | st.text(max_size=3)
stats_keys = st.sampled_from(
    ["state.state", "state.reason", "cpu.time", "vcpu.current", "vcpu.maximum", "vcpu.0.delay", "balloon.rss", "net.count",
     "net.0.rx.bytes", "block.count", "dirtyrate.calc_status", "dirtyrate.calc_period", "dirtyrate.megabytes_per_second",
     "type", "operation", "memory_total", "memory_dirty_rate", "time_elapsed", "downtime", "auto_converge_throttle"]
)  # fmt: skip


@given(st.dictionaries(stats_keys, stats_values))
def test_no_dictionary_of_libvirt_breaks_anything(stats: dict[str, object]) -> None:
    sample = domain_sample("u", "n", stats, None, fault=None)
    figures = (sample.cpu_time_ns, sample.rss_bytes, sample.network_bytes, sample.block_bytes, sample.vcpu_delay_ns)
    assert all(f is None or f >= 0 for f in figures)
    dirty_status(stats)
    done, running = completion_of(stats), progress_of(stats)
    assert done is None or done.throttle is None or 0 <= done.throttle <= 1
    assert running is None or running.elapsed_seconds >= 0


@given(st.text())
def test_a_uri_is_accepted_or_refused_by_name(uri: str) -> None:
    problem = ""
    try:
        check_uri("h1", uri)
    except HostUriError as error:
        problem = str(error)
    assert problem == "" or problem.startswith("host h1: ")


@given(
    st.lists(st.tuples(st.sampled_from(["u0", "u1", "u2"]), st.sampled_from(["h1", "h2", "h3"]), states, st.booleans()), max_size=9),
    st.lists(st.sampled_from(["u0", "u1"]), max_size=2, unique=True),
    st.dictionaries(st.sampled_from(["u0", "u1", "u2"]), st.sampled_from(["h1", "h2"])),
)  # fmt: skip
def test_every_vm_stands_once_on_a_host_that_lists_it(
    listed: list[tuple[str, str, DomainState, bool]], moving: list[str], before: dict[str, str]
) -> None:
    unique = {(uuid, host): (state, fresh) for uuid, host, state, fresh in listed}
    sightings = [
        Sighting(host, DomainSample(uuid=uuid, name="", state=state, facts=None), fresh)
        for (uuid, host), (state, fresh) in unique.items()
    ]
    ours = [
        MigrationRecord(id=u, vm_uuid=u, vm_name="", source="h1", destination="h2", state=MigrationState.RUNNING, intent_at=0)
        for u in moving
    ]  # fmt: skip
    found = place(sightings, ours, before)
    assert found.standings.keys() == {uuid for uuid, _ in unique}
    assert all((uuid, s.sighting.host) in unique for uuid, s in found.standings.items())
    assert {f.vm_uuid for f in found.in_flight if f.ours} == set(moving)
    assert len({f.vm_uuid for f in found.in_flight}) == len(found.in_flight)
    reversed_ = place(list(reversed(sightings)), ours, before)
    assert reversed_ == found, "the order of hosts does not matter"


modes = st.none() | st.sampled_from(list(Mode))
policies = st.builds(VmPolicy, mode=modes, postcopy=st.booleans(), priority=st.integers(-3, 3))


@given(policies, st.lists(st.tuples(st.sampled_from(["*", "a*", "b*"]), policies), max_size=4))
def test_merging_never_loosens_a_mode_nor_grants_post_copy_by_metadata(
    metadata: VmPolicy, rules: list[tuple[str, VmPolicy]]
) -> None:
    given_rules = [PolicyRule(name=pattern, policy=policy) for pattern, policy in rules]
    merged = effective_policy("a1", metadata, given_rules)
    matching = [r.policy for r in given_rules if r.name != "b*"]
    opinions = [p.mode for p in (metadata, *matching) if p.mode is not None]
    assert merged.mode == min(opinions, key=lambda m: m.rank, default=None)
    assert merged.postcopy == any(p.postcopy for p in matching)


@given(
    st.lists(
        st.builds(
            DirtyReading,
            taken_at=st.floats(-100, 200) | st.just(math.nan),
            period_seconds=st.sampled_from([0.0, 1.0, 4.0, 15.0, math.nan]),
            rate_bytes_per_second=st.floats(),
        ),
        max_size=12,
    ),
    st.integers(1, 2**40),
    st.sampled_from([BY_LIBVIRT, BY_PAGES]),
)
def test_a_pooled_curve_is_finite_ordered_and_within_the_memory(
    readings: list[DirtyReading], size: int, sampling: Sampling
) -> None:
    pool = DirtyPool(100.0, sampling)
    for reading in readings:
        pool.add("v", reading)
    curve = pool.curve("v", 100.0, size)
    if curve is not None:
        assert all(0 <= p.unique_bytes <= size for p in curve.points)
        assert all(math.isfinite(p.standard_error_bytes) and p.standard_error_bytes > 0 for p in curve.points)
        assert 0 <= curve.age_seconds <= 100


# what an agent may answer: nearly right, or anything at all
VM_UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
figures = (
    st.sampled_from([0, 1, 2, 0.05, 1.0, 4.0, 2**20, 2**30]) | st.floats() | st.integers() | st.none() | st.booleans()
)


@st.composite
def almost_answers(draw: st.DrawFn) -> object:
    """A sound answer with up to two figures of it replaced."""
    ends = st.lists(st.floats(0.01, 10.0), min_size=2, max_size=5, unique=True)
    points: list[dict[str, object]] = [
        {
            "period_seconds": period,
            "unique_bytes": draw(st.floats(0, 2**30)),
            "standard_error_bytes": draw(st.floats(0, 2**30)),
            "readings": draw(st.integers(1, 100)),
        }
        for period in sorted(draw(ends))
    ]
    age = draw(st.floats(0, 2000))
    vm: dict[str, object] = {
        "uuid": VM_UUID,
        "memory_bytes": 2**30,
        "age_seconds": age,
        "points": points,
        "reason": None,
    }
    answer: dict[str, object] = {"format": 1, "vms": [vm]}
    for _ in range(draw(st.integers(0, 2))):
        part = draw(st.sampled_from([answer, vm, *points]))
        part[draw(st.sampled_from(sorted(part)))] = draw(figures | st.text(max_size=3))
    return answer


answers = almost_answers() | st.recursive(
    figures | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner)
)
seen_by_libvirt = st.none() | st.builds(
    lambda unique, error: DirtyCurve(
        points=(DirtyPoint(period_seconds=1.0, unique_bytes=unique, standard_error_bytes=error, readings=1),), age_seconds=1.0
    ),
    st.floats(0, 2**30),
    st.floats(0, 2**28),
)  # fmt: skip


@given(answers.map(lambda told: json.dumps(told).encode()) | st.binary(), seen_by_libvirt, st.floats(0, 1e7))
@settings(max_examples=400)
def test_no_answer_of_an_agent_fails_or_makes_a_curve_that_cannot_be(
    body: bytes, libvirt: DirtyCurve | None, later: float
) -> None:
    try:
        told = AgentSample(host="h", curves=parse_curves(body))
    except ValueError as error:
        told = AgentSample(host="h", curves_fault=str(error))
    kept = AgentCurves(1800.0)
    kept.take("h", told, 5.0)
    curve, doubt = kept.choose(VM_UUID, "h", 2**30, libvirt, 5.0 + later)
    if curve is None or curve == libvirt:
        return
    assert doubt is None
    assert 0 <= curve.age_seconds <= 1800
    assert curve.points[-1].period_seconds >= 1
    for point in curve.points:
        assert 0 <= point.unique_bytes <= 2**30
        assert 0 < point.standard_error_bytes <= 2**30
        assert point.readings >= 1


@given(
    st.lists(
        st.sampled_from(["-uuid", "-m", "-object", VM_UUID, "size=4g", "memory-backend-ram"]) | st.text(), max_size=12
    )
)
def test_no_command_line_fails(words: list[str]) -> None:
    told = of_command(["/usr/bin/qemu-system-x86_64", *words])
    if told is not None:
        assert told[0].count("-") == 4
        assert (told[1] > 0) or told[2] is not None


ids = st.sampled_from(["a", "b", "c", "../d", "e\x00"])
ticks = st.lists(
    st.tuples(st.integers(0, 35), st.dictionaries(ids, st.floats(0, 100, width=32), max_size=4), st.booleans()),
    min_size=1,
    max_size=25,
)


@given(ticks)
@settings(max_examples=60, deadline=None)
def test_history_equals_a_plain_model_through_restarts(steps: list[tuple[int, dict[str, float], bool]]) -> None:
    """Rows are means per 10 s; gaps are NaN; six rows are kept; a restart between steps changes nothing."""
    start, rows = 1_000_000_000.0, 6
    model: dict[int, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        history = History(Path(directory), tiers=(Tier(10.0, rows),))
        now, seen = start, set()
        for pause, values, restart in steps:
            # a restart between two samples of one step keeps its mean; how many samples it was of is a guess
            crossed = int((now + pause) // 10) != int(now // 10)
            now += pause
            if restart and crossed:
                history = History(Path(directory), tiers=(Tier(10.0, rows),))
            history.append(now, {VM_CPU: values})
            seen |= values.keys()
            bucket = model.setdefault(int(now // 10), {})
            for name, value in values.items():
                bucket.setdefault(name, []).append(value)
        series = history.series(VM_CPU)
        last = int(now // 10) - 1
        first = max(min(model), last - rows + 1)
        assert series.end == (last + 1) * 10.0
        if series.values.size:
            assert set(series.ids) == seen
        for index, row in enumerate(range(first, last + 1)):
            for column, name in enumerate(series.ids):
                found, told = float(series.values[index, column]), model.get(row, {}).get(name)
                assert math.isnan(found) if told is None else np.isclose(found, np.mean(told), rtol=1e-5)
        history.flush()
        slots = json.loads((Path(directory) / "vm.slots.json").read_text())["slots"]
        assert len({slot for slot, _ in slots.values()}) == len(slots) == len(seen)
        history.close()
