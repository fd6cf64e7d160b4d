"""The API over a real UNIX socket: questions, commands, and refusals that say what to do."""

import asyncio
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.migration import AbortCause, AbortOrder, MigrationState, Progress
from rebalancerd.cluster.policy import Mode
from rebalancerd.predict.drift import Drift
from rebalancerd.predict.keeper import ModelState
from rebalancerd.record import snapshotfile
from rebalancerd.record.planfile import document, parse_document
from rebalancerd.serve.api import create_app
from rebalancerd.serve.peer import Peer
from rebalancerd.serve.schemas import History, Status, Watch
from rebalancerd.serve.socket_server import SocketServer
from tests.unit.plan.plan_cluster import host, inputs_of, vm
from tests.unit.serve import serve_world as build


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Asking:
    """Asks a served world."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(
        self, method: str, target: str, body: Any = None, raw: bytes | None = None
    ) -> tuple[int, dict[str, Any]]:
        connection = Connection(self.path)
        data = raw if raw is not None else (json.dumps(body).encode() if body is not None else None)
        connection.request(
            method, f"/v1/{target}", data, {"Content-Type": "application/json"} if data is not None else {}
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[build.Current, Asking]]:
    """One server for the module; what it serves is set per test."""
    current = build.Current()
    server = SocketServer(create_app(current), tmp_path_factory.mktemp("api") / "s")
    server.start()
    yield current, Asking(server.path)
    server.stop()


@pytest.fixture
def serve(served: tuple[build.Current, Asking]) -> Callable[[Any], Asking]:
    """Serves a world."""

    def start(world: Any) -> Asking:
        served[0].control = world.control
        return served[1]

    return start


@pytest.fixture
def ask(world: Any, serve: Callable[[Any], Asking]) -> Asking:
    return serve(world)


def test_status_tells_health_hosts_plan_and_last_cycle(ask: Asking) -> None:
    code, body = ask("GET", "status")
    seen = Status.model_validate(body)

    assert (code, body["format"]) == (200, 1)
    assert seen.health == "HEALTH_WARN"
    assert {c.code for c in seen.checks} == {"HOST_HOT", "HOST_STALE"}
    assert [h.name for h in seen.hosts] == ["h1", "h2", "h3"]
    assert seen.hosts[2].cpu_now is None
    assert seen.plan is not None
    assert seen.plan.awaits_approval
    assert seen.cycle is not None
    assert seen.cycle.reason == "no action: hold: hot for 1 of 3 rounds"


def test_status_is_answered_before_the_first_cycle_and_without_a_ledger(world: Any, ask: Asking) -> None:
    world.loop.view = None
    world.ledger.away = True

    code, body = ask("GET", "status")

    assert code == 200
    assert {c["code"] for c in body["checks"]} >= {"LEDGER_UNAVAILABLE"}
    assert [h["unusable"] for h in body["hosts"]] == ["not seen yet"] * 3


def test_status_tells_who_predicts_costs(world: Any, ask: Asking) -> None:
    assert ask("GET", "status")[1]["model"] is None
    drift = Drift(rows=20, bounded=20, covered=18, model_error=1.2, physics_error=1.5)
    world.model = ModelState(id="cost-1", source="own", reason="worse", since=5.0, drift=drift, problems=("x: absent",))

    body = ask("GET", "status")[1]
    told = Status.model_validate(body).model
    assert told is not None
    assert (told.basis, told.id, told.trusted, told.reason, told.since) == ("physics", "cost-1", False, "worse", 5.0)
    assert (told.rows, told.error, told.physics_error, told.coverage) == (20, 1.2, 1.5, 0.9)
    assert told.problems == ("x: absent",)
    assert [c["severity"] for c in body["checks"] if c["code"] == "MODEL_UNTRUSTED"] == ["warn", "warn"]


def test_watch_gives_progress_and_both_ends_predicted_and_estimated(world: Any, ask: Asking) -> None:
    running = build.make_migration(
        id="m-9", state=MigrationState.RUNNING, started_at=build.NOW - 4, ended_at=None, completion=None
    )
    world.executor.running = [running]
    world.executor.readings[build.WEB] = Progress(
        elapsed_seconds=4,
        total_bytes=1000,
        processed_bytes=600,
        remaining_bytes=400,
        rate_bytes_per_second=100.0,
        dirty_bytes_per_second=20.0,
    )
    world.ledger.records = [running, build.make_migration()]

    seen = Watch.model_validate(ask("GET", "watch")[1])

    (row,) = seen.migrations
    assert (row.elapsed_seconds, row.remaining_bytes) == (4.0, 400)
    assert row.predicted_end_at == build.NOW + 6
    assert row.estimated_end_at == build.NOW + 5
    assert [r.actual_seconds for r in seen.recent] == [9.0]


def test_watch_puts_predictions_beside_what_runs_and_what_ended(world: Any, ask: Asking) -> None:
    doubtful = replace(build.cost(), inputs_missing=("dirty",))
    running = build.make_migration(
        id="m-9",
        state=MigrationState.RUNNING,
        started_at=build.NOW - 26,
        ended_at=None,
        completion=None,
        predicted=doubtful,
    )
    cut = build.make_migration(
        id="m-2",
        state=MigrationState.ABORTED,
        abort=AbortOrder(cause=AbortCause.STALL, elapsed_seconds=8.0),
    )
    world.executor.running = [running]
    world.ledger.records = [running, build.make_migration(), cut]

    seen = Watch.model_validate(ask("GET", "watch")[1])

    (row,) = seen.migrations
    assert (row.elapsed_seconds, row.predicted_seconds, row.predicted_seconds_upper, row.late) == (
        26.0,
        10.0,
        25.0,
        True,
    )
    assert (row.predicted_by, row.inputs_missing) == ("physics", ("dirty",))
    ended = {r.id: r for r in seen.recent}
    done = ended["m-1"]
    assert (done.predicted_downtime_seconds, done.predicted_downtime_seconds_upper) == (0.1, 0.3)
    assert (done.predicted_bytes, done.predicted_bytes_upper) == (2e8, None), "an infinite bound is null"
    assert (done.predicted_slowdown, done.predicted_slowdown_upper) == (0.0, 0.1)
    assert (done.predicted_non_convergence, done.predicted_non_convergence_upper) == (0.0, 0.1)
    assert (done.late, done.abort) == (False, None)
    assert ended["m-2"].abort == "stall"


def test_what_was_not_predicted_is_null(world: Any, ask: Asking) -> None:
    world.ledger.records = [build.make_migration(predicted=None)]

    (row,) = Watch.model_validate(ask("GET", "watch")[1]).recent

    assert (row.predicted_by, row.predicted_seconds, row.predicted_non_convergence, row.late) == (
        None,
        None,
        None,
        False,
    )


def test_no_end_is_estimated_where_the_guest_dirties_faster_than_it_is_sent(world: Any, ask: Asking) -> None:
    world.executor.running = [build.make_migration(state=MigrationState.RUNNING, ended_at=None)]
    world.executor.readings[build.WEB] = Progress(
        elapsed_seconds=4, remaining_bytes=400, rate_bytes_per_second=10.0, dirty_bytes_per_second=20.0
    )

    assert ask("GET", "watch")[1]["migrations"][0]["estimated_end_at"] is None


def test_history_by_vm_name(world: Any, ask: Asking) -> None:
    world.ledger.records = [build.make_migration(), build.make_migration(id="m-2", vm_uuid=build.DB, vm_name="db1")]

    seen = History.model_validate(ask("GET", "history?vm=web1")[1])

    assert [m.id for m in seen.migrations] == ["m-1"]
    assert [c.id for c in History.model_validate(ask("GET", "history")[1]).cycles] == [7]


def test_an_infinite_bound_is_null(world: Any, ask: Asking) -> None:
    record = build.make_migration(predicted=build.cost(upper=float("inf")))
    world.ledger.records = [record]

    assert ask("GET", "history")[1]["migrations"][0]["predicted_seconds_upper"] is None


def test_a_hostile_name_is_carried_as_data(ask: Asking) -> None:
    code, body = ask("GET", f"explain/vm?subject={build.EVIL}")

    assert code == 200
    assert body["title"] == f"VM {build.EVIL_NAME} ({build.EVIL})"


def test_the_plan_is_a_plan_files_document(world: Any, ask: Asking) -> None:
    code, body = ask("GET", "plan")

    assert code == 200
    assert parse_document(body["document"]) == world.loop.proposal
    assert body["digest"] == world.loop.proposal.digest


def test_a_snapshot_is_a_snapshot_files_document(world: Any, ask: Asking) -> None:
    world.loop.inputs = inputs_of((host("h1"), host("h2")), (vm("a", "h1", facts={"name": build.EVIL_NAME}),))
    world.model = ModelState(basis="cost-1", id="cost-1", trusted=True)

    status, answer = ask("GET", "snapshot")

    assert status == 200
    kept = snapshotfile.parse_document(answer["document"])
    assert [h.name for h in kept.snapshot.hosts] == ["h1", "h2"]
    assert kept.costs == "cost-1"
    assert world.ledger.commands == []


def test_a_snapshot_that_cannot_be_planned_from_is_a_conflict(world: Any, ask: Asking) -> None:
    world.loop.inputs = ValueError("warming_up: too little has been measured")

    status, answer = ask("GET", "snapshot")

    assert (status, answer["code"]) == (409, "CANNOT_PLAN")


def test_figures_that_forbid_planning_are_a_conflict(world: Any, ask: Asking) -> None:
    world.loop.proposal = ValueError("warming_up: 1 of 3 samples")

    assert ask("GET", "plan") == (
        409,
        {
            "format": 1,
            "code": "CANNOT_PLAN",
            "message": "warming_up: 1 of 3 samples",
            "hint": "nothing can be planned from such figures; see `rebalancerd status`",
        },
    )


def test_pause_and_resume_are_rows_with_who(world: Any, ask: Asking) -> None:
    code, body = ask("POST", "pause", {"seconds": 900, "reason": "backup"})
    ask("POST", "resume", {})

    assert code == 200
    pause, resume = world.ledger.commands
    assert (pause.kind, pause.reason, pause.until) == (CommandKind.PAUSE, "backup", world.clock.now + 900)
    assert pause.by == Peer(0, __import__("os").geteuid(), 0).name
    assert resume.kind is CommandKind.RESUME
    assert "nothing is started" in body["message"]


@pytest.mark.parametrize("seconds", [0, -5, 1e30, "NaN", "x"])
def test_a_senseless_pause_is_refused(world: Any, ask: Asking, seconds: object) -> None:
    code, body = ask("POST", "pause", {"seconds": seconds})

    assert (code, body["code"]) == (422, "BAD_REQUEST")
    assert "seconds" in body["message"]
    assert world.ledger.commands == []


def test_resume_says_that_the_pause_file_still_pauses(world: Any, ask: Asking) -> None:
    world.pause_file = "pause file /run/p exists"

    assert "remove the file" in ask("POST", "resume", {})[1]["message"]


def test_draining_an_unknown_host_offers_the_near_ones(world: Any, ask: Asking) -> None:
    code, body = ask("POST", "drain", {"host": "h11"})

    assert (code, body["code"]) == (404, "UNKNOWN_HOST")
    assert "did you mean h1" in body["hint"]
    assert world.ledger.commands == []


def test_drain_and_undrain(world: Any, ask: Asking) -> None:
    assert ask("POST", "undrain", {"host": "h1"})[1]["code"] == "NOT_DRAINED"
    assert ask("POST", "drain", {"host": "h1"})[0] == 200
    assert ask("POST", "drain", {"host": "h1"})[1]["code"] == "ALREADY_DRAINED"
    assert ask("GET", "status")[1]["drained"] == ["h1"]
    assert ask("POST", "undrain", {"host": "h1"})[0] == 200
    assert world.ledger.operator_state(0).drained == frozenset()


def test_approval_binds_to_digest_and_step(world: Any, ask: Asking) -> None:
    digest = world.loop.proposal.digest

    assert ask("POST", "approve", {"plan": "p-1", "step": 1, "digest": digest})[0] == 200
    assert ask("POST", "approve", {"plan": "p-1"})[0] == 200

    steps = [(c.kind, c.subject, c.step, c.digest) for c in world.ledger.commands]
    assert steps == [(CommandKind.APPROVE, "p-1", 1, digest), (CommandKind.APPROVE, "p-1", 0, digest)]
    assert ask("GET", "status")[1]["plan"]["awaits_approval"] is False


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"plan": "p-2"}, "UNKNOWN_PLAN"),
        ({"plan": "p-1", "step": 2}, "UNKNOWN_STEP"),
        ({"plan": "p-1", "digest": "beef"}, "DIGEST_MISMATCH"),
    ],
)
def test_an_approval_that_fits_no_plan_is_refused(world: Any, ask: Asking, body: dict[str, object], code: str) -> None:
    assert ask("POST", "approve", body)[1]["code"] == code
    assert world.ledger.commands == []


def test_an_expired_plan_cannot_be_approved(world: Any, ask: Asking) -> None:
    world.clock.now += 301

    assert ask("POST", "approve", {"plan": "p-1"})[1]["code"] == "PLAN_EXPIRED"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.RECOMMEND])
def test_a_mode_that_may_not_act_takes_no_plan(make_world: Any, serve: Any, mode: Mode) -> None:
    world = make_world(mode)
    asking = serve(world)

    for command, body in (("approve", {"plan": "p-1"}), ("apply", {"document": document(world.loop.proposal)})):
        code, answer = asking("POST", command, body)
        assert (code, answer["code"]) == (409, "MODE_MAY_NOT_ACT")
        assert f"mode {mode}" in answer["message"]
    assert world.ledger.commands == []


def test_apply_records_the_plan_and_the_command(world: Any, ask: Asking) -> None:
    world.ledger.plans.clear()
    plan = build.make_plan()

    code, body = ask("POST", "apply", {"document": document(plan)})

    assert code == 200
    assert world.ledger.plans["p-1"] == plan
    (command,) = world.ledger.commands
    assert (command.kind, command.subject, command.digest) == (CommandKind.APPLY, "p-1", plan.digest)
    assert plan.digest in body["message"]


def test_a_plan_file_edited_by_hand_is_found_out(world: Any, ask: Asking) -> None:
    tree = json.loads(json.dumps(document(build.make_plan())).replace('"h2"', '"h3"'))

    code, body = ask("POST", "apply", {"document": tree})

    assert (code, body["code"]) == (422, "BAD_PLAN_FILE")
    assert world.ledger.commands == []


@pytest.mark.parametrize("tree", [{}, {"format": 99}, {"format": 1, "plan": 3}])
def test_what_is_no_plan_file_is_refused(ask: Asking, tree: object) -> None:
    assert ask("POST", "apply", {"document": tree})[1]["code"] == "BAD_PLAN_FILE"


def test_apply_of_an_expired_empty_or_foreign_plan(world: Any, ask: Asking) -> None:
    late, empty = build.make_plan(expires_at=build.NOW - 1), build.make_plan(empty=True)
    assert ask("POST", "apply", {"document": document(late)})[1]["code"] == "PLAN_EXPIRED"
    assert ask("POST", "apply", {"document": document(empty)})[1]["code"] == "EMPTY_PLAN"

    world.loop.view.snapshot = build.make_snapshot(hosts=(build.make_host("x1"),), vms=())
    world.control.about = __import__("dataclasses").replace(world.control.about, hosts=("x1",))

    assert ask("POST", "apply", {"document": document(build.make_plan())})[1]["code"] == "FOREIGN_PLAN"
    assert world.ledger.commands == []


def test_commands_fail_loudly_while_the_ledger_is_away(world: Any, ask: Asking) -> None:
    world.ledger.away = True

    code, body = ask("POST", "pause", {})

    assert (code, body["code"]) == (503, "LEDGER_UNAVAILABLE")


def test_closing_a_breaker_that_is_not_open(ask: Asking) -> None:
    assert ask("POST", "close-breaker", {})[1]["code"] == "BREAKER_CLOSED"


def test_an_open_breaker_is_told_and_closed(world: Any, ask: Asking) -> None:
    world.ledger.records = [build.make_migration(state=MigrationState.DUPLICATED)]
    assert "BREAKER_OPEN" in {c["code"] for c in ask("GET", "status")[1]["checks"]}

    assert ask("POST", "close-breaker", {"reason": "looked at it"})[0] == 200

    assert "BREAKER_OPEN" not in {c["code"] for c in ask("GET", "status")[1]["checks"]}


def test_clearing_either_host_of_a_link_in_quarantine(world: Any, ask: Asking) -> None:
    """The hosts themselves are not in quarantine, only the way between them: it can be cleared all the same."""
    failed = build.make_migration(state=MigrationState.FAILED, reason="transport: no route to host")
    world.ledger.records = [failed]
    assert "LINK_QUARANTINED" in {c["code"] for c in ask("GET", "status")[1]["checks"]}
    third = ({"h1", "h2", "h3"} - {failed.source, failed.destination}).pop()
    assert ask("POST", "clear-quarantine", {"host": third})[1]["code"] == "NOT_QUARANTINED"

    assert ask("POST", "clear-quarantine", {"host": failed.source})[0] == 200

    assert "LINK_QUARANTINED" not in {c["code"] for c in ask("GET", "status")[1]["checks"]}


def test_abort_by_name_reaches_the_executor_and_the_ledger(world: Any, ask: Asking) -> None:
    assert ask("POST", "abort", {"vm": "web1"})[1]["code"] == "NOT_MOVING"
    world.executor.running = [build.make_migration(state=MigrationState.RUNNING, ended_at=None)]

    assert ask("POST", "abort", {"vm": "web1", "reason": "noisy"})[0] == 200

    ((uuid, why),) = world.executor.aborted
    assert uuid == build.WEB
    assert why.endswith(": noisy")
    assert world.ledger.commands[0].kind is CommandKind.ABORT


def test_a_name_that_two_vms_have_needs_the_uuid(world: Any, ask: Asking) -> None:
    vms = (build.make_vm(build.WEB, "twin", "h1"), build.make_vm(build.DB, "twin", "h2"))
    world.loop.view.snapshot = build.make_snapshot(vms=vms)

    code, body = ask("GET", "history?vm=twin")

    assert (code, body["code"]) == (409, "AMBIGUOUS_VM")
    assert build.WEB in body["hint"]
    assert build.DB in body["hint"]


def test_explanations(world: Any, ask: Asking) -> None:
    world.ledger.records = [build.make_migration()]

    vm = ask("GET", "explain/vm?subject=web1")[1]["lines"]
    stayed = ask("GET", "explain/vm?subject=db1")[1]["lines"]
    host = ask("GET", "explain/host?subject=h1")[1]["lines"]
    cycle = ask("GET", "explain/cycle")[1]
    move = ask("GET", "explain/move?subject=m-1")[1]["lines"]

    assert any("hot for 1 of 3 rounds" in line for line in vm)
    assert any("Why: h1 is hot and web1 adds most to it" in line for line in vm)
    assert any(line.startswith("  pinned to h2: db1: pinned to h1") for line in stayed)
    assert any("preferred: costs more" in line for line in stayed)
    assert any("web1 h1 → h2 refused: hold" in line for line in host)
    assert cycle["title"] == "Cycle 7"
    assert any("duration predicted 10 s (at most 25 s), actual 9 s" in line for line in move)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("explain/vm?subject=wep1", "UNKNOWN_VM"),
        ("explain/host?subject=h9", "UNKNOWN_HOST"),
        ("explain/cycle?subject=99", "UNKNOWN_CYCLE"),
        ("explain/cycle?subject=%F0%9F%98%80", "UNKNOWN_CYCLE"),
        ("explain/move?subject=m-77", "UNKNOWN_MOVE"),
        ("explain/fish?subject=x", "UNKNOWN_KIND"),
        ("nothing", "HTTP_404"),
        ("history?limit=0", "BAD_REQUEST"),
    ],
)
def test_unknown_things_are_named_with_a_way_out(ask: Asking, target: str, code: str) -> None:
    status, body = ask("GET", target)

    assert status >= 400
    assert body["code"] == code
    assert body["hint"] or code.startswith("BAD")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"host": 3}', b'{"host": ""}', b"\xff\xfe", b'{"host": "' + b"x" * 300 + b'"}']
)
def test_bodies_that_are_none_are_a_bad_request(ask: Asking, raw: bytes) -> None:
    assert ask("POST", "drain", raw=raw)[1]["code"] in {"BAD_REQUEST", "HTTP_400"}


def test_a_bug_is_answered_and_the_next_question_too(world: Any, ask: Asking) -> None:
    world.loop.proposal = RuntimeError("secret detail")

    code, body = ask("GET", "plan")

    assert (code, body["code"]) == (500, "BUG")
    assert "secret" not in json.dumps(body)
    assert ask("GET", "ping")[0] == 200


def unchecked(app: Any, method: str, path: str, body: Any = None) -> int:
    """Status of a request that reaches the application past the checked socket."""

    async def request() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
            return (await client.request(method, path, json=body)).status_code

    return asyncio.run(request())


def test_a_request_without_a_peer_is_refused_on_every_route(world: Any) -> None:
    """Served by anything but the checked socket, the application serves nobody; no route is left open by omission."""
    app = create_app(world.control)
    bodies = {
        "drain": {"host": "h1"},
        "undrain": {"host": "h1"},
        "approve": {"plan": "p"},
        "reject": {"plan": "p"},
        "apply": {"document": {}},
        "abort": {"vm": "v"},
        "clear-quarantine": {"host": "h1"},
    }
    paths = app.openapi()["paths"]
    assert len(paths) >= 15
    for path, methods in paths.items():
        for method in methods:
            body = bodies.get(path.removeprefix("/v1/"), {}) if method == "post" else None
            assert unchecked(app, method, path.replace("{kind}", "vm"), body) == 403, path
    assert world.ledger.commands == []


def test_the_schema_of_the_answers_is_stable(world: Any) -> None:
    """Fields may be added within a format version, never taken away or renamed."""
    schema = create_app(world.control).openapi()["components"]["schemas"]

    assert set(schema["Status"]["properties"]) >= {
        "format",
        "version",
        "health",
        "checks",
        "mode",
        "policy",
        "controller",
        "now",
        "started_at",
        "hosts",
        "vms",
        "moving",
        "moving_limit",
        "cycle",
        "plan",
        "paused",
        "drained",
        "guard_notes",
        "unknowns",
    }
    assert set(schema["MigrationRow"]["properties"]) >= {
        "id",
        "vm_uuid",
        "vm_name",
        "source",
        "destination",
        "state",
        "intent_at",
        "started_at",
        "ended_at",
        "predicted_seconds",
        "actual_seconds",
        "predicted_end_at",
        "remaining_bytes",
        "dirty_bytes_per_second",
    }
    assert set(schema["PlanAnswer"]["properties"]) >= {"format", "document", "digest", "empty", "mode"}
    assert set(schema["Explanation"]["properties"]) >= {"format", "kind", "subject", "title", "lines", "facts"}
