"""``rebalancerd models``: the learned models on this machine, read from their directories; no daemon is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebalancerd.cli.exits import ERROR, CliError
from rebalancerd.cli.options import DEFAULT_CONFIG, ConfigOption, OutputOption
from rebalancerd.cli.output import Output, emit_json, plain, say, show, table

if TYPE_CHECKING:
    from rebalancerd.predict.manifest import Manifest
    from rebalancerd.predict.settings import PredictSettings
    from rebalancerd.predict.store import Found, ModelStore

app = typer.Typer(help="Learned models: list, show and verify them.", no_args_is_help=True)
DEFAULT_DIRECTORY = Path("/var/lib/rebalancerd/models")
# what a manifest counts, and the figures it notes of each predictor, the one that models are told apart by first
ROWS = {"cost": "migrations", "demand": "forecasts"}
SCORES = {
    "cost": (
        ("TIME ERROR", "total_time_gmre"),
        ("MEDIAN", "total_time_median_ape"),
        ("BAD", "bad_share"),
        ("WITHIN BOUND", "coverage90"),
        ("FALSELY CONVERGES", "false_converges"),
    ),
    "demand": (("RMSE", "rmse"), ("MAE", "mae"), ("PINBALL 95", "pinball95"), ("WITHIN 90 %", "coverage90")),
}
NameArgument = Annotated[str, typer.Argument(metavar="ID|FILE", help="A model's id, or one of its two files.")]


def opened(config: Path) -> "tuple[tuple[ModelStore[Any], ...], PredictSettings]":
    """The models of a configuration, by kind; without one, those of the usual directory. Raises CliError."""
    from rebalancerd.predict.kinds import KINDS
    from rebalancerd.predict.settings import PredictSettings
    from rebalancerd.predict.store import ModelStore

    directory, settings = DEFAULT_DIRECTORY, PredictSettings()
    if config != DEFAULT_CONFIG or config.exists():
        from rebalancerd.cli.config import load

        cfg = load(config)
        directory, settings = cfg.models_dir, cfg.predict_settings()
    return tuple(ModelStore(directory, kind=kind) for kind in KINDS), settings


def _pick(stores: "tuple[ModelStore[Any], ...]", name: str) -> "tuple[ModelStore[Any], Path]":
    """The model meant by an id or a file's name, and the store of its kind. Raises CliError."""
    from rebalancerd.predict.manifest import ArtefactError

    store = next((s for s in stores if Path(name).name.startswith(f"{s.kind.name}-")), stores[0])
    try:
        return store, store.pick(name)
    except ArtefactError as error:
        raise CliError(str(error), "`rebalancerd models list` names those there are") from error


def _nothing(stores: "tuple[ModelStore[Any], ...]") -> str:
    return f"there is no model in {stores[0].own} or {stores[0].shipped}: physics is used, and the naive forecasts"


@app.command("list")
def list_models(config: ConfigOption = DEFAULT_CONFIG, output: OutputOption = Output.TABLE) -> None:
    """Every model, this cluster's own and the shipped ones, in the order in which the daemon tries them."""
    stores, _ = opened(config)
    rows = [_row(store, found) for store in stores for found in store.found()]
    last = {store.kind.name: _last_training(store) for store in stores}
    if output is Output.JSON:
        directories = [str(stores[0].own), str(stores[0].shipped)]
        emit_json({"format": 1, "models": rows, "last_training": last, "directories": directories})
        return
    from rebalancerd.serve.wording import instant, share

    columns = ("MODEL", "SOURCE", "TRAINED", "ROWS", "OWN", "ERROR", "STATE")
    shown = (
        (
            r["id"],
            r["source"] + (", champion" if r["champion"] else ""),
            "?" if r["trained_at"] is None else instant(r["trained_at"]),
            "?" if r["rows"] is None else r["rows"],
            "?" if r["own_rows"] is None else r["own_rows"],
            share(r["error"]),
            plain(_state(r), "red" if r["fault"] else None),
        )
        for r in rows
    )
    if rows:
        show(table(columns, shown, numbers=(3, 4, 5)))
    else:
        say(_nothing(stores))
    for kind, ended in last.items():
        if ended is not None:
            said = f"{ended['outcome'].replace('_', ' ')}: {ended['why']}"
            say(f"last training of a {kind} model {instant(ended['at'])}: {said}")


@app.command("show")
def show_model(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, output: OutputOption = Output.TABLE) -> None:
    """What a model is made of, with what it was made, and how good it was then."""
    from rebalancerd.predict.manifest import ArtefactError
    from rebalancerd.serve.wording import instant

    stores, _ = opened(config)
    store, path = _pick(stores, name)
    try:
        manifest = store.examine(path)
    except ArtefactError as error:
        raise CliError(str(error), "`rebalancerd models list` names those there are") from error
    if output is Output.JSON:
        emit_json({"format": 1, "file": str(path), "manifest": manifest.model_dump(mode="json")})
        return
    lines = (
        ("model", manifest.id),
        ("files", f"{path}, {path.with_suffix('.skops').name} ({manifest.bytes} bytes)"),
        (
            "trained",
            f"{instant(manifest.trained_at)} on {manifest.rows} {ROWS[manifest.kind]}, {manifest.own_rows} of them own, seed {manifest.seed}",
        ),
        ("data", f"sha256 {manifest.data_sha256}"),
        ("libraries", ", ".join(f"{k} {v}" for k, v in manifest.libraries.items())),
        ("features", ", ".join(manifest.features)),
    )
    for key, value in lines:
        say(f"{key:<12} {value}")
    if manifest.errors:
        show(scores_table(manifest.errors, manifest.kind))


@app.command()
def verify(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[ID|FILE]", help="A model's id, or one of its two files; every model if not given."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    output: OutputOption = Output.TABLE,
) -> None:
    """Load models as the daemon would, predictions included, and say what is wrong with them. Ends with 1 if anything is."""
    from rebalancerd.predict.manifest import ArtefactError

    stores, settings = opened(config)
    chosen = [(s, f.path) for s in stores for f in s.found()] if name is None else [_pick(stores, name)]
    results: list[dict[str, Any]] = []
    for store, path in chosen:
        result: dict[str, Any] = {"id": path.stem, "file": str(path), "ok": True, "fault": None, "detail": ""}
        try:
            store.load(path, settings)
        except ArtefactError as error:
            result |= {"ok": False, "fault": error.fault.value, "file": str(error.path), "detail": error.detail}
        results.append(result)
    if output is Output.JSON:
        emit_json({"format": 1, "models": results})
    else:
        for result in results:
            words = "in order" if result["ok"] else f"{result['fault']}: {result['detail']}"
            say(f"{result['file']}: {words}", None if result["ok"] else "red")
        if not results:
            say(_nothing(stores))
    if not all(result["ok"] for result in results):
        raise typer.Exit(ERROR)


def scores_table(scores: "dict[str, dict[str, float | None]]", kind: str) -> object:
    """Scores by predictor (``training.CostScore``, ``demand.score.DemandScore``)."""
    from rebalancerd.serve.wording import share

    figures = SCORES[kind]
    columns = ("PREDICTOR", ROWS[kind].upper(), *(heading for heading, _ in figures))
    rows = (
        (name, int(found.get("rows") or 0), *(share(found.get(figure)) for _, figure in figures))
        for name, found in scores.items()
    )
    return table(columns, rows, numbers=range(1, 2 + len(figures)))


def _row(store: "ModelStore[Any]", found: "Found") -> dict[str, Any]:
    """One model as its files say, whole or not."""
    from rebalancerd.predict.manifest import ArtefactError
    from rebalancerd.predict.store import OWN

    manifest: Manifest[Any] | None = None
    kind = store.kind.name
    row: dict[str, Any] = {
        "id": found.id,
        "kind": kind,
        "source": found.source,
        "file": str(found.path),
        "fault": None,
        "detail": "",
    }
    try:
        manifest = store.examine(found.path)
    except ArtefactError as error:
        row |= {"fault": error.fault.value, "detail": error.detail}
    try:
        champion, trust = store.champion(), store.trust(found.id)
    except ArtefactError:
        champion = trust = None
    scores = manifest.errors if manifest is not None else {}
    own = scores.get("challenger") or scores.get("learned") or {}
    return row | {
        "champion": champion is not None and found.source == OWN and champion.id == found.id,
        "trusted": trust.trusted if trust is not None else None,
        "trust_reason": trust.reason if trust is not None else "",
        "trained_at": manifest.trained_at if manifest is not None else None,
        "rows": manifest.rows if manifest is not None else None,
        "own_rows": manifest.own_rows if manifest is not None else None,
        "error": own.get(SCORES[kind][0][1]),
    }


def _state(row: dict[str, Any]) -> str:
    if row["fault"]:
        return f"{row['fault']}: {row['detail']}"
    return f"not trusted: {row['trust_reason']}" if row["trusted"] is False else "whole"


def _last_training(store: "ModelStore[Any]") -> dict[str, Any] | None:
    from rebalancerd.predict.manifest import ArtefactError

    try:
        last = store.last_training()
    except ArtefactError:
        return None
    return last.model_dump(mode="json") if last is not None else None
