"""Health: a code for each condition, and how bad the whole is."""

import re
from dataclasses import replace
from typing import Any

import pytest

from rebalancerd.cluster.decision import Outcome
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, about_cluster, about_host
from rebalancerd.cluster.snapshot import InFlight
from rebalancerd.predict.keeper import ModelState
from rebalancerd.serve.health import Facts, checks, verdict
from tests.unit.serve import serve_world as build


def codes(**facts: Any) -> dict[str, str]:
    base = {"now": build.NOW, "started_at": build.NOW - 3600, "cycle": build.make_cycle(hot_hosts=()), **facts}
    return {c.code: c.severity for c in checks(Facts(**base))}


def test_nothing_wrong_is_ok() -> None:
    assert codes() == {}
    assert verdict(()) == "HEALTH_OK"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.WARMING_UP, {"WARMING_UP": "warn"}),
        (Code.TELEMETRY_INSANE, {"TELEMETRY_FROZEN": "err"}),
        (Code.CLUSTER_PARTLY_UNKNOWN, {"CLUSTER_PARTLY_UNKNOWN": "err"}),
        (Code.BREAKER_OPEN, {"BREAKER_OPEN": "err"}),
        (Code.LEDGER_UNAVAILABLE, {"LEDGER_UNAVAILABLE": "err"}),
        (Code.BALANCED, {}),
    ],
)
def test_refusals_of_the_whole_cluster(code: Code, expected: dict[str, str]) -> None:
    cycle = build.make_cycle(hot_hosts=(), refusals=(about_cluster(code, "because"),))

    assert codes(cycle=cycle) == expected


def test_no_room_counts_only_where_a_host_is_hot() -> None:
    refusals = (about_host(Code.NO_DESTINATION, "h1", "nowhere to go"),)

    assert "NO_ROOM" not in codes(cycle=build.make_cycle(hot_hosts=(), refusals=refusals))
    assert "NO_ROOM" in codes(cycle=build.make_cycle(hot_hosts=("h1",), refusals=refusals))


def test_no_room_for_a_drained_host_is_told_though_none_is_hot() -> None:
    """Who drains a host must see in the status that VMs stay on it."""
    hosts = (replace(build.make_host("h1"), mode=HostMode.DRAIN), build.make_host("h2"))
    cycle = build.make_cycle(hot_hosts=(), refusals=(about_host(Code.NO_DESTINATION, "h1", "1 VMs stay on h1"),))

    assert codes(cycle=cycle, snapshot=build.make_snapshot(hosts=hosts)) == {"NO_ROOM": "warn"}


MODEL = ModelState(basis="cost-1", id="cost-1", source="own", trusted=True, reason="not judged yet")


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (None, None),
        (MODEL, None),
        (ModelState(reason="models.cost is physics", wanted=False), None),
        (ModelState(reason="no model was loaded", problems=("a.json: absent",)), "physics predicts .*: a.json: absent"),
        (replace(MODEL, trusted=False, reason="worse"), "cost-1 is not trusted: worse"),
        (replace(MODEL, problems=("b.skops: corrupt",)), "refused: b.skops: corrupt"),
    ],
)
def test_a_learned_model_that_is_wanted_and_not_used(model: ModelState | None, part: str | None) -> None:
    found = [c for c in checks(Facts(now=build.NOW, started_at=build.NOW, model=model)) if c.code == "MODEL_UNTRUSTED"]

    if part is None:
        assert found == []
    else:
        (check,) = found
        assert check.severity == "warn" and check.hint
        assert re.search(part, check.message)


def test_the_hint_of_a_pause_names_what_ends_it() -> None:
    def hint(paused: str) -> str:
        return checks(Facts(now=build.NOW, started_at=build.NOW, paused=paused))[0].hint

    assert "resume" in hint("paused by root")
    assert "remove the file" in hint("pause file /run/rebalancerd/pause exists")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("stale: figures are 90 s old", "HOST_STALE"),
        ("unreachable: cannot connect to qemu+tls://h3/system", "HOST_UNREACHABLE"),
        ("absurd figures: 9000 cores busy of 4", "HOST_UNUSABLE"),
    ],
)
def test_an_unusable_host_by_its_reason(reason: str, code: str) -> None:
    assert code in codes(
        snapshot=build.make_snapshot(
            hosts=(build.make_host("h1"), build.make_host("h2"), build.make_host("h3", reason))
        ),
    )


def test_migrations_that_need_a_look() -> None:
    stuck = build.make_migration(state=MigrationState.STUCK, ended_at=None)
    unobserved = build.make_migration(id="m-2", state=MigrationState.UNOBSERVED, ended_at=None)
    doubled = build.make_migration(id="m-3", state=MigrationState.DUPLICATED)

    found = codes(open_migrations=[stuck, unobserved], recent=[doubled])

    assert found == {"STUCK_MIGRATION": "err", "UNOBSERVED_MIGRATION": "warn", "VM_IN_DANGER": "err"}


def test_a_foreign_migration_is_told() -> None:
    flight = InFlight(vm_uuid=build.WEB, source="h1", destination=None, ours=False)
    hosts = tuple(build.make_host(n) for n in ("h1", "h2"))

    assert codes(snapshot=build.make_snapshot(hosts=hosts, in_flight=(flight,))) == {"FOREIGN_MIGRATION": "warn"}


def test_silence_of_the_loop() -> None:
    assert codes(cycle=build.make_cycle(hot_hosts=(), started_at=build.NOW - 3600)) == {"CYCLE_LATE": "err"}
    assert codes(cycle=None, started_at=build.NOW - 5) == {"WARMING_UP": "warn"}
    assert codes(cycle=None, started_at=build.NOW - 3600) == {"CYCLE_LATE": "err"}


def test_the_daemons_own_state() -> None:
    found = codes(
        paused="paused by root",
        breaker_open="3 migrations failed",
        ledger_error="disk full",
        reload_error="line 3",
        lease_held=False,
        cycle=build.make_cycle(hot_hosts=(), outcome=Outcome.FAILED),
    )

    assert found == {
        "BREAKER_OPEN": "err",
        "CONFIG_RELOAD_FAILED": "warn",
        "CYCLE_FAILED": "err",
        "LEASE_LOST": "err",
        "LEDGER_UNAVAILABLE": "err",
        "PAUSED": "warn",
    }


def test_standing_by_is_no_fault_unless_nobody_leads() -> None:
    waits = build.make_cycle(hot_hosts=(), refusals=(about_cluster(Code.LEASE_LOST, "another controller leads"),))

    assert codes(lease_held=False, standby=True, leader="ctl-1", cycle=waits) == {}
    assert codes(lease_held=False, standby=True, leader=None, cycle=waits) == {"LEASE_LOST": "err"}
    assert codes(lease_held=False, cycle=waits) == {"LEASE_LOST": "err"}


def test_the_verdict_is_the_worst_and_errors_stand_first() -> None:
    found = checks(
        Facts(
            now=build.NOW, started_at=build.NOW, paused="p", ledger_error="away", cycle=build.make_cycle(hot_hosts=())
        )
    )

    assert [c.severity for c in found] == ["err", "warn"]
    assert verdict(found) == "HEALTH_ERR"
    assert verdict(found[1:]) == "HEALTH_WARN"


def test_a_condition_told_twice_is_listed_once() -> None:
    cycle = build.make_cycle(hot_hosts=(), refusals=(about_cluster(Code.BREAKER_OPEN, "from the cycle"),))

    found = checks(Facts(now=build.NOW, started_at=build.NOW, cycle=cycle, breaker_open="from the ledger"))

    assert [(c.code, c.message) for c in found] == [("BREAKER_OPEN", "from the ledger")]
