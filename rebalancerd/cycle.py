"""What one cycle of the loop comes to: its notes while it runs, its one record, and what of it others may look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rebalancerd.cluster.decision import CycleRecord, Decision, HostPressure, OperatorState, Outcome
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.cluster.scenarios import Hotspot, Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.guard.context import GuardContext
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.ports import Clock
from rebalancerd.predict.hotspot import measured_pressures, pressures

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopView:
    """What the last cycle saw, predicted and decided. Scenarios, plan and inputs are None where data stopped it."""

    snapshot: Snapshot
    record: CycleRecord
    operator: OperatorState
    guard_notes: tuple[str, ...]
    pressures: tuple[HostPressure, ...] = ()
    hotspots: tuple[Hotspot, ...] = ()
    scenarios: Scenarios | None = None
    inputs: PlanInputs | None = None
    plan: Plan | None = None
    context: GuardContext | None = None


class CycleNotes:
    """When a cycle began, how long its steps took, and its decisions as they are made, so that no failure hides a start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started, self._begun = clock.wall(), clock.monotonic()
        self.decisions: list[Decision] = []
        self._timings: list[tuple[str, float]] = []

    def timed(self, name: str, work: Callable[[], T]) -> T:
        """Do one step of the cycle and note how long it took."""
        begun = self._clock.monotonic()
        result = work()
        self._timings.append((name, self._clock.monotonic() - begun))
        return result

    def completed(
        self, inputs: PlanInputs, plan: Plan, *, mode: Mode, stop: Refusal | None, moving: int
    ) -> CycleRecord:
        """The record of a cycle that came to a plan. ``stop``: what forbids following it."""
        outcome, reason = _summary(plan, self.decisions, stop)
        return CycleRecord(
            id=0,
            started_at=self.started,
            seconds=self._clock.monotonic() - self._begun,
            mode=mode,
            policy=plan.policy,
            outcome=outcome,
            reason=reason,
            snapshot_digest=inputs.snapshot.digest,
            plan_id=plan.id,
            hosts=pressures(inputs.snapshot, inputs.scenarios),
            hot_hosts=tuple(sorted({spot.host for spot in inputs.hotspots})),
            moving=moving,
            decisions=tuple(self.decisions),
            refusals=plan.refusals if stop is None else (stop, *plan.refusals),
            step_seconds=tuple(self._timings),
        )

    def cut_short(
        self, outcome: Outcome, refusal: Refusal, *, mode: Mode, snapshot: Snapshot | None = None, moving: int = 0
    ) -> CycleRecord:
        """The record of a cycle that ended before it had a plan, or over a failure."""
        started_moves = _named(self.decisions, Outcome.STARTED)
        if started_moves and outcome is Outcome.NO_ACTION:
            outcome = Outcome.STARTED
        return CycleRecord(
            id=0,
            started_at=self.started,
            seconds=self._clock.monotonic() - self._begun,
            mode=mode,
            policy="none",
            outcome=outcome,
            reason=f"started {started_moves}; then {refusal}" if started_moves else str(refusal),
            snapshot_digest=snapshot.digest if snapshot else None,
            hosts=measured_pressures(snapshot) if snapshot else (),
            moving=moving,
            decisions=tuple(self.decisions),
            refusals=(refusal,),
            step_seconds=tuple(self._timings),
        )


def _named(decisions: Sequence[Decision], outcome: Outcome) -> str:
    return ", ".join(f"{d.vm_name} {d.source}→{d.destination}" for d in decisions if d.outcome is outcome)


def _summary(plan: Plan, decisions: Sequence[Decision], stop: Refusal | None) -> tuple[Outcome, str]:
    """Outcome and one sentence of a cycle."""
    for outcome in (Outcome.STARTED, Outcome.PROPOSED):
        chosen = [d for d in decisions if d.outcome is outcome]
        if chosen:
            moves = _named(chosen, outcome)
            why = f" ({chosen[0].refusal})" if chosen[0].refusal else ""
            return outcome, f"{moves}{why}"
    if decisions:
        refusal = decisions[0].refusal
        return Outcome.REFUSED, f"no action: {refusal}"
    return Outcome.NO_ACTION, f"no action: {stop if stop is not None else plan.why}"
