"""The daemon: the only place where the rooms are put together, and the ticks that drive them.

Ticks (APScheduler): sample, probe, decide, judge, shadow, housekeep, and power where hosts may sleep; each at most once at a time, so that a hung one is skipped
and never stops the others. Trainings begin on a schedule, but never here. Running migrations are watched by a thread of their own. The watchdog is fed by finished decide
cycles only. SIGTERM starts nothing more, leaves running migrations to libvirt (they are peer to peer) and exits, even
where a call to a host hangs.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as SchedulerPool
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from rebalancerd import __version__
from rebalancerd import config as configuration
from rebalancerd.act.executor import Executor
from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.act.power.adapters import ConfiguredPower, WatchedPower
from rebalancerd.act.power.keeper import PowerKeeper
from rebalancerd.act.power.meter import BmcMeter
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode, stricter
from rebalancerd.cluster.power_curve import PowerDefaults
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.config import Config
from rebalancerd.definition_homes import DefinitionHomes
from rebalancerd.ending import within
from rebalancerd.ledgers import ledger_access, share_lease
from rebalancerd.log import log_cycle
from rebalancerd.loop import MOST_RECORDS, Loop, LoopSettings
from rebalancerd.night.book import NightBook
from rebalancerd.observe.agent_client import HttpAgents
from rebalancerd.observe.history import VM_CPU, History, tiers_of
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.observer import Observer
from rebalancerd.observe.package_meter import PackageMeter
from rebalancerd.offline import keep
from rebalancerd.plan.standing import CONSOLIDATE
from rebalancerd.ports import HypervisorWrite, Lease, LedgerUnavailableError, PowerMeter
from rebalancerd.power_models import PowerModels
from rebalancerd.power_round import PowerRound
from rebalancerd.predict.cost_kind import COST
from rebalancerd.predict.demand.keeper import DemandKeeper
from rebalancerd.predict.demand.kind import DEMAND
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.demand.scenario_model import ScenarioDemand
from rebalancerd.predict.interface import DemandModel
from rebalancerd.predict.keeper import ModelKeeper
from rebalancerd.predict.store import ModelStore
from rebalancerd.record.file_lease import FileLease
from rebalancerd.record.labelled import labelled_migrations
from rebalancerd.record.snapshotfile import KeptInputs
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.record.stand_in import answers, comes_back, open_or_stand_in
from rebalancerd.serve.sd_notify import Notifier
from rebalancerd.shadow import Shadow
from rebalancerd.tenure import TenureKeeper
from rebalancerd.trainer import Trainer

log = structlog.get_logger(__name__)

# each part of the end is waited for no longer; together they fit well into the unit's TimeoutStopSec
STOP_PATIENCE_SECONDS = 3.0
ADOPT_PATIENCE_SECONDS = 120.0
METER_SECONDS = 30.0  # one reading at most that costs a call
LEDGER_LOOK_SECONDS = 10.0  # how often a database that was away at the start is looked for
JUDGED_SECONDS = 60 * 86400.0  # older migrations say nothing of a model today
TRAINING_GRACE_SECONDS = 6 * 3600.0
# sections of the configuration that SIGHUP takes over; every other key needs a restart
RELOADABLE = frozenset({"mode", "plan", "guard", "i_accept_the_risk"})


@dataclass(frozen=True, slots=True)
class Ports:
    """The ways out that a mode builds: observe the first, recommend the first two, guarded and auto all three."""

    read: LibvirtRead
    probe: LibvirtProbe | None
    write: LibvirtWrite | None


def build_ports(cfg: Config, clock: SystemClock) -> Ports:
    """Open nothing yet, but build only what the mode may use: what is not built cannot move a VM."""
    hosts, observe = cfg.host_settings(), cfg.observe_settings()
    read = LibvirtRead(hosts, observe, clock)
    probing = cfg.mode is not Mode.OBSERVE and observe.probe == "direct"
    probe = LibvirtProbe(hosts, observe, clock) if probing else None
    write = LibvirtWrite(hosts, observe) if cfg.mode.may_act else None
    return Ports(read, probe, write)


def build_observer(
    cfg: Config,
    ports: Ports,
    clock: SystemClock,
    directory: Path,
    power_model: Callable[[Host], Host] = lambda host: host,
) -> Observer:
    """The observing room on those ports, its history under ``directory``."""
    hosts = cfg.host_settings()
    urls = {h.name: h.agent_url for h in hosts if h.agent_url}
    return Observer(
        hosts=hosts,
        settings=cfg.observe_settings(),
        read=ports.read,
        probe=ports.probe,
        agents=HttpAgents(urls, tls=cfg.observe_settings().agent_tls) if urls else None,
        history=History(directory, tiers=tiers_of(cfg.predict_settings().step_seconds)),
        clock=clock,
        power_model=power_model,
    )


def build_models(cfg: Config, clock: SystemClock) -> ModelKeeper:
    """The model of what migrations cost: the best one that loads, else physics."""
    models = ModelKeeper(
        ModelStore(cfg.models_dir, kind=COST), cfg.predict_settings(), cfg.model_settings(), clock.wall
    )
    models.refresh()
    return models


def build_demand(cfg: Config, clock: SystemClock) -> DemandKeeper:
    """Who forecasts demand: the best model that loads, while it earns its place, else a naive way."""
    store = ModelStore(cfg.models_dir, kind=DEMAND)
    demand = DemandKeeper(store, cfg.predict_settings(), cfg.model_settings(), clock.wall)
    demand.refresh()
    return demand


def demand_model(cfg: Config, keeper: DemandKeeper, observer: Observer) -> DemandModel:
    """What makes the scenarios: who the keeper has seated, on this observer's history."""
    settings = cfg.predict_settings()
    if not keeper.wanted:
        return PersistenceDemand(settings)
    return ScenarioDemand(keeper.forecaster, settings, hourly=lambda: observer.series(VM_CPU, tier=1))


def loop_settings(cfg: Config) -> LoopSettings:
    """Mode and limits of a configuration."""
    unknown = cfg.observe_settings().unknown_share_max
    return LoopSettings(
        mode=cfg.mode,
        plan=cfg.plan_settings(),
        guard=cfg.guard_settings(),
        unknown_share_max=unknown,
        power=cfg.power_limits() if cfg.host_power() else None,
    )


class Daemon:
    """A configured daemon. Building it touches the state directory and takes its lock, but no host."""

    def __init__(self, config_path: Path, cfg: Config, *, notifier: Notifier | None = None) -> None:
        """Raises LeaseTakenError if another daemon has the state directory, LedgerUnavailableError, OSError."""
        self.config_path = config_path
        self.clock = SystemClock()
        self.started_at = self.clock.wall()
        self._notifier = notifier if notifier is not None else Notifier()
        self._stop = threading.Event()
        self.told_to_end = False
        self.ledger_is_back = False
        self._reload = threading.Event()
        self._closed = False
        self.reload_error: str | None = None
        state = Path(cfg.state_dir)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = FileLease(state / "lock")
        self._missed: Config | None = None  # the configuration as it is wanted, where its ledger cannot be used
        self.ledger, self.ledger_fault = open_or_stand_in(cfg.ledger_url, self.clock, ledger_access(cfg))
        if self.ledger_fault is not None:
            log.error("ledger_refused", reason=self.ledger_fault, mode=str(Mode.OBSERVE))
            self._missed = cfg
            cfg = cfg.model_copy(update={"mode": Mode.OBSERVE})
        self.config = cfg
        self.shared_lease = share_lease(cfg, self.ledger, self.clock)
        self.lease: Lease = self.shared_lease or self.lock
        self.ports = build_ports(cfg, self.clock)
        self.power_models = self._build_power_models(state / "power_readings.json")
        self.observer = build_observer(cfg, self.ports, self.clock, state / "history", self.power_models.applied)
        self.models = build_models(cfg, self.clock)
        self.demand = build_demand(cfg, self.clock)
        self.trainer = Trainer((self.models.store, self.demand.store), config_path, self.clock.wall)
        self.executor = self._build_executor(self.ports.write)
        self.keeper = self._build_keeper()
        self.loop = Loop(
            observer=self.observer,
            demand=demand_model(cfg, self.demand, self.observer),
            costs=self.models.costs,
            ledger=self.ledger,
            clock=self.clock,
            settings=loop_settings(cfg),
            executor=self.executor,
            lease=self.lease,
            pause_file=self.pause_reason,
            host_chance=self.demand.host_chance,
            power=self.keeper,
            homes=lambda snapshot: self.nights.homes(snapshot),  # noqa: PLW0108 - the book is made after the loop
            morning=lambda now: self.nights.morning_seconds(now),  # noqa: PLW0108 - so is this
        )
        self.shadow = Shadow(loop=self.loop, observer=self.observer, ledger=self.ledger, clock=self.clock)
        self.on_cycle: list[Callable[[CycleRecord], None]] = [self.shadow.note]
        self.power: PowerRound | None = None
        if self.keeper is not None:
            self.power = PowerRound(
                keeper=self.keeper,
                limits=cfg.power_limits(),
                clock=self.clock,
                view=lambda: self.loop.view,
                folding=lambda: self.loop.policy_at(self.clock.wall()).policy == CONSOLIDATE,
            )
            self.on_cycle.append(self._power_after)
        self.nights = NightBook(
            ledger=self.ledger,
            view=lambda: self.loop.view,
            policy_at=self.loop.policy_at,
            plan=lambda: self.loop.settings.plan,
            records=self.keeper.records if self.keeper is not None else tuple,
            moves=lambda since: self.ledger.migrations(since=since, limit=MOST_RECORDS),
            standby=lambda: self.lease.standby,
            cycle_seconds=cfg.ticks.decide,
        )
        self.on_cycle.append(self.nights.after_cycle)
        self.servers: list[Callable[[], None]] = []  # each stops one server

    def _power_after(self, record: CycleRecord) -> None:
        """Hosts' power after a cycle; where controllers share a ledger, the one that leads sees to it."""
        if self.power is not None and not self.lease.standby:
            self.power.after_cycle(record)

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
            stopping=self._stop.is_set,
        )

    def _build_keeper(self) -> PowerKeeper | None:
        """Who is asleep. Its tick, and the way to management controllers, exist only in a mode that may act."""
        cfg = self.config
        hosts = cfg.host_power()
        if not hosts and not self.ledger.power_records():
            return None
        settings, acts = cfg.power_settings(), cfg.mode.may_act
        return PowerKeeper(
            power=ConfiguredPower(hosts, call_deadline_seconds=settings.call_deadline_seconds)
            if acts
            else WatchedPower(frozenset(hosts), str(cfg.mode)),
            read=self.ports.read,
            ledger=self.ledger,
            clock=self.clock,
            settings=settings,
            migrations=self.ledger.open_migrations,
            lease=self.lease,
            held_back=self._no_power_off,
            answers=self._answers,
            boot_seconds=cfg.power_limits().boot_seconds,
            write=self.ports.write,
            homes=DefinitionHomes(self._seen, self._asleep, cfg.observe_settings().rules),
        )

    def _build_power_models(self, path: Path) -> PowerModels:
        """What hosts draw: by their controllers where the mode may act, and by their agents."""
        cfg, meters = self.config, list[PowerMeter]()
        if cfg.mode.may_act:
            meters.append(BmcMeter(cfg.host_power(), call_deadline_seconds=cfg.power.call_deadline_seconds))
        meters.append(PackageMeter(self._seen))
        return PowerModels(meters, self.clock, self._seen, self._power_defaults, path)

    def _asleep(self) -> Mapping[str, Refusal]:
        return self.keeper.blocked() if self.keeper is not None else {}

    def _seen(self) -> Snapshot | None:
        return self.loop.view.snapshot if self.loop.view is not None else None

    def _power_defaults(self) -> PowerDefaults:
        return self.loop.settings.plan.power_defaults

    def _no_power_off(self) -> str | None:
        """Why no host may be powered off at this instant. Raises LedgerUnavailableError."""
        if not self.loop.settings.mode.may_act:
            return f"mode {self.loop.settings.mode} powers nothing off"
        paused = self.ledger.operator_state(self.clock.wall()).paused
        return self.pause_reason() if paused is None else f"paused by {paused.by}"

    def _answers(self, host: str) -> bool:
        snapshot = self._seen()
        seen = None if snapshot is None else snapshot.host_by_name.get(host)
        return seen is not None and seen.usable

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the process's exit code."""
        self._install_signals()
        log.info(
            "starting",
            version=__version__,
            mode=str(self.config.mode),
            hosts=len(self.config.hosts),
            config=str(self.config_path),
        )
        self._adopt()
        if self._stop.is_set():  # asked to end before anything was begun
            self._notifier.stopping()
            self._stop_servers()
            self.close()
            log.info("stopped")
            return 0
        keeper = self._keep_lease()
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
        return self._shut_down(scheduler, watcher, keeper)

    def stop(self) -> None:
        """Ask the daemon to end, as SIGTERM does."""
        self.told_to_end = True
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
            ("probe", ticks.probe, self.probe),
            ("decide", ticks.decide, self.decide),
            ("judge", ticks.judge, self.judge),
            ("shadow", ticks.judge, self.score),
            ("housekeep", ticks.housekeep, self.housekeep),
            ("meter", METER_SECONDS, self.power_models.tick),
        )
        if self._missed is not None and comes_back(self._missed.ledger_url):
            jobs = (*jobs, ("ledger", LEDGER_LOOK_SECONDS, self.look_for_ledger))
        if self.keeper is not None and self.config.mode.may_act:
            jobs = (*jobs, ("power", self.config.power.poll_seconds, self.keeper.tick))
        for name, seconds, work in jobs:
            if name == "probe" and self.ports.probe is None:
                continue
            scheduler.add_job(_guarded(name, work), "interval", seconds=seconds, id=name, name=name)
        if self.config.models.train and (self.models.wanted or self.demand.wanted):
            when = CronTrigger.from_crontab(self.config.models.train, timezone=self.config.guard.timezone)
            begin = _guarded("train", self.train)
            scheduler.add_job(begin, when, id="train", name="train", misfire_grace_time=int(TRAINING_GRACE_SECONDS))
        return scheduler

    def probe(self) -> None:
        """Measure what is due, unless the mode was lowered to observe since the start."""
        if self.loop.settings.mode is not Mode.OBSERVE:
            self.observer.probe_tick()

    def decide(self) -> None:
        """One cycle, its one log line, and the watchdog's food."""
        if self._stop.is_set():
            return
        record = self.loop.iterate()
        log_cycle(record)
        for listener in self.on_cycle:
            try:
                listener(record)
            except Exception:  # whoever listens, the cycle is done
                log.exception("listener_failed", bug=True)
        self._notifier.status(
            f"{record.mode} · {len(record.hosts)} hosts · {record.moving} moving · last: {record.reason}"
        )
        self._notifier.cycle_finished()

    def look_for_ledger(self) -> None:
        """Where its database was away at the start: end once it answers, so that ``starts_again`` begins with it."""
        if self._stop.is_set() or self._missed is None:
            return
        if answers(self._missed.ledger_url, self.clock, ledger_access(self._missed)):
            log.info("ledger_is_back", was=self.ledger_fault)
            self.ledger_is_back = True
            self._stop.set()

    @property
    def starts_again(self) -> bool:
        """Whether it ended only to be built anew, with the ledger that was away before."""
        return self.ledger_is_back and not self.told_to_end

    def judge(self) -> None:
        """Take over newly trained models, and hold those in use against the migrations and the load that came."""
        self.trainer.look()
        self.models.refresh()
        self.demand.refresh()
        if (view := self.loop.view) is not None:
            self.demand.watch(view.snapshot, *self._recorded_load())
        if self.models.state().id is not None:
            past = labelled_migrations(self.ledger, since=self.clock.wall() - JUDGED_SECONDS)
            self.models.watch((item.row, item.predicted) for item in past.rows)

    def score(self) -> None:
        """Judge the advice that is due; where controllers share a ledger, the one that leads does."""
        if not self.lease.standby:
            self.shadow.score()

    def train(self) -> None:
        """Begin the trainings that are due, with the load as it is now."""
        try:
            self.hand_over()
        finally:
            self.trainer.begin()

    def hand_over(self) -> None:
        """Leave the recorded load where trainings find it."""
        if (view := self.loop.view) is not None:
            self.demand.hand_over(view.snapshot, *self._recorded_load())

    def _recorded_load(self) -> tuple[Series, Series]:
        return self.observer.series(VM_CPU), self.observer.series(VM_CPU, tier=1)

    def housekeep(self) -> None:
        """Prune old cycles from the ledger, flush history, and leave the load to trainings."""
        if not self.lease.standby:
            self.ledger.prune(self.clock.wall() - self.config.ledger.retention_seconds)
        self.observer.flush()
        self.hand_over()

    def _watch(self) -> None:
        if self.executor is not None:
            self.executor.run_watch(self._stop)

    def _keep_lease(self) -> threading.Thread | None:
        """Where several controllers share the ledger, take part in their turns."""
        if self.shared_lease is None:
            return None
        keeper = TenureKeeper(self.shared_lease, self.executor)
        keeper.look()  # who is alone leads at once
        thread = threading.Thread(target=keeper.run, args=(self._stop,), name="lease", daemon=True)
        thread.start()
        return thread

    def _adopt(self) -> None:
        """Take over the watch of migrations that an earlier run of the daemon left running."""
        if self.executor is None or self.shared_lease is not None:  # with a shared lease, once it is taken
            return
        self._notifier.extend(ADOPT_PATIENCE_SECONDS)
        try:
            adopted = self.executor.adopt()
        except LedgerUnavailableError as error:  # the executor adopts before it starts anything
            log.error("adopting_put_off", reason=str(error))
            return
        if adopted:
            log.info("adopted", migrations=[record.id for record in adopted])

    # configuration

    def pause_reason(self) -> str | None:
        """Why the daemon itself or its pause file lets nothing start, None if nothing does."""
        if self._stop.is_set():
            return "the daemon is stopping"
        path = Path(self.config.pause_file)
        try:
            return f"pause file {path} exists" if path.exists() else None
        except OSError as error:
            return f"pause file {path} cannot be looked at: {error}"

    def _reread(self) -> None:
        """SIGHUP: take the new limits; keep the old configuration when the new one is wrong or needs a restart."""
        self._notifier.reloading()
        try:
            fresh, error = configuration.reload(self.config_path, self.config)
            if error is None:
                self._take_over(fresh)
        except Exception as bug:
            log.exception("config_reload_failed", bug=True)
            error = f"unexpected {type(bug).__name__}: {bug}"
        self.reload_error = error
        if error is not None:
            log.error("config_reload_failed", reason=error, kept="the configuration in force")
        self._notifier.ready()

    def _take_over(self, fresh: Config) -> None:
        built = self.config  # what the rooms were built from, whatever was taken over since
        fixed = [
            key
            for key in type(fresh).model_fields
            if key not in RELOADABLE and getattr(fresh, key) != getattr(built, key)
        ]
        if fixed:
            log.warning("config_needs_restart", keys=fixed)
        settings, unknown = loop_settings(fresh), built.observe_settings().unknown_share_max
        if settings.mode.rank > built.mode.rank:
            log.warning("config_needs_restart", keys=["mode"], wanted=str(settings.mode))
        mode = stricter(settings.mode, built.mode)
        self.loop.settings = replace(settings, mode=mode, unknown_share_max=unknown, power=self.loop.settings.power)
        log.info("config_reloaded", mode=str(mode))

    # the end

    def _install_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, lambda *_: self._reload.set())

    def _shut_down(
        self, scheduler: BackgroundScheduler, watcher: threading.Thread, keeper: threading.Thread | None
    ) -> int:
        if not self.starts_again:
            self._notifier.stopping()
        left = [record.id for record in self.executor.active()] if self.executor is not None else []
        log.info("stopping", migrations_left_running=left)
        quiet = within(STOP_PATIENCE_SECONDS, ticks=scheduler.shutdown)
        self._stop_servers()
        watcher.join(STOP_PATIENCE_SECONDS)
        if keeper is not None and self.shared_lease is not None:
            keeper.join(STOP_PATIENCE_SECONDS)
            within(STOP_PATIENCE_SECONDS, lease=self.shared_lease.release)  # a standby need not wait for its end
        self.close(sampling_ended=quiet)
        log.info("stopped")
        logging.shutdown()
        return 0

    def _stop_servers(self) -> None:
        for stop in self.servers:
            within(STOP_PATIENCE_SECONDS, server=stop)

    def close(self, *, sampling_ended: bool = True) -> None:
        """Let go of connections, history, ledger and state directory. Running migrations go on.

        A sample that hangs may still return, so unless ``sampling_ended`` history is only flushed, not unmapped.
        """
        if self._closed:
            return
        self._closed = True
        ports = {"write": self.ports.write, "probe": self.ports.probe, "read": self.ports.read}
        within(STOP_PATIENCE_SECONDS, training=self.trainer.stop, readings=self.power_models.save)
        within(STOP_PATIENCE_SECONDS, **{name: port.close for name, port in ports.items() if port is not None})
        within(STOP_PATIENCE_SECONDS, history=self.observer.close if sampling_ended else self.observer.flush)
        within(STOP_PATIENCE_SECONDS, ledger=self.ledger.close)
        self.lock.release()


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
    with _standing_alone(cfg, seconds, directory) as (loop, _):
        return loop.propose()


def standalone_inputs(cfg: Config, seconds: float, directory: Path) -> KeptInputs:
    """What ``standalone_plan`` would plan from. Raises as it does."""
    with _standing_alone(cfg, seconds, directory) as (loop, models):
        return keep(loop.look(), cfg.predict_settings(), models.state().basis)


@contextmanager
def _standing_alone(cfg: Config, seconds: float, directory: Path) -> Iterator[tuple[Loop, ModelKeeper]]:
    """A loop that has looked at the hosts for ``seconds`` and can start nothing, and its cost model."""
    clock = SystemClock()
    ports = Ports(LibvirtRead(cfg.host_settings(), cfg.observe_settings(), clock), None, None)
    observer = build_observer(cfg, ports, clock, directory / "history")
    settings = loop_settings(cfg)
    models = build_models(cfg, clock)
    ledger = SqlLedger(f"sqlite:///{directory / 'ledger.sqlite'}", clock)
    loop = Loop(
        observer=observer,
        demand=demand_model(cfg, build_demand(cfg, clock), observer),
        costs=models.costs,
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
        yield loop, models
    finally:
        ledger.close()
        ports.read.close()
        observer.close()


__all__ = [
    "Daemon",
    "Ports",
    "build_demand",
    "build_models",
    "build_observer",
    "build_ports",
    "loop_settings",
    "standalone_inputs",
    "standalone_plan",
]
