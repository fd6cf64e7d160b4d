"""Prometheus metrics: seconds, bytes, ``_total``; labelled by host, outcome or code, never by VM."""

import threading
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from rebalancerd import __version__
from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.cluster.migration import OPEN_STATES, MigrationRecord, MigrationState
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerRecord
from rebalancerd.night.book import NightsTold
from rebalancerd.observe.listening import TlsFiles, serve_wsgi
from rebalancerd.predict.demand.keeper import DemandModelState
from rebalancerd.predict.keeper import ModelState
from rebalancerd.record.lease import Tenure
from rebalancerd.serve.advice_metrics import AdviceMetrics
from rebalancerd.serve.demand_metrics import DemandMetrics
from rebalancerd.serve.night_metrics import NightMetrics
from rebalancerd.serve.schemas import Check
from rebalancerd.shadow import ShadowState

log = structlog.get_logger(__name__)

REMEMBERED = 20_000
_CYCLE_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_DURATION_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_DOWNTIME_BUCKETS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
_RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)


class Metrics:
    """The daemon's metrics on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._counted: dict[str, None] = {}  # ids, oldest first
        self._describe_cycles()
        self._describe_migrations()
        self._describe_state()

    def _describe_cycles(self) -> None:
        registry = self.registry
        self._cycle_seconds = Histogram(
            "rebalancerd_cycle_seconds",
            "Duration of a cycle, observe to record.",
            buckets=_CYCLE_BUCKETS,
            registry=registry,
        )
        self._step_seconds = Gauge(
            "rebalancerd_step_seconds", "Duration of each step of the last cycle.", ["step"], registry=registry
        )
        self._cycles = Counter(
            "rebalancerd_cycles", "Cycles by what they came to.", ["outcome"], registry=registry
        )  # exported as _cycles_total
        self._decisions = Counter(
            "rebalancerd_decisions", "Decisions on single moves, by outcome.", ["outcome"], registry=registry
        )
        self._refusals = Counter(
            "rebalancerd_refusals", "Candidates that did not happen, by reason.", ["code"], registry=registry
        )
        self._last_cycle = Gauge(
            "rebalancerd_last_cycle_timestamp_seconds", "When the last cycle began.", registry=registry
        )
        self._pressure = Gauge(
            "rebalancerd_host_pressure",
            "Share of a host's usable capacity in use now.",
            ["host", "resource"],
            registry=registry,
        )
        self._forecast = Gauge(
            "rebalancerd_host_pressure_forecast",
            "Share of a host's usable capacity: 95th percentile of its forecast peak.",
            ["host", "resource"],
            registry=registry,
        )
        self._fresh = Gauge(
            "rebalancerd_host_fresh", "1: the host's figures are fresh and sane; 0: not.", ["host"], registry=registry
        )
        self._hot = Gauge("rebalancerd_host_hot", "1: is or will be above its headroom.", ["host"], registry=registry)
        self._vms = Gauge("rebalancerd_host_vms", "VMs on the host.", ["host"], registry=registry)

    def _describe_migrations(self) -> None:
        registry = self.registry
        self._migrations = Gauge(
            "rebalancerd_migrations", "Migrations that have no verdict yet, by state.", ["state"], registry=registry
        )
        self._verdicts = Counter(
            "rebalancerd_migration_verdicts", "Migrations that ended, by verdict.", ["state"], registry=registry
        )
        self._duration = Histogram(
            "rebalancerd_migration_duration_seconds",
            "Duration of migrations that succeeded, hand-over to verdict.",
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self._downtime = Histogram(
            "rebalancerd_migration_downtime_seconds",
            "Downtime of migrations that succeeded, as libvirt tells it.",
            buckets=_DOWNTIME_BUCKETS,
            registry=registry,
        )
        self._ratio = Histogram(
            "rebalancerd_prediction_ratio",
            "Actual ÷ predicted of migrations that succeeded; 1 is a perfect prediction.",
            ["figure"],
            buckets=_RATIO_BUCKETS,
            registry=registry,
        )
        self._transferred = Counter(
            "rebalancerd_migration_transferred_bytes", "Bytes that migrations sent.", registry=registry
        )
        for state in OPEN_STATES:
            self._migrations.labels(state=state.value).set(0)

    def _describe_state(self) -> None:
        registry = self.registry
        self._mode = Gauge("rebalancerd_mode", "1 for the mode in force.", ["mode"], registry=registry)
        self._trusted = Gauge(
            "rebalancerd_model_trusted",
            "1: a learned model is in use and trusted; 0: physics alone.",
            registry=registry,
        )
        self._model = Gauge(
            "rebalancerd_model_info",
            "1 for the learned model that is seated, trusted or not.",
            ["model", "source"],
            registry=registry,
        )
        self._model_error = Gauge(
            "rebalancerd_model_error_ratio",
            "Typical factor between predicted and actual duration of the newest migrations; 1 is perfect.",
            ["predictor"],
            registry=registry,
        )
        self._model_coverage = Gauge(
            "rebalancerd_model_bound_coverage",
            "Share of the newest migrations within the model's upper bound; 0.9 is promised.",
            ["model"],
            registry=registry,
        )
        self._model_refused = Counter(
            "rebalancerd_model_refusals", "Model files that were refused, by fault.", ["fault"], registry=registry
        )
        self._refused_so_far: dict[str, int] = {}
        self._demand = DemandMetrics(registry)
        self._advice = AdviceMetrics(registry)
        self._night = NightMetrics(registry)
        self._power = Gauge(
            "rebalancerd_host_power", "1: the host's power is in that phase.", ["host", "phase"], registry=registry
        )
        self._power_disabled = Gauge(
            "rebalancerd_host_power_off_disabled",
            "1: the host failed to sleep or to wake, and is not powered off any more.",
            ["host"],
            registry=registry,
        )
        self._lease = Gauge("rebalancerd_lease_held", "1: this daemon is the one that acts.", registry=registry)
        self._leader = Gauge(
            "rebalancerd_leader_epoch",
            "Number of the present tenure, by the controller that leads those of a shared ledger.",
            ["controller"],
            registry=registry,
        )
        self._breaker = Gauge("rebalancerd_breaker_open", "1: too many migrations failed.", registry=registry)
        self._paused = Gauge("rebalancerd_paused", "1: an operator paused the daemon.", registry=registry)
        self._reload = Gauge(
            "rebalancerd_config_reload_success", "1: the last reading of the configuration worked.", registry=registry
        )
        self._checks = Gauge(
            "rebalancerd_health_check",
            "1 for each health condition that holds.",
            ["code", "severity"],
            registry=registry,
        )
        self._plan_steps = Gauge("rebalancerd_plan_steps", "Steps of the plan under way.", registry=registry)
        build = Gauge("rebalancerd_build_info", "Always 1; the version is a label.", ["version"], registry=registry)
        build.labels(version=__version__).set(1)
        self._reload.set(1)
        self._missed = Counter(
            "rebalancerd_events_missed",
            "Changes of a host's VMs that polling found and no libvirt event told.",
            ["host"],
            registry=registry,
        )
        self._missed_so_far: dict[str, int] = {}

    def observe_cycle(self, record: CycleRecord) -> None:
        """Count one finished cycle and show the hosts as it saw them."""
        with self._lock:
            self._cycle_seconds.observe(max(0.0, record.seconds))
            self._cycles.labels(outcome=record.outcome.value).inc()
            self._last_cycle.set(record.started_at)
            for step, seconds in record.step_seconds:
                self._step_seconds.labels(step=step).set(seconds)
            for decision in record.decisions:
                self._decisions.labels(outcome=decision.outcome.value).inc()
                if decision.refusal is not None:
                    self._refusals.labels(code=decision.refusal.code.value).inc()
            for refusal in record.refusals:
                self._refusals.labels(code=refusal.code.value).inc(max(1, refusal.count))
            if record.hosts:
                self._show_hosts(record)
            for mode in Mode:
                self._mode.labels(mode=mode.value).set(mode is record.mode)

    def _show_hosts(self, record: CycleRecord) -> None:
        """Set the figures of every host; a host that is gone or a figure that is unknown leaves no stale one behind."""
        for gauge in (self._pressure, self._forecast, self._fresh, self._hot, self._vms):
            gauge.clear()
        for host in record.hosts:
            self._fresh.labels(host=host.host).set(host.unusable is None)
            self._hot.labels(host=host.host).set(host.host in record.hot_hosts)
            self._vms.labels(host=host.host).set(host.vms)
            figures = (
                (self._pressure, "cpu", host.cpu_now),
                (self._pressure, "memory", host.memory_now),
                (self._forecast, "cpu", host.cpu_p95),
                (self._forecast, "memory", host.memory_p95),
            )
            for gauge, resource, value in figures:
                if value is not None:
                    gauge.labels(host=host.host, resource=resource).set(value)

    def observe_migration(self, record: MigrationRecord) -> None:
        """Count one migration that has its verdict; a second call with the same id counts nothing."""
        if record.state.is_open:
            return
        with self._lock:
            if record.id in self._counted:
                return
            self._counted[record.id] = None
            if len(self._counted) > REMEMBERED:
                self._counted.pop(next(iter(self._counted)))
            self._verdicts.labels(state=record.state.value).inc()
            done = record.completion
            if done is not None and done.transferred_bytes is not None:
                self._transferred.inc(max(0, done.transferred_bytes))
            if record.state is not MigrationState.SUCCEEDED:
                return
            if record.seconds is not None:
                self._duration.observe(record.seconds)
            if done is not None and done.downtime_seconds is not None:
                self._downtime.observe(done.downtime_seconds)
            for figure, ratio in ratios(record):
                self._ratio.labels(figure=figure).observe(ratio)

    def observe_ledger(self, migrations: Iterable[MigrationRecord], *, since: float) -> None:
        """Count verdicts not older than ``since``, from the ledger: each once, however often they are read."""
        for record in migrations:
            if record.ended_at is not None and record.ended_at >= since:
                self.observe_migration(record)

    def observe_open(self, migrations: Sequence[MigrationRecord]) -> None:
        """Show how many migrations stand in which open state."""
        tally = Tally(record.state for record in migrations)
        with self._lock:
            for state in OPEN_STATES:
                self._migrations.labels(state=state.value).set(tally.get(state, 0))

    def observe_state(
        self,
        *,
        lease_held: bool,
        leader: Tenure | None = None,
        breaker_open: bool,
        paused: bool,
        reload_ok: bool,
        plan_steps: int = 0,
        checks: Collection[Check] = (),
    ) -> None:
        """Show the daemon's own state and its health conditions."""
        with self._lock:
            self._lease.set(lease_held)
            self._leader.clear()
            if leader is not None:
                self._leader.labels(controller=leader.controller).set(leader.epoch)
            self._breaker.set(breaker_open)
            self._paused.set(paused)
            self._reload.set(reload_ok)
            self._plan_steps.set(plan_steps)
            self._checks.clear()
            for check in checks:
                self._checks.labels(code=check.code, severity=check.severity).set(1)

    def observe_events(self, missed: Mapping[str, int]) -> None:
        """Show how many changes no event told, per host since the start."""
        with self._lock:
            for host, count in missed.items():
                self._missed.labels(host=host).inc(max(0, count - self._missed_so_far.get(host, 0)))
                self._missed_so_far[host] = count

    def observe_model(self, state: ModelState) -> None:
        """Show who predicts what migrations cost, and how that goes."""
        with self._lock:
            self._trusted.set(state.trusted)
            for gauge in (self._model, self._model_error, self._model_coverage):
                gauge.clear()
            if state.id is not None:
                self._model.labels(model=state.id, source=state.source).set(1)
                if state.drift.coverage is not None:
                    self._model_coverage.labels(model=state.id).set(state.drift.coverage)
            for predictor, error in (("model", state.drift.model_error), ("physics", state.drift.physics_error)):
                if error is not None:
                    self._model_error.labels(predictor=predictor).set(error)
            for fault, count in state.refused:
                self._model_refused.labels(fault=fault).inc(count - self._refused_so_far.get(fault, 0))
                self._refused_so_far[fault] = count

    def observe_demand(self, state: DemandModelState) -> None:
        """Show who forecasts demand, and how that goes."""
        with self._lock:
            self._demand.observe(state)

    def observe_power(self, records: Iterable[PowerRecord]) -> None:
        """Show in which phase each host's power is."""
        with self._lock:
            self._power.clear()
            self._power_disabled.clear()
            for record in records:
                self._power.labels(host=record.host, phase=record.phase.value).set(1)
                self._power_disabled.labels(host=record.host).set(record.disabled is not None)

    def observe_nights(self, told: NightsTold) -> None:
        """Show what nights saved and cost."""
        with self._lock:
            self._night.observe(told)

    def observe_advice(self, state: ShadowState) -> None:
        """Show how advice turned out."""
        with self._lock:
            self._advice.observe(state)


def ratios(record: MigrationRecord) -> list[tuple[str, float]]:
    """Actual ÷ predicted of duration, downtime and bytes, where both are known and the prediction is not zero."""
    predicted, done = record.predicted, record.completion
    if predicted is None:
        return []
    pairs = (
        ("duration", record.seconds, predicted.seconds.value),
        ("downtime", done.downtime_seconds if done else None, predicted.downtime_seconds.value),
        ("bytes", done.transferred_bytes if done else None, predicted.bytes.value),
    )
    return [
        (figure, actual / expected)
        for figure, actual, expected in pairs
        if actual is not None and 0 < expected < float("inf")
    ]


def serve_metrics(
    metrics: Metrics, address: str, port: int, tls: TlsFiles | None = None
) -> tuple[int, Callable[[], None]]:
    """Serve on ``address``:``port`` (0: any free one) from a thread; returns the port and a function that ends it.

    Raises OSError naming the address if it cannot be had, TlsError.
    """
    try:
        server, thread = serve_wsgi(make_wsgi_app(metrics.registry), address, port, tls)
    except OSError as error:
        raise OSError(f"metrics on {address}:{port}: {error}") from error

    def stop() -> None:
        server.shutdown()
        thread.join(5.0)
        server.server_close()

    log.info("metrics", address=address, port=server.server_port, tls=tls is not None)
    return server.server_port, stop
