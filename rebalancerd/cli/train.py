"""``rebalancerd train``: a training in a process of its own, never in the daemon's."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebalancerd.cli.exits import NOT_THERE, CliError
from rebalancerd.cli.models import scores_table
from rebalancerd.cli.options import DEFAULT_CONFIG, ConfigOption, OutputOption
from rebalancerd.cli.output import Output, emit_json, log_to_stderr, say, show, talk

if TYPE_CHECKING:
    from rebalancerd.cluster.labelled import LabelledMigration
    from rebalancerd.config import Config
    from rebalancerd.predict.retrain import Training
    from rebalancerd.predict.store import ModelStore
    from rebalancerd.record.labelled import LabelledLedger

app = typer.Typer(help="Train the models on this cluster's own migrations and load.", no_args_is_help=True)
LOCK = "train.lock"
FAILED = "failed"
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Train and compare, but promote nothing.")]


@app.callback()
def train() -> None:
    """Train the models on this cluster's own migrations and load."""


@app.command("all")
def train_all(
    config: ConfigOption = DEFAULT_CONFIG,
    output: OutputOption = Output.TABLE,
) -> None:
    """Train every model that the configuration wants, one after the other. One that fails does not stop the next.

    In JSON each training is a document of its own.
    """
    from rebalancerd.cli.config import load
    from rebalancerd.predict.cost_kind import COST
    from rebalancerd.predict.store import ModelStore

    cfg = load(config)
    models = cfg.models
    try:  # also where nothing is to be trained: systemd would start it over and over
        ModelStore(cfg.models_dir, kind=COST).take_request()
    except OSError as error:
        raise CliError(
            f"cannot use {cfg.models_dir}: {error.strerror or error}", f"see state_dir in {config}"
        ) from error
    failed: list[CliError] = []
    if models.cost == "learned":
        failed += _tried(lambda: cost(config=config, output=output))
    if models.demand == "learned":
        failed += _tried(lambda: demand(config=config, output=output))
    if failed:
        details = tuple(f"and {error.message}" for error in failed[1:])
        raise CliError(failed[0].message, failed[0].hint, code=failed[0].code, details=details)


@app.command()
def cost(
    *,
    dry_run: DryRunOption = False,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", metavar="FILE", help="Migrations to learn from beside the own ones (CSV), instead of the shipped."
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    output: OutputOption = Output.TABLE,
) -> None:
    """Train the model of what migrations cost, test it on the newest ones, and promote it if it beats what is in use.

    Reads the ledger; writes to the models' directory only. The daemon takes a promoted model over by itself.
    """
    from rebalancerd.cli.config import load
    from rebalancerd.predict.cost_kind import COST
    from rebalancerd.predict.store import ModelStore

    log_to_stderr()
    cfg = load(config)
    store = ModelStore(cfg.models_dir, kind=COST)
    with training(store, config, dry_run=dry_run):
        _train(cfg, store, data, dry_run=dry_run, output=output)


@app.command()
def demand(
    *,
    dry_run: DryRunOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    output: OutputOption = Output.TABLE,
) -> None:
    """Train the model of what VMs will ask for on this cluster's load, and promote it if it beats what is in use.

    It is tested on the newest third of the load, which the daemon hands over every hour. Writes to the models' directory
    only. The daemon takes a promoted model over by itself.
    """
    from rebalancerd.cli import train_demand
    from rebalancerd.cli.config import load
    from rebalancerd.predict.demand.kind import DEMAND
    from rebalancerd.predict.store import ModelStore

    log_to_stderr()
    cfg = load(config)
    store = ModelStore(cfg.models_dir, kind=DEMAND)
    with training(store, config, dry_run=dry_run):
        ended = train_demand.trained(cfg, store, dry_run=dry_run)
        _note(store, ended.outcome, ended.why, model=ended.model, dry_run=dry_run)
        train_demand.report(ended, output, dry_run=dry_run)


@contextmanager
def training(store: "ModelStore[Any]", config: Path, *, dry_run: bool) -> Iterator[None]:
    """One training at a time; one that fails leaves word of it. Raises CliError."""
    from rebalancerd.record.file_lease import FileLease, LeaseTakenError

    try:
        store.own.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLease(store.own / LOCK)
    except LeaseTakenError as error:
        raise CliError(f"another training runs: {error}", "wait for its end", code=NOT_THERE) from error
    except OSError as error:
        raise CliError(f"cannot use {store.own}: {error.strerror or error}", f"see state_dir in {config}") from error
    try:
        store.take_request()
        yield
    except CliError as error:
        _note(store, FAILED, error.message, dry_run=dry_run)
        raise
    finally:
        lock.release()


def _tried(work: Callable[[], None]) -> list[CliError]:
    try:
        work()
    except CliError as error:
        return [error]
    return []


def _train(cfg: "Config", store: "ModelStore[Any]", data: list[Path] | None, *, dry_run: bool, output: Output) -> None:
    from rebalancerd.predict.retrain import retrain
    from rebalancerd.record.labelled import Omission

    shipped = _shipped(data if data else list(store.data_files()))
    ledger = _ledger(cfg)
    talk(f"{len(shipped)} shipped migrations, {len(ledger.rows)} of this cluster")
    try:
        ended = retrain(
            shipped,
            [item.row for item in ledger.rows],
            store,
            predict=cfg.predict_settings(),
            models=cfg.model_settings(),
            now=time.time(),
            absurd=[(item.id, item.detail) for item in ledger.left_out if item.why is Omission.ABSURD],
            dry_run=dry_run,
        )
    except OSError as error:
        raise CliError(f"cannot write to {store.own}: {error.strerror or error}", "the champion stays") from error
    _note(store, ended.outcome, ended.why, model=ended.model, dry_run=dry_run)
    left_out = {why.value: count for why, count in ledger.counts}
    if output is Output.JSON:
        emit_json(_document(ended, left_out, dry_run=dry_run))
    else:
        _print(ended, left_out)


def _shipped(files: list[Path]) -> "list[LabelledMigration]":
    from rebalancerd.predict.dataset import read_both_views

    rows: list[LabelledMigration] = []
    for file in files:
        try:
            rows += read_both_views(file)
        except ValueError as error:
            raise CliError(str(error), "mend or leave out this file; nothing was trained") from error
        except OSError as error:
            raise CliError(f"{file}: {error.strerror or error}", "nothing was trained") from error
    return rows


def _ledger(cfg: "Config") -> "LabelledLedger":
    from rebalancerd.ledgers import ledger_access
    from rebalancerd.ports import LedgerUnavailableError
    from rebalancerd.record.labelled import labelled_migrations
    from rebalancerd.record.reader import LedgerReader

    try:
        with LedgerReader(cfg.ledger_url, ledger_access(cfg)) as ledger:
            return labelled_migrations(ledger)
    except LedgerUnavailableError as error:
        raise CliError(str(error), "nothing was trained") from error


def _note(store: "ModelStore[Any]", outcome: str, why: str, *, model: str | None = None, dry_run: bool) -> None:
    """Leave word for the daemon and for `models list`."""
    from rebalancerd.predict.store import LastTraining

    if dry_run:
        return
    try:
        store.note_training(LastTraining(at=time.time(), outcome=outcome, why=why, model=model))
    except OSError as error:
        talk(f"how it ended cannot be written to {store.own}: {error}")


def _document(ended: "Training", left_out: dict[str, int], *, dry_run: bool) -> dict[str, Any]:
    from rebalancerd.predict.retrain import figures

    return {
        "format": 1,
        "outcome": ended.outcome,
        "why": ended.why,
        "model": ended.model,
        "champion": ended.champion,
        "dry_run": dry_run,
        "shipped_rows": ended.shipped_rows,
        "own_rows": ended.own_rows,
        "test_rows": ended.test_rows,
        "scores": {name: figures(score) for name, score in ended.scores.items()},
        "absurd": [{"id": name, "reason": reason} for name, reason in ended.absurd],
        "left_out": left_out,
        "problems": list(ended.problems),
    }


def _print(ended: "Training", left_out: dict[str, int]) -> None:
    from rebalancerd.predict.retrain import KEPT, PROMOTED, figures

    if ended.scores:
        show(scores_table({name: figures(score) for name, score in ended.scores.items()}, "cost"))
        say(
            f"on the {ended.test_rows} newest of {ended.own_rows} own migrations; learned from the others and {ended.shipped_rows} shipped ones"
        )
    for problem in ended.problems:
        say(f"refused: {problem}", "yellow")
    for name, reason in ended.absurd[:5]:
        say(f"left out as absurd: {name}: {reason}", "yellow")
    if len(ended.absurd) > 5:
        say(f"and {len(ended.absurd) - 5} more absurd ones", "yellow")
    others = {why: count for why, count in left_out.items() if why != "absurd"}
    if others:
        say("not learned from: " + ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in others.items()))
    if ended.outcome == PROMOTED:
        say(f"promoted {ended.model}: {ended.why}", "green")
    elif ended.outcome == KEPT:
        say(f"{ended.champion or 'physics'} stays: {ended.why}")
    else:
        say(f"not trained: {ended.why}")
