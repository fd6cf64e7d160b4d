"""The command line. Commands are thin: they ask the daemon, or call a room, and print; nothing is decided here."""

import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from rebalancerd.cli import (
    agent,
    approve,
    backtest,
    breaker,
    config,
    demo_command,
    doctor,
    drain,
    explain,
    history,
    lab,
    ledger,
    models,
    pause,
    plan,
    power,
    run,
    snapshot,
    status,
    train,
    version,
    watch,
)
from rebalancerd.cli.exits import EPILOG, CliError
from rebalancerd.cli.output import talk


class Commands(TyperGroup):
    """Turns a CliError into words on standard error and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            talk(f"rebalancerd: {error.message}")
            for line in (*error.details, *([error.hint] if error.hint else [])):
                talk(f"  {line}")
            raise typer.Exit(error.code) from error


app = typer.Typer(
    name="rebalancerd",
    cls=Commands,
    help="Keeps a plain libvirt/KVM cluster balanced by predicted, explained, safe live migrations.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SEE, COMMAND, SET_UP = "See", "Command", "Set up"
app.command("status", rich_help_panel=SEE)(status.status)
app.command("watch", rich_help_panel=SEE)(watch.watch)
app.command("plan", rich_help_panel=SEE)(plan.plan)
app.command("explain", rich_help_panel=SEE)(explain.explain)
app.command("history", rich_help_panel=SEE)(history.history)
app.command("backtest", rich_help_panel=SEE)(backtest.backtest)
app.add_typer(snapshot.app, name="snapshot", rich_help_panel=SEE)
app.command("approve", rich_help_panel=COMMAND)(approve.approve)
app.command("reject", rich_help_panel=COMMAND)(approve.reject)
app.command("apply", rich_help_panel=COMMAND)(plan.apply)
app.command("drain", rich_help_panel=COMMAND)(drain.drain)
app.command("undrain", rich_help_panel=COMMAND)(drain.undrain)
app.command("pause", rich_help_panel=COMMAND)(pause.pause)
app.command("resume", rich_help_panel=COMMAND)(pause.resume)
app.command("abort", rich_help_panel=COMMAND)(pause.abort)
app.command("close-breaker", rich_help_panel=COMMAND)(breaker.close_breaker)
app.add_typer(power.app, name="power", rich_help_panel=COMMAND)
app.command("clear-quarantine", rich_help_panel=COMMAND)(breaker.clear_quarantine)
app.command("run", rich_help_panel=SET_UP)(run.run)
app.command("agent", rich_help_panel=SET_UP)(agent.agent)
app.command("doctor", rich_help_panel=SET_UP)(doctor.doctor)
app.add_typer(config.app, name="config", rich_help_panel=SET_UP)
app.add_typer(ledger.app, name="ledger", rich_help_panel=SET_UP)
app.add_typer(models.app, name="models", rich_help_panel=SET_UP)
app.add_typer(train.app, name="train", rich_help_panel=SET_UP)
app.add_typer(lab.app, name="lab", rich_help_panel=SET_UP)
app.command("demo", rich_help_panel=SET_UP)(demo_command.demo)
app.command("version", rich_help_panel=SET_UP)(version.version)


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 costs arrows, not the command
    app()


if __name__ == "__main__":
    main()
