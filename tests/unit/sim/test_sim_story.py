"""The log of a run: stable, on one line per event, nothing repeated."""

from dataclasses import replace

import pytest

from rebalancerd.cluster.decision import CycleRecord, Decision, Outcome
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Code, about_cluster, about_vm
from rebalancerd.sim.story import Story, printable, stamp


def cycle(**more: object) -> CycleRecord:
    fields = {
        "id": 1,
        "started_at": 0.0,
        "seconds": 0.1,
        "mode": Mode.AUTO,
        "policy": "balance",
        "outcome": Outcome.NO_ACTION,
        "reason": "no action: balanced: every host is below its headroom",
    } | more
    return CycleRecord(**fields)  # type: ignore[arg-type]


def story() -> tuple[Story, list[float]]:
    now = [0.0]
    return Story(lambda: now[0], lambda uuid: f"name-of-{uuid}"), now


@pytest.mark.parametrize(("second", "text"), [(0, "00:00:00"), (3725.4, "01:02:05"), (90_061, "1d 01:01:01")])
def test_stamps(second: float, text: str) -> None:
    """The day is shown from the second one on."""
    assert stamp(second) == text


def test_hostile_names_stay_on_their_line() -> None:
    """Newlines and escape codes become text."""
    assert printable("a\n00:00:00 cycle\x1b[31m") == "a\\n00:00:00 cycle\\x1b[31m"


def test_the_same_cycle_is_told_once_and_a_change_is_told() -> None:
    """Repeated "no action" is collapsed; another refusal is news."""
    told, now = story()
    for second in (60.0, 120.0, 180.0):
        now[0] = second
        told.cycle(cycle())
    told.cycle(cycle(refusals=(about_vm(Code.COOLDOWN, "u1", "moved 3 min ago"),)))

    assert told.lines == [
        "00:01:00 cycle     no_action: balanced: every host is below its headroom",
        "00:03:00 cycle     no_action: balanced: every host is below its headroom",
        "00:03:00 refused   cooldown: name-of-u1",
    ]


def test_figures_in_a_reason_do_not_make_news() -> None:
    """Only figures differ: told once, with those of the first time."""
    told, _ = story()
    told.cycle(cycle(reason="no action: best gain 3.2 % is below 5 %"))
    told.cycle(cycle(reason="no action: best gain 3.4 % is below 5 %"))

    assert told.lines == ["00:00:00 cycle     no_action: best gain 3.2 % is below 5 %"]


def test_decisions_name_their_refusal() -> None:
    """VM, from, to, and the code."""
    told, _ = story()
    decision = Decision(
        plan_id="p",
        step=1,
        vm_uuid="u",
        vm_name="web",
        source="a",
        destination="b",
        outcome=Outcome.REFUSED,
        refusal=about_cluster(Code.PAUSED, "by operator"),
    )
    told.cycle(cycle(outcome=Outcome.REFUSED, reason="no action: paused: by operator", decisions=(decision,)))

    assert told.lines[1] == "00:00:00 decision  web a → b refused (paused)"


def test_many_subjects_of_one_refusal_are_counted() -> None:
    """Four names and how many more."""
    told, _ = story()
    told.cycle(cycle(refusals=tuple(about_vm(Code.PINNED, f"u{i}", "") for i in range(7))))

    assert told.lines[1] == "00:00:00 refused   pinned: name-of-u0, name-of-u1, name-of-u2, name-of-u3 and 3 more"


def test_a_migration_is_told_once_per_state_with_its_verdict() -> None:
    """Duration and autostart at the end."""
    told, _ = story()
    record = MigrationRecord(
        id="m",
        vm_uuid="u",
        vm_name="web",
        source="a",
        destination="b",
        state=MigrationState.INTENT,
        intent_at=0.0,
        autostart=True,
    )
    told.migration(record)
    told.migration(record)
    ended = replace(
        record, state=MigrationState.SUCCEEDED, started_at=0.0, ended_at=31.4, autostart_restored=True, reason="x"
    )
    told.migration(ended)

    assert told.lines == [
        "00:00:00 migration web a → b: intent",
        "00:00:00 migration web a → b: succeeded (31 s; autostart restored)",
    ]
