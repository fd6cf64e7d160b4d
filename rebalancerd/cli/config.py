"""``rebalancerd config``: generate, check, show."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebalancerd.cli.exits import CliError
from rebalancerd.cli.options import DEFAULT_CONFIG, ConfigOption, OutputOption
from rebalancerd.cli.output import Output, emit_json, say, talk

if TYPE_CHECKING:
    from rebalancerd.config import Config

app = typer.Typer(help="Generate, check and show the configuration.", no_args_is_help=True)


def load(path: Path) -> "Config":
    """The configuration of a file. Raises CliError that says what is wrong and where."""
    from rebalancerd.config import ConfigError
    from rebalancerd.config import load as read

    try:
        return read(path)
    except ConfigError as error:
        problems = [problem.text() for problem in error.problems]
        raise CliError(f"{path} cannot be used as configuration:", details=problems) from error


@app.command()
def generate(
    file: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write there, never over a file.")
    ] = None,
) -> None:
    """Print an example configuration with every setting, its default and its meaning."""
    from rebalancerd.config import generate as example

    text = example()
    if file is None:
        typer.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise CliError(f"{file} exists and is left as it is", "choose another name") from error
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror or error}") from error
    talk(f"written to {file}: name your hosts in it, then `rebalancerd config check --config {file}`")


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, output: OutputOption = Output.TABLE) -> None:
    """Read the configuration as the daemon would and say what is wrong with it, line by line."""
    cfg = load(config)
    if output is Output.JSON:
        emit_json({"format": 1, "config": str(config), "ok": True, "mode": cfg.mode.value, "hosts": len(cfg.hosts)})
    else:
        say(f"{config}: in order; mode {cfg.mode}, {len(cfg.hosts)} hosts")


@app.command()
def show(config: ConfigOption = DEFAULT_CONFIG, output: OutputOption = Output.TABLE) -> None:
    """Show the configuration in force, defaults included."""
    from rebalancerd.config import effective

    cfg = load(config)
    if output is Output.JSON:
        emit_json({"format": 1, "config": cfg.model_dump(mode="json")})
    else:
        typer.echo(effective(cfg), nl=False)
