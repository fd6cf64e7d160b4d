"""The daemon: the only place where the rooms are put together, and the ticks that drive them.

Ticks (APScheduler): sample, probe, decide, housekeep; each at most once at a time, so that a hung one is skipped and
never stops the others. Running migrations are watched by a thread of their own. The watchdog is fed by finished decide
cycles only. SIGTERM starts nothing more, leaves running migrations to libvirt (they are peer to peer) and exits.
"""

import logging
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as SchedulerPool
from apscheduler.schedulers.background import BackgroundScheduler

from rebalancerd import __version__
from rebalancerd import config as configuration
from rebalancerd.act.executor import Executor
from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode, stricter
from rebalancerd.config import Config
from rebalancerd.log import log_cycle
from rebalancerd.loop import Loop, LoopSettings
from rebalancerd.observe.agent_client import HttpAgents
from rebalancerd.observe.history import History
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.observer import Observer
from rebalancerd.ports import HypervisorProbe, HypervisorWrite, LedgerUnavailableError
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.demand import PersistenceDemand
from rebalancerd.record.file_lease import FileLease
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.serve.sd_notify import Notifier

log = structlog.get_logger(__name__)

STOP_PATIENCE_SECONDS = 20.0
ADOPT_PATIENCE_SECONDS = 120.0
RETENTION_SECONDS = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class Ports:
    """The ways out that a mode builds: observe the first, recommend the first two, guarded and auto all three."""

    read: LibvirtRead
    probe: HypervisorProbe | None
    write: HypervisorWrite | None


def build_ports(cfg: Config, clock: SystemClock) -> Ports:
    """Open nothing yet, but build only what the mode may use: what is not built cannot move a VM."""
    hosts, observe = cfg.host_settings(), cfg.observe_settings()
    read = LibvirtRead(hosts, observe, clock)
    probing = cfg.mode is not Mode.OBSERVE and observe.probe == "direct"
    probe = LibvirtProbe(hosts, observe, clock) if probing else None
    write = LibvirtWrite(hosts, observe) if cfg.mode.may_act else None
    return Ports(read, probe, write)


def build_observer(cfg: Config, ports: Ports, clock: SystemClock, directory: Path) -> Observer:
    """The observing room on those ports, its history under ``directory``."""
    hosts = cfg.host_settings()
    urls = {h.name: h.agent_url for h in hosts if h.agent_url}
    return Observer(
        hosts=hosts,
        settings=cfg.observe_settings(),
        read=ports.read,
        probe=ports.probe,
        agents=HttpAgents(urls) if urls else None,
        history=History(directory),
        clock=clock,
    )


def loop_settings(cfg: Config) -> LoopSettings:
    """Mode and limits of a configuration."""
    unknown = cfg.observe_settings().unknown_share_max
    return LoopSettings(mode=cfg.mode, plan=cfg.plan_settings(), guard=cfg.guard_settings(), unknown_share_max=unknown)


class Daemon:
    """A configured daemon. Building it touches the state directory and takes its lock, but no host."""

    def __init__(self, config_path: Path, cfg: Config, *, notifier: Notifier | None = None) -> None:
        """Raises LeaseTakenError if another daemon has the state directory, LedgerUnavailableError, OSError."""
        self.config_path, self.config = config_path, cfg
        self.clock = SystemClock()
        self.started_at = self.clock.wall()
        self._notifier = notifier if notifier is not None else Notifier()
        self._stop = threading.Event()
        self._reload = threading.Event()
        self.reload_error: str | None = None
        state = Path(cfg.state_dir)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lease = FileLease(state / "lock")
        self.ledger = SqlLedger(cfg.ledger_url, self.clock)
        self.ports = build_ports(cfg, self.clock)
        self.observer = build_observer(cfg, self.ports, self.clock, state / "history")
        self.executor = self._build_executor(self.ports.write)
        self.loop = Loop(
            observer=self.observer,
            demand=PersistenceDemand(cfg.predict_settings()),
            costs=PhysicsCost(cfg.predict_settings()),
            ledger=self.ledger,
            clock=self.clock,
            settings=loop_settings(cfg),
            executor=self.executor,
            lease=self.lease,
            pause_file=self.pause_reason,
        )
        self.on_cycle: list[Callable[[CycleRecord], None]] = []
        self.servers: list[Callable[[], None]] = []  # each stops one server

    def _build_executor(self, write: HypervisorWrite | None) -> Executor | None:
        if write is None:
            return None
        return Executor(
            read=self.ports.read,
            write=write,
            probe=self.ports.probe,
            ledger=self.ledger,
            clock=self.clock,
            settings=self.config.act_settings(),
            lease=self.lease,
            controller=self.config.controller,
        )

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the process's exit code."""
        self._install_signals()
        log.info("starting", version=__version__, mode=str(self.config.mode), hosts=len(self.config.hosts), config=str(self.config_path))
        self._adopt()
        watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        watcher.start()
        scheduler = self._schedule()
        scheduler.start()
        self._notifier.ready()
        log.info("ready")
        while not self._stop.wait(0.5):
            if self._reload.is_set():
                self._reload.clear()
                self._reread()
        return self._shut_down(scheduler, watcher)

    def stop(self) -> None:
        """Ask the daemon to end, as SIGTERM does."""
        self._stop.set()

    # ticks

    def _schedule(self) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            executors={"default": SchedulerPool(8)},
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": 30},
            timezone="UTC",
        )
        ticks = self.config.ticks
        jobs: tuple[tuple[str, float, Callable[[], None]], ...] = (
            ("sample", ticks.sample, self.observer.sample),
            ("probe", ticks.probe, self.observer.probe_tick),
            ("decide", ticks.decide, self.decide),
            ("housekeep", ticks.housekeep, self.housekeep),
        )
        for name, seconds, work in jobs:
            if name == "probe" and self.ports.probe is None:
                continue
            scheduler.add_job(_guarded(name, work), "interval", seconds=seconds, id=name, name=name)
        return scheduler

    def decide(self) -> None:
        """One cycle, its one log line, and the watchdog's food."""
        if self._stop.is_set():
            return
        record = self.loop.iterate()
        log_cycle(record)
        for listener in self.on_cycle:
            listener(record)
        self._notifier.status(
            f"{record.mode} · {len(record.hosts)} hosts · {record.moving} moving · last: {record.reason}"
        )
        self._notifier.cycle_finished()

    def housekeep(self) -> None:
        """Prune old cycles from the ledger and flush history."""
        self.ledger.prune(self.clock.wall() - RETENTION_SECONDS)
        self.observer.flush()

    def _watch(self) -> None:
        if self.executor is not None:
            self.executor.run_watch(self._stop)

    def _adopt(self) -> None:
        """Take over the watch of migrations that an earlier run of the daemon left running."""
        if self.executor is None:
            return
        self._notifier.extend(ADOPT_PATIENCE_SECONDS)
        adopted = self.executor.adopt()
        if adopted:
            log.info("adopted", migrations=[record.id for record in adopted])

    # configuration

    def pause_reason(self) -> str | None:
        """Why the pause file pauses the daemon, None if there is none."""
        path = Path(self.config.pause_file)
        try:
            return f"pause file {path} exists" if path.exists() else None
        except OSError as error:
            return f"pause file {path} cannot be looked at: {error}"

    def _reread(self) -> None:
        """SIGHUP: take the new limits; keep the old configuration when the new one is wrong or needs a restart."""
        self._notifier.reloading()
        fresh, error = configuration.reload(self.config_path, self.config)
        self.reload_error = error
        if error is not None:
            log.error("config_reload_failed", reason=error, kept="the configuration in force")
        else:
            fixed = [
                key
                for key in ("hosts", "state_dir", "ledger", "controller", "serve", "ticks", "observe", "act")
                if getattr(fresh, key) != getattr(self.config, key)
            ]
            if fixed:
                log.warning("config_needs_restart", keys=fixed)
            settings = loop_settings(fresh)
            if settings.mode.rank > self.config.mode.rank:
                log.warning("config_needs_restart", keys=["mode"], wanted=str(settings.mode))
            mode = stricter(settings.mode, self.config.mode)
            self.loop.settings = replace(settings, mode=mode)
            log.info("config_reloaded", mode=str(mode))
        self._notifier.ready()

    # the end

    def _install_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        signal.signal(signal.SIGHUP, lambda *_: self._reload.set())

    def _shut_down(self, scheduler: BackgroundScheduler, watcher: threading.Thread) -> int:
        self._notifier.stopping()
        left = [record.id for record in self.executor.active()] if self.executor is not None else []
        log.info("stopping", migrations_left_running=left)
        with ThreadPoolExecutor(max_workers=1) as pool:
            ending = pool.submit(scheduler.shutdown, wait=False)
            ending.exception(timeout=STOP_PATIENCE_SECONDS)
        for stop in self.servers:
            stop()
        watcher.join(STOP_PATIENCE_SECONDS)
        self.observer.flush()
        self.ledger.close()
        self.lease.release()
        log.info("stopped")
        logging.shutdown()
        return 0


def _guarded(name: str, work: Callable[[], None]) -> Callable[[], None]:
    """A tick that can fail without ending its job: the reason is logged and the next tick comes."""

    def tick() -> None:
        try:
            work()
        except LedgerUnavailableError as error:
            log.error("tick_failed", tick=name, reason=str(error))
        except Exception:
            log.exception("tick_failed", tick=name, bug=True)

    return tick


def standalone_plan(cfg: Config, seconds: float, directory: Path) -> Plan:
    """A plan without a daemon: its own read-only observation for ``seconds``, its own ledger under ``directory``.

    Raises ValueError where the data forbid planning, with the reason.
    """
    clock = SystemClock()
    ports = Ports(LibvirtRead(cfg.host_settings(), cfg.observe_settings(), clock), None, None)
    observer = build_observer(cfg, ports, clock, directory / "history")
    settings = loop_settings(cfg)
    ledger = SqlLedger(f"sqlite:///{directory / 'ledger.sqlite'}", clock)
    loop = Loop(
        observer=observer,
        demand=PersistenceDemand(cfg.predict_settings()),
        costs=PhysicsCost(cfg.predict_settings()),
        ledger=ledger,
        clock=clock,
        settings=replace(settings, mode=Mode.RECOMMEND),
    )
    samples = max(2, cfg.observe_settings().warm_up_samples)
    for index in range(samples):
        if index:
            clock.sleep(seconds / (samples - 1))
        observer.sample()
    try:
        return loop.propose()
    finally:
        ledger.close()


__all__ = ["Daemon", "Ports", "build_observer", "build_ports", "loop_settings", "standalone_plan"]
