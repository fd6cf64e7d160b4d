"""From the planner to a labelled row: whole runs of the daemon on simulated hosts, and what their ledger tells to learn from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rebalancerd.record.labelled import LabelledLedger, Omission, labelled_migrations
from rebalancerd.record.reader import LedgerReader
from rebalancerd.sim.scenario import load
from rebalancerd.sim.world import World

After = Callable[[str], LabelledLedger]
SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.fixture
def ledger_after(tmp_path: Path) -> After:
    def run(scenario: str) -> LabelledLedger:
        with World(load(SCENARIOS / scenario), state_dir=tmp_path) as world:
            world.run()
            with LedgerReader(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
                return labelled_migrations(ledger)

    return run


def test_a_migration_that_succeeded_is_a_row_that_its_prediction_can_be_held_against(ledger_after: After) -> None:
    found = ledger_after("hot-host-relieved")

    (scored,) = found.rows
    row, predicted = scored.row, scored.predicted
    assert found.left_out == ()
    assert row.succeeded
    assert row.facts.dirty is not None
    assert row.facts.resident_bytes is not None
    assert row.facts.link_bytes_per_second is not None
    assert predicted is not None
    assert predicted.basis == "physics"
    assert row.seconds == pytest.approx(predicted.seconds.value, rel=0.2)
    assert row.bytes is not None
    assert row.bytes <= predicted.bytes.upper
    assert row.downtime_seconds is not None
    assert row.seconds < row.deadline_seconds


def test_one_that_did_not_converge_is_a_censored_row(ledger_after: After) -> None:
    (scored,) = ledger_after("non-converging-aborted").rows

    assert not scored.row.succeeded
    assert scored.row.seconds == scored.row.deadline_seconds
    assert scored.predicted is not None
    assert scored.row.deadline_seconds > scored.predicted.seconds.upper, "it was late before it was aborted"


def test_a_link_that_was_cut_says_nothing_of_the_guest(ledger_after: After) -> None:
    found = ledger_after("link-cut-mid-migration")

    assert [scored.row.succeeded for scored in found.rows if not scored.row.succeeded] == []
    assert found.left_out
    assert {item.why for item in found.left_out} <= {Omission.OTHER_ABORT, Omission.OTHER_VERDICT}


def test_one_that_ended_without_the_daemon_has_libvirts_duration(ledger_after: After) -> None:
    (scored,) = ledger_after("daemon-killed-migration-ends-without-it").rows

    assert scored.predicted is not None
    assert scored.row.seconds == pytest.approx(scored.predicted.seconds.value, rel=0.2)
