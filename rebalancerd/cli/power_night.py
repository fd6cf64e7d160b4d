"""``rebalancerd power plan-night``: the coming night as it would go. Nothing is moved, nothing is put to sleep."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebalancerd.cli.client import Client
from rebalancerd.cli.exits import CliError
from rebalancerd.cli.offline import costs_of, kept_of_file, standalone_kept, window_seconds
from rebalancerd.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    OutputOption,
    SecondsOption,
    SocketOption,
    socket_path,
)
from rebalancerd.cli.output import Output, emit_json, log_to_stderr, say, show, table, talk

if TYPE_CHECKING:
    from rebalancerd.night.plan import NightPlan, PlannedMove
    from rebalancerd.night.terms import NightTerms
    from rebalancerd.record.snapshotfile import KeptInputs

ASSUMED = "without a daemon: every host whose power is configured is taken to be on and to have passed its wake test"
ALL_ASSUMED = "without a configuration: the power of every host is taken to be controlled, its wake test to be passed"


def plan_night(
    *,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Plan from a file of `snapshot save`, asking nobody.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            "--window", metavar="DURATION", help="A night that begins now, such as '8h'; else the next window."
        ),
    ] = None,
    seconds: SecondsOption = 10.0,
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the whole coming night: what folds, who sleeps and is woken when, what it would save, and who stays on and why.

    By the planner, guards and power decisions of the daemon, on its forecast. Nothing is moved or put to sleep.
    """
    from rebalancerd.night.rehearsal import rehearse
    from rebalancerd.offline import restore
    from rebalancerd.record.snapshotfile import SnapshotFileError

    log_to_stderr()
    client, length = Client(socket_path(socket, config)), window_seconds(window)
    if source is None and client.is_there():
        kept, terms, notes = _asked(client, length)
    else:
        kept = kept_of_file(source) if source is not None else standalone_kept(client.path, config, seconds)
        terms, notes = _terms(kept, length, config)
    try:
        made = rehearse(restore(kept, costs_of(kept, config)), terms)
    except (SnapshotFileError, ValueError) as error:
        raise CliError(
            f"no night can be planned: {error}", "save the snapshot anew with `rebalancerd snapshot save`"
        ) from error
    made = replace(made, notes=(*notes, *made.notes))
    if output is Output.JSON:
        emit_json(_document(made))
    else:
        _print(made)


def _asked(client: Client, length: float | None) -> "tuple[KeptInputs, NightTerms, tuple[str, ...]]":
    import json

    from rebalancerd.night.terms import TERMS
    from rebalancerd.record.codec import CodecError
    from rebalancerd.record.snapshotfile import SnapshotFileError, parse_document

    answer = client.get("power/night-ahead", window=length)
    try:
        return parse_document(answer["document"]), TERMS.read(json.dumps(answer["terms"])), ()
    except (SnapshotFileError, CodecError, KeyError) as error:
        raise CliError(f"the daemon's answer cannot be read: {error}", "is it of another version?") from error


def _terms(kept: "KeptInputs", length: float | None, config: Path) -> "tuple[NightTerms, tuple[str, ...]]":
    """The terms where no daemon tells them: by the configuration, or where there is none for all hosts."""
    from rebalancerd.cli.config import load
    from rebalancerd.cluster.power import PowerLimits, PowerRecord
    from rebalancerd.guard.settings import GuardSettings
    from rebalancerd.night.terms import UNFOLD_SECONDS, NightTerms, given_night, next_night
    from rebalancerd.serve.night_ahead import NO_WINDOW, NO_WINDOW_HINT

    cfg = None if config == DEFAULT_CONFIG and not config.exists() else load(config)
    guard = GuardSettings() if cfg is None else cfg.guard_settings()
    now = kept.snapshot.taken_at
    night = next_night(guard, now) if length is None else given_night(now, length, UNFOLD_SECONDS)
    if night is None:
        raise CliError(NO_WINDOW, NO_WINDOW_HINT)
    controlled = sorted(h.name for h in kept.snapshot.hosts) if cfg is None else sorted(cfg.host_power())
    terms = NightTerms(
        window=night.window,
        begins_at=night.begins_at,
        unfolds_at=night.unfolds_at,
        ends_at=night.ends_at,
        controlled=tuple(controlled),
        records=tuple(PowerRecord(host=h, tested_at=now) for h in controlled),
        limits=PowerLimits() if cfg is None else cfg.power_limits(),
        guard=guard,
        mode="auto" if cfg is None else cfg.mode.value,
        cycle_seconds=60.0 if cfg is None else cfg.ticks.decide,
    )
    return terms, (ALL_ASSUMED if cfg is None else ASSUMED,)


def _document(made: "NightPlan") -> dict[str, Any]:
    from dataclasses import asdict

    from rebalancerd.serve.night_rows import night_row

    tree = asdict(made)
    tree["predicted"] = night_row(made.predicted).model_dump(mode="json")
    return {"format": 1, **tree}


def _print(made: "NightPlan") -> None:
    from rebalancerd.serve.night_rows import night_row
    from rebalancerd.serve.wording import counted, kwh, span

    night = night_row(made.predicted)
    say(
        f"{night.window}: {_clock(night.began_at)} to {_clock(night.ends_at)}, unfolding from {_time(made.unfolds_at)}",
        "bold",
    )
    sums = f"{kwh(night.unfolded_kwh)} unfolded − {kwh(night.actual_kwh)} folded − {kwh(night.moves_kwh)} for {counted(night.moves, 'move')}"
    say(f"predicted: {kwh(night.saved_kwh)} kWh saved = {sums}; forecast by {made.basis}")
    folding, unfolding = [m for m in made.moves if not m.unfolding], [m for m in made.moves if m.unfolding]
    say()
    _moves("fold", folding, "nothing is folded")
    say()
    events = [(s.at, s.host, "wake test: off" if s.test else "sleeps: off", s.off_at, s.why) for s in made.sleeps]
    events += [
        (w.at, w.host, "wake test: up" if w.test else "is woken: up", w.up_at, _by(w.unfolded_by, w.why))
        for w in made.wakes
    ]
    if events:
        rows = ((_time(at), host, what, _time(by), why) for at, host, what, by, why in sorted(events))
        show(table(("AT", "HOST", "WHAT", "BY", "WHY"), rows))
    else:
        say("no host goes to sleep")
    slept = [f"{host} {span(seconds)}" for host, seconds in night.asleep_seconds if seconds > 0]
    if slept:
        say(f"asleep: {', '.join(slept)}")
    if made.still_asleep:
        say(f"still asleep when the window ends, and woken then: {', '.join(made.still_asleep)}")
    say()
    _moves("unfold", unfolding, "unfolding needs no move: no host is or gets hot where the VMs are")
    for host, code, why in made.stays_on:
        say(f"stays on: {host}: {code}: {why}")
    for code, why, count in made.held_back[:5]:
        say(f"held back{f' ({count}×)' if count > 1 else ''}: {code}: {why}")
    for note in made.notes:
        talk(f"note: {note}")


def _moves(what: str, moves: "Sequence[PlannedMove]", none: str) -> None:
    from rebalancerd.serve.wording import counted, span

    if not moves:
        say(none)
        return
    over = max(m.at + m.seconds for m in moves)
    say(f"{what}: {counted(len(moves), 'move')}, {_time(moves[0].at)} to {_time(over)}", "bold")
    rows = ((_time(m.at), m.vm_name, f"{m.source} → {m.destination}", span(m.seconds)) for m in moves)
    show(table(("AT", "VM", "FROM → TO", "TAKES"), rows, numbers=(3,)))


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _time(at: float) -> str:
    return time.strftime("%H:%M", time.localtime(at))


def _by(unfolded_by: float, why: str) -> str:
    return f"unfolded by {_time(unfolded_by)}; {why}"
