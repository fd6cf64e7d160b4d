"""``rebalancerd backtest``: recorded load through the daemon's own loop, against doing nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebalancerd.cli.exits import USAGE, CliError
from rebalancerd.cli.options import OutputOption
from rebalancerd.cli.output import Output, console, emit_json, say, show, table

if TYPE_CHECKING:
    from rebalancerd.sim.replay import ReplayResult, ReplaySettings
    from rebalancerd.sim.replay_case import ReplayCase

DEFAULTS = "defaults"
REFUSALS_SHOWN = 5
MOST_HOSTS, MOST_HOURS = 2000, 24.0 * 35
GB = 1e9


def backtest(
    *,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="DIR", help="A daemon's state directory: its own recorded history."),
    ] = None,
    traces: Annotated[
        Path | None, typer.Option("--traces", metavar="DIR", help="A directory of trace sets (.npz).")
    ] = None,
    configs: Annotated[
        list[Path] | None,
        typer.Option("--config", "-c", metavar="FILE", help="Configuration to replay under; give it twice to compare."),
    ] = None,
    hosts: Annotated[
        int, typer.Option("--hosts", min=2, max=MOST_HOSTS, help="Hosts of the cluster around traces.")
    ] = 20,
    hours: Annotated[float, typer.Option("--hours", min=0.1, max=MOST_HOURS, help="How long is replayed.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws the cluster around traces.")] = 1,
    hot: Annotated[
        float, typer.Option("--hot", min=0.1, max=2.0, help="Share of its CPU above which a host is hot.")
    ] = 0.9,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.svg", help="Draw the load of every host over time there.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Replay recorded load through the daemon's own loop on virtual time, and set it against doing nothing.

    Nothing is asked of a daemon or a host, and nothing is moved. Modes play no part: every step a configuration's plan
    wants and its guard allows is taken, as in mode auto.
    """
    from rebalancerd import log
    from rebalancerd.sim.replay import NOTHING

    log.configure(level="error")  # the simulated daemon's own warnings are no news to who asked for a replay
    if (record is None) == (traces is None):
        raise CliError("give either --record or --traces", "see rebalancerd backtest --help", code=USAGE)
    settings = _settings(configs or [])
    case = _case(record, traces, hosts=hosts, hours=hours, seed=seed)
    _check_writable(picture)
    results = _replay(case, settings, hot)
    if picture is not None:
        _draw(picture, case, results, hot)
    if output is Output.JSON:
        emit_json(_document(case, results, hot))
        return
    for line in case.told:
        say(line)
    say(f"virtual time; hot is above {hot:.0%} of a host's CPU; {_watts(case)}")
    say()
    show(_table(results))
    for result in results:
        if result.name != NOTHING and result.refusals:
            shown = ", ".join(f"{code} {count}" for code, count in result.refusals[:REFUSALS_SHOWN])
            say(f"refused under {result.name}: {shown}")
    if picture is not None:
        say(f"picture: {picture}")


def _settings(configs: Sequence[Path]) -> "list[ReplaySettings]":
    from rebalancerd.cli.config import load
    from rebalancerd.sim.replay_config import defaults, settings_of

    if not configs:
        return [defaults(DEFAULTS)]
    names = [path.stem for path in configs]
    if len(set(names)) < len(names):
        names = [str(path) for path in configs]
    if len(set(names)) < len(names):
        raise CliError("the same configuration is given twice", "it would come to the same", code=USAGE)
    return [settings_of(name, load(path)) for name, path in zip(names, configs, strict=True)]


def _case(record: Path | None, traces: Path | None, *, hosts: int, hours: float, seed: int) -> "ReplayCase":
    from rebalancerd.observe.traces.error import TraceError
    from rebalancerd.observe.traces.reader import read_traces
    from rebalancerd.sim.replay_case import ReplayError
    from rebalancerd.sim.replay_record import case_of_record
    from rebalancerd.sim.replay_traces import case_of_traces

    try:
        if record is not None:
            return case_of_record(record, hours=hours)
        assert traces is not None
        return case_of_traces(read_traces(traces), hosts=hosts, hours=hours, seed=seed)
    except (TraceError, ReplayError) as error:
        raise CliError(str(error), "nothing was replayed") from error
    except OSError as error:
        raise CliError(
            f"{error.filename or record or traces}: {error.strerror or error}", "nothing was replayed"
        ) from error


def _replay(case: "ReplayCase", settings: "Sequence[ReplaySettings]", hot: float) -> "list[ReplayResult]":
    """Do nothing first, then each configuration; a bar on a terminal's standard error."""
    import tempfile

    from rebalancerd.sim.invariants import InvariantError
    from rebalancerd.sim.replay import NOTHING, replay, write_past

    runs: list[ReplaySettings | None] = [None, *settings]
    found = []
    try:
        with tempfile.TemporaryDirectory(prefix="rebalancerd-backtest-") as name, _bar(len(runs)) as tell:
            past = Path(name) / "past"
            write_past(case, past)
            for number, run in enumerate(runs):
                label = NOTHING if run is None else run.name
                found.append(replay(case, run, hot=hot, past=past, progress=_part(tell, label, number)))
    except InvariantError as error:
        raise CliError(f"the daemon broke a promise in the replay: {error}", "please report it as a bug") from error
    except OSError as error:
        raise CliError(f"cannot replay: {error.strerror or error}", "it needs some room for temporary files") from error
    return found


Tell = Callable[[str, float], None]


def _part(tell: Tell, label: str, number: int) -> Callable[[float], None]:
    return lambda share: tell(label, number + share)


class _bar:  # noqa: N801
    """A progress bar over so many runs where standard error is a terminal, else nothing."""

    def __init__(self, runs: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        where = console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=where, transient=True, disable=not where.is_terminal)
        self._task = self._progress.add_task("", total=runs)

    def __enter__(self) -> Tell:
        self._progress.start()
        return lambda label, done: self._progress.update(self._task, description=f"replaying: {label}", completed=done)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _check_writable(picture: Path | None) -> None:
    """Told before a long replay, not after it."""
    if picture is None:
        return
    if picture.suffix.lower() != ".svg":
        raise CliError(f"{picture}: pictures are SVG", "name it FILE.svg", code=USAGE)
    if not picture.parent.is_dir():
        raise CliError(f"{picture}: there is no directory {picture.parent}", "make it, or write elsewhere")


def _draw(path: Path, case: "ReplayCase", results: "Sequence[ReplayResult]", hot: float) -> None:
    from rebalancerd.sim.replay_picture import picture

    drawn = picture(results, [host.name for host in case.cluster.hosts], seconds=case.seconds, hot=hot)
    try:
        path.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path}: {error.strerror or error}", "the picture was not written") from error


def _table(results: "Sequence[ReplayResult]") -> object:
    columns = ("", "hot host min", "unmet core h", "migrations", "failed", "moved GB", "energy kWh", "cycles")
    rows = [
        (
            r.name,
            f"{r.readings.hot_host_minutes:.1f}",
            f"{r.readings.unmet_core_hours:.3f}",
            r.migrations,
            r.failed,
            f"{r.bytes_moved / GB:.1f}",
            f"{r.readings.energy_kwh:.2f}",
            r.cycles,
        )
        for r in results
    ]
    return table(columns, rows, numbers=range(1, len(columns)))


def _watts(case: "ReplayCase") -> str:
    from rebalancerd.sim.replay_meter import IDLE_SHARE, peak_watts

    peaks = sorted({peak_watts(host) for host in case.cluster.hosts})
    shown = [f"{IDLE_SHARE * p:.0f} W idle to {p:.0f} W" for p in (peaks[0], peaks[-1])]
    return "a host draws " + (shown[0] if len(peaks) == 1 else f"{shown[0]} (smallest), {shown[1]} (largest)")


def _document(case: "ReplayCase", results: "Sequence[ReplayResult]", hot: float) -> dict[str, Any]:
    from rebalancerd.sim.replay_meter import IDLE_SHARE, peak_watts

    return {
        "format": 1,
        "about": list(case.told),
        "start": case.start,
        "seconds": case.seconds,
        "hot_share": hot,
        "seed": case.cluster.seed,
        "vms": len(case.cluster.vms),
        "hosts": [
            {"name": h.name, "cpus": h.cpus, "idle_watts": IDLE_SHARE * peak_watts(h), "peak_watts": peak_watts(h)}
            for h in case.cluster.hosts
        ],
        "runs": [_run(result) for result in results],
    }


def _run(result: "ReplayResult") -> dict[str, Any]:
    readings = result.readings
    return {
        "name": result.name,
        "hot_host_minutes": readings.hot_host_minutes,
        "hot_minutes": dict(readings.hot_minutes),
        "asked_core_hours": readings.asked_core_hours,
        "unmet_core_hours": readings.unmet_core_hours,
        "migrations": result.migrations,
        "failed_migrations": result.failed,
        "bytes_moved": result.bytes_moved,
        "energy_kwh": readings.energy_kwh,
        "cycles": result.cycles,
        "refusals": dict(result.refusals),
        "demand_basis": result.demand_basis,
    }
