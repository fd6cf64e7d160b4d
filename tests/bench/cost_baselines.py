"""What the cost model is measured against, and the shipped model itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.predict.cost_columns import Column, CostColumns
from rebalancerd.predict.cost_inputs import CostInputs
from rebalancerd.predict.cost_kind import COST
from rebalancerd.predict.learned import LearnedCost
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.predict.store import ModelStore

Floats = NDArray[np.float64]


def _columns(
    name: str, seconds: Floats, downtime: Floats, sent: Floats, slowdown: Floats, never: Floats
) -> CostColumns:
    """Values without bounds of their own."""

    def column(value: Floats) -> Column:
        return Column.of(value, np.full(len(value), np.inf))

    return CostColumns(
        seconds=column(seconds),
        downtime_seconds=column(downtime),
        bytes=column(sent),
        slowdown=column(slowdown),
        non_convergence=Column.of(never, never),
        basis=np.zeros(len(seconds), dtype=np.int8),
        bases=(name,),
        missing=np.zeros((len(seconds), 0), dtype=np.bool_),
        missing_names=(),
    )


def constant(rows: Sequence[LabelledMigration], trained_on: Sequence[LabelledMigration]) -> CostColumns:
    """The medians of the rows that the model was trained on, whatever is asked."""

    def middle(field: str) -> Floats:
        told = [value for r in trained_on if r.succeeded and (value := getattr(r, field)) is not None]
        return np.full(len(rows), float(np.median(told)) if told else 0.0)

    fields = ("seconds", "downtime_seconds", "bytes", "slowdown")
    return _columns("constant", *(middle(f) for f in fields), np.zeros(len(rows)))


def _known(
    rows: Sequence[LabelledMigration], settings: PredictSettings
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Memory to send, rate, allowed downtime, dirty rate over the shortest period, and link rate; (N,) each."""
    inputs = CostInputs.of_facts([r.facts for r in rows], [r.deadline_seconds for r in rows])
    resident = np.where(np.isfinite(inputs.resident), np.minimum(inputs.memory, inputs.resident), inputs.memory)
    link = inputs.link * settings.link_efficiency * inputs.share
    dirty = np.nan_to_num(inputs.unique[:, 0] / inputs.periods[:, 0])
    return resident, np.minimum(inputs.cap, link), inputs.downtime, dirty, link


def rate(rows: Sequence[LabelledMigration], settings: PredictSettings) -> CostColumns:
    """Memory over rate: one copy, and the allowed downtime."""
    memory, speed, downtime, _, _ = _known(rows, settings)
    seconds = memory / speed + settings.overhead_seconds
    return _columns("rate", seconds, downtime, memory, np.zeros(len(rows)), np.zeros(len(rows)))


def series(rows: Sequence[LabelledMigration], settings: PredictSettings) -> CostColumns:
    """Geometric series of a constant dirty rate (Liu et al., HPDC 2011); does not converge at a ratio of 1 or more."""
    memory, speed, allowed, dirty, link = _known(rows, settings)
    ratio = dirty / speed
    ends = ratio < 1
    safe = np.clip(ratio, 1e-9, 1 - 1e-9)
    rounds = np.ceil(np.maximum(0.0, np.log(np.maximum(1e-12, speed * allowed / memory)) / np.log(safe)))
    sent = np.where(ends, memory * (1 - safe ** (rounds + 1)) / (1 - safe), memory)
    deadline = np.array([r.deadline_seconds for r in rows])
    seconds = np.where(ends, sent / speed + settings.overhead_seconds, deadline)
    downtime = np.where(ends, memory * safe**rounds / link + settings.switchover_seconds, allowed)
    return _columns("series", seconds, downtime, sent, np.zeros(len(rows)), np.where(ends, 0.0, 1.0))


def shipped(settings: PredictSettings) -> LearnedCost | None:
    """The model that is shipped, checked as the daemon checks it; None if there is none. Raises ArtefactError."""
    store = ModelStore(own=Path("/nonexistent"), kind=COST)
    found = store.found()
    if not found:
        return None
    model = store.load(found[0].path, settings).model
    assert isinstance(model, LearnedCost)
    return model
