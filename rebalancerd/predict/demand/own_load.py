"""OwnLoad: a cluster's recorded load as the daemon hands it to a training, which has a process of its own.

Training does not open the rings that the daemon writes to; it reads ``demand-load.npz`` beside the models, which the
daemon replaces in one step every hour and before a training. Whole hosts, at most ``watched.MOST_VMS`` VMs.
"""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.durable import write_durably
from rebalancerd.predict.manifest import ArtefactError, Fault, read_file

NAME = "demand-load.npz"
FORMAT = 1
MAX_BYTES = 64 * 1024 * 1024
MAX_VALUES = 32 * 1024 * 1024
_DAMAGE = (ValueError, KeyError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile)


def write_load(directory: Path, panel: Panel) -> None:
    """Replace the file. Raises OSError."""
    made = BytesIO()
    hourly = panel.hourly if panel.hourly is not None else np.empty((len(panel.values), 0), dtype=np.float32)
    siblings = panel.siblings if panel.siblings is not None else np.arange(len(panel.values))
    times = np.array([panel.step_seconds, panel.end])
    np.savez(made, format=FORMAT, values=panel.values, hourly=hourly, siblings=siblings, times=times)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durably(directory / NAME, made.getvalue())


def read_load(directory: Path) -> Panel:
    """The load as it was handed over, whatever values are in it. Raises ArtefactError: absent, corrupt, outdated."""
    path = directory / NAME
    raw = read_file(path, MAX_BYTES)
    try:
        with zipfile.ZipFile(BytesIO(raw)) as archive:
            if sum(member.file_size for member in archive.infolist()) > 4 * MAX_VALUES:
                raise ArtefactError(Fault.CORRUPT, path, "it would unpack to more than is read")
        with np.load(BytesIO(raw), allow_pickle=False) as found:
            kind = int(found["format"])
            if kind != FORMAT:
                raise ArtefactError(Fault.OUTDATED, path, f"format {kind}; this version reads {FORMAT}")
            step, end = (float(v) for v in found["times"])
            values, hourly = (np.asarray(found[name], dtype=np.float32) for name in ("values", "hourly"))
            if hourly.ndim != 2 or not (np.isfinite(step) and np.isfinite(end)):
                raise ValueError(f"hourly of shape {hourly.shape}, step {step} s, end {end}")
            return Panel(
                values=values,
                step_seconds=step,
                end=end,
                hourly=hourly if hourly.shape[1] else None,
                siblings=np.asarray(found["siblings"], dtype=np.intp),
            )
    except _DAMAGE as error:
        raise ArtefactError(Fault.CORRUPT, path, f"it cannot be read: {error or type(error).__name__}") from error
