"""One training: a challenger from shipped and own migrations, tested against champion and physics, promoted if it wins."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.known import MigrationFacts
from rebalancerd.cluster.labelled import LabelledMigration
from rebalancerd.predict.champion import Scored, Verdict, decide, screen, split
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.cost_kind import CostGolden, Learned
from rebalancerd.predict.dataset import sound
from rebalancerd.predict.manifest import digest_of
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore
from rebalancerd.predict.training import CostScore, score_cost, train_cost

PROMOTED, KEPT, NOT_TRAINED = "promoted", "kept", "not_trained"
GOLDEN_ROWS = 8
CHALLENGER, CHAMPION, PHYSICS = "challenger", "champion", "physics"


Predictor = Callable[[Sequence[MigrationFacts], Sequence[float]], Sequence[MigrationCost]]


class Train(Protocol):
    """``training.train_cost``."""

    def __call__(
        self,
        rows: Sequence[LabelledMigration],
        settings: PredictSettings,
        *,
        own: Sequence[LabelledMigration] = (),
        seed: int,
    ) -> Learned:
        """Fit a model. Raises ValueError where the rows do not suffice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a training came to. ``scores``: on the ``test_rows`` newest own migrations, by predictor.

    ``outcome``: promoted; kept (the challenger did not win); not_trained. ``absurd``: ids and reasons of own rows that were
    left out. ``champion``: id of the model that was in use, ``problems``: artefacts that were refused on the way to it.
    ``model``: id of the promoted model.
    """

    outcome: str
    why: str
    shipped_rows: int
    own_rows: int
    test_rows: int = 0
    absurd: tuple[tuple[str, str], ...] = ()
    scores: dict[str, CostScore] = field(default_factory=dict)
    champion: str | None = None
    problems: tuple[str, ...] = ()
    model: str | None = None


def retrain(
    shipped: Sequence[LabelledMigration],
    own: Sequence[LabelledMigration],
    store: ModelStore[Learned],
    *,
    predict: PredictSettings,
    models: ModelSettings,
    now: float,
    absurd: Sequence[tuple[str, str]] = (),
    dry_run: bool = False,
    seed: int = 1,
    train: Train = train_cost,
    score: Callable[[Predictor, Sequence[LabelledMigration]], CostScore] = score_cost,
) -> Training:
    """Train, compare, and unless ``dry_run`` promote. ``absurd``: own rows that the ledger could not even give out.

    Raises OSError where a model cannot be written. A champion that cannot be loaded is no champion.
    """
    screened = screen(own, sound, absurd)
    told = Training(
        outcome=NOT_TRAINED,
        why="",
        shipped_rows=len(shipped),
        own_rows=len(screened.rows),
        absurd=screened.absurd,
    )
    if screened.stop is not None:
        return replace(told, why=screened.stop)
    if len(screened.rows) < models.own_rows_min:
        why = f"{len(screened.rows)} migrations of this cluster, {models.own_rows_min} are needed (models.own_rows_min)"
        return replace(told, why=why)
    learned, tested = split(screened.rows)
    data = digest_of([repr(row) for row in (*shipped, *learned)])
    champion, problems = store.in_use(predict)
    told = replace(told, champion=champion.id if champion is not None else None, problems=problems)
    if champion is not None and champion.manifest.data_sha256 == data:
        return replace(told, why=f"{champion.id} was trained on these very migrations")
    try:
        challenger = train(shipped, predict, own=learned, seed=seed)
    except ValueError as error:
        return replace(told, why=str(error))
    scores = {CHALLENGER: score(challenger.predict_facts, tested)}
    if champion is not None:
        scores[CHAMPION] = score(champion.model.predict_facts, tested)
    scores[PHYSICS] = score(PhysicsCost(predict).predict_facts, tested)
    verdict = _verdict(scores)
    told = replace(told, outcome=KEPT, why=verdict.why, test_rows=len(tested), scores=scores)
    if not verdict.promote:
        return told
    if dry_run:
        return replace(told, why=f"it would be promoted: {verdict.why}")
    try:
        manifest = store.promote(
            challenger,
            at=now,
            why=verdict.why,
            scores={name: figures(found) for name, found in scores.items()},
            keep=models.keep,
            golden=golden_of((*shipped, *learned)),
            settings=predict,
            rows=len(shipped) + len(learned),
            own_rows=len(learned),
            data_sha256=data,
            seed=seed,
        )
    except ValueError as error:
        return replace(told, why=f"it cannot be saved: {error}")
    return replace(told, outcome=PROMOTED, model=manifest.id)


def figures(score: CostScore) -> dict[str, float | None]:
    """A score as a table of numbers."""
    return {name: None if value is None else float(value) for name, value in asdict(score).items()}


def _verdict(scores: dict[str, CostScore]) -> Verdict:
    champion: Scored | None = scores.get(CHAMPION)
    return decide(scores[CHALLENGER], champion, scores[PHYSICS])


def golden_of(rows: Sequence[LabelledMigration]) -> list[CostGolden]:
    """Some rows, spread over all of them, as questions whose answers are noted."""
    step = max(1, len(rows) // GOLDEN_ROWS)
    return [CostGolden(facts=r.facts, deadline_seconds=r.deadline_seconds) for r in rows[::step][:GOLDEN_ROWS]]
