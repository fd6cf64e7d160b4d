"""Planning in this process, from a snapshot file or from what a daemon or the hosts say now, with what-ifs on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebalancerd.cli.client import Client
from rebalancerd.cli.exits import USAGE, CliError
from rebalancerd.cli.options import DEFAULT_CONFIG
from rebalancerd.cli.output import log_to_stderr, talk

POLICIES = ("balance", "consolidate")

if TYPE_CHECKING:
    from rebalancerd.cluster.plan import Plan
    from rebalancerd.plan.inputs import Costs
    from rebalancerd.plan.what_if_text import WhatIf
    from rebalancerd.record.snapshotfile import KeptInputs


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plan is to be made for: things supposed first, the policy, how long it is to hold."""

    what_ifs: tuple[str, ...] = ()
    policy: str | None = None
    window: str | None = None


def offline_plan(
    file: Path | None, asked: Asked, *, client: Client, config: Path, seconds: float
) -> "tuple[Plan, dict[str, Any]]":
    """The plan from a file (None: from the cluster as it is now), after those changes, and its document."""
    from rebalancerd.offline import changed, restore
    from rebalancerd.plan.decide import decide
    from rebalancerd.plan.what_if_text import WhatIfError
    from rebalancerd.record.planfile import document
    from rebalancerd.record.snapshotfile import SnapshotFileError

    meant, window = _meant(asked.what_ifs), _window(asked)
    log_to_stderr()
    kept = kept_of_file(file) if file is not None else _now(client, config, seconds)
    try:
        inputs = restore(kept, costs_of(kept, config))
        inputs = changed(inputs, meant)
        inputs = replace(
            inputs,
            policy=inputs.policy if asked.policy is None else asked.policy,
            window_seconds=inputs.window_seconds if window is None else window,
        )
        made = decide(inputs)
    except SnapshotFileError as error:
        raise CliError(f"{file or 'the snapshot'}: {error}", "save it anew with `rebalancerd snapshot save`") from error
    except WhatIfError as error:
        raise CliError(f"cannot be supposed: {error}", error.hint) from error
    for text in asked.what_ifs:
        talk(f"supposed: {text}")
    return made, document(made)


def daemon_document(client: Client) -> dict[str, Any]:
    """The daemon's snapshot as a document."""
    document = client.get("snapshot").get("document")
    return document if isinstance(document, dict) else {}


def standalone_kept(socket: Path, config: Path, seconds: float) -> "KeptInputs":
    """What can be seen from here for that long, read-only."""
    import tempfile

    from rebalancerd.cli.config import load
    from rebalancerd.daemon import standalone_inputs

    log_to_stderr()
    cfg = load(config)
    talk(
        f"no daemon answers on {socket}: looking at {len(cfg.hosts)} hosts read-only for {seconds:g} s, without history"
    )
    with tempfile.TemporaryDirectory(prefix="rebalancerd-snapshot-") as directory:
        try:
            return standalone_inputs(cfg, seconds, Path(directory))
        except ValueError as error:
            raise CliError(f"nothing can be planned from what is seen: {error}", "see `rebalancerd doctor`") from error


def _meant(texts: Sequence[str]) -> "list[WhatIf]":
    from rebalancerd.plan.what_if_text import WhatIfError, parse

    try:
        return [parse(text) for text in texts]
    except WhatIfError as error:
        raise CliError(f"--what-if: {error}", error.hint, code=USAGE) from error


def _window(asked: Asked) -> float | None:
    """Seconds the plan is to hold. Raises CliError for a policy or a duration that is none."""
    if asked.policy is not None and asked.policy not in POLICIES:
        raise CliError(f"--policy: {asked.policy!r:.60} is none", f"say {' or '.join(POLICIES)}", code=USAGE)
    return window_seconds(asked.window)


def window_seconds(given: str | None) -> float | None:
    """Seconds of ``--window``. Raises CliError for a duration that is none."""
    from rebalancerd.config_units import parsed

    if given is None:
        return None
    try:
        seconds = parsed("duration", given)
    except ValueError as error:
        raise CliError(f"--window: {error}", "say it like 8h or 90min", code=USAGE) from error
    if seconds <= 0:
        raise CliError("--window: a window has a length", "say it like 8h or 90min", code=USAGE)
    return seconds


def kept_of_file(file: Path) -> "KeptInputs":
    """The content of a snapshot file. Raises CliError."""
    from rebalancerd.record.snapshotfile import SnapshotFileError, read_snapshot

    try:
        return read_snapshot(file)
    except SnapshotFileError as error:
        raise CliError(str(error), "make one with `rebalancerd snapshot save FILE`; it is not to be edited") from error


def _now(client: Client, config: Path, seconds: float) -> "KeptInputs":
    from rebalancerd.record.snapshotfile import SnapshotFileError, parse_document

    if not client.is_there():
        return standalone_kept(client.path, config, seconds)
    try:
        return parse_document(daemon_document(client))
    except SnapshotFileError as error:
        raise CliError(f"the daemon's snapshot cannot be read: {error}", "is it of another version?") from error


def costs_of(kept: "KeptInputs", config: Path) -> "Costs":
    """The cost model that the snapshot names, from this machine's models; says so where another one answers."""
    import time

    from rebalancerd.cli.config import load
    from rebalancerd.offline import load_costs
    from rebalancerd.predict.cost_kind import COST
    from rebalancerd.predict.settings import ModelSettings
    from rebalancerd.predict.store import ModelStore, shipped_directory

    # a snapshot is planned from where no cluster is configured, too: then there are the shipped models only
    cfg = None if config == DEFAULT_CONFIG and not config.exists() else load(config)
    own = cfg.models_dir if cfg is not None else shipped_directory()
    settings = cfg.model_settings() if cfg is not None else ModelSettings()
    costs, basis = load_costs(kept, ModelStore(own, kind=COST), settings, time.time)
    if basis != kept.costs:
        talk(f"costs were predicted by {kept.costs}, which is not to be had here: {basis} answers, so they may differ")
    return costs
