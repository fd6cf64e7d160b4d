"""Answers to "why", out of the ledger."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.decision import Decision, Outcome
from rebalancerd.cluster.migration import AbortCause, AbortOrder, MigrationState
from rebalancerd.cluster.refusal import Code, about_cluster, about_host, about_vm
from rebalancerd.record.archive import Archive
from rebalancerd.record.explain import (
    AmbiguousNameError,
    NotOnRecordError,
    explain_cycle,
    explain_host,
    explain_move,
    explain_vm,
)
from rebalancerd.record.explain_text import lines, title
from rebalancerd.record.scorecard import lines as score_lines
from rebalancerd.record.scorecard import scorecard
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import NOW, OTHER, UUID, cost, finished, make_cycle, make_migration, make_plan


@pytest.fixture
def moved(ledger: SqlLedger) -> Archive:
    """A ledger in which web1 was moved from h1 to h2."""
    ledger.record_plan(make_plan())
    ledger.open_intent(make_migration())
    ledger.update_migration(finished(make_migration()))
    started = make_cycle().decisions[0]
    ledger.record_cycle(
        make_cycle(
            decisions=(replace(started, outcome=Outcome.STARTED, refusal=None, migration_id="m-1"),), refusals=()
        )
    )
    return Archive(ledger)


def test_a_moved_vm_is_told_when_why_and_how_it_went(moved: Archive) -> None:
    answer = explain_vm(moved, "web1")
    text = "\n".join(lines(answer))

    assert answer.uuid == UUID
    assert answer.host == "h2"
    assert answer.moves[0].record.state is MigrationState.SUCCEEDED
    assert title(answer) == f"VM web1 ({UUID})"
    assert "web1 h1 → h2: succeeded in 12 s (runs on h2)" in text
    assert "Why: h1 is at 95 % CPU" in text
    assert "Gain 120 core-seconds, repaid after 30 s" in text
    assert "Not chosen: db1 to h3 (score 5): gains less" in text
    assert "duration predicted 10 s (at most 20 s), actual 12 s, 1.20 of what was predicted" in text
    assert "downtime predicted 100 ms (at most 200 ms), actual 150 ms, 1.50 of what was predicted" in text
    assert "bytes predicted 954 MiB (at most unbounded), actual 1.86 GiB, 2.00 of what was predicted" in text
    assert "slowdown of the guest predicted 10 % (at most 30 %); what it was is not measured." in text
    assert "probability that it does not converge 0 % (at most 10 %); it converged." in text
    assert "Predicted by physics; bounds are wide for want of how fast it dirties memory:" in text
    assert "2027-01-15 08:00:01 UTC" in text


def test_a_vm_that_was_not_moved_is_told_every_reason(ledger: SqlLedger) -> None:
    """Its own refusals, those of its host and those of the cluster, counted over the cycles."""
    for n in range(3):
        ledger.record_cycle(
            make_cycle(
                started_at=NOW + 60 * n,
                refusals=(
                    about_cluster(Code.PAUSED, "paused by me"),
                    about_vm(Code.STORAGE_UNREACHABLE, UUID, f"disk vda is not on h3 ({n})", "h3"),
                    about_vm(Code.PINNED, OTHER, "not of interest"),
                    about_host(Code.NO_DESTINATION, "h1", "no VM of it can go anywhere"),
                ),
            )
        )

    answer = explain_vm(Archive(ledger), UUID, live=[about_vm(Code.GAIN_TOO_SMALL, UUID, "gains 1 %", "h2")])
    text = "\n".join(lines(answer))

    assert answer.host == "h1"
    (storage, hold) = sorted(answer.own, key=lambda g: g.code != Code.STORAGE_UNREACHABLE)
    assert (storage.count, storage.cycles, storage.first_at, storage.last_at) == (3, 3, NOW, NOW + 120)
    assert storage.detail.endswith("(2)"), "the newest detail is shown"
    assert hold.code is Code.HOLD
    assert "was never moved" in text
    assert "storage_unreachable to h3: disk vda is not on h3 (2) (3× in 3 cycles" in text
    assert "no_destination h1: no VM of it can go anywhere" in text
    assert "paused: paused by me" in text
    assert "gain_too_small to h2: gains 1 %" in text
    assert "refused: hold, hot for 1 rounds, 3 needed" in text
    assert "not of interest" not in text
    assert "Last cycle 3" in text


def test_a_vm_that_only_the_caller_knows_can_be_asked_too(ledger: SqlLedger) -> None:
    """A calm cluster has nothing on record about a VM, but about the cluster it has."""
    ledger.record_cycle(make_cycle(decisions=(), refusals=(about_cluster(Code.BALANCED, "no host is hot"),)))

    answer = explain_vm(Archive(ledger), "quiet", uuid=OTHER, host="h1")

    assert answer.name == "quiet"
    assert any("balanced: no host is hot" in line for line in lines(answer))
    with pytest.raises(NotOnRecordError, match="'quiet'"):
        explain_vm(Archive(ledger), "quiet")


def test_a_name_of_two_vms_is_not_guessed(ledger: SqlLedger) -> None:
    ledger.open_intent(make_migration())
    ledger.open_intent(make_migration("m-2", vm_uuid=OTHER))

    with pytest.raises(AmbiguousNameError) as found:
        explain_vm(Archive(ledger), "web1")

    assert found.value.candidates == ((UUID, "web1"), (OTHER, "web1"))
    assert explain_vm(Archive(ledger), OTHER).moves[0].record.id == "m-2"


def test_a_renamed_vm_is_found_by_both_names(ledger: SqlLedger) -> None:
    ledger.open_intent(make_migration(vm_name="old"))
    ledger.update_migration(finished(make_migration(vm_name="old")))
    ledger.open_intent(make_migration("m-2", vm_name="new", intent_at=NOW + 50))

    assert explain_vm(Archive(ledger), "old").uuid == UUID
    assert explain_vm(Archive(ledger), "new").name == "new"


def test_a_host_is_told(moved: Archive) -> None:
    text = "\n".join(lines(explain_host(moved, "h1")))

    assert "hot, 3 VMs, CPU 95 % now and 110 % at its p95 peak, memory unknown and unknown" in text
    assert "web1 h1 → h2: succeeded" in text
    with pytest.raises(NotOnRecordError):
        explain_host(moved, "h77")


def test_a_cycle_is_told(moved: Archive) -> None:
    number = moved.ledger.record_cycle(make_cycle())
    text = "\n".join(lines(explain_cycle(moved, number)))

    assert "Outcome refused: hold 1/3" in text
    assert "Plan p-1" in text
    assert "Step 1: web1 h1 → h2 refused: hold" in text
    assert "paused: paused by me" in text
    assert "observe 100 ms" in text
    assert explain_cycle(moved).record.id == number
    for missing in (0, 99, -1):
        with pytest.raises(NotOnRecordError):
            explain_cycle(moved, missing)


def test_a_move_is_told_by_the_beginning_of_its_id(moved: Archive) -> None:
    moved.ledger.open_intent(make_migration("m-10", vm_uuid=OTHER, autostart=True))

    assert explain_move(moved, "m-1").record.id == "m-1", "an exact id wins"
    assert explain_move(moved, "m-10").record.vm_uuid == OTHER
    assert "Autostart was on; not set again yet." in "\n".join(lines(explain_move(moved, "m-10")))
    for unclear in ("m-", "", "%", "nothing"):
        with pytest.raises(NotOnRecordError):
            explain_move(moved, unclear)


def test_a_move_that_did_not_converge_is_told_against_its_prediction(ledger: SqlLedger) -> None:
    """With the model that predicted it, and what was unlike its training; hostile names in it are data."""
    told = replace(cost(), basis="cost-7\x1b[2J", inputs_missing=("like_training", "dirty", "moon\nphase"))
    record = make_migration(predicted=told, state=MigrationState.RUNNING, started_at=NOW + 1)
    ledger.open_intent(make_migration(predicted=told))
    ledger.update_migration(record)
    late = replace(record, reason="longer than the 20 s predicted at most")
    ledger.update_migration(late)
    order = AbortOrder(cause=AbortCause.STALL, elapsed_seconds=61.0)
    ledger.update_migration(replace(late, state=MigrationState.ABORTED, ended_at=NOW + 64, abort=order))

    text = "\n".join(lines(explain_move(Archive(ledger), "m-1")))

    assert (
        "Predicted by model cost-7\\x1b[2J; bounds are wide for want of anything like it among the migrations" in text
    )
    assert "learned from, how fast it dirties memory, moon\\nphase:" in text
    assert "probability that it does not converge 0 % (at most 10 %); it had not converged after 61 s." in text
    assert "aborted in 63 s (longer than the 20 s predicted at most)" in text
    assert "duration predicted 10 s (at most 20 s), actual 63 s, 6.30 of what was predicted, above its bound." in text
    course = next(line for line in text.splitlines() if "Course:" in line)
    assert [part.split()[0] for part in course.removeprefix("  Course: ").split(", ")] == [
        "intent",
        "running",
        "aborted",
    ]


def test_a_move_in_post_copy_or_without_prediction_says_so(ledger: SqlLedger) -> None:
    ledger.update_migration(finished(make_migration(postcopy=True)))
    ledger.update_migration(finished(make_migration("m-2", vm_uuid=OTHER, predicted=None)))

    assert any("it ended in post-copy." in line for line in lines(explain_move(Archive(ledger), "m-1")))
    assert "  Nothing was predicted of it." in lines(explain_move(Archive(ledger), "m-2"))


def test_a_move_whose_plan_is_gone_is_still_told(ledger: SqlLedger) -> None:
    ledger.open_intent(make_migration())

    assert any("plan p-1 is not on record any more" in line for line in lines(explain_move(Archive(ledger), "m-1")))


def test_nothing_that_is_printed_can_steer_a_terminal(ledger: SqlLedger) -> None:
    evil = "x\x1b]0;pwned\x07\n\u202e"
    ledger.record_plan(make_plan(why=evil))
    ledger.open_intent(make_migration(vm_name=evil, source=evil, reason=evil))
    decision = Decision(
        plan_id=evil, step=1, vm_uuid=UUID, vm_name=evil, source=evil, destination=evil, outcome=Outcome.REFUSED,
        refusal=about_vm(Code.PINNED, UUID, evil, evil),
    )  # fmt: skip
    ledger.record_cycle(make_cycle(reason=evil, decisions=(decision,), refusals=(about_host(Code.HOLD, evil, evil),)))
    archive = Archive(ledger)

    answers = (
        explain_vm(archive, evil),
        explain_host(archive, evil),
        explain_cycle(archive),
        explain_move(archive, "m-1"),
    )

    for answer in answers:
        for line in (title(answer), *lines(answer)):
            assert line.isprintable(), line


def test_the_scorecard_compares_predictions_with_what_happened(ledger: SqlLedger) -> None:
    for n, seconds in enumerate((10.0, 20.0, 40.0)):
        record = make_migration(f"m-{n}", vm_uuid=str(n))
        ledger.open_intent(record)
        ledger.update_migration(replace(finished(record), ended_at=NOW + 1 + seconds))
    failed = make_migration("m-f", vm_uuid="f")
    ledger.open_intent(failed)
    ledger.update_migration(finished(failed, MigrationState.FAILED))

    card = scorecard(Archive(ledger))
    by_figure = {score.figure: score for score in card.scores}

    assert card.verdicts == (("failed", 1), ("succeeded", 3))
    assert by_figure["seconds"].rows == 3, "a failed migration says nothing of durations"
    assert by_figure["seconds"].ratio_median == 2.0
    assert (by_figure["seconds"].ratio_p10, by_figure["seconds"].ratio_p90) == (1.0, 4.0)
    assert by_figure["seconds"].within_bound == pytest.approx(2 / 3)
    assert by_figure["bytes"].within_bound is None, "an infinite bound is none"
    assert any("2.00 in the median, 1.00 to 4.00" in line for line in score_lines(card))
    assert scorecard(Archive(ledger), since=NOW + 1e6).scores == ()


def test_decisions_alike_are_told_once_with_their_count(ledger: SqlLedger) -> None:
    """Forty cycles of waiting are one line, and its reason is not told again as a refusal."""
    ledger.record_plan(make_plan())
    for n in range(40):
        ledger.record_cycle(make_cycle(started_at=NOW + 60 * n, refusals=()))

    answer = explain_vm(Archive(ledger), "web1")
    text = "\n".join(lines(answer))

    assert [(group.cycles, group.first_at) for group in answer.decisions] == [(40, NOW)]
    assert text.count("hot for 1 rounds, 3 needed") == 1
    assert "(in 40 cycles since 2027-01-15 08:00:00 UTC, last cycle 40, 2027-01-15 08:39:00 UTC)" in text
    assert "Why: h1 is at 95 % CPU" in text
    assert "Gain 120 core-seconds, repaid after 30 s." in text
    assert (
        "Predicted by physics; bounds are wide for want of how fast it dirties memory: 10 s (at most 20 s), "
        "downtime 100 ms (at most 200 ms), 954 MiB (at most unbounded) sent, the guest slowed down by 10 % (at most 30 %)"
        "; probability that it does not converge 0 % (at most 10 %)." in text
    )


def test_a_vm_that_only_refusals_know_is_found_by_its_uuid(ledger: SqlLedger) -> None:
    ledger.record_cycle(make_cycle(decisions=(), refusals=(about_vm(Code.PINNED, OTHER, "db1: pinned to h1", "h2"),)))

    assert explain_vm(Archive(ledger), OTHER.upper()).uuid == OTHER
    assert any("pinned to h2: db1: pinned to h1" in line for line in lines(explain_vm(Archive(ledger), OTHER)))


def test_a_move_that_was_passed_over_is_told_from_the_last_plan(ledger: SqlLedger) -> None:
    ledger.record_plan(make_plan())
    ledger.record_cycle(make_cycle())

    answer = explain_vm(Archive(ledger), "db1", uuid=OTHER)

    assert "Moving it to h3 was weighed, but moving web1 to h2 was preferred: gains less" in lines(answer)
    assert lines(answer, ["It runs\non h1."])[0] == "It runs\\non h1."


def test_only_the_newest_move_is_told_in_full(moved: Archive) -> None:
    moved.ledger.open_intent(make_migration("m-2", intent_at=NOW + 900))

    text = lines(explain_vm(moved, "web1"))

    assert sum("duration predicted" in line for line in text) == 1
    assert sum(line.startswith("  Why: ") for line in text) == 2
