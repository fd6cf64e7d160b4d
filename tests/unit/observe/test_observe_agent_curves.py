"""Curves that agents tell: what is believed of an answer, and when the observer uses it for a VM."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import structlog
from observe_world import UUIDS, Guest, HandAgents, HandClock, HandProbe, HandRead, facts_of

from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint, DirtyReading
from rebalancerd.cluster.sample import AgentCurve, AgentSample
from rebalancerd.cluster.snapshot import Snapshot, Unknown
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.observe.agent_client import MOST_CURVE_BYTES, HttpAgents
from rebalancerd.observe.agent_curves import MOST_VMS, parse_curves
from rebalancerd.observe.dirty_pool import MOST_READINGS, least_error
from rebalancerd.observe.history import History, Tier
from rebalancerd.observe.memory_pages import BY_PAGES
from rebalancerd.observe.observer import Observer
from rebalancerd.observe.settings import HostSettings, ObserveSettings

U, V = UUIDS[:2]
FIGURES = "rebalancerd_agent_cpus 4\nrebalancerd_agent_dirty_curves 1\n"


def point(period: float, unique: float, **changes: object) -> dict[str, object]:
    told = {"period_seconds": period, "unique_bytes": unique, "standard_error_bytes": float(MIB), "readings": 2}
    return {**told, **changes}


def vm(**changes: object) -> dict[str, object]:
    points = [point(0.1, 10.0 * MIB), point(1.0, 50.0 * MIB), point(4.0, 100.0 * MIB)]
    return {"uuid": U, "memory_bytes": GIB, "age_seconds": 30.0, "points": points, "reason": None, **changes}


def answer(*vms: object, **changes: object) -> bytes:
    return json.dumps({"format": 1, "every_seconds": 10.0, "vms": vms or [vm()], **changes}).encode()


def test_a_sound_answer_is_a_curve() -> None:
    (told,) = parse_curves(answer(vm(uuid=U.upper())))
    assert told == AgentCurve(
        uuid=U,
        memory_bytes=GIB,
        curve=DirtyCurve(
            points=tuple(
                DirtyPoint(
                    period_seconds=period,
                    unique_bytes=unique * MIB,
                    standard_error_bytes=max(MIB, least_error(unique * MIB, GIB, BY_PAGES) / 2**0.5),
                    readings=2,
                )
                for period, unique in ((0.1, 10.0), (1.0, 50.0), (4.0, 100.0))
            ),
            age_seconds=30.0,
        ),
    )


def test_no_agent_is_surer_than_its_pages_let_it_be() -> None:
    sure = [point(p, 100.0 * MIB, standard_error_bytes=0, readings=10**9) for p in (0.1, 1.0)]
    (told,) = parse_curves(answer(vm(points=sure)))
    assert told.curve is not None
    for seen in told.curve.points:
        assert seen.readings == MOST_READINGS
        assert seen.standard_error_bytes == pytest.approx(least_error(100.0 * MIB, GIB, BY_PAGES) / 8)


ABSURD = {
    "no points": vm(points=None),
    "one point": vm(points=[point(4.0, 1.0)]),
    "too many points": vm(points=[point(1.0 + n, 1.0) for n in range(17)]),
    "points that are none": vm(points=[1, 2]),
    "periods that fall": vm(points=[point(4.0, 1.0), point(1.0, 1.0)]),
    "equal periods": vm(points=[point(4.0, 1.0), point(4.0, 1.0)]),
    "no period that reaches far": vm(points=[point(0.1, 1.0), point(0.5, 1.0)]),
    "a period of nothing": vm(points=[point(0.0, 1.0), point(1.0, 1.0)]),
    "negative bytes": vm(points=[point(0.1, -1.0), point(1.0, 1.0)]),
    "more than its memory": vm(points=[point(0.1, 1.0), point(1.0, GIB + 1.0)]),
    "a truth for a figure": vm(points=[point(0.1, True), point(1.0, 1.0)]),
    "text for a figure": vm(points=[point(0.1, 1.0), point(1.0, 1.0, readings="3")]),
    "no readings": vm(points=[point(0.1, 1.0), point(1.0, 1.0, readings=0)]),
    "a negative error": vm(points=[point(0.1, 1.0), point(1.0, 1.0, standard_error_bytes=-1)]),
    "no memory": vm(memory_bytes=0),
    "memory beyond all": vm(memory_bytes=10**300),
    "an age to come": vm(age_seconds=-5),
    "no age": vm(age_seconds=None),
    "no points and no reason": vm(points=[]),
}


@pytest.mark.parametrize("absurd", ABSURD.values(), ids=ABSURD.keys())
def test_an_absurd_vm_costs_itself_only(absurd: object) -> None:
    told = {t.uuid: t for t in parse_curves(answer(absurd, vm(uuid=V)))}
    assert (told[U].curve, told[U].fault is None) == (None, False)
    assert told[V].curve is not None


def test_of_a_vm_told_twice_nothing_is_believed() -> None:
    told = parse_curves(answer(vm(), vm(uuid=V), vm(uuid=U.upper())))
    assert {t.uuid: (t.curve is None, t.fault) for t in told} == {U: (True, "told twice"), V: (False, None)}


def test_a_reason_is_data() -> None:
    (told,) = parse_curves(answer(vm(points=[], reason="\x1b[2J\n" + "x" * 9999)))
    assert told.curve is None
    assert told.fault == "?[2J?" + "x" * 195


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"<html>",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"format": 1}',
        b'{"format": 1, "vms": {}}',
        answer(format=2),
        answer(every_seconds=float("nan")),
        answer(vm(age_seconds=float("inf"))),
        answer(vm(uuid="no")),
        answer(vm(uuid=None)),
        answer("x"),
        answer(*(vm(uuid=f"00000000-0000-4000-9000-{n:012d}", points=[]) for n in range(MOST_VMS + 1))),
        b'{"format": 1, "vms": [' + b"9" * 10_000 + b"]}",
    ],
    ids=range(16),
)
def test_what_is_no_answer_is_refused_whole(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not JSON|format|UUID|VMs"):
        parse_curves(body)


@dataclass
class Served:
    """Agents behind a transport of ours; ``dirty``: what /dirty answers."""

    figures: str = FIGURES
    dirty: httpx.Response | Exception = field(default_factory=lambda: httpx.Response(200, content=answer()))
    asked: list[str] = field(default_factory=list)

    def read(self, url: str = "http://a:1") -> AgentSample | None:
        def reply(request: httpx.Request) -> httpx.Response:
            self.asked.append(request.url.path)
            if request.url.path.endswith("/metrics"):
                return httpx.Response(200, text=self.figures)
            if isinstance(self.dirty, Exception):
                raise self.dirty
            return self.dirty

        agents = HttpAgents({"h1": url}, clock=HandClock(), transport=httpx.MockTransport(reply))
        sample = agents.read("h1")
        agents.close()
        return sample


@pytest.mark.parametrize("url", ["http://a:1", "http://a:1/", "http://a:1/hosts/h1/metrics"])
def test_the_client_asks_beside_the_figures(url: str) -> None:
    served = Served()
    sample = served.read(url)
    assert sample is not None
    assert [c.uuid for c in sample.curves] == [U]
    assert served.asked == (["/hosts/h1/metrics", "/hosts/h1/dirty"] if "hosts" in url else ["/metrics", "/dirty"])


def test_an_agent_that_does_not_measure_is_not_asked() -> None:
    served = Served(figures="rebalancerd_agent_cpus 4\n")
    sample = served.read()
    assert sample is not None
    assert (sample.curves, sample.curves_fault, served.asked) == ((), None, ["/metrics"])


@pytest.mark.parametrize(
    ("dirty", "fault"),
    [
        (httpx.Response(500), "HTTPStatusError"),
        (httpx.Response(302, headers={"Location": "http://elsewhere/"}), "HTTPStatusError"),
        (httpx.ReadTimeout("slow"), "ReadTimeout"),
        (httpx.Response(200, text=FIGURES), "not JSON"),
        (httpx.Response(200, content=b" " * (MOST_CURVE_BYTES + 1)), "longer than"),
        (httpx.Response(200, content=b"\x1f\x8b", headers={"Content-Type": "x"}), "not JSON"),
    ],
    ids=range(6),
)
def test_curves_that_cannot_be_had_cost_no_figure(dirty: httpx.Response | Exception, fault: str) -> None:
    sample = Served(dirty=dirty).read()
    assert sample is not None
    assert sample.curves == ()
    assert fault in (sample.curves_fault or "")


def test_an_agent_whose_curves_are_refused_is_told_once() -> None:
    pages = [b"x", b"y", answer(), b"z"]

    def reply(request: httpx.Request) -> httpx.Response:
        metrics = request.url.path == "/metrics"
        return httpx.Response(200, content=FIGURES.encode() if metrics else pages.pop(0))

    agents = HttpAgents({"h1": "http://a:1"}, clock=HandClock(), transport=httpx.MockTransport(reply))
    with structlog.testing.capture_logs() as logs:
        found = [agents.read("h1") for _ in range(4)]
    agents.close()
    assert [len(sample.curves) for sample in found if sample is not None] == [0, 0, 1, 0]
    assert [entry["event"] for entry in logs] == ["agent_curves_refused"] * 2


def test_an_answer_that_drips_does_not_hold_up_its_host() -> None:
    """Each piece comes in time, the whole does not."""

    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(1000):
                time.sleep(0.01)
                yield b" "

    def reply(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/metrics":
            return httpx.Response(200, text=FIGURES)
        return httpx.Response(200, stream=Drip())

    agents = HttpAgents({"h1": "http://a:1"}, timeout=0.1, clock=HandClock(), transport=httpx.MockTransport(reply))
    sample = agents.read("h1")
    agents.close()
    assert sample is not None
    assert sample.curves_fault == "answer took longer than 0.1 s"


def test_a_packed_answer_is_not_unpacked() -> None:
    import gzip

    packed = httpx.Response(
        200,
        stream=httpx.ByteStream(gzip.compress(answer())),
        headers={"Content-Encoding": "gzip"},
    )
    sample = Served(dirty=packed).read()
    assert sample is not None
    assert sample.curves_fault == "answer is packed"


CURVE = parse_curves(answer())[0]


class World:
    """Two hosts with an agent each, U on the first; libvirt's reading of it: 60 MiB in 1 s."""

    def __init__(self, path: Path) -> None:
        self.clock, self.agents = HandClock(), HandAgents()
        self.read = HandRead(self.clock, names=("h1", "h2"), guests=[Guest(U, "h1"), Guest(V, "h2")])
        self.observer = Observer(
            hosts=[HostSettings(name=n, uri=f"qemu+tls://{n}/system") for n in self.read.names],
            settings=ObserveSettings(),
            read=self.read,
            probe=HandProbe(),
            agents=self.agents,
            history=History(path, tiers=(Tier(20.0, 50),)),
            clock=self.clock,
            concurrent=False,
        )

    def probed(self, mib: float = 60.0, period: float = 1.0) -> None:
        self.read.guests[0].dirty = DirtyReading(
            taken_at=self.clock.wall(), period_seconds=period, rate_bytes_per_second=mib * MIB / period
        )

    def tell(self, *curves: AgentCurve, host: str = "h1", fault: str | None = None) -> None:
        self.agents.samples[host] = AgentSample(host=host, curves=curves, curves_fault=fault)

    def tick(self, seconds: float = 10.0) -> Snapshot:
        self.clock.sleep(seconds)
        self.observer.sample()
        return self.look()

    def look(self) -> Snapshot:
        return self.observer.snapshot(operator=OperatorState(), ours=())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.probed()
    yield made
    made.observer.close()


def periods(seen: Snapshot, uuid: str = U) -> list[float]:
    curve = seen.vm(uuid).dirty
    return [] if curve is None else [p.period_seconds for p in curve.points]


def test_the_agents_curve_is_used_and_grows_older(world: World) -> None:
    world.tell(CURVE)
    seen = world.tick()
    assert periods(seen) == [0.1, 1.0, 4.0]
    assert seen.unknowns == ()
    world.clock.sleep(5.0)
    curve = world.look().vm(U).dirty
    assert curve is not None
    assert curve.age_seconds == 35.0


def test_a_silent_agent_is_believed_until_its_curve_is_old(world: World) -> None:
    world.tell(CURVE)
    world.tick()
    world.agents.samples.clear()
    assert periods(world.tick()) == [0.1, 1.0, 4.0]
    world.probed()
    seen = world.tick(1800.0)
    assert periods(seen) == [1.0]
    told = [u.reason for u in seen.unknowns if u.field == "dirty"]
    assert told == ["by its host's agent: the curve is stale"]


def test_an_agent_that_speaks_of_it_no_more_is_believed_no_more(world: World) -> None:
    world.tell(CURVE)
    world.tick()
    world.tell()
    assert periods(world.tick()) == [1.0]


def test_a_broken_answer_is_counted_and_the_last_one_kept(world: World) -> None:
    world.tell(CURVE)
    world.tick()
    world.tell(fault="not JSON")
    seen = world.tick()
    assert periods(seen) == [0.1, 1.0, 4.0]
    assert seen.unknowns == (Unknown(subject="h1", field="dirty", reason="by its agent: not JSON"),)
    world.tell(CURVE)
    assert world.tick().unknowns == ()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (AgentCurve(uuid=U, memory_bytes=0, curve=None, fault="Permission denied"), "Permission denied"),
        (AgentCurve(uuid=U, memory_bytes=GIB // 2, curve=CURVE.curve), f"measured {GIB // 2} of {GIB} bytes"),
        (AgentCurve(uuid=U, memory_bytes=2 * GIB, curve=CURVE.curve), f"measured {2 * GIB} of {GIB} bytes"),
        (parse_curves(answer(vm(age_seconds=1801)))[0], "the curve is stale"),
    ],
)
def test_where_it_cannot_be_used_libvirts_readings_stand(world: World, told: AgentCurve, reason: str) -> None:
    world.tell(told)
    seen = world.tick()
    assert periods(seen) == [1.0]
    assert seen.unknowns == (Unknown(subject=U, field="dirty", reason=f"by its host's agent: {reason}"),)


def test_why_a_curve_is_not_used_is_logged_once(world: World) -> None:
    structlog.reset_defaults()  # a command run in this process by another test may have raised the level
    with structlog.testing.capture_logs() as logs:
        for number in range(3):
            world.tell(AgentCurve(uuid=U, memory_bytes=0, curve=None, fault=f"another word {number}"))
            world.tick()
            world.look()
        world.tell(AgentCurve(uuid=U, memory_bytes=GIB // 2, curve=CURVE.curve))
        world.tick()
    said = [entry["reason"] for entry in logs if entry["event"] == "agent_curve_not_used"]
    assert said == ["another word 0", f"measured {GIB // 2} of {GIB} bytes"]


def test_no_agent_makes_a_vm_look_quiet_that_libvirt_saw_writing(world: World) -> None:
    """Whatever the agent looked at, it was not what libvirt saw."""
    quiet = parse_curves(answer(vm(points=[point(0.1, 0.0), point(1.0, 1.0 * MIB), point(4.0, 2.0 * MIB)])))[0]
    world.probed(mib=400.0)
    world.tell(quiet)
    seen = world.tick()
    assert periods(seen) == [1.0]
    assert [u.reason for u in seen.unknowns] == ["by its host's agent: libvirt saw far more written"]


def test_what_libvirts_own_scatter_explains_is_no_contradiction(world: World) -> None:
    world.probed(mib=90.0)
    world.tell(CURVE)
    assert periods(world.tick()) == [0.1, 1.0, 4.0]


def test_an_agent_speaks_for_its_own_host_only(world: World) -> None:
    """Of a VM that runs elsewhere, and of one that nobody has, it may say what it likes."""
    stranger = AgentCurve(uuid=UUIDS[9], memory_bytes=GIB, curve=CURVE.curve)
    nobody = AgentCurve(uuid=UUIDS[10], memory_bytes=0, curve=None, fault="?")
    plain = world.tick()
    world.tell(CURVE, stranger, nobody, host="h2")
    seen = world.tick()
    assert periods(seen) == [1.0]
    assert seen.unknowns == ()
    assert [v.uuid for v in seen.vms] == [v.uuid for v in plain.vms]


def test_a_vm_that_libvirt_never_probed_has_the_agents_curve(world: World) -> None:
    world.read.guests[1].facts = facts_of(V, memory_bytes=GIB)
    world.tell(AgentCurve(uuid=V, memory_bytes=GIB, curve=CURVE.curve), host="h2")
    seen = world.tick()
    assert periods(seen, V) == [0.1, 1.0, 4.0]
    assert periods(seen, U) == [1.0]
