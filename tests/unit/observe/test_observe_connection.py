"""Deadlines that cost only themselves, links that heal, and libvirt's own test driver."""

import threading
import time
from collections.abc import Callable

import libvirt
import pytest
from observe_world import HandClock

from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.vm import DomainState
from rebalancerd.observe.deadline_worker import DeadlineError, DeadlineWorker, TooManyHungCallsError
from rebalancerd.observe.libvirt_connection import (
    HostLink,
    host_error,
    open_read_only,
    open_read_write,
    start_event_loop,
)
from rebalancerd.observe.libvirt_probe import LibvirtProbe, cpu_question
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import HostRefusedError, HostUnreachableError

HOST = HostSettings(name="h1", uri="qemu:///system")
TEST_UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
NOBODY = "6695eb01-f6a4-8304-79aa-97f2502e1930"


class TestDeadlineWorker:
    def test_a_hung_call_costs_its_deadline_and_the_next_one_works(self) -> None:
        worker, free = DeadlineWorker("w"), threading.Event()
        with pytest.raises(DeadlineError):
            worker.run(free.wait, 0.02)
        assert worker.hung == 1
        assert worker.run(lambda: 7, 5.0) == 7
        free.set()

    def test_left_behind_threads_are_bounded_and_forgiven_when_they_end(self) -> None:
        worker, free = DeadlineWorker("w", most_hung=2), threading.Event()
        for _ in range(2):
            with pytest.raises(DeadlineError):
                worker.run(free.wait, 0.01)
        with pytest.raises(TooManyHungCallsError):
            worker.run(lambda: 1, 1.0)
        free.set()
        deadline = time.monotonic() + 5
        while worker.hung and time.monotonic() < deadline:
            time.sleep(0.005)
        assert worker.run(lambda: 1, 5.0) == 1

    def test_the_last_act_of_a_thread_that_is_left_behind(self) -> None:
        worker, free, done = DeadlineWorker("w"), threading.Event(), threading.Event()
        with pytest.raises(DeadlineError):
            worker.run(free.wait, 0.01, done.set)
        assert not done.is_set()
        free.set()
        assert done.wait(5)

    def test_errors_of_the_work_arrive_as_they_are(self) -> None:
        worker = DeadlineWorker("w")
        with pytest.raises(KeyError, match="x"):
            worker.run(lambda: {}["x"], 1.0)
        with pytest.raises(TimeoutError):  # its own, not ours
            worker.run(lambda: (_ for _ in ()).throw(TimeoutError("own")), 1.0)
        assert worker.hung == 0


class FakeConnection:
    """A connection that counts, and dies when told."""

    def __init__(self) -> None:
        self.alive, self.closed, self.close_callback = True, False, None

    def setKeepAlive(self, interval: int, count: int) -> None:
        self.keepalive = (interval, count)

    def registerCloseCallback(self, callback: Callable[..., None], opaque: object) -> None:
        self.close_callback = callback

    def unregisterCloseCallback(self) -> None:
        self.close_callback = None

    def isAlive(self) -> bool:
        return self.alive

    def close(self) -> None:
        self.closed = True


class Opening:
    """An opener with a script of what happens at each opening."""

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []
        self.failing = 0

    def __call__(self, host: HostSettings) -> FakeConnection:
        if self.failing:
            self.failing -= 1
            raise libvirt.libvirtError("refused")
        self.made.append(FakeConnection())
        return self.made[-1]


def link_of(opening: Opening, clock: HandClock, prepared: list[object], seconds: float = 5.0) -> HostLink:
    return HostLink(
        HOST,
        purpose="test",
        opener=opening,
        clock=clock,
        deadline_seconds=seconds,
        on_open=prepared.append,
        jitter=lambda: 1.0,
    )


class TestHostLink:
    def test_one_connection_serves_until_libvirt_closes_it_then_callbacks_are_registered_anew(self) -> None:
        opening, clock, prepared = Opening(), HandClock(), []
        link = link_of(opening, clock, prepared)
        assert [link.call("ask", lambda c: c) for _ in range(3)] == [opening.made[0]] * 3
        assert opening.made[0].keepalive == (5, 3)
        opening.made[0].close_callback(opening.made[0], 2, None)
        with pytest.raises(HostUnreachableError, match="keepalive"):
            link.call("ask", lambda c: c)
        clock.sleep(1.0)
        assert link.call("ask", lambda c: c) is opening.made[1]
        assert prepared == opening.made
        link.close()

    def test_back_off_doubles_up_to_half_a_minute_and_asks_nobody_in_between(self) -> None:
        opening, clock = Opening(), HandClock()
        opening.failing = 8
        link = link_of(opening, clock, [])
        waits = []
        while opening.failing:
            before = opening.failing
            with pytest.raises((HostUnreachableError, HostRefusedError)):
                link.call("ask", lambda c: c)
            assert opening.failing == before - 1
            begun = clock.now
            while True:
                clock.sleep(0.5)
                if link._not_before <= clock.now:
                    break
                with pytest.raises(HostUnreachableError, match="next attempt in"):
                    link.call("ask", lambda c: c)
            waits.append(clock.now - begun)
        assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        assert link.call("ask", lambda c: 5) == 5

    def test_a_hung_call_is_unreachable_and_its_connection_is_closed_when_it_returns(self) -> None:
        opening, clock, free = Opening(), HandClock(), threading.Event()
        link = link_of(opening, clock, [])
        with pytest.raises(HostUnreachableError, match="h1: ask: no answer within"):
            link.call("ask", lambda c: free.wait(), deadline_seconds=0.02)
        free.set()
        deadline = time.monotonic() + 5
        while not opening.made[0].closed and time.monotonic() < deadline:
            time.sleep(0.005)
        assert opening.made[0].closed
        clock.sleep(1.0)
        assert link.call("ask", lambda c: c) is opening.made[1]

    def test_an_answer_with_an_error_keeps_the_connection(self) -> None:
        opening = Opening()
        link = link_of(opening, HandClock(), [])

        def refuse(_: object) -> None:
            raise libvirt.libvirtError("no")

        with pytest.raises(HostRefusedError):
            link.call("ask", refuse)
        assert link.call("ask", lambda c: c) is opening.made[0]


def error(code: int, domain: int) -> libvirt.libvirtError:
    made = libvirt.libvirtError("x")
    made.err = (code, domain, "the message", 2, "", "", "", 0, 0)
    return made


@pytest.mark.parametrize(
    ("code", "domain", "kind"),
    [
        (38, 7, HostUnreachableError),  # socket gone
        (1, 7, HostUnreachableError),  # client socket is closed
        (39, 13, HostUnreachableError),
        (45, 7, HostRefusedError),  # authentication failed: it answered
        (29, 0, HostRefusedError),
        (42, 10, HostRefusedError),
        (38, 10, HostRefusedError),  # an errno of the driver, not of the socket
    ],
)
def test_libvirts_codes_tell_unreachable_from_refused(code: int, domain: int, kind: type) -> None:
    mapped = host_error("h1", "asked", error(code, domain))
    assert type(mapped) is kind
    assert "the message" in str(mapped)
    if isinstance(mapped, HostRefusedError):
        assert mapped.code == code
    assert type(host_error("h1", "asked", error(42, 10), alive=False)) is HostUnreachableError


def open_test_driver(_: HostSettings) -> libvirt.virConnect:
    start_event_loop()
    return libvirt.openReadOnly("test:///default")


class TestAgainstLibvirtsTestDriver:
    """The contract of the port on a real libvirt library, as far as its test driver goes."""

    @pytest.fixture
    def read(self) -> LibvirtRead:
        return LibvirtRead([HOST], ObserveSettings(), HandClock(), opener=open_test_driver)

    def test_sample_has_the_domain_its_facts_and_no_invented_figures(self, read: LibvirtRead) -> None:
        sample = read.sample("h1")
        (domain,) = sample.domains
        assert (domain.uuid, domain.state, domain.name) == (TEST_UUID, DomainState.RUNNING, "test")
        assert domain.facts is not None
        assert (domain.facts.vcpus, domain.facts.persistent, domain.facts.autostart) == (2, True, False)
        assert (domain.cpu_time_ns, domain.rss_bytes, domain.network_bytes) == (None, None, None)
        assert sample.facts.cpus == 16
        assert sample.memory_total_bytes is None
        assert sample.cpu_busy_ns is not None
        read.close()

    def test_absent_is_said_of_no_domain_only(self, read: LibvirtRead) -> None:
        assert read.locate("h1", TEST_UUID) is DomainState.RUNNING
        assert read.locate("h1", NOBODY) is DomainState.ABSENT
        assert read.domain_facts("h1", NOBODY) is None
        assert read.progress("h1", NOBODY) is None
        with pytest.raises(HostRefusedError) as refused:
            read.progress("h1", TEST_UUID)
        assert refused.value.code == libvirt.VIR_ERR_NO_SUPPORT

    def test_inventory_says_unknown_of_what_the_driver_does_not_support(self, read: LibvirtRead) -> None:
        inventory = read.inventory("h1")
        assert inventory.networks == {"default"}
        assert inventory.pools == {"default-pool"}
        assert inventory.secrets is None
        assert inventory.nwfilters is None
        assert inventory.domains == ((TEST_UUID, "test", DomainState.RUNNING),)

    def test_refused_connection_and_unknown_scheme_name_the_host(self) -> None:
        gone = HostSettings(name="gone", uri="qemu+unix:///system?socket=/nonexistent/sock")
        odd = HostSettings(name="odd", uri="vbox:///session")
        read = LibvirtRead([gone, odd], ObserveSettings(), HandClock())
        with pytest.raises(HostUnreachableError, match=r"gone: cannot connect to .*nonexistent"):
            read.sample("gone")
        with pytest.raises(HostRefusedError, match="odd: host odd: unknown URI scheme 'vbox'"):
            read.sample("odd")

    def test_nothing_is_printed_to_stderr(self, read: LibvirtRead, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(HostRefusedError):
            read.progress("h1", TEST_UUID)
        assert capfd.readouterr().err == ""

    def test_both_openers_refuse_other_drivers(self) -> None:
        for opener in (open_read_only, open_read_write):
            with pytest.raises(ValueError, match="unknown URI scheme"):
                opener(HostSettings(name="h", uri="test:///default"))


class TestProbe:
    def test_off_makes_no_probe(self) -> None:
        with pytest.raises(ValueError, match="off"):
            LibvirtProbe([HOST], ObserveSettings(probe="off"), HandClock())

    @pytest.mark.parametrize("period", [0, 61, 0.5, True, -1])
    def test_only_whole_seconds_from_1_to_60(self, period: int) -> None:
        probe = LibvirtProbe([HOST], ObserveSettings(), HandClock(), opener=open_test_driver)
        with pytest.raises(ValueError, match="1 to 60"):
            probe.start_dirty_rate("h1", TEST_UUID, period)

    def test_it_offers_nothing_that_moves_a_vm(self) -> None:
        public = {name for name in vars(LibvirtProbe) if not name.startswith("_")}
        assert public == {"start_dirty_rate", "cpu_fit", "close"}

    def test_software_emulation_needs_no_question_and_passthrough_allows_none(self) -> None:
        os = "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
        assert cpu_question("<domain type='qemu'/>")[0] is CpuFit.COMPATIBLE  # type: ignore[index]
        passthrough = cpu_question(f"<domain type='kvm'>{os}<cpu mode='host-passthrough'/></domain>")
        assert passthrough[0] is CpuFit.UNKNOWN  # type: ignore[index]
        assert cpu_question(f"<domain type='kvm'>{os}</domain>")[0] is CpuFit.UNKNOWN  # type: ignore[index]

    @pytest.mark.parametrize(
        ("answer", "fit"),
        [(0, CpuFit.INCOMPATIBLE), (1, CpuFit.COMPATIBLE), (2, CpuFit.COMPATIBLE), (-1, CpuFit.UNKNOWN)],
    )
    def test_what_the_destination_answers(self, answer: int, fit: CpuFit) -> None:
        xml = "<domain type='kvm'><os><type arch='x86_64' machine='q35'>hvm</type></os><cpu mode='custom'><model>H</model></cpu></domain>"
        asked: list[tuple[object, ...]] = []

        class Connection:
            def compareHypervisorCPU(self, *arguments: object) -> int:
                asked.append(arguments)
                return answer

        question = cpu_question(xml)
        assert not isinstance(question, tuple)
        assert question(Connection())[0] is fit
        assert asked == [(None, "x86_64", "q35", "kvm", '<cpu mode="custom"><model>H</model></cpu>', 0)]
