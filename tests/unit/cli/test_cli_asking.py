"""Commands that ask and command a daemon: what they print, and the codes they end with."""

import json
from pathlib import Path
from typing import Any

import pytest

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.migration import MigrationState, Progress
from rebalancerd.predict.drift import Drift
from rebalancerd.predict.keeper import ModelState
from rebalancerd.record.planfile import read_plan
from tests.unit.serve import serve_world as build

JUDGED = Drift(rows=20, bounded=20, covered=18, model_error=1.2, physics_error=1.5)


def is_tame(text: str) -> bool:
    """No character that a terminal would obey."""
    return all(c.isprintable() or c == "\n" for c in text)


def test_status_is_short_and_says_what_matters(run: Any) -> None:
    done = run("status")

    assert done.code == 0
    assert len(done.out.splitlines()) <= 16
    for word in (
        "HEALTH_WARN",
        "HOST_STALE",
        "mode guarded",
        "hot for 1 of 3 rounds",
        "rebalancerd approve p-1",
        "95 %",
    ):
        assert word in done.out
    assert done.err == ""


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (ModelState(reason="models.cost is physics", wanted=False), "cost model   physics: models.cost is physics"),
        (
            ModelState(basis="cost-1", id="cost-1", source="shipped", trusted=True),
            "cost model   cost-1 (shipped), no migration to judge it by yet",
        ),
        (
            ModelState(basis="cost-1", id="cost-1", source="own", trusted=True, drift=JUDGED),
            "cost model   cost-1 (own), off by a factor of 1.20, physics by 1.50, bounds held in 90 % of 20 migrations",
        ),
        (
            ModelState(id="cost-1", source="own", reason="clearly worse", drift=JUDGED),
            "cost model   physics; cost-1 (own) is not trusted: clearly worse",
        ),
    ],
)
def test_status_names_the_cost_model(run: Any, world: build.World, model: ModelState, line: str) -> None:
    world.model = model

    assert line in run("status").out.splitlines()


def test_status_shows_the_loudest_hosts_of_many(run: Any, world: build.World) -> None:
    world.loop.view.snapshot = build.make_snapshot(hosts=tuple(build.make_host(f"h{n}") for n in range(1, 40)))

    few, everything = run("status"), run("status", "--all")

    assert "and 27 quieter hosts" in few.out
    assert "h1 " in few.out  # the hot one is among them
    assert "h39" not in few.out
    assert "h39" in everything.out


def test_json_is_the_answer_of_the_api_with_its_format(run: Any) -> None:
    for command in (
        ["status"],
        ["plan"],
        ["history"],
        ["explain", "vm", "web1"],
        ["watch", "--once"],
        ["pause"],
        ["version"],
    ):
        done = run(*command, "--output", "json")
        assert done.code == 0, command
        assert json.loads(done.out)["format"] == 1, command


def test_the_form_can_come_from_the_environment(run: Any) -> None:
    assert json.loads(run("status", REBALANCERD_OUTPUT="json").out)["health"] == "HEALTH_WARN"


@pytest.mark.parametrize(
    "command",
    [["status"], ["watch", "--once"], ["history"], ["explain", "vm", build.EVIL], ["explain", "host", "h2"], ["plan"]],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_a_hostile_name_is_seen_not_obeyed(run: Any, world: build.World, command: list[str], output: str) -> None:
    evil = {"vm_uuid": build.EVIL, "vm_name": build.EVIL_NAME}
    world.executor.running = [build.make_migration(id="m-8", state=MigrationState.RUNNING, ended_at=None, **evil)]
    world.ledger.records = [build.make_migration(**evil, reason="\x1b]0;owned\x07", state=MigrationState.FAILED)]

    done = run(*command, "--output", output)

    assert done.code == 0
    assert is_tame(done.out)
    if command != ["plan"]:
        # lines for people come escaped already, and JSON doubles their backslash
        ways = ("evil\\x1b[2J", "evil\\u001b[2J", *(["evil\\\\x1b[2J"] if output == "json" else []))
        assert any(way in done.out for way in ways)


def test_a_hostile_argument_is_escaped_in_the_error(run: Any) -> None:
    done = run("explain", "vm", "x\x1b[2J\u202e")

    assert done.code == 1
    assert is_tame(done.err)
    assert "x\\x1b[2J\\u202e" in done.err


def test_watch_shows_progress_and_prediction(run: Any, world: build.World) -> None:
    world.executor.running = [
        build.make_migration(
            id="m-8", state=MigrationState.RUNNING, started_at=build.NOW - 4, ended_at=None, completion=None
        )
    ]
    world.executor.readings[build.WEB] = Progress(
        elapsed_seconds=4,
        total_bytes=2**30,
        remaining_bytes=2**28,
        rate_bytes_per_second=2.0**26,
        dirty_bytes_per_second=2.0**25,
        iteration=3,
    )
    world.ledger.records = [build.make_migration()]

    out = run("watch", "--once").out

    for word in (
        "web1",
        "round 3",
        "75 %",
        "256 MiB",
        "64.0 MiB/s",
        "32.0 MiB/s",
        "in 6.0 s (at this pace in 8.0 s)",
        "9.0 s",
        "10.0 s",
    ):
        assert word in out, word


def test_watch_shows_elapsed_against_predicted_and_what_is_past_its_bound(run: Any, world: build.World) -> None:
    world.executor.running = [
        build.make_migration(
            id="m-8", state=MigrationState.RUNNING, started_at=build.NOW - 40, ended_at=None, completion=None
        )
    ]
    world.ledger.records = [build.make_migration()]

    lines = run("watch", "--once").out.splitlines()

    running = next(line for line in lines if "running" in line)
    assert "40 s  10.0 s ≤ 25 s  30 s over, past its bound" in running
    ended = next(line for line in lines if "succeeded" in line)
    for part in ("9.0 s  10.0 s ≤ 25 s", "200 ms  100 ms ≤ 300 ms", "172 MiB    191 MiB  physics"):
        assert part in ended, ended


def test_watch_says_where_nothing_was_predicted(run: Any, world: build.World) -> None:
    world.executor.running = [
        build.make_migration(
            id="m-8", state=MigrationState.RUNNING, started_at=build.NOW - 40, ended_at=None, predicted=None
        )
    ]
    world.ledger.records = [build.make_migration(predicted=None)]

    lines = run("watch", "--once").out.splitlines()

    assert next(line for line in lines if "running" in line).rstrip().endswith("40 s          ?  ?")
    assert next(line for line in lines if "succeeded" in line).rstrip().endswith("172 MiB          -  -")


def test_plan_says_why_what_it_costs_and_what_was_refused(run: Any) -> None:
    done = run("plan")

    assert done.code == 0
    for word in (
        "web1",
        "h1 → h2",
        "10.0 s",
        "25 s",
        "h1 is hot and web1 adds most",
        "not db1 → h2: costs more",
        "pinned: db1: pinned to h1",
    ):
        assert word in done.out


def test_plan_code_is_10_only_where_asked_for_and_not_empty(run: Any, world: build.World) -> None:
    assert run("plan", "--detailed-exitcode").code == 10
    world.loop.proposal = build.make_plan(empty=True)

    done = run("plan", "--detailed-exitcode")

    assert done.code == 0
    assert "nothing to do: no host is hot" in done.out


def test_a_plan_file_goes_round(run: Any, world: build.World, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    assert run("plan", "-o", str(file)).code == 0
    assert read_plan(file) == world.loop.proposal

    done = run("apply", str(file), "--reason", "tonight")

    assert done.code == 0
    assert [(c.kind, c.reason) for c in world.ledger.commands] == [(CommandKind.APPLY, "tonight")]


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "cut short"), ("[]", "not a plan file"), ('{"kind": "x"}', "not a plan file"), (None, "cannot be read")],
)
def test_what_is_no_plan_file_is_named(
    run: Any, world: build.World, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "plan.json"
    if content is not None:
        file.write_text(content)

    done = run("apply", str(file))

    assert done.code == 1
    assert words in done.err
    assert str(file) in done.err
    assert world.ledger.commands == []


def test_an_edited_plan_file_is_found_out(run: Any, world: build.World, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    run("plan", "-o", str(file))
    file.write_text(file.read_text().replace('"h2"', '"h3"'))

    done = run("apply", str(file))

    assert done.code == 1
    assert "changed after it was written" in done.err


def test_a_plan_cannot_be_written_where_there_is_no_directory(run: Any, tmp_path: Path) -> None:
    done = run("plan", "-o", str(tmp_path / "no" / "plan.json"))

    assert done.code == 1
    assert "cannot write" in done.err


def test_approve_a_step_and_reject_a_plan(run: Any, world: build.World) -> None:
    assert run("approve", "p-1:1").code == 0
    assert run("reject", "p-1", "--reason", "not now").code == 0

    assert [(c.kind, c.step) for c in world.ledger.commands] == [(CommandKind.APPROVE, 1), (CommandKind.REJECT, 0)]


@pytest.mark.parametrize("plan", ["p-1:0", "p-1:x", "p-1:", ":1", "p-1:-1", "p-1:²"])
def test_a_step_that_is_no_number_is_wrong_usage(run: Any, world: build.World, plan: str) -> None:
    assert run("approve", plan).code == 2
    assert world.ledger.commands == []


def test_pause_takes_durations(run: Any, world: build.World) -> None:
    assert run("pause", "--for", "1h30m").code == 0
    assert run("pause", "--for", "soon").code == 2

    assert [c.until for c in world.ledger.commands] == [build.NOW + 5400]


def test_errors_go_to_standard_error_with_a_way_out(run: Any) -> None:
    done = run("drain", "h11")

    assert (done.code, done.out) == (1, "")
    assert "no host “h11”" in done.err
    assert "did you mean h1" in done.err


def test_history_names_the_ids_that_explain_move_takes(run: Any, world: build.World) -> None:
    world.ledger.records = [build.make_migration()]

    assert "m-1" in run("history").out
    assert "web1 h1 → h2: succeeded in 9 s" in run("explain", "move", "m-1").out
    assert "Cycle 7" in run("explain", "cycle").out
    assert "hot for 1 of 3" in run("history", "--cycles").out


def test_explain_needs_a_name(run: Any) -> None:
    assert run("explain", "vm").code == 2
    assert run("explain", "fish", "x").code == 2


def test_no_daemon_is_code_75(run: Any, tmp_path: Path) -> None:
    for command in (["status"], ["watch", "--once"], ["history"], ["pause"], ["approve", "p-1"], ["explain", "cycle"]):
        done = run(*command, "--socket", str(tmp_path / "none"))
        assert done.code == 75, command
        assert "no daemon answers" in done.err
        assert done.out == ""


def test_the_socket_is_found_in_the_configuration(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[serve]\nsocket = "/nowhere/at/all.sock"\n')
    monkeypatch.delenv("REBALANCERD_SOCKET")
    monkeypatch.setenv("REBALANCERD_CONFIG", str(config))

    assert "/nowhere/at/all.sock" in run("status").err
    config.write_text("this is not TOML [")
    assert "/run/rebalancerd/api.sock" in run("status").err


def test_something_else_on_the_socket_is_not_mistaken_for_a_daemon(run: Any, tmp_path: Path) -> None:
    import socket
    import threading

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            peer, _ = server.accept()
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        done = run("status", "--socket", str(path))
        thread.join()

    assert done.code == 1
    assert "not rebalancerd" in done.err


def test_durations() -> None:
    from rebalancerd.cli.durations import seconds

    assert [seconds(t) for t in ("90", "90s", "15m", "15 min", "2h", "1h30m", "1d", "0.5h")] == [
        90,
        90,
        900,
        900,
        7200,
        5400,
        86400,
        1800,
    ]
    for bad in ("", "0", "-5", "5x", "h", "1e9", "nan", "１m x", "9" * 400):
        with pytest.raises(ValueError, match="no duration"):
            seconds(bad)
