"""Prometheus metrics of the demand model: who forecasts, and how the forecasts fare."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from rebalancerd.predict.demand.keeper import DemandModelState
from rebalancerd.serve.rows import demand_row


class DemandMetrics:
    """Gauges of the demand model on that registry. Not thread-safe: its owner locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._trusted = Gauge(
            "rebalancerd_demand_model_trusted",
            "1: a learned model forecasts demand; 0: a naive way.",
            registry=registry,
        )
        self._model = Gauge(
            "rebalancerd_demand_model_info",
            "1 for the learned demand model that is seated, trusted or not.",
            ["model", "source"],
            registry=registry,
        )
        self._basis = Gauge(
            "rebalancerd_demand_basis_info", "1 for who forecasts demand.", ["basis"], registry=registry
        )
        self._skill = Gauge(
            "rebalancerd_demand_skill_score",
            "1 less the model's mean squared error divided by the reference's, over the last trial, by seconds ahead.",
            ["reference", "ahead_seconds"],
            registry=registry,
        )
        self._coverage = Gauge(
            "rebalancerd_demand_coverage_ratio",
            "Share of values within the model's central 90 % over the last trial, by seconds ahead.",
            ["ahead_seconds"],
            registry=registry,
        )
        self._pinball = Gauge(
            "rebalancerd_demand_pinball_ratio",
            "The model's pinball loss at 95 % divided by that of the best naive way, by seconds ahead.",
            ["ahead_seconds"],
            registry=registry,
        )
        self._width = Gauge(
            "rebalancerd_demand_width_factor",
            "By what the model's spread is multiplied here to hold what it promises, by side.",
            ["side"],
            registry=registry,
        )
        self._scored = Gauge(
            "rebalancerd_demand_forecasts_scored", "Forecasts that were scored over the last trial.", registry=registry
        )
        self._refused = Counter(
            "rebalancerd_demand_model_refusals",
            "Demand model files that were refused, by fault.",
            ["fault"],
            registry=registry,
        )
        self._refused_so_far: dict[str, int] = {}

    def observe(self, state: DemandModelState) -> None:
        """Show that state; a figure that is not known any more leaves no stale one behind."""
        row = demand_row(state)
        self._trusted.set(state.trusted)
        for gauge in (self._model, self._basis, self._skill, self._coverage, self._pinball):
            gauge.clear()
        self._basis.labels(basis=row.basis).set(1)
        if row.id is not None:
            self._model.labels(model=row.id, source=row.source).set(1)
        for horizon in row.horizons:
            ahead = f"{horizon.ahead_seconds:g}"
            for reference, skill in horizon.skill.items():
                self._skill.labels(reference=reference, ahead_seconds=ahead).set(skill)
            if horizon.coverage is not None:
                self._coverage.labels(ahead_seconds=ahead).set(horizon.coverage)
            if horizon.pinball is not None:
                self._pinball.labels(ahead_seconds=ahead).set(horizon.pinball)
        self._width.labels(side="low").set(row.width_low)
        self._width.labels(side="high").set(row.width_high)
        self._scored.set(row.scored)
        for fault, count in state.refused:
            self._refused.labels(fault=fault).inc(count - self._refused_so_far.get(fault, 0))
            self._refused_so_far[fault] = count
