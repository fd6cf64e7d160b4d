"""Makes the demand model that is shipped, from public traces whose licence allows it and seeded synthetic load.

The last quarter of Google's VMs and the last 30 % of Azure's time are kept back: what is noted in the manifest was measured
on them. The same traces give the same model.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from rebalancerd.cluster.trace import Trace
from rebalancerd.predict.artefact import save
from rebalancerd.predict.demand.contest import measure
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.kind import DEMAND, DemandGolden, golden_of
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.retrain import Train, figures, train_parts
from rebalancerd.predict.demand.synthetic import synthetic_series
from rebalancerd.predict.demand.windows import TrainingSeries
from rebalancerd.predict.manifest import Manifest
from rebalancerd.predict.settings import PredictSettings

LICENSED = ("azure", "google")
SEED = 1
KEPT_BACK_VMS, KEPT_BACK_TIME = 0.25, 0.30
HISTORY_SHARE = 0.10  # of the time before what is kept back, as the history of forecasts there
SYNTHETIC_VMS, SYNTHETIC_STEPS = 280, 2016
CARD = "demand-model-card.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def publish_demand(
    directory: Path, traces: Sequence[Trace], *, now: float, seed: int = SEED, train: Train = train_parts
) -> Manifest[DemandGolden]:
    """Train, measure, replace the directory's demand models, and return the new one's manifest. ``now``: epoch seconds.

    Traces of sets that state no licence are left alone. Raises ValueError where none of the others is there, OSError.
    """
    usable = [t for t in traces if t.set in LICENSED]
    if not usable:
        raise ValueError(f"no trace of {' or '.join(LICENSED)} among those given")
    series = [part for trace in usable for part in learned_from(trace)]
    series.append(synthetic_series(SYNTHETIC_VMS, SYNTHETIC_STEPS, seed=seed))
    model = train(series, seed)
    old = [*directory.glob("demand-*.skops"), *directory.glob("demand-*.json")]
    digest = sha256()
    for part in series:
        digest.update(part.values.tobytes())
    manifest = save(
        directory,
        model,
        kind=DEMAND,
        golden=golden_of(seed),
        settings=PredictSettings(),
        trained_at=now,
        rows=sum(int(np.isfinite(part.values).sum()) for part in series),
        data_sha256=digest.hexdigest(),
        errors=errors(model.forecaster, usable),
        seed=seed,
    )
    for path in old:
        if path.stem != manifest.id:
            path.unlink()
    return manifest


def errors(model: Forecaster, traces: Sequence[Trace]) -> dict[str, dict[str, float | None]]:
    """Figures of the model and of the naive ways on what was kept back, as ``<set>.<forecaster>``."""
    found: dict[str, dict[str, float | None]] = {}
    for trace in traces:
        panel = measured_on(trace)
        scores = {name: measure(f, panel) for name, f in {"learned": model, **NAIVE}.items()}
        found |= {f"{trace.set}.{name}": table for name, table in figures(scores).items()}
    return found


def write_card(card: Path, manifest: Manifest[DemandGolden]) -> None:
    """Put the manifest's figures into the card, between its marks. Raises ValueError for a card without them, OSError."""
    text = card.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{card} has no marks {BEGIN} and {END}")
    card.write_text(f"{head}{BEGIN}\n{card_table(manifest)}{END}{tail}", encoding="utf-8")


def card_table(manifest: Manifest[DemandGolden]) -> str:
    """The figures as a table, one line per set and forecaster."""
    lines = [
        f"Model `{manifest.id}`, {manifest.rows:,} values learned from.",
        "",
        "| set | forecaster | RMSE | MAE | pinball 95 % | within the central 90 % |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in manifest.errors.items():
        trace, _, who = name.partition(".")
        shown = (f"{100 * (found[key] or 0.0):.2f} %" for key in ("rmse", "mae", "pinball95"))
        coverage = f"{100 * (found['coverage90'] or 0.0):.1f} %"
        lines.append(f"| {trace} | {'ours' if who == 'learned' else who} | {' | '.join(shown)} | {coverage} |")
    return "\n".join(lines) + "\n"


def learned_from(trace: Trace) -> list[TrainingSeries]:
    """CPU, and memory where the trace has it, without what is kept back; another cluster keeps other hours."""
    steps, vms = trace.cpu.shape
    if trace.set == "google":
        rows, columns = slice(0, steps), slice(0, round(vms * (1 - KEPT_BACK_VMS)))
    else:
        rows, columns = slice(0, round(steps * (1 - KEPT_BACK_TIME))), slice(0, vms)
    return [
        TrainingSeries(
            values=np.ascontiguousarray(part[rows, columns].T),
            step_seconds=trace.step_seconds,
            start=trace.start,
            clock=False,
            name=f"{trace.set} {trace.part} {resource}",
        )
        for resource, part in (("cpu", trace.cpu), ("memory", trace.memory))
        if part is not None
    ]


def measured_on(trace: Trace) -> Panel:
    """What was kept back of the CPU load, with some history before it, such that its newest third is unseen."""
    steps, vms = trace.cpu.shape
    if trace.set == "google":
        values = trace.cpu[:, round(vms * (1 - KEPT_BACK_VMS)) :]
    else:
        values = trace.cpu[round(steps * (1 - KEPT_BACK_TIME - HISTORY_SHARE)) :]
    end = trace.start + (steps - 1) * trace.step_seconds
    return Panel(values=np.ascontiguousarray(values.T), step_seconds=trace.step_seconds, end=end)
