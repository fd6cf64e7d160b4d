"""The daemon's own history as traces: read beside a daemon that writes it, and never a load that was not measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.units import GIB
from rebalancerd.observe.cluster_file import FILE, ClusterFile
from rebalancerd.observe.history import HOST_CPU, VM_CPU, VM_MEMORY, History, Tier
from rebalancerd.observe.ring_file import RingFile, RingFileError, copy_ring
from rebalancerd.observe.traces.error import TraceError
from rebalancerd.observe.traces.recorded import RecordedSeries, aligned, read_history
from tests.unit.observe.observe_world import facts_of

FAST = (Tier(10.0, 6), Tier(60.0, 4))
START = 1_700_000_040.0  # a multiple of 60


def record(directory: Path, rows: int = 5) -> History:
    """One tick in each step: ``a`` uses 1, 2, 3 … cores, ``b`` half a core in all steps but the third."""
    history = History(directory, tiers=FAST)
    for t in range(rows):
        cpu: dict[str, float | None] = {"a": float(t + 1), "b": None if t == 2 else 0.5}
        held: dict[str, float | None] = {"a": 1.0 * GIB, "b": 2.0 * GIB}
        history.append(START + 10 * t, {VM_CPU: cpu, VM_MEMORY: held, HOST_CPU: {"h1": t + 2.0}})
    return history


def sized(directory: Path, **vcpus: int) -> None:
    file = ClusterFile(directory / FILE)
    file.stood(START, dict.fromkeys(vcpus, "h1"))
    hosts = [Host(name="h1", facts=None, cores=8.0, memory_bytes=64 * GIB)]
    file.write(START, hosts, [facts_of(name, vcpus=n, memory_bytes=4 * GIB) for name, n in vcpus.items()])


def test_shares_of_the_recorded_sizes_in_the_complete_steps(tmp_path: Path) -> None:
    record(tmp_path).flush()
    sized(tmp_path, a=8, b=2)
    trace = read_history(tmp_path)[0]

    assert (trace.set, trace.part, trace.step_seconds, trace.start) == ("history", "10s", 10.0, START)
    assert trace.ids == ("a", "b")
    assert trace.cpu[:, 0].tolist() == [0.125, 0.25, 0.375, 0.5], "the step under way is left out"
    assert np.isnan(trace.cpu[2, 1]), "what was not measured is unknown, not idle"
    assert trace.cores is not None
    assert trace.cores.tolist() == [8.0, 2.0]
    assert trace.memory is not None
    assert trace.memory[0].tolist() == [0.25, 0.5]
    assert trace.dropped == ()


def test_without_recorded_sizes_the_largest_value_stands_for_them(tmp_path: Path) -> None:
    record(tmp_path).flush()
    trace = read_history(tmp_path)[0]
    assert trace.cores is not None
    assert trace.cores.tolist() == [4.0, 1.0]
    assert trace.cpu[3, 0] == 1.0
    assert trace.memory is not None
    assert np.nanmax(trace.memory) == 1.0


def test_both_tiers_are_read_finest_first(tmp_path: Path) -> None:
    record(tmp_path, rows=20).flush()
    found = read_history(tmp_path)
    assert [(t.part, t.step_seconds) for t in found] == [("10s", 10.0), ("60s", 60.0)]
    assert len(found[0].cpu) <= 6, "no more than the ring holds"
    assert found[0].start == START + (19 - len(found[0].cpu)) * 10


def test_the_state_directory_will_do(tmp_path: Path) -> None:
    record(tmp_path / "history").flush()
    assert read_history(tmp_path)[0].ids == ("a", "b")


def test_a_daemon_that_writes_meanwhile_is_not_disturbed(tmp_path: Path) -> None:
    history = record(tmp_path)
    files = {f: f.read_bytes() for f in sorted(tmp_path.iterdir())}
    before = read_history(tmp_path)[0].cpu
    assert {f: f.read_bytes() for f in sorted(tmp_path.iterdir())} == files
    history.append(START + 60, {VM_CPU: {"a": 7.0, "b": 0.5}})
    after = read_history(tmp_path)[0].cpu
    assert len(after) > len(before) or not np.array_equal(after, before)
    assert history.series(VM_CPU).values[-2, 0] == 5.0


def test_a_load_that_no_vm_of_that_size_can_have_is_dropped_and_counted(tmp_path: Path) -> None:
    record(tmp_path).flush()
    sized(tmp_path, a=1, b=1)
    history = History(tmp_path, tiers=FAST)
    history.append(START + 60, {VM_CPU: {"a": 900.0, "b": 0.5}})
    history.append(START + 70, {VM_CPU: {"a": 1.0, "b": 0.5}})
    trace = read_history(tmp_path)[0]
    assert dict(trace.dropped) == {"cpu_huge": 2}, "five of one core, and nine hundred"
    assert np.nanmax(trace.cpu) <= 4.0


def test_a_gap_of_a_stopped_daemon_is_unknown(tmp_path: Path) -> None:
    history = record(tmp_path, rows=3)
    history.append(START + 50, {VM_CPU: {"a": 2.0}})
    history.append(START + 60, {VM_CPU: {"a": 2.0}})
    column = read_history(tmp_path)[0].cpu[:, 0]
    assert np.isnan(column[-3:-1]).all()
    assert column[-1] > 0


def test_a_vm_that_has_no_value_in_the_rows_has_no_column(tmp_path: Path) -> None:
    history = record(tmp_path, rows=3)
    for t in range(3, 14):
        history.append(START + 10 * t, {VM_CPU: {"a": 1.0}})
    assert read_history(tmp_path)[0].ids == ("a",)


def test_what_is_not_there_or_not_a_history_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no recorded history"):
        read_history(tmp_path)
    record(tmp_path).flush()
    (tmp_path / "vm.slots.json").rename(tmp_path / "elsewhere")
    with pytest.raises(TraceError, match="nobody knows whose columns"):
        read_history(tmp_path)
    (tmp_path / "vm.slots.json").write_text(json.dumps({"format": "rebalancerd-slots", "version": 9, "slots": {}}))
    with pytest.raises(TraceError, match="version 9"):
        read_history(tmp_path)


@pytest.mark.parametrize("offset", [0, 8, 30, 50])
def test_a_damaged_header_is_refused(tmp_path: Path, offset: int) -> None:
    record(tmp_path).close()
    path = tmp_path / f"{VM_CPU}.10s.ring"
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(TraceError, match=f"{VM_CPU}.10s.ring"):
        read_history(tmp_path)


@pytest.mark.parametrize("kept", [0, 20, 4096, 4200])
def test_a_ring_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    record(tmp_path).close()
    path = tmp_path / f"{VM_CPU}.10s.ring"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TraceError, match="truncated"):
        read_history(tmp_path)


def test_a_daemon_that_has_recorded_no_whole_step_yet(tmp_path: Path) -> None:
    record(tmp_path, rows=1).flush()
    with pytest.raises(TraceError, match="nothing is recorded yet"):
        read_history(tmp_path)


def test_the_copy_of_a_ring_is_its_rows_in_order_after_it_went_round(tmp_path: Path) -> None:
    ring = RingFile(tmp_path / "r", rows=4, step_seconds=10.0, capacity=2)
    with pytest.raises(RingFileError):
        copy_ring(Path(__file__))
    assert copy_ring(tmp_path / "r").values.shape == (0, 2)
    for row in range(100, 111):
        ring.write(row, np.array([row, -row], dtype=np.float32), 1)
    copy = copy_ring(tmp_path / "r")
    assert copy.first == 107
    assert copy.values[:, 0].tolist() == [107.0, 108.0, 109.0]


def test_series_are_aligned_by_time_and_by_name() -> None:
    like = RecordedSeries(("x", "y"), 10.0, 100.0, np.zeros((3, 2), dtype=np.float32))
    other = RecordedSeries(("y", "z"), 10.0, 110.0, np.array([[1, 9], [2, 9], [3, 9]], dtype=np.float32))
    out = aligned(other, like)
    assert np.isnan(out[:, 0]).all()
    assert np.isnan(out[0, 1])
    assert out[1:, 1].tolist() == [1.0, 2.0]
