"""``rebalancerd lab``: a real cluster on this machine, for trying things out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebalancerd.cli.exits import CliError
from rebalancerd.cli.options import OutputOption
from rebalancerd.cli.output import Output, emit_json, say, show, table, talk

if TYPE_CHECKING:
    from rebalancerd.lab import LabStatus

app = typer.Typer(
    help="A real cluster on this machine: libvirt hosts and QEMU guests. Needs root.", no_args_is_help=True
)

DEFAULT_DIRECTORY = Path("/var/lib/rebalancerd-lab")
DirectoryOption = Annotated[
    Path, typer.Option("--dir", envvar="REBALANCERD_LAB_DIR", help="Where the lab keeps its state.")
]


@app.command()
def up(
    *,
    hosts: Annotated[int, typer.Option("--hosts", min=2, max=9, help="How many hosts.")] = 3,
    guests: Annotated[int, typer.Option("--guests", min=0, max=24, help="How many guests, all on h1 at first.")] = 4,
    directory: DirectoryOption = DEFAULT_DIRECTORY,
    name: Annotated[str, typer.Option("--name", help="Labs of different names and subnets run side by side.")] = "lab",
    subnet: Annotated[str, typer.Option("--subnet", help="IPv4 /24 of the migration network.")] = "10.77.0.0/24",
    config: Annotated[
        Path | None,
        typer.Option("--write-config", metavar="FILE", help="Also write a configuration for a daemon on it."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Bring a lab up, or what is missing of it. Says what it starts."""
    from rebalancerd.lab import GuestSpec, Lab, LabError, LabSpec, Phase

    phases = (Phase(seconds=60, cpu_percent=10, working_set_mib=16, dirty_mib_per_second=1),)
    wanted = tuple(GuestSpec(name=f"vm{n}", host="h1", phases=phases) for n in range(1, guests + 1))
    try:
        lab = Lab(LabSpec(name=name, subnet=subnet, hosts=hosts, guests=wanted), directory)
        seen = lab.up(lambda step: talk(f"starting {step}"))
        if config is not None:
            from rebalancerd.cli.demo_cluster import config_text

            config.write_text(config_text(lab, config.resolve().parent), encoding="utf-8")
            talk(f"written to {config}; `rebalancerd run --config {config}` starts a daemon on it")
    except (LabError, ValueError, OSError) as error:
        raise CliError(
            f"the lab does not come up: {error}", f"`rebalancerd lab down --dir {directory}` removes what was started"
        ) from error
    _print(seen, output)


@app.command()
def down(directory: DirectoryOption = DEFAULT_DIRECTORY) -> None:
    """Take the lab down and leave nothing behind, also after a crash."""
    from rebalancerd.lab import Lab, LabError

    if not directory.exists():
        talk(f"no lab in {directory}: nothing to do")
        return
    try:
        Lab.open(directory).down(lambda step: talk(f"removing {step}"))
    except (LabError, OSError) as error:
        raise CliError(f"the lab is not down: {error}") from error


@app.command()
def status(directory: DirectoryOption = DEFAULT_DIRECTORY, output: OutputOption = Output.TABLE) -> None:
    """Show the lab's hosts and guests."""
    from rebalancerd.lab import Lab, LabError

    try:
        seen = Lab.open(directory).status()
    except (LabError, OSError) as error:
        raise CliError(str(error), "bring one up with `rebalancerd lab up`") from error
    _print(seen, output)


@app.command()
def load(
    guest: Annotated[str, typer.Argument(help="Guest whose load to change.")],
    cpu: Annotated[float, typer.Option("--cpu", min=0, max=100, help="CPU demand in per cent of one vCPU.")] = 0.0,
    working_set: Annotated[float, typer.Option("--working-set", min=0, help="Memory kept in use, MiB.")] = 0.0,
    dirty: Annotated[float, typer.Option("--dirty", min=0, help="Memory rewritten, MiB/s.")] = 0.0,
    directory: DirectoryOption = DEFAULT_DIRECTORY,
) -> None:
    """Give a guest a new load, at once and until changed."""
    from rebalancerd.lab import Lab, LabError, Phase

    try:
        phase = Phase(seconds=60, cpu_percent=cpu, working_set_mib=working_set, dirty_mib_per_second=dirty)
        Lab.open(directory).set_load(guest, (phase,))
    except (LabError, ValueError, OSError) as error:
        raise CliError(str(error)) from error
    say(f"{guest}: CPU {cpu:g} %, working set {working_set:g} MiB, {dirty:g} MiB/s rewritten")


@app.command()
def harvest(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="CSV file; its rows are kept and not made again.")],
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="How long to go on.")] = 60.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="What the settings are drawn from.")] = 1,
    workloads: Annotated[
        Path | None,
        typer.Option("--workloads", metavar="FILE", help="Families of workloads other than the built-in ones."),
    ] = None,
    lanes: Annotated[int, typer.Option("--lanes", min=1, max=4, help="Pairs of hosts that work in turn.")] = 2,
    host_cores: Annotated[float, typer.Option("--host-cores", min=0.2, help="CPU time of each host.")] = 0.9,
    pairs: Annotated[bool, typer.Option("--pairs/--no-pairs", help="Two migrations at once too.")] = True,
    directory: DirectoryOption = Path("/var/tmp/rebalancerd-harvest"),  # noqa: S108 - made by root with mode 0700
) -> None:
    """Measure real migrations of many workloads, one row each: what was known before, and what came of it."""
    from rebalancerd.lab import LabError
    from rebalancerd.lab.harvest.families import BUILT_IN, load_families
    from rebalancerd.lab.harvest.harvest import HarvestPlan, harvest

    try:
        families = BUILT_IN if workloads is None else load_families(workloads)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        plan = HarvestPlan(
            out=out,
            minutes=minutes,
            seed=seed,
            families=families,
            directory=directory / "lab",
            lanes=lanes,
            host_cores=host_cores,
            pairs=pairs,
        )
        added = harvest(plan, talk)
    except (LabError, ValueError, OSError) as error:
        raise CliError(f"harvest: {error}", "rows made so far are kept; the same command goes on from there") from error
    say(f"{added} rows added to {out}")


def _print(seen: "LabStatus", output: Output) -> None:
    if output is Output.JSON:
        emit_json(_document(seen))
        return
    say(
        f"lab {seen.name} in {seen.state_dir}: {'up' if seen.up else 'not all up'}, guests run on {seen.accelerator or '?'}"
    )
    hosts = (
        (
            h.name,
            "up" if h.up else "down",
            h.libvirtd_pid or "-",
            "yes" if h.responsive else "no",
            "in" if h.connected else "out",
        )
        for h in seen.hosts
    )
    show(table(("HOST", "STATE", "LIBVIRTD", "ANSWERS", "CABLE"), hosts))
    guests = (
        (
            g.name,
            g.host or "?",
            g.state,
            g.heartbeat.count if g.heartbeat else "-",
            g.heartbeat.load if g.heartbeat else "-",
        )
        for g in seen.guests
    )
    say()
    show(table(("GUEST", "HOST", "STATE", "BEATS", "LOAD"), guests, numbers=(3,)))
    for host in seen.hosts:
        say(
            f"{host.name}: virsh -c 'qemu+unix:///system?socket={seen.state_dir}/{host.name}/run/libvirt-sock' list",
            "dim",
        )


def _document(seen: "LabStatus") -> dict[str, object]:
    return {
        "format": 1,
        "name": seen.name,
        "state_dir": str(seen.state_dir),
        "up": seen.up,
        "accelerator": seen.accelerator,
        "hosts": [
            {
                "name": h.name,
                "up": h.up,
                "libvirtd_pid": h.libvirtd_pid,
                "responsive": h.responsive,
                "connected": h.connected,
                "cpu_seconds": h.cpu_seconds,
            }
            for h in seen.hosts
        ],
        "guests": [
            {"name": g.name, "host": g.host, "state": g.state, "beats": g.heartbeat.count if g.heartbeat else None}
            for g in seen.guests
        ],
    }
