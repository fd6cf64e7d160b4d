"""Reading a directory of public traces: whose they are is told by how their file names begin."""

from pathlib import Path

from rebalancerd.cluster.trace import Trace
from rebalancerd.observe.traces.archive import Archive
from rebalancerd.observe.traces.error import TraceError
from rebalancerd.observe.traces.formats import FORMATS, STEP_SECONDS

SUFFIX = ".npz"


def read_traces(directory: Path) -> tuple[Trace, ...]:
    """Every trace of the known sets in that directory, by file name and within a file by day; other files are left alone.

    Single values that no measurement can be are NaN and counted in ``Trace.dropped``. Raises TraceError for a directory
    without a trace and for a file that is none: damaged or pickled, an array missing or of another shape or step, a VM
    or a stretch that is there twice, no usable value.
    """
    if not directory.is_dir():
        raise TraceError(directory, "not a directory")
    traces = [trace for path in sorted(directory.glob(f"*{SUFFIX}")) for trace in _read_file(path)]
    if not traces:
        known = ", ".join(f"{prefix}*{SUFFIX}" for prefix in FORMATS)
        raise TraceError(directory, f"no trace in it; names of known sets are {known}")
    stretches = [(trace.set, trace.part) for trace in traces]
    for found in stretches:
        if stretches.count(found) > 1:
            raise TraceError(directory, f"{found[0]} {found[1]} stands in two files")
    return tuple(traces)


def _read_file(path: Path) -> list[Trace]:
    for prefix, parse in FORMATS.items():
        if path.name.startswith(prefix):
            with Archive(path) as archive:
                archive.check_step(STEP_SECONDS)
                return parse(archive)
    return []
