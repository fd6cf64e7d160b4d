"""``rebalancerd run``: the daemon."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rebalancerd.cli.exits import NOT_THERE, CliError
from rebalancerd.cli.options import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from rebalancerd.daemon import Daemon
    from rebalancerd.serve.servers import Servers


def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the daemon in the foreground until SIGTERM. SIGHUP reads the configuration again."""
    from rebalancerd import log
    from rebalancerd.cli.config import load
    from rebalancerd.collector import leave_out_what_stays
    from rebalancerd.daemon import Daemon
    from rebalancerd.ending import end_process
    from rebalancerd.observe.listening import TlsError
    from rebalancerd.ports import LedgerUnavailableError
    from rebalancerd.record.file_lease import LeaseTakenError

    leave_out_what_stays()
    before: Daemon | None = None
    while before is None or before.starts_again:
        cfg = load(config)
        log.configure(level=cfg.log.level, form=cfg.log.format)
        try:
            daemon = Daemon(config, cfg)
        except LeaseTakenError as error:
            raise CliError(str(error), "one daemon per state directory", code=NOT_THERE) from error
        except LedgerUnavailableError as error:
            raise CliError(f"the ledger cannot be used: {error}", f"see state_dir and ledger in {config}") from error
        except TlsError as error:
            raise CliError(str(error), f"see observe.agent_cert_file and its key and CA in {config}") from error
        except OSError as error:
            raise CliError(
                f"cannot use {cfg.state_dir}: {error.strerror or error}", f"see state_dir in {config}"
            ) from error
        servers = _serve(daemon)
        daemon.on_cycle.append(servers.observe)
        daemon.servers.append(servers.stop)
        if before is not None and before.told_to_end:  # between the two
            daemon.stop()
        before, code = daemon, daemon.run()
    end_process(code)
    raise typer.Exit(code)


def _serve(daemon: "Daemon") -> "Servers":
    from rebalancerd.observe.listening import TlsError
    from rebalancerd.serve.control import Control, Surroundings
    from rebalancerd.serve.servers import Servers
    from rebalancerd.serve.socket_server import SocketInUseError, default_allowed_uids

    cfg = daemon.config
    about = Surroundings(
        hosts=tuple(host.name for host in cfg.host_settings()),
        controller=cfg.controller,
        started_at=daemon.started_at,
        cycle_seconds=cfg.ticks.decide,
        reload_error=lambda: daemon.reload_error,
        pause_file=daemon.pause_reason,
        model=daemon.models.state,
        demand=daemon.demand.state,
        advice=daemon.shadow.state,
        power=daemon.power,
        nights=lambda: daemon.nights.told,
        power_model=daemon.power_models.told,
        leader=daemon.shared_lease.tenure if daemon.shared_lease is not None else lambda: None,
        predict=cfg.predict_settings(),
        ledger_fault=daemon.ledger_fault,
        events_missed=daemon.ports.read.events_missed,
    )
    control = Control(
        loop=daemon.loop,
        ledger=daemon.ledger,
        clock=daemon.clock,
        about=about,
        executor=daemon.executor,
        lease=daemon.lease,
    )
    servers = Servers(control)
    try:
        servers.start(
            Path(cfg.serve.socket),
            allowed_uids=default_allowed_uids() | set(cfg.serve.allowed_uids),
            metrics_at=cfg.metrics_address(),
            metrics_tls=cfg.metrics_tls(),
        )
    except (SocketInUseError, TlsError, OSError, RuntimeError) as error:
        raise CliError(f"cannot serve: {error}", "see [serve] in the configuration") from error
    return servers
