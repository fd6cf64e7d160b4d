"""One training of the demand model: a challenger from a cluster's own load and synthetic load, promoted if it wins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256

import numpy as np
import structlog

from rebalancerd.predict.artefact import Artefact
from rebalancerd.predict.champion import ABSURD_SHARE_MAX
from rebalancerd.predict.demand.contest import DemandScore, cut, decide, measure, split_column
from rebalancerd.predict.demand.forecast import Forecaster
from rebalancerd.predict.demand.host_training import train_host_chance
from rebalancerd.predict.demand.kind import DemandParts, golden_of
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.panel import Panel
from rebalancerd.predict.demand.synthetic import synthetic_series
from rebalancerd.predict.demand.training import train_demand
from rebalancerd.predict.demand.windows import TrainingSeries
from rebalancerd.predict.retrain import CHALLENGER, CHAMPION, KEPT, NOT_TRAINED, PROMOTED
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore

log = structlog.get_logger(__name__)

MOST_SHARE = 4.0  # of a VM's size; more is no load
SYNTHETIC_VMS, SYNTHETIC_STEPS = 140, 864  # what keeps a small or quiet cluster's model from knowing its own days only
HOUR = 3600.0

Train = Callable[[Sequence[TrainingSeries], int], DemandParts]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandTraining:
    """What a training came to. ``scores``: on the newest third of the load, by forecaster.

    ``outcome``: promoted; kept (the challenger did not win); not_trained. ``hours``: of load, of ``vms`` VMs. ``absurd``:
    values that no load can be. ``champion``: id of the model that was in use, ``problems``: artefacts that were refused
    on the way to it. ``model``: id of the promoted model.
    """

    outcome: str
    why: str
    vms: int
    hours: float
    absurd: int = 0
    scores: dict[str, DemandScore] = field(default_factory=dict)
    champion: str | None = None
    problems: tuple[str, ...] = ()
    model: str | None = None


def train_parts(series: Sequence[TrainingSeries], seed: int) -> DemandParts:
    """Fit every part of a model; without one of hosts where groups of the VMs are too seldom hot or cool.

    Raises ValueError where the load does not suffice.
    """
    forecaster = train_demand(series, seed=seed)
    try:
        hosts = train_host_chance([s for s in series if not s.name.endswith("memory")], forecaster, seed=seed)
    except ValueError as error:
        log.info("no_model_of_hosts", reason=str(error))
        hosts = None
    return DemandParts(forecaster, hosts)


def retrain_demand(
    load: Panel,
    store: ModelStore[DemandParts],
    *,
    predict: PredictSettings,
    models: ModelSettings,
    now: float,
    dry_run: bool = False,
    seed: int = 1,
    train: Train = train_parts,
) -> DemandTraining:
    """Train, compare, and unless ``dry_run`` promote. ``load``: this cluster's, as ``own_load`` hands it over.

    Raises OSError where a model cannot be written. A champion that cannot be loaded is no champion.
    """
    clean, absurd, known = screened(load)
    hours = load.values.shape[1] * load.step_seconds / HOUR
    told = DemandTraining(outcome=NOT_TRAINED, why="", vms=len(load.values), hours=hours, absurd=absurd)
    if absurd > ABSURD_SHARE_MAX * (known + absurd):
        return replace(
            told, why=f"{absurd} of {known + absurd} values are absurd, so the others are not believed either"
        )
    if hours < models.demand_history_hours_min or not known:
        least = models.demand_history_hours_min
        why = f"{hours:.0f} h of this cluster's load, {least:g} are needed (models.demand_history_hours_min)"
        return replace(told, why=why)
    own = own_series(cut(clean, split_column(clean)))
    data = sha256(own.values.tobytes()).hexdigest()
    champion, problems = store.in_use(predict)
    told = replace(told, champion=champion.id if champion is not None else None, problems=problems)
    if champion is not None and champion.manifest.data_sha256 == data:
        return replace(told, why=f"{champion.id} was trained on this very load")
    try:
        challenger = train([own, synthetic(seed, own.step_seconds)], seed)
    except ValueError as error:
        return replace(told, why=str(error))
    scores = _scores(challenger, champion, clean)
    verdict = decide(scores[CHALLENGER], scores.get(CHAMPION), scores)
    told = replace(told, outcome=KEPT, why=verdict.why, scores=scores)
    if not verdict.promote:
        return told
    if dry_run:
        return replace(told, why=f"it would be promoted: {verdict.why}")
    try:
        manifest = store.promote(
            challenger,
            at=now,
            why=verdict.why,
            scores=figures(scores),
            keep=models.keep,
            golden=golden_of(seed),
            settings=predict,
            rows=scores[CHALLENGER].rows,
            own_rows=scores[CHALLENGER].rows,
            data_sha256=data,
            seed=seed,
        )
    except ValueError as error:
        return replace(told, why=f"it cannot be saved: {error}")
    return replace(told, outcome=PROMOTED, model=manifest.id)


def screened(load: Panel) -> tuple[Panel, int, int]:
    """The load with NaN for what no load can be; how many such values there were, and how many others are known."""
    with np.errstate(invalid="ignore"):
        odd = ~np.isnan(load.values) & ~((load.values >= 0) & (load.values <= MOST_SHARE))
    values = np.where(odd, np.nan, load.values).astype(np.float32)
    hourly = load.hourly
    if hourly is not None:
        with np.errstate(invalid="ignore"):
            hourly = np.where((hourly >= 0) & (hourly <= MOST_SHARE), hourly, np.nan).astype(np.float32)
    return replace(load, values=values, hourly=hourly), int(odd.sum()), int(np.isfinite(values).sum())


def own_series(load: Panel) -> TrainingSeries:
    """Recorded load as training takes it."""
    start = load.end - (load.values.shape[1] - 1) * load.step_seconds
    return TrainingSeries(
        values=load.values,
        step_seconds=load.step_seconds,
        start=start,
        hourly=load.hourly,
        siblings=load.siblings,
        name="own",
    )


def synthetic(seed: int, step_seconds: float) -> TrainingSeries:
    """Synthetic load of every kind."""
    return synthetic_series(SYNTHETIC_VMS, SYNTHETIC_STEPS, step_seconds=step_seconds, seed=seed)


def figures(scores: Mapping[str, DemandScore]) -> dict[str, dict[str, float | None]]:
    """Scores as tables of numbers."""
    return {
        name: {key: None if value is None else float(value) for key, value in asdict(score).items()}
        for name, score in scores.items()
    }


def _scores(challenger: DemandParts, champion: Artefact[DemandParts] | None, load: Panel) -> dict[str, DemandScore]:
    asked: dict[str, Forecaster] = {CHALLENGER: challenger.forecaster}
    if champion is not None:
        asked[CHAMPION] = champion.model.forecaster
    return {name: measure(forecaster, load) for name, forecaster in {**asked, **NAIVE}.items()}
