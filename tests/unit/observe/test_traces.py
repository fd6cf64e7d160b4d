"""The trace sets: what stands in a file is what is read, and what cannot be a load is unknown, counted or refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rebalancerd.cluster.trace import Trace
from rebalancerd.observe.traces.error import TraceError
from rebalancerd.observe.traces.reader import read_traces
from tests import trace_files
from tests.trace_files import Arrays, write

FILES: dict[str, Callable[[], Arrays]] = {
    "planetlab_days.npz": trace_files.planetlab,
    "google2011_vms.npz": trace_files.google,
    "bitbrains_rnd.npz": trace_files.bitbrains,
    "azure_v1.npz": trace_files.azure,
}


def only(directory: Path, name: str, arrays: Arrays) -> Trace:
    write(directory / name, arrays)
    (trace,) = read_traces(directory)
    return trace


def test_every_set_is_known_by_how_its_files_are_called_and_other_files_are_left_alone(tmp_path: Path) -> None:
    trace_files.write_all(tmp_path, vms=3)
    (tmp_path / "runs.csv").write_text("day,kwh\n")
    write(tmp_path / "something_else.npz", {"x": np.zeros(3)})
    found = [(t.set, t.part, t.cpu.shape) for t in read_traces(tmp_path)]
    assert found == [
        ("azure", "v1", (576, 3)),
        ("bitbrains", "rnd", (600, 3)),
        ("google", "some", (288, 3)),
        ("planetlab", "20110303", (288, 3)),
        ("planetlab", "20110306", (288, 3)),
    ]


def test_planetlab_is_a_trace_per_day_that_begins_at_its_midnight(tmp_path: Path) -> None:
    arrays = trace_files.planetlab(days=("20110309",))
    trace = only(tmp_path, "planetlab_x.npz", arrays)
    assert np.array_equal(trace.cpu, (arrays["cpu_20110309"].T / 100).astype(np.float32))
    assert trace.start == 1_299_628_800.0
    assert (trace.step_seconds, trace.memory, trace.cores, trace.dropped) == (300.0, None, None, ())
    assert trace.ids[:2] == ("node000_slice", "node001_slice")


def test_google_has_memory_that_may_exceed_what_was_asked_for(tmp_path: Path) -> None:
    arrays = trace_files.google()
    trace = only(tmp_path, "google2011_x.npz", arrays)
    assert np.allclose(trace.cpu, arrays["cpu_pct100"].T / 10_000, atol=1e-6)
    assert trace.memory is not None
    assert trace.memory[0, 0] == pytest.approx(1.2)
    assert trace.ids[0] == "vm_1000_1"


def test_bitbrains_tells_sizes_and_start_and_65535_is_missing(tmp_path: Path) -> None:
    arrays = trace_files.bitbrains()
    arrays["cpu_permille"][1, 7] = arrays["mem_permille"][2, 8] = trace_files.MISSING
    arrays["cpu_permille"][0, 0] = 1500
    trace = only(tmp_path, "bitbrains_x.npz", arrays)
    assert trace.start == trace_files.T0
    assert trace.cores is not None
    assert trace.cores.tolist() == arrays["meta"][:, 1].tolist()
    assert trace.memory_bytes is not None
    assert trace.memory_bytes.tolist() == (arrays["meta"][:, 3] * 1024).tolist()
    assert trace.memory is not None
    assert np.isnan(trace.cpu[7, 1])
    assert np.isnan(trace.memory[8, 2])
    assert trace.cpu[0, 0] == pytest.approx(1.5), "turbo clocks go beyond what is provisioned"
    assert dict(trace.dropped) == {"cpu_missing": 1, "memory_missing": 1}
    assert trace.ids == ("1", "3", "5", "7", "9")


def test_azure_rows_are_time_and_its_load_is_the_mean(tmp_path: Path) -> None:
    arrays = trace_files.azure(vms=2, days=3)
    trace = only(tmp_path, "azure_x.npz", arrays)
    assert trace.cpu.shape == (864, 2)
    assert np.allclose(trace.cpu, arrays["avg"] / 10_000, atol=1e-6)


def test_any_number_of_days_and_files_of_a_set(tmp_path: Path) -> None:
    write(tmp_path / "planetlab_a.npz", trace_files.planetlab(days=("20110303", "20110306", "20110309")))
    write(tmp_path / "planetlab_b.npz", trace_files.planetlab(days=("day4",), vms=3))
    traces = read_traces(tmp_path)
    assert [t.part for t in traces] == ["20110303", "20110306", "20110309", "day4"]
    assert traces[3].start == 0.0, "a day that is no date has no start"


# values that no measurement can be


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "nan"), (np.inf, "infinite"), (-1.0, "negative"), (1e30, "huge"), (101.0, "huge")]
)
def test_a_value_that_no_measurement_can_be_is_unknown_and_counted(tmp_path: Path, value: float, reason: str) -> None:
    arrays = trace_files.planetlab()
    arrays["cpu_20110303"] = arrays["cpu_20110303"].astype(np.float64)
    arrays["cpu_20110303"][2, 5] = value
    trace = only(tmp_path, "planetlab_x.npz", arrays)
    assert np.isnan(trace.cpu[5, 2])
    assert dict(trace.dropped) == {f"cpu_{reason}": 1}
    assert np.isfinite(trace.cpu).sum() == trace.cpu.size - 1


def test_a_counter_that_was_reset_shows_as_a_negative_rate_and_is_dropped(tmp_path: Path) -> None:
    arrays = trace_files.google()
    signed = arrays["cpu_pct100"].astype(np.int64)
    signed[0, 10:13] = (-900_000, -1, 2**40)
    arrays["cpu_pct100"] = signed
    trace = only(tmp_path, "google2011_x.npz", arrays)
    assert np.isnan(trace.cpu[10:13, 0]).all()
    assert dict(trace.dropped) == {"cpu_negative": 2, "cpu_huge": 1}


def test_a_vm_with_no_cpus_has_no_load_rather_than_none(tmp_path: Path) -> None:
    arrays = trace_files.bitbrains(vms=3)
    arrays["meta"][1, 1:] = 0.0
    arrays["cpu_permille"][1] = 0
    trace = only(tmp_path, "bitbrains_x.npz", arrays)
    assert np.isnan(trace.cpu[:, 1]).all()
    assert trace.cores is not None
    assert np.isnan(trace.cores[1])
    assert dict(trace.dropped) == {"cpu_no_cpus": 600, "memory_no_memory": 600}
    assert np.isfinite(trace.cpu[:, 0]).all()


def test_a_mean_above_its_own_maximum_is_dropped(tmp_path: Path) -> None:
    arrays = trace_files.azure()
    arrays["avg"][3, 1], arrays["max"][3, 1] = 5000, 4000
    trace = only(tmp_path, "azure_x.npz", arrays)
    assert np.isnan(trace.cpu[3, 1])
    assert dict(trace.dropped) == {"cpu_above_its_maximum": 1}


# files that are refused


@pytest.mark.parametrize("name", FILES)
def test_every_missing_array_is_named(tmp_path: Path, name: str) -> None:
    for missing in FILES[name]():
        arrays = FILES[name]()
        del arrays[missing]
        path = write(tmp_path / name, arrays)
        with pytest.raises(TraceError, match="no array") as refused:
            read_traces(tmp_path)
        assert str(path) in str(refused.value)
        assert missing in str(refused.value)


@pytest.mark.parametrize("name", FILES)
def test_every_array_of_another_shape_is_refused(tmp_path: Path, name: str) -> None:
    for changed in FILES[name]():
        arrays = FILES[name]()
        arrays[changed] = np.stack([arrays[changed], arrays[changed]])
        path = write(tmp_path / name, arrays)
        with pytest.raises(TraceError, match=str(path)):
            read_traces(tmp_path)
        arrays = FILES[name]()
        if arrays[changed].ndim:
            arrays[changed] = arrays[changed][:-1]
            write(tmp_path / name, arrays)
            with pytest.raises(TraceError, match=str(path)):
                read_traces(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_texts_where_numbers_belong_are_refused(tmp_path: Path, name: str) -> None:
    arrays = FILES[name]()
    first = next(key for key, value in arrays.items() if value.dtype.kind == "u")
    arrays[first] = arrays[first].astype(np.str_)
    write(tmp_path / name, arrays)
    with pytest.raises(TraceError, match="not of numbers"):
        read_traces(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_pickled_content_is_never_loaded(tmp_path: Path, name: str) -> None:
    arrays = FILES[name]()
    first = next(iter(arrays))
    arrays[first] = np.array([{"pickled": True}], dtype=object)
    write(tmp_path / name, arrays)
    with pytest.raises(TraceError, match="Object arrays cannot be loaded"):
        read_traces(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 10, 400, -40])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    path = write(tmp_path / name, FILES[name]())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TraceError, match="not a readable"):
        read_traces(tmp_path)


def test_bytes_flipped_inside_an_array_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "planetlab_x.npz"
    np.savez(path, allow_pickle=False, **trace_files.planetlab())
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(TraceError, match="cannot be read"):
        read_traces(tmp_path)


def test_an_array_too_large_to_be_one_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rebalancerd.observe.traces.archive.MOST_BYTES", 1000)
    write(tmp_path / "planetlab_x.npz", trace_files.planetlab())
    with pytest.raises(TraceError, match="at most 1000 are read"):
        read_traces(tmp_path)


def test_two_vms_of_one_name_are_refused(tmp_path: Path) -> None:
    arrays = trace_files.planetlab()
    arrays["name_20110303"][3] = arrays["name_20110303"][0]
    write(tmp_path / "planetlab_x.npz", arrays)
    with pytest.raises(TraceError, match="names twice: 'node000_slice'"):
        read_traces(tmp_path)


def test_two_bitbrains_vms_of_one_id_and_one_without_an_id_are_refused(tmp_path: Path) -> None:
    for value, reason in ((1.0, "names twice: '1'"), (np.nan, "without an id")):
        arrays = trace_files.bitbrains()
        arrays["meta"][2, 0] = value
        write(tmp_path / "bitbrains_x.npz", arrays)
        with pytest.raises(TraceError, match=reason):
            read_traces(tmp_path)


def test_a_stretch_that_stands_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("planetlab_a.npz", "planetlab_b.npz"):
        write(tmp_path / name, trace_files.planetlab())
    with pytest.raises(TraceError, match="planetlab 20110303 stands in two files"):
        read_traces(tmp_path)


@pytest.mark.parametrize("rows", [144, 1440, 287])
def test_a_day_of_another_step_is_refused(tmp_path: Path, rows: int) -> None:
    arrays = trace_files.planetlab()
    arrays["cpu_20110303"] = np.resize(arrays["cpu_20110303"], (8, rows))
    write(tmp_path / "planetlab_x.npz", arrays)
    with pytest.raises(TraceError, match=f"has {rows} rows in its day"):
        read_traces(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_says_it_has_another_step_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, {**FILES[name](), "step_seconds": np.array(300)})
    assert read_traces(tmp_path)
    write(tmp_path / name, {**FILES[name](), "step_seconds": np.array(60)})
    with pytest.raises(TraceError, match="rows are 60 s apart"):
        read_traces(tmp_path)


@pytest.mark.parametrize("start", [-1.0, np.nan, 1e18])
def test_a_clock_that_cannot_be_is_refused(tmp_path: Path, start: float) -> None:
    write(tmp_path / "bitbrains_x.npz", {**trace_files.bitbrains(), "t0": np.array(start)})
    with pytest.raises(TraceError, match="t0"):
        read_traces(tmp_path)


def test_a_file_of_which_nothing_can_be_used_is_refused(tmp_path: Path) -> None:
    arrays = trace_files.bitbrains()
    arrays["cpu_permille"][:] = trace_files.MISSING
    write(tmp_path / "bitbrains_x.npz", arrays)
    with pytest.raises(TraceError, match="not one value"):
        read_traces(tmp_path)


def test_a_directory_without_traces_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no trace in it; names of known sets are planetlab_\*\.npz"):
        read_traces(tmp_path)
    with pytest.raises(TraceError, match="not a directory"):
        read_traces(tmp_path / "absent")
