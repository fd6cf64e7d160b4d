"""The agent's meter: which processes are guests, who is measured when, what is served, and a whole way to the daemon."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from observe_world import UUIDS, HandClock
from quiet_child import MEMORY, PAGES, Child

from rebalancerd.cluster.dirty import DirtyReading
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.observe.agent import RunningAgent, serve_agent
from rebalancerd.observe.agent_client import HttpAgents
from rebalancerd.observe.agent_dirty import DIRTY_PATH, KEEP_SECONDS, DirtyMeter
from rebalancerd.observe.memory_pages import MemoryUnreadableError, measure
from rebalancerd.observe.qemu_processes import QemuProcess, of_command, running, started_at, vcpu_nanoseconds

QEMU = "/usr/bin/qemu-system-x86_64"
U = UUIDS[0]
JSON_BACKEND = '{"qom-type":"memory-backend-ram","id":"pc.ram","size":1073741824}'


def command(*extra: str, uuid: str = U, memory: str = "size=1048576k,slots=16,maxmem=8g") -> list[str]:
    return [QEMU, "-name", "guest=g,debug-threads=on", "-m", memory, "-uuid", uuid, "-object", JSON_BACKEND, *extra]


class TestCommandLines:
    @pytest.mark.parametrize(
        ("memory", "size"), [("size=1048576k,maxmem=8g", GIB), ("1024", GIB), ("2G", 2 * GIB), ("size=512M", 512 * MIB)]
    )
    def test_a_guest(self, memory: str, size: int) -> None:
        assert of_command(command(memory=memory)) == (U, size, None)
        assert of_command(["qemu-kvm", *command(memory=memory)[1:]]) == (U, size, None)

    @pytest.mark.parametrize(
        "words",
        [
            [],
            [""],
            ["/usr/bin/vim", "-uuid", U, "-m", "1024"],
            [QEMU, "-m", "1024"],
            [QEMU, "-uuid"],
            command(uuid="../../etc"),
            command(uuid=U + "\n"),
            command("-uuid", UUIDS[1]),  # which one?
        ],
    )
    def test_what_names_no_guest(self, words: list[str]) -> None:
        assert of_command(words) is None

    @pytest.mark.parametrize("memory", ["", "lots", "-1", "0", "99999999999999999T", "size=", "١٠٢٤", "1024,\nsize=5"])
    def test_a_size_that_is_none_is_told(self, memory: str) -> None:
        told = of_command(command(memory=memory))
        assert told is not None
        assert (told[1] == 0) == (told[2] is not None)
        assert told[1] in (0, GIB)  # QEMU reads the last one as 1024 and a broken option

    def test_memory_in_parts_is_told(self) -> None:
        for part in (JSON_BACKEND, "memory-backend-memfd,id=dimm0,size=1g", '{ "qom-type" : "memory-backend-file"}'):
            assert of_command(command("-object", part)) == (U, GIB, "its memory is in 2 parts")

    def test_names_are_data(self) -> None:
        for name in ("guest=-uuid", f"guest=x,-uuid={UUIDS[1]}", "\udcff\n-m 5"):
            assert of_command([QEMU, "-name", name, *command()[3:]]) == (U, GIB, None)


class Proc:
    """A /proc of files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        (path / "cpuinfo").write_text("")
        (path / "self").mkdir()

    def guest(self, pid: int, uuid: str, *, started: int = 5, ran: int = 100, vcpu: str = "CPU 0/KVM") -> None:
        home = self.path / str(pid)
        for number, (name, nanoseconds) in enumerate((("qemu-system-x86", 7), (vcpu, ran)), pid):
            task = home / "task" / str(number)
            task.mkdir(parents=True, exist_ok=True)
            (task / "comm").write_text(name + "\n")
            (task / "schedstat").write_text(f"{nanoseconds} 3 9\n")
        (home / "cmdline").write_bytes("\0".join(command(uuid=uuid)).encode() + b"\0")
        (home / "stat").write_text(f"{pid} (evil) 1 (x) S " + " ".join(["0"] * 18) + f" {started} 0 0\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


def test_processes_are_found_by_uuid_and_twins_are_left_alone(proc: Proc) -> None:
    proc.guest(30, UUIDS[0])
    proc.guest(20, UUIDS[1], started=77)
    proc.guest(21, UUIDS[1])
    (proc.path / "99").mkdir()  # ended between listing and looking
    (proc.path / "98").mkdir()
    (proc.path / "98" / "cmdline").write_bytes(b"\xff\0" * 2_000_000)

    found = running(proc.path)

    assert [(p.pid, p.started, p.uuid, p.fault) for p in found] == [
        (30, 5, UUIDS[0], None),
        (20, 77, UUIDS[1], "several processes have this UUID"),
        (21, 5, UUIDS[1], "several processes have this UUID"),
    ]
    assert vcpu_nanoseconds(30, proc.path) == 100
    assert started_at(30, proc.path) == 5
    proc.guest(31, UUIDS[2], vcpu="worker")
    assert vcpu_nanoseconds(31, proc.path) is None
    assert vcpu_nanoseconds(99, proc.path) is None
    assert started_at(99, proc.path) is None


class Bench:
    """A meter on that /proc whose looks are written down; each lets the vCPUs run for ``runs`` ns."""

    def __init__(self, proc: Proc) -> None:
        self.proc, self.clock = proc, HandClock()
        self.looked: list[tuple[str, int]] = []
        self.runs, self.share = 50, 0.25
        self.during: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self.meter = DirtyMeter(proc=proc.path, look=self.look, monotonic=self.clock.monotonic)

    def look(self, process: QemuProcess, seed: int) -> tuple[DirtyReading, ...]:
        self.looked.append((process.uuid, seed))
        self.clock.sleep(4.0)
        ran = vcpu_nanoseconds(process.pid, self.proc.path) or 0
        if self.error is not None:
            raise self.error
        self.proc.guest(process.pid, process.uuid, ran=ran + self.runs, started=process.started)
        self.during()
        return tuple(
            DirtyReading(taken_at=self.clock.now, period_seconds=p, rate_bytes_per_second=GIB * self.share / p)
            for p in (0.1, 1.0, 4.0)
        )

    def turn(self) -> dict[str, dict[str, object]]:
        self.meter.turn()
        self.clock.sleep(6.0)
        return self.told()

    def told(self) -> dict[str, dict[str, object]]:
        page = json.loads(self.meter.page())
        assert page.keys() == {"format", "every_seconds", "vms"}
        return {vm["uuid"]: vm for vm in page["vms"]}

    def figure(self) -> float:
        (family,) = self.meter.collect()
        return float(family.samples[0].value)


@pytest.fixture
def bench(proc: Proc) -> Bench:
    return Bench(proc)


def test_guests_take_turns_and_have_a_curve_with_its_age(bench: Bench) -> None:
    bench.proc.guest(30, UUIDS[0])
    bench.proc.guest(40, UUIDS[1])
    assert bench.turn().keys() == {UUIDS[0]}, "the other was not looked at yet"
    for _ in range(3):
        told = bench.turn()

    assert bench.looked == [(UUIDS[0], 1), (UUIDS[1], 2), (UUIDS[0], 3), (UUIDS[1], 4)]
    vm = told[UUIDS[0]]
    assert (vm["memory_bytes"], vm["age_seconds"], vm["reason"]) == (GIB, 16.0, None)
    points = vm["points"]
    assert isinstance(points, list)
    assert [(p["period_seconds"], p["unique_bytes"], p["readings"]) for p in points] == [
        (0.1, GIB / 4, 2),
        (1.0, GIB / 4, 2),
        (4.0, GIB / 4, 2),
    ]
    assert all(p["standard_error_bytes"] > 0 for p in points)
    assert bench.figure() == 2
    bench.clock.sleep(KEEP_SECONDS)
    assert bench.told() == {}
    assert bench.figure() == 0


def test_a_guest_that_stands_still_is_not_quiet(bench: Bench) -> None:
    """Paused, or waiting for its incoming copy."""
    bench.proc.guest(30, U)
    bench.runs = 0
    vm = bench.turn()[U]
    assert (vm["points"], vm["age_seconds"], vm["reason"]) == ([], None, "its vCPUs did not run")
    bench.runs = 1
    assert bench.turn()[U]["reason"] is None


def test_a_guest_whose_vcpus_cannot_be_told_is_not_measured(bench: Bench) -> None:
    bench.during = (bench.proc.path / "30" / "task" / "31" / "schedstat").unlink
    bench.proc.guest(30, U)
    vm = bench.turn()[U]
    assert (vm["points"], vm["reason"]) == ([], "whether its vCPUs ran cannot be told")


def test_a_pid_used_again_is_another_guest(bench: Bench) -> None:
    bench.proc.guest(30, U)
    bench.turn()
    bench.during = lambda: bench.proc.guest(30, U, started=6)
    assert bench.turn()[U]["reason"] == "its process ended"
    bench.during = lambda: None
    bench.share = 0.5
    points = bench.turn()[U]["points"]
    assert isinstance(points, list)
    assert [(p["unique_bytes"], p["readings"]) for p in points] == [(GIB / 2, 1)] * 3, "nothing of the first process"


def test_a_second_process_of_a_uuid_ends_what_is_told(bench: Bench) -> None:
    bench.proc.guest(30, U)
    bench.turn()
    bench.proc.guest(40, U)
    vm = bench.turn()[U]
    assert (vm["points"], vm["reason"]) == ([], "several processes have this UUID")


def test_what_cannot_be_read_is_logged_once_and_always_told(bench: Bench) -> None:
    bench.proc.guest(30, UUIDS[0])
    bench.proc.guest(40, UUIDS[1])
    bench.error = MemoryUnreadableError("process 30: Permission denied")
    with structlog.testing.capture_logs() as logs:
        bench.turn()
        bench.error = MemoryUnreadableError("process 40: Permission denied")
        told = bench.turn()
    assert [entry["event"] for entry in logs] == ["agent_dirty_unmeasured"]
    assert [vm["reason"] for vm in told.values()] == ["process 30: Permission denied", "process 40: Permission denied"]


def test_a_bug_and_a_missing_proc_cost_one_turn(bench: Bench) -> None:
    bench.proc.guest(30, U)
    bench.error = RuntimeError("a bug")
    bench.turn()
    bench.error = None
    assert bench.turn()[U]["reason"] is None
    gone = DirtyMeter(proc=bench.proc.path / "gone")
    gone.turn()
    assert json.loads(gone.page())["vms"] == []


@pytest.mark.parametrize("every", [0.0, 4.9, float("nan"), float("inf"), 1e9])
def test_how_often_has_limits(every: float) -> None:
    with pytest.raises(ValueError, match="every 5 to 1800 s"):
        DirtyMeter(every)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[RunningAgent, DirtyMeter, HandClock]]:
    """An agent on loopback that measures a real process in virtual time: 8000 of its 16384 pages a second."""
    child, clock = Child(U), HandClock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        child.write(0, min(PAGES, round(8000 * (clock.now - 1000.0))))

    def look(process: QemuProcess, seed: int) -> tuple[DirtyReading, ...]:
        return measure(
            process.pid, process.memory_bytes, monotonic=clock.monotonic, wall=clock.monotonic, sleep=sleep, seed=seed
        )

    only = tmp_path / "only"
    only.mkdir()
    meter = DirtyMeter(proc=child.proc(only), look=look, monotonic=clock.monotonic)
    running_agent = serve_agent("127.0.0.1:0", [meter], {DIRTY_PATH: meter.page})
    yield running_agent, meter, clock
    running_agent.close()
    child.end()


def test_from_a_process_to_the_daemon(agent: tuple[RunningAgent, DirtyMeter, HandClock]) -> None:
    served, meter, clock = agent
    agents = HttpAgents({"h1": f"http://{served.address}/metrics"}, timeout=20.0, clock=clock)
    before = agents.read("h1")
    assert before is not None
    assert (before.curves, before.curves_fault) == ((), None)
    meter.turn()
    after = agents.read("h1")
    agents.close()
    assert after is not None
    (told,) = after.curves
    assert (told.uuid, told.memory_bytes, told.fault) == (U, MEMORY, None)
    assert told.curve is not None
    for point in told.curve.points:
        truth = MEMORY * min(1.0, 8000 * point.period_seconds / PAGES)
        assert abs(point.unique_bytes - truth) <= 6 * point.standard_error_bytes
    assert [p.period_seconds for p in told.curve.points][:3] == [0.05, 0.1, 0.2]


def test_the_page_beside_the_figures(agent: tuple[RunningAgent, DirtyMeter, HandClock]) -> None:
    served, _, _ = agent
    page = httpx.get(f"http://{served.address}/dirty", trust_env=False)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "application/json")
    assert page.json() == {"format": 1, "every_seconds": 10.0, "vms": []}
    assert httpx.post(f"http://{served.address}/dirty", trust_env=False).status_code == 405
    assert "rebalancerd_agent_dirty_curves 0.0" in httpx.get(f"http://{served.address}/metrics", trust_env=False).text


def test_without_the_option_nothing_is_measured_and_no_figure_says_so() -> None:
    plain = serve_agent("127.0.0.1:0")
    text = httpx.get(f"http://{plain.address}/dirty", trust_env=False).text
    plain.close()
    assert "rebalancerd_agent_clock_seconds" in text
    assert "dirty" not in text
