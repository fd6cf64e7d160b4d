"""Metrics: names, labels, and what they count."""

import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rebalancerd.cluster.decision import Outcome
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.refusal import Code, about_cluster
from rebalancerd.predict.drift import Drift
from rebalancerd.predict.keeper import ModelState
from rebalancerd.serve.metrics import Metrics, serve_metrics
from rebalancerd.serve.schemas import Check
from tests.unit.serve import serve_world as build


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_cycle_is_counted_with_its_decisions_and_refusals() -> None:
    metrics = Metrics()
    refusal = replace(about_cluster(Code.BALANCED, "balanced"), count=3)

    metrics.observe_cycle(build.make_cycle(refusals=(refusal,)))

    assert value(metrics, "rebalancerd_cycle_seconds_count") == 1
    assert value(metrics, "rebalancerd_cycles_total", outcome="refused") == 1
    assert value(metrics, "rebalancerd_decisions_total", outcome="refused") == 1
    assert value(metrics, "rebalancerd_refusals_total", code="hold") == 1
    assert value(metrics, "rebalancerd_refusals_total", code="balanced") == 3
    assert value(metrics, "rebalancerd_mode", mode="guarded") == 1
    assert value(metrics, "rebalancerd_mode", mode="auto") == 0


def test_an_unknown_pressure_is_absent_never_zero() -> None:
    metrics = Metrics()

    metrics.observe_cycle(build.make_cycle())

    assert value(metrics, "rebalancerd_host_pressure", host="h1", resource="cpu") == 0.95
    assert value(metrics, "rebalancerd_host_pressure_forecast", host="h1", resource="cpu") == 1.1
    assert value(metrics, "rebalancerd_host_pressure", host="h3", resource="cpu") is None
    assert value(metrics, "rebalancerd_host_fresh", host="h3") == 0
    assert value(metrics, "rebalancerd_host_fresh", host="h1") == 1


def test_a_host_that_is_gone_leaves_no_figure_behind() -> None:
    metrics, cycle = Metrics(), build.make_cycle()
    metrics.observe_cycle(cycle)

    metrics.observe_cycle(replace(cycle, hosts=cycle.hosts[1:]))

    assert value(metrics, "rebalancerd_host_pressure", host="h1", resource="cpu") is None


def test_a_cycle_without_hosts_keeps_the_last_figures() -> None:
    metrics = Metrics()
    metrics.observe_cycle(build.make_cycle())

    metrics.observe_cycle(build.make_cycle(hosts=(), outcome=Outcome.NO_ACTION))

    assert value(metrics, "rebalancerd_host_pressure", host="h1", resource="cpu") == 0.95


def test_a_migration_is_counted_once_with_prediction_ratio() -> None:
    metrics, record = Metrics(), build.make_migration()

    metrics.observe_migration(record)
    metrics.observe_migration(record)

    assert value(metrics, "rebalancerd_migration_verdicts_total", state="succeeded") == 1
    assert value(metrics, "rebalancerd_migration_duration_seconds_sum") == 9.0
    assert value(metrics, "rebalancerd_migration_downtime_seconds_sum") == pytest.approx(0.2)
    assert value(metrics, "rebalancerd_prediction_ratio_sum", figure="duration") == pytest.approx(0.9)
    assert value(metrics, "rebalancerd_prediction_ratio_sum", figure="downtime") == pytest.approx(2.0)


def test_a_failed_migration_has_a_verdict_but_no_duration() -> None:
    metrics = Metrics()

    metrics.observe_migration(build.make_migration(state=MigrationState.FAILED, completion=None))

    assert value(metrics, "rebalancerd_migration_verdicts_total", state="failed") == 1
    assert value(metrics, "rebalancerd_migration_duration_seconds_count") == 0


def test_migrations_before_the_start_of_the_daemon_are_not_counted_again() -> None:
    metrics = Metrics()

    metrics.observe_ledger([build.make_migration()], since=build.NOW)

    assert value(metrics, "rebalancerd_migration_verdicts_total", state="succeeded") is None


def test_open_migrations_by_state() -> None:
    metrics = Metrics()
    metrics.observe_open([build.make_migration(state=MigrationState.RUNNING, ended_at=None)])
    assert value(metrics, "rebalancerd_migrations", state="running") == 1

    metrics.observe_open([])

    assert value(metrics, "rebalancerd_migrations", state="running") == 0


def test_state_gauges() -> None:
    metrics = Metrics()
    check = Check(code="PAUSED", severity="warn", message="x")
    metrics.observe_state(lease_held=True, breaker_open=False, paused=True, reload_ok=False, checks=[check])

    assert value(metrics, "rebalancerd_lease_held") == 1
    assert value(metrics, "rebalancerd_breaker_open") == 0
    assert value(metrics, "rebalancerd_config_reload_success") == 0
    assert value(metrics, "rebalancerd_model_trusted") == 0
    assert value(metrics, "rebalancerd_health_check", code="PAUSED", severity="warn") == 1


def test_the_cost_model() -> None:
    """Which one, whether it is trusted, how it fares; refusals only grow, and a model that is gone leaves no series."""
    metrics = Metrics()
    drift = Drift(rows=20, bounded=20, covered=18, model_error=1.2, physics_error=1.5)
    seated = ModelState(basis="cost-1", id="cost-1", source="own", trusted=True, drift=drift, refused=(("corrupt", 2),))
    metrics.observe_model(seated)
    metrics.observe_model(seated)

    assert value(metrics, "rebalancerd_model_trusted") == 1
    assert value(metrics, "rebalancerd_model_info", model="cost-1", source="own") == 1
    assert value(metrics, "rebalancerd_model_error_ratio", predictor="model") == 1.2
    assert value(metrics, "rebalancerd_model_error_ratio", predictor="physics") == 1.5
    assert value(metrics, "rebalancerd_model_bound_coverage", model="cost-1") == 0.9
    assert value(metrics, "rebalancerd_model_refusals_total", fault="corrupt") == 2

    metrics.observe_model(ModelState(refused=(("absent", 1), ("corrupt", 3))))
    assert value(metrics, "rebalancerd_model_trusted") == 0
    assert value(metrics, "rebalancerd_model_info", model="cost-1", source="own") is None
    assert value(metrics, "rebalancerd_model_bound_coverage", model="cost-1") is None
    assert value(metrics, "rebalancerd_model_error_ratio", predictor="model") is None
    assert value(metrics, "rebalancerd_model_refusals_total", fault="corrupt") == 3
    assert value(metrics, "rebalancerd_model_refusals_total", fault="absent") == 1


def test_a_scrape_over_http_names_no_vm() -> None:
    """What Prometheus gets: every name of the manual is there, and no VM is a label."""
    metrics = Metrics()
    metrics.observe_cycle(build.make_cycle())
    metrics.observe_migration(build.make_migration())
    port, stop = serve_metrics(metrics, "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        stop()

    families = {f.name: f for f in text_string_to_metric_families(text)}
    wanted = (
        "cycle_seconds decisions refusals migrations migration_duration_seconds migration_downtime_seconds prediction_ratio "
        "host_pressure host_fresh model_trusted lease_held breaker_open config_reload_success build_info"
    )
    assert {f"rebalancerd_{name}" for name in wanted.split()} <= set(families)
    labels = {label for f in families.values() for s in f.samples for label in s.labels}
    assert not labels & {"vm", "vm_uuid", "vm_name", "uuid", "domain"}
    assert "web1" not in text


def test_a_taken_port_is_named() -> None:
    port, stop = serve_metrics(Metrics(), "127.0.0.1", 0)
    try:
        with pytest.raises(OSError, match=f"metrics on 127.0.0.1:{port}"):
            serve_metrics(Metrics(), "127.0.0.1", port)
    finally:
        stop()
