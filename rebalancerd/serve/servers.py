"""The daemon's two servers, API and metrics, started and stopped together."""

from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.observe.listening import TlsError, TlsFiles
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.serve.api import create_app
from rebalancerd.serve.control import Control
from rebalancerd.serve.metrics import Metrics, serve_metrics
from rebalancerd.serve.socket_server import SocketServer

log = structlog.get_logger(__name__)

LEDGER_WINDOW_SECONDS = 7200.0


class Servers:
    """API on a UNIX socket, metrics on TCP. ``observe`` is to be called with every finished cycle."""

    def __init__(self, control: Control, metrics: Metrics | None = None) -> None:
        self.control = control
        self.metrics = metrics if metrics is not None else Metrics()
        self.metrics_port: int | None = None
        self._stops: list[Callable[[], None]] = []

    def start(
        self,
        socket: Path,
        *,
        allowed_uids: Collection[int] | None = None,
        metrics_at: tuple[str, int] | None = None,
        metrics_tls: TlsFiles | None = None,
    ) -> None:
        """Start both; ``metrics_at`` None: no metrics, port 0: any free one. Raises SocketInUseError, TlsError, OSError, RuntimeError."""
        api = SocketServer(create_app(self.control), socket, allowed_uids)
        api.start()
        self._stops.append(api.stop)
        if metrics_at is not None:
            try:
                self.metrics_port, stop = serve_metrics(self.metrics, *metrics_at, metrics_tls)
            except (OSError, TlsError):
                self.stop()
                raise
            self._stops.append(stop)

    def stop(self) -> None:
        """Stop what was started, the last first. Safe to call twice."""
        while self._stops:
            self._stops.pop()()

    def observe(self, record: CycleRecord) -> None:
        """Bring the metrics up to date after a cycle. A failure here costs figures, never the cycle."""
        try:
            self.metrics.observe_cycle(record)
            self._observe_state()
        except Exception:
            log.exception("metrics_failed", bug=True)

    def _observe_state(self) -> None:
        control, now = self.control, self.control.clock.wall()
        told = control.remembered()
        try:
            recent = control.ledger.migrations(since=now - LEDGER_WINDOW_SECONDS)
        except LedgerUnavailableError:
            recent = ()
        self.metrics.observe_ledger(recent, since=control.about.started_at)
        self.metrics.observe_open(control.open_migrations())
        model = control.about.model()
        if model is not None:
            self.metrics.observe_model(model)
        demand = control.about.demand()
        if demand is not None:
            self.metrics.observe_demand(demand)
        advice = control.about.advice()
        if advice is not None:
            self.metrics.observe_advice(advice)
        if control.about.power is not None:
            self.metrics.observe_power(control.power_records())
        nights = control.about.nights()
        if nights is not None:
            self.metrics.observe_nights(nights)
        self.metrics.observe_events(control.about.events_missed())
        view = control.loop.view
        self.metrics.observe_state(
            lease_held=control.lease is None or control.lease.held(),
            leader=control.about.leader(),
            breaker_open=told.memory.breaker.is_open,
            paused=told.operator.paused is not None or control.about.pause_file() is not None,
            reload_ok=control.about.reload_error() is None,
            plan_steps=len(view.plan.steps) if view is not None and view.plan is not None else 0,
            checks=control.checks(),
        )
