"""A harvest on real hosts: rows that say what was known before a migration and what came of it; and it resumes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rebalancerd.lab import LabSpec
from rebalancerd.lab.harvest.families import Family
from rebalancerd.lab.harvest.harvest import HarvestPlan, harvest
from rebalancerd.predict.dataset import read_migrations

WRITER = Family(name="writer", order="random", working_set_share=(0.2, 0.4), intensity=(0.05, 0.3))


@pytest.mark.lab_full
def test_rows_of_real_migrations(make_spec: Callable[..., LabSpec], tmp_path: Path) -> None:
    """Each row has both dirty curves, a sane time, and the guest's own account of what it lost; a second run adds to it."""
    make_spec()  # skips without root
    out, told = tmp_path / "rows.csv", []
    plan = HarvestPlan(
        out=out, minutes=0.4, seed=4, families=(WRITER,), directory=tmp_path / "lab", lanes=1, pairs=False
    )
    added = harvest(plan, told.append)
    assert added >= 1, told
    rows = read_migrations(out)
    assert len(rows) == added
    sampled, exact = read_migrations(out, "sampled"), read_migrations(out, "exact")
    for row, coarse, fine in zip(rows, sampled, exact, strict=True):
        assert row.family == "writer"
        assert coarse.facts.dirty is not None and [p.period_seconds for p in coarse.facts.dirty.points] == [1, 4]
        assert fine.facts.dirty is not None and fine.facts.dirty.points[0].period_seconds == 0.05
        assert fine.facts.dirty.points[-1].unique_bytes > 2**20, "a writer writes"
        assert row.facts.resident_bytes is not None and row.facts.vm_cpu_cores is not None
        assert row.facts.source_cpu_cores is not None and row.facts.destination_cpu_cores is not None
        if row.succeeded:
            assert row.seconds is not None and row.bytes is not None and row.downtime_seconds is not None
            assert 0.5 < row.seconds < 60
            assert row.bytes > 30 * 2**20
            assert 0 < row.downtime_seconds < row.seconds
        else:
            assert row.seconds is not None and row.seconds >= row.deadline_seconds

    before = out.read_text()
    again = harvest(plan, told.append)
    assert again >= 1, told
    assert out.read_text().startswith(before)
    assert len({r.id for r in read_migrations(out)}) == added + again
