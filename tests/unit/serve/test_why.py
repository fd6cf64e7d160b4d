"""Explanations over a real ledger: what was done and what was not, over cycles, with and without a present view."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rebalancerd.cluster.cost import Candidate, MigrationCost
from rebalancerd.cluster.decision import CycleRecord, Decision, Outcome
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.migration import MigrationState
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode, VmPolicy
from rebalancerd.cluster.quiet import NoQuietHour, QuietHour, QuietSpell
from rebalancerd.cluster.refusal import Code, about_cluster, about_host, about_vm
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import MIB
from rebalancerd.plan.balance import balance
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.why_not import why_not
from rebalancerd.record.sql_ledger import SqlLedger
from rebalancerd.serve.control import Control
from rebalancerd.serve.problem import ProblemError
from rebalancerd.serve.why import explain
from tests.unit.plan.plan_cluster import FixedCosts, cost_of, host, inputs_of, vm
from tests.unit.serve import serve_world as build

Opened = Callable[..., Control]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Starts the daemon's pieces anew on one ledger file, as a restart does; ``inputs`` make a view."""
    ledgers: list[SqlLedger] = []

    def start(inputs: PlanInputs | None = None, plan: Plan | None = None) -> Control:
        world = build.World()
        ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}", world.clock)
        ledgers.append(ledger)
        world.control.ledger = ledger
        world.loop.view = None  # type: ignore[assignment]
        if inputs is not None:
            last = next(iter(ledger.cycles(limit=1)), build.make_cycle(id=0))
            world.loop.view = SimpleNamespace(
                snapshot=inputs.snapshot, record=last, pressures=last.hosts, hotspots=inputs.hotspots, inputs=inputs,
                plan=plan,
            )  # fmt: skip
        return world.control

    yield start
    for ledger in ledgers:
        ledger.close()


def hot_cluster(**policy: object) -> PlanInputs:
    """h1 is hot with a0, a1, a2; h2 is free, h3 full. ``policy`` is that of a0."""
    guests = [vm(f"a{i}", "h1", 5.0, policy=VmPolicy(**policy) if i == 0 else None) for i in range(3)]  # type: ignore[arg-type]
    return inputs_of([host("h1"), host("h2"), host("h3")], [*guests, vm("big", "h3", 12.0)])


def cycle_of(inputs: PlanInputs, number: int, outcome: Outcome, **decided: object) -> tuple[Plan, CycleRecord]:
    """What a cycle records of the plan for those inputs."""
    plan = replace(balance(inputs), id=f"p-{number}")
    decisions = tuple(
        Decision(
            plan_id=plan.id,
            step=step.number,
            vm_uuid=step.move.vm_uuid,
            vm_name=step.move.vm_name,
            source=step.move.source,
            destination=step.move.destination,
            outcome=outcome,
            **decided,  # type: ignore[arg-type]
        )
        for step in plan.steps
    )
    record = CycleRecord(
        id=0, started_at=build.NOW + 60 * number, seconds=0.1, mode=Mode.RECOMMEND, policy="balance", outcome=outcome,
        reason="as decided", plan_id=plan.id, decisions=decisions, refusals=plan.refusals,
        hosts=build.make_cycle().hosts, hot_hosts=("h1",),
    )  # fmt: skip
    return plan, record


def recorded(control: Control, *cycles: tuple[Plan, CycleRecord]) -> None:
    for plan, record in cycles:
        control.ledger.record_plan(plan)
        control.ledger.record_cycle(record)


def told(control: Control, kind: str, subject: str) -> list[str]:
    """The lines, each of which must be told once."""
    lines = list(explain(control, kind, subject).lines)
    assert max(Counter(lines).values()) == 1, lines
    return lines


def test_a_vm_that_stays_is_told_why_with_counts_and_nothing_twice(opened: Opened) -> None:
    """The planner's present answer carries how often the cycles before said the same."""
    inputs = hot_cluster(pin=frozenset({"h1"}))
    refusals = why_not(inputs, "u-a0")
    assert refusals, "it must stay for the test to mean anything"
    for number in range(3):
        plan, record = cycle_of(inputs, number, Outcome.PROPOSED)
        recorded(opened(), (plan, replace(record, refusals=refusals)))

    lines = told(opened(inputs), "vm", "a0")
    text = "\n".join(lines)

    assert lines[0].startswith("It is running on h1, uses 5.00 cores")
    assert "a0 was never moved by rebalancerd." in lines
    for refusal in refusals:
        (line,) = [line for line in lines if refusal.detail in line]
        assert line.startswith(f"  {refusal.code.value} to h2, h3: "), "destinations alike share a line"
        assert "(3× in 3 cycles, last 2023-11-14 22:15:20 UTC)" in line
    assert "asked of the planner now" in text
    assert "Refusals about it" not in text


def test_a_proposed_move_is_told_with_why_gain_cost_and_what_else_was_weighed(opened: Opened) -> None:
    """In recommend mode nothing is ever moved, so the proposal is the answer."""
    inputs = hot_cluster()
    missing = about_cluster(Code.CLUSTER_MODE, "mode recommend builds no way to move a VM")
    cycles = [cycle_of(inputs, n, Outcome.PROPOSED, refusal=missing) for n in range(4)]
    recorded(opened(), *cycles)
    move = cycles[-1][0].steps[0].move

    for control in (opened(inputs, cycles[-1][0]), opened()):  # the same after a restart
        lines = told(control, "vm", move.vm_name)
        text = "\n".join(lines)

        assert f"{move.vm_name} h1 → h2 proposed: cluster_mode, mode recommend builds no way to move a VM" in text
        assert "(in 4 cycles since 2023-11-14 22:13:20 UTC, last cycle 4, 2023-11-14 22:16:20 UTC)" in text
        assert f"Why: {move.why}" in text
        assert f"Gain {move.gain:.4g} core-seconds, repaid after" in text
        assert "Predicted by physics: 10 s (at most 10 s), downtime 50 ms" in text
        assert text.count("mode recommend builds no way") == 1

    other = next(a for a in move.alternatives if a.vm_uuid != move.vm_uuid)
    passed_over = told(opened(inputs, cycles[-1][0]), "vm", other.vm_name)
    instead = f"but moving {move.vm_name} to {move.destination} was preferred: {other.reason}"
    assert any(line.startswith(f"Moving it to {other.destination} was weighed, {instead}") for line in passed_over)


def test_a_move_of_the_past_is_told_in_full_after_a_restart(opened: Opened) -> None:
    """When, from, to, why, predicted against actual, gain and payback, alternatives, outcome."""
    plan, record = build.make_plan(), build.make_migration()
    first = opened()
    first.ledger.record_plan(plan)
    first.ledger.open_intent(
        replace(record, state=MigrationState.INTENT, started_at=None, ended_at=None, completion=None)
    )
    first.ledger.update_migration(record)
    started = replace(build.make_cycle().decisions[0], outcome=Outcome.STARTED, refusal=None, migration_id="m-1")
    first.ledger.record_cycle(build.make_cycle(decisions=(started,), refusals=(), started_at=build.NOW - 101))

    for kind, subject in (("vm", "web1"), ("vm", build.WEB), ("move", "m-1")):
        lines = told(opened(), kind, subject)
        for part in (
            "web1 h1 → h2: succeeded in 9 s.",
            "2023-11-14 22:11:41 UTC: ",
            "  Why: h1 is hot and web1 adds most to it",
            "  Gain 12 core-seconds, repaid after 60 s.",
            "  Not chosen: db1 to h2 (score 3): costs more",
            "    duration predicted 10 s (at most 25 s), actual 9 s, 0.90 of what was predicted.",
            "    downtime predicted 100 ms (at most 300 ms), actual 200 ms, 2.00 of what was predicted.",
            "    bytes predicted 191 MiB (at most unbounded), actual 172 MiB, 0.90 of what was predicted.",
        ):
            assert any(part in line for line in lines), (part, lines)
        assert not any("started" in line and "h1 → h2 started" in line for line in lines), "told by the move itself"
    assert "Last known on h2." in told(opened(), "vm", "web1")


def test_a_vm_and_a_host_that_the_last_cycle_did_not_see_are_told_from_the_ledger(opened: Opened) -> None:
    inputs = hot_cluster()
    refused = (
        about_vm(Code.IMMOVABLE, "u-gone", "gone: hostdev"),
        about_host(Code.HOST_STALE, "h9", "figures are old"),
    )
    plan, record = cycle_of(inputs, 1, Outcome.NO_ACTION)
    recorded(opened(), (plan, replace(record, refusals=refused)))
    control = opened(inputs)

    gone, h9 = told(control, "vm", "u-gone"), told(control, "host", "h9")

    assert gone[0] == "It is on no host that the last cycle saw."
    assert any("immovable: gone: hostdev" in line for line in gone)
    assert h9[0] == "The last cycle did not see it."
    assert any("host_stale h9: figures are old" in line for line in h9)
    assert told(opened(), "host", "h1")[0] == "No cycle has looked at it yet."
    assert told(opened(), "host", "h1")[1].startswith("Cycle 1: hot, 2 VMs, CPU 95 % now")
    assert told(opened(), "cycle", "last")[0] == told(opened(), "cycle", "1")[0]


def test_a_host_is_told_as_it_is_and_why_nothing_leaves_it(opened: Opened) -> None:
    inputs = hot_cluster()
    recorded(opened(), cycle_of(inputs, 1, Outcome.REFUSED, refusal=about_host(Code.HOLD, "h1", "hot for 1 of 3")))
    control = opened(inputs)

    hot, calm = told(control, "host", "h1"), told(control, "host", "h2")

    assert hot[0].startswith("Host h1 is hot (cpu above 80 % ")
    assert sum(line.startswith("VM a") for line in hot) == 3
    assert sum("hot for 1 of 3" in line for line in hot) == 1
    assert any(line.strip().startswith("Why: h1 is at") for line in hot)
    assert any("balanced h2: nothing calls for relief" in line for line in calm)


def test_what_nobody_knows_is_a_problem_with_a_way_out(opened: Opened) -> None:
    control = opened(hot_cluster())
    for kind, subject, code in (
        ("vm", "a9", "UNKNOWN_VM"),
        ("host", "h9", "UNKNOWN_HOST"),
        ("cycle", "1", "UNKNOWN_CYCLE"),
        ("cycle", "-1", "UNKNOWN_CYCLE"),
        ("move", "", "UNKNOWN_MOVE"),
    ):
        with pytest.raises(ProblemError) as found:
            explain(control, kind, subject)
        assert (found.value.code, found.value.status) == (code, 404)
        assert found.value.hint

    assert told(control, "host", "h2")[-1] == "Nothing is on record about it yet."


def test_a_name_that_two_vms_of_the_past_had_needs_the_uuid(opened: Opened) -> None:
    control = opened()
    for number, uuid in enumerate((build.WEB, build.DB)):
        control.ledger.open_intent(build.make_migration(id=f"m-{number}", vm_uuid=uuid))

    with pytest.raises(ProblemError) as found:
        explain(control, "vm", "web1")

    assert found.value.code == "AMBIGUOUS_VM"
    assert build.WEB in found.value.hint
    assert build.DB in found.value.hint


def test_a_ledger_that_is_away_is_said() -> None:
    world = build.World()
    world.ledger.away = True
    for kind in ("vm", "host", "cycle", "move"):
        with pytest.raises(ProblemError) as found:
            explain(world.control, kind, "h1")
        assert (found.value.code, found.value.status) == ("LEDGER_UNAVAILABLE", 503)


def dirtying(mib: float) -> DirtyCurve:
    """So many MiB within a second, and twice that within four."""
    points = tuple(
        DirtyPoint(period_seconds=p, unique_bytes=u * MIB, standard_error_bytes=0.03 * u * MIB, readings=5)
        for p, u in ((1.0, mib), (4.0, 2 * mib))
    )
    return DirtyCurve(points=points, age_seconds=60.0)


def test_a_vm_deferred_to_its_quiet_hour_is_told_the_hour_and_what_stands_against_now(opened: Opened) -> None:
    """What it dirties now, when it is quiet, what its policy allows, and the refusal with all of it."""
    inputs = hot_cluster(max_downtime_seconds=0.2)
    vms = tuple(replace(v, dirty=dirtying(600) if v.name == "a0" else None) for v in inputs.snapshot.vms)
    hour = QuietHour(vm_uuid="u-a0", hour_utc=3, rate_bytes_per_second=3 * MIB, seen_days=12)
    inputs = replace(
        inputs,
        snapshot=replace(inputs.snapshot, vms=vms),
        costs=FixedCosts({"u-a0": cost_of(risk=1.0)}),
        quiet={"u-a0": hour, "u-a1": NoQuietHour(vm_uuid="u-a1", reason="no dirty rate of it is on record")},
    )

    lines = told(opened(inputs), "vm", "a0")

    assert (
        "It dirties 600 MiB/s of its memory now; it is quietest with 3 MiB/s around 03:00 UTC (p75 of 12 days)."
    ) in lines
    assert "Its policy: downtime at most 200 ms." in lines
    (line,) = [line for line in lines if "will_not_converge to h2: a0: may not converge" in line]
    assert line.endswith("deferred: its dirty rate is 3 MiB/s around 03:00 UTC (p75 of 12 days), 600 MiB/s now")
    assert not any("It dirties" in line for line in told(opened(inputs), "vm", "a1")), "nobody measured that one"


def test_a_vm_that_is_soon_quiet_is_told_what_is_expected_of_it(opened: Opened) -> None:
    inputs = hot_cluster()
    vms = tuple(replace(v, dirty=dirtying(600)) for v in inputs.snapshot.vms)
    spell = QuietSpell(vm_uuid="u-a0", starts_in_seconds=1200.0, rate_bytes_per_second=3 * MIB, basis="ewma")
    inputs = replace(inputs, snapshot=replace(inputs.snapshot, vms=vms), quiet={"u-a0": spell})

    assert "It dirties 600 MiB/s of its memory now; expected are 3 MiB/s in 20 min (p75, ewma)." in told(
        opened(inputs), "vm", "a0"
    )


def test_a_proposal_with_other_than_the_usual_options_tells_them_and_why(opened: Opened) -> None:
    class Throttled(FixedCosts):
        def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> tuple[MigrationCost, ...]:
            return tuple(cost_of(risk=0.0 if c.options.auto_converge else 1.0) for c in candidates)

    inputs = replace(hot_cluster(auto_converge=True), costs=Throttled())
    recorded(opened(), cycle_of(inputs, 1, Outcome.PROPOSED))

    lines = told(opened(inputs), "vm", "a0")

    assert "Its policy: auto-converge allowed." in lines
    assert any(line.endswith("; a0 is allowed auto-converge, for with 300 ms of downtime it may not converge "
                             "(probability up to 100 %)") for line in lines)  # fmt: skip
    assert "    Options: at most 300 ms of downtime allowed, auto-converge." in lines
