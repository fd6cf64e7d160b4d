"""Prometheus metrics of advice: how it turned out, and for which mode the record is good enough."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from rebalancerd.cluster.advice import Verdict
from rebalancerd.shadow import ShadowState


class AdviceMetrics:
    """Metrics of advice on that registry. Not thread-safe: its owner locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._scored = Counter(
            "rebalancerd_advice_scored",
            "Pieces of advice that were judged after their window, by verdict.",
            ["verdict"],
            registry=registry,
        )
        self._record = Gauge(
            "rebalancerd_advice_record",
            "Pieces of advice of the last 30 days, by verdict.",
            ["verdict"],
            registry=registry,
        )
        self._hotspots = Gauge(
            "rebalancerd_advice_hotspots",
            "Hotspots of the last 30 days: foreseen by advice, advised on late, or not at all.",
            ["advice"],
            registry=registry,
        )
        self._ready = Gauge(
            "rebalancerd_advice_ready",
            "1: the record of advice is good enough for that mode.",
            ["mode"],
            registry=registry,
        )
        self._so_far: dict[Verdict, int] = {}
        for verdict in Verdict:
            self._scored.labels(verdict=verdict.value)

    def observe(self, state: ShadowState) -> None:
        """Show that state."""
        for verdict in Verdict:
            count = state.scored.get(verdict, 0)
            self._scored.labels(verdict=verdict.value).inc(count - self._so_far.get(verdict, 0))
            self._so_far[verdict] = count
            self._record.labels(verdict=verdict.value).set(state.record.count(verdict))
        for kind in ("foreseen", "late", "unadvised"):
            self._hotspots.labels(advice=kind).set(getattr(state.record, kind))
        for answer in state.readiness:
            self._ready.labels(mode=answer.mode.value).set(answer.ready)
