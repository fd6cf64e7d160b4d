"""Training of the demand model: from the load the daemon handed over to a report of what came of it."""

import time
from typing import TYPE_CHECKING, Any

from rebalancerd.cli.exits import CliError
from rebalancerd.cli.models import scores_table
from rebalancerd.cli.output import Output, emit_json, say, show, talk

if TYPE_CHECKING:
    from rebalancerd.config import Config
    from rebalancerd.predict.demand.kind import DemandParts
    from rebalancerd.predict.demand.retrain import DemandTraining
    from rebalancerd.predict.store import ModelStore


def trained(cfg: "Config", store: "ModelStore[DemandParts]", *, dry_run: bool) -> "DemandTraining":
    """One training. Raises CliError where the load cannot be read or there is no place to write."""
    from rebalancerd.predict.demand import retrain
    from rebalancerd.predict.demand.own_load import read_load
    from rebalancerd.predict.manifest import ArtefactError, Fault
    from rebalancerd.predict.retrain import NOT_TRAINED
    from rebalancerd.serve.wording import span

    now = time.time()
    try:
        load = read_load(store.own)
    except ArtefactError as error:
        if error.fault is Fault.ABSENT:
            why = f"no load of this cluster yet: the daemon writes {error.path} every hour once it has recorded any"
            return retrain.DemandTraining(outcome=NOT_TRAINED, why=why, vms=0, hours=0.0)
        raise CliError(str(error), "the daemon replaces it within the hour; nothing was trained") from error
    vms, steps = load.values.shape
    talk(f"load of {vms} VMs over {span(steps * load.step_seconds)}, handed over {span(max(0.0, now - load.end))} ago")
    try:
        return retrain.retrain_demand(
            load, store, predict=cfg.predict_settings(), models=cfg.model_settings(), now=now, dry_run=dry_run
        )
    except OSError as error:
        raise CliError(f"cannot write to {store.own}: {error.strerror or error}", "the champion stays") from error


def report(ended: "DemandTraining", output: Output, *, dry_run: bool) -> None:
    """Say how it ended."""
    from rebalancerd.predict.demand.retrain import figures
    from rebalancerd.predict.retrain import KEPT, PROMOTED

    if output is Output.JSON:
        emit_json(_document(ended, dry_run=dry_run))
        return
    if ended.scores:
        show(scores_table(figures(ended.scores), "demand"))
        say("on the newest third of the load; learned from the rest and from synthetic load")
    for problem in ended.problems:
        say(f"refused: {problem}", "yellow")
    if ended.absurd:
        say(f"left out as absurd: {ended.absurd} values", "yellow")
    if ended.outcome == PROMOTED:
        say(f"promoted {ended.model}: {ended.why}", "green")
    elif ended.outcome == KEPT:
        say(f"{ended.champion or 'the best naive way'} stays: {ended.why}")
    else:
        say(f"not trained: {ended.why}")


def _document(ended: "DemandTraining", *, dry_run: bool) -> dict[str, Any]:
    from rebalancerd.predict.demand.retrain import figures

    return {
        "format": 1,
        "outcome": ended.outcome,
        "why": ended.why,
        "model": ended.model,
        "champion": ended.champion,
        "dry_run": dry_run,
        "vms": ended.vms,
        "hours": ended.hours,
        "absurd": ended.absurd,
        "scores": figures(ended.scores),
        "problems": list(ended.problems),
    }
