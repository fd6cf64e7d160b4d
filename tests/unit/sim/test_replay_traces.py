"""The cluster that is made up around traces: seeded, sized by what is recorded, with gaps that stay gaps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cluster.trace import Trace
from rebalancerd.observe.traces.reader import read_traces
from rebalancerd.sim.clock import EPOCH
from rebalancerd.sim.replay_case import ReplayCase, ReplayError
from rebalancerd.sim.replay_traces import FILL, MOST_MEMORY, MOST_VCPUS, case_of_traces
from tests import trace_files


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, ...]:
    return read_traces(trace_files.write_all(tmp_path_factory.mktemp("traces"), vms=30))


def only(traces: tuple[Trace, ...], name: str) -> tuple[Trace, ...]:
    return tuple(t for t in traces if t.set == name)


def load(case: ReplayCase) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([vm.demand.trace for vm in case.cluster.vms]).T


def test_the_same_seed_makes_the_same_case_and_another_another(traces: tuple[Trace, ...]) -> None:
    one, same, other = (case_of_traces(traces, hosts=5, hours=1, seed=s) for s in (1, 1, 2))
    assert one.cluster == same.cluster
    assert np.array_equal(one.past_cpu, same.past_cpu, equal_nan=True)
    assert one.cluster != other.cluster


def test_hosts_and_vms_are_as_many_as_asked_for_and_neither_idle_nor_hopeless(traces: tuple[Trace, ...]) -> None:
    case = case_of_traces(traces, hosts=6, hours=2, seed=1)
    cluster = case.cluster
    assert len(cluster.hosts) == 6
    assert len(cluster.vms) == 60
    assert case.seconds == 7200
    assert case.start == EPOCH + 22 * 3600, "the traces of one day leave 22 h of history"
    used = load(case).sum(axis=1).mean() / sum(h.cpus for h in cluster.hosts)
    assert 0.2 < used <= FILL
    for host in cluster.hosts:
        assert sum(v.memory_bytes for v in cluster.vms if v.host == host.name) <= host.memory_bytes
    sets = {vm.name.split("-")[1] for vm in cluster.vms}
    assert sets == {"planetlab", "google", "bitbrains", "azure"}


def test_load_and_history_are_those_of_the_trace(traces: tuple[Trace, ...]) -> None:
    (trace,) = only(traces, "google")
    case = case_of_traces((trace,), hosts=2, hours=3, seed=4)
    for column, vm in enumerate(case.cluster.vms):
        mine = trace.cpu[:, trace.ids.index(vm.name.split("-")[-1])] * vm.vcpus
        assert np.allclose(case.past_cpu[:, column], mine[:252], rtol=1e-5)
        assert np.allclose(vm.demand.trace, mine[252:], rtol=1e-5)


def test_bitbrains_keeps_its_own_sizes_and_is_cut_by_whole_days(traces: tuple[Trace, ...]) -> None:
    (trace,) = only(traces, "bitbrains")
    assert trace.cores is not None
    case = case_of_traces((trace,), hosts=3, hours=1, seed=1)
    sizes = dict(zip(trace.ids, trace.cores.tolist(), strict=True))
    for vm in case.cluster.vms:
        assert vm.vcpus == sizes[vm.name.split("-")[-1]]
        assert vm.memory_bytes <= MOST_MEMORY
    assert case.start == EPOCH + 24 * 3600
    assert case.memory is not None
    assert case.memory.shape == (12, len(case.cluster.vms))
    assert float(case.memory.max()) <= max(v.memory_bytes for v in case.cluster.vms)


def test_a_vm_too_large_for_the_hosts_is_left_out(traces: tuple[Trace, ...]) -> None:
    (trace,) = only(traces, "bitbrains")
    assert trace.cores is not None
    cores = trace.cores.copy()
    cores[:10] = 2 * MOST_VCPUS
    case = case_of_traces((replace(trace, cores=cores),), hosts=3, hours=1, seed=1)
    assert {vm.name.split("-")[-1] for vm in case.cluster.vms}.isdisjoint(trace.ids[:10])


def test_a_gap_stays_a_gap_in_the_history_and_is_no_zero_in_the_replay(traces: tuple[Trace, ...]) -> None:
    (trace,) = only(traces, "google")
    cpu = np.maximum(trace.cpu, 0.05).astype(np.float32)
    cpu[100:110] = np.nan
    cpu[280:284] = np.nan
    case = case_of_traces((replace(trace, cpu=cpu),), hosts=2, hours=1, seed=1)
    assert np.isnan(case.past_cpu[100:110]).all()
    assert np.isfinite(case.past_cpu[:100]).all()
    assert (load(case) > 0.04).all()


def test_a_vm_that_is_mostly_unknown_is_not_drawn(traces: tuple[Trace, ...]) -> None:
    (trace,) = only(traces, "google")
    cpu = trace.cpu.copy()
    cpu[280:, :20] = np.nan
    case = case_of_traces((replace(trace, cpu=cpu),), hosts=2, hours=1, seed=1)
    assert {vm.name.split("-")[-1] for vm in case.cluster.vms} <= set(trace.ids[20:])


def test_values_that_were_dropped_are_told(traces: tuple[Trace, ...]) -> None:
    (trace,) = only(traces, "google")
    case = case_of_traces((replace(trace, dropped=(("cpu_negative", 3), ("cpu_nan", 2))),), hosts=2, hours=1, seed=1)
    assert any("cpu_negative 3" in line for line in case.told)


def test_more_hours_than_any_trace_has_and_more_hosts_than_vms_are_refused(traces: tuple[Trace, ...]) -> None:
    with pytest.raises(ReplayError, match="the longest has 50 h"):
        case_of_traces(traces, hosts=5, hours=60, seed=1)
    with pytest.raises(ReplayError, match="usable VMs, fewer than 500 hosts"):
        case_of_traces(traces, hosts=500, hours=1, seed=1)
    with pytest.raises(ReplayError, match="no trace is long enough"):
        case_of_traces((), hosts=5, hours=1, seed=1)


def test_hours_beyond_a_day_take_the_longer_traces(traces: tuple[Trace, ...], tmp_path: Path) -> None:
    trace_files.write(tmp_path / "azure_long.npz", trace_files.azure(vms=20, days=4))
    case = case_of_traces((*traces, *read_traces(tmp_path)), hosts=2, hours=49.5, seed=1)
    assert {vm.name.split("-")[1] for vm in case.cluster.vms} == {"azure"}
    assert case.start == EPOCH + 24 * 3600
