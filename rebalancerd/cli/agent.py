"""``rebalancerd agent``."""

from typing import Annotated

import typer

from rebalancerd.cli.exits import USAGE, CliError
from rebalancerd.cli.output import log_to_stderr, talk

DEFAULT_LISTEN = "127.0.0.1:9178"
DEFAULT_DIRTY_SECONDS = 10.0


def agent(
    *,
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS:PORT", help="Where to export this host's figures.")
    ] = DEFAULT_LISTEN,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", help="Tell doctor whether this path exists here, e.g. a mount. May be repeated."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Tell doctor whether this host resolves the name of another. May be repeated."),
    ] = None,
    dirty: Annotated[
        bool,
        typer.Option("--dirty", help="Measure how fast guests dirty memory, by reading it; needs the right to."),
    ] = False,
    dirty_every: Annotated[
        float, typer.Option("--dirty-every", metavar="SECONDS", help="Measure one guest that often, in turn.")
    ] = DEFAULT_DIRTY_SECONDS,
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", metavar="FILE", help="Our certificate; needed beyond loopback.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="Its key.")] = None,
    tls_ca: Annotated[
        str | None, typer.Option("--tls-ca", metavar="FILE", help="CA whose certificates clients must show.")
    ] = None,
) -> None:
    """Export this host's CPU, memory, swap, pressure and NIC rates over HTTP until stopped."""
    from rebalancerd.observe.agent import serve_agent
    from rebalancerd.observe.agent_dirty import DIRTY_PATH, DirtyMeter
    from rebalancerd.observe.agent_power import RaplCollector
    from rebalancerd.observe.agent_surroundings import SurroundingsCollector
    from rebalancerd.observe.listening import TlsError, tls_files

    log_to_stderr()
    surroundings = SurroundingsCollector(path or [], name or [])
    try:
        meter = DirtyMeter(dirty_every) if dirty else None
    except ValueError as error:
        raise CliError(str(error), "see --dirty-every", code=USAGE) from error
    exported = [surroundings, RaplCollector()]
    try:
        tls = tls_files(tls_cert, tls_key, tls_ca)
        if meter is None:
            running = serve_agent(listen, exported, tls=tls)
        else:
            running = serve_agent(listen, [*exported, meter], {DIRTY_PATH: meter.page}, tls)
    except TlsError as error:
        raise CliError(f"--listen {listen}: {error}", "see --tls-cert, --tls-key and --tls-ca", code=USAGE) from error
    except ValueError as error:
        raise CliError(str(error), f"such as {DEFAULT_LISTEN} or [::1]:9178", code=USAGE) from error
    except OSError as error:
        raise CliError(f"cannot listen on {listen}: {error.strerror or error}", "choose another --listen") from error
    surroundings.start()
    if meter is not None:
        meter.start()
    talk(f"figures of this host on {'http' if tls is None else 'https'}://{running.address}/metrics")
    try:
        running.wait()
    except KeyboardInterrupt:
        running.close()
