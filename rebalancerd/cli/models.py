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
NameArgument = Annotated[str, typer.Argument(metavar="ID|FILE", help="A model's id, or one of its two files.")]


def opened(config: Path) -> "tuple[ModelStore, PredictSettings]":
    """The models of a configuration; without one, those of the usual directory. Raises CliError."""
    from rebalancerd.predict.settings import PredictSettings
    from rebalancerd.predict.store import ModelStore

    if config == DEFAULT_CONFIG and not config.exists():
        return ModelStore(DEFAULT_DIRECTORY), PredictSettings()
    from rebalancerd.cli.config import load

    cfg = load(config)
    return ModelStore(cfg.models_dir), cfg.predict_settings()


@app.command("list")
def list_models(config: ConfigOption = DEFAULT_CONFIG, output: OutputOption = Output.TABLE) -> None:
    """Every model, this cluster's own and the shipped ones, in the order in which the daemon tries them."""
    store, _ = opened(config)
    rows = [_row(store, found) for found in store.found()]
    last = _last_training(store)
    if output is Output.JSON:
        emit_json(
            {"format": 1, "models": rows, "last_training": last, "directories": [str(store.own), str(store.shipped)]}
        )
        return
    from rebalancerd.serve.wording import instant, share

    columns = ("MODEL", "SOURCE", "TRAINED", "MIGRATIONS", "OWN", "TIME ERROR", "STATE")
    shown = (
        (
            r["id"],
            r["source"] + (", champion" if r["champion"] else ""),
            "?" if r["trained_at"] is None else instant(r["trained_at"]),
            "?" if r["rows"] is None else r["rows"],
            "?" if r["own_rows"] is None else r["own_rows"],
            share(r["time_error"]),
            plain(_state(r), "red" if r["fault"] else None),
        )
        for r in rows
    )
    if rows:
        show(table(columns, shown, numbers=(3, 4, 5)))
    else:
        say(f"there is no model in {store.own} or {store.shipped}: physics is used")
    if last is not None:
        say(f"last training {instant(last['at'])}: {last['outcome'].replace('_', ' ')}: {last['why']}")


@app.command("show")
def show_model(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, output: OutputOption = Output.TABLE) -> None:
    """What a model is made of, with what it was made, and how good it was then."""
    from rebalancerd.predict.artefact import examine
    from rebalancerd.predict.manifest import ArtefactError
    from rebalancerd.serve.wording import instant

    store, _ = opened(config)
    try:
        path = store.pick(name)
        manifest = examine(path)
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
            f"{instant(manifest.trained_at)} on {manifest.rows} migrations, {manifest.own_rows} of them own, seed {manifest.seed}",
        ),
        ("data", f"sha256 {manifest.data_sha256}"),
        ("libraries", ", ".join(f"{k} {v}" for k, v in manifest.libraries.items())),
        ("features", ", ".join(manifest.features)),
    )
    for key, value in lines:
        say(f"{key:<12} {value}")
    if manifest.errors:
        show(scores_table(manifest.errors))


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

    store, settings = opened(config)
    try:
        paths = [found.path for found in store.found()] if name is None else [store.pick(name)]
    except ArtefactError as error:
        raise CliError(str(error), "`rebalancerd models list` names those there are") from error
    results: list[dict[str, Any]] = []
    for path in paths:
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
            say(f"there is no model in {store.own} or {store.shipped}: physics is used")
    if not all(result["ok"] for result in results):
        raise typer.Exit(ERROR)


def scores_table(scores: "dict[str, dict[str, float | None]]") -> object:
    """Scores by predictor (``training.CostScore``)."""
    from rebalancerd.serve.wording import share

    columns = ("PREDICTOR", "MIGRATIONS", "TIME ERROR", "MEDIAN", "BAD", "WITHIN BOUND", "FALSELY CONVERGES")
    names = ("total_time_gmre", "total_time_median_ape", "bad_share", "coverage90", "false_converges")
    rows = (
        (name, int(found.get("rows") or 0), *(share(found.get(figure)) for figure in names))
        for name, found in scores.items()
    )
    return table(columns, rows, numbers=range(1, 7))


def _row(store: "ModelStore", found: "Found") -> dict[str, Any]:
    """One model as its files say, whole or not."""
    from rebalancerd.predict.artefact import examine
    from rebalancerd.predict.manifest import ArtefactError
    from rebalancerd.predict.store import OWN

    manifest: Manifest | None = None
    row: dict[str, Any] = {"id": found.id, "source": found.source, "file": str(found.path), "fault": None, "detail": ""}
    try:
        manifest = examine(found.path)
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
        "time_error": own.get("total_time_gmre"),
    }


def _state(row: dict[str, Any]) -> str:
    if row["fault"]:
        return f"{row['fault']}: {row['detail']}"
    return f"not trusted: {row['trust_reason']}" if row["trusted"] is False else "whole"


def _last_training(store: "ModelStore") -> dict[str, Any] | None:
    from rebalancerd.predict.manifest import ArtefactError

    try:
        last = store.last_training()
    except ArtefactError:
        return None
    return last.model_dump(mode="json") if last is not None else None
