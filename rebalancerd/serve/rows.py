"""Rows of the API's answers out of the frozen types. Infinite and NaN figures become null: JSON has no word for them."""

import math
from typing import Any

from rebalancerd.cluster.cost import MigrationCost
from rebalancerd.cluster.decision import Command, CycleRecord, HostPressure
from rebalancerd.cluster.migration import MigrationRecord, Progress
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.predict.demand.keeper import DemandModelState
from rebalancerd.predict.keeper import ModelState
from rebalancerd.serve.schemas import (
    CycleRow,
    DemandRow,
    HostRow,
    MigrationRow,
    ModelRow,
    Pause,
    PlanBrief,
    SkillRow,
)


def finite(value: float | None) -> float | None:
    """The value, None where it is unknown, infinite or NaN."""
    return value if value is not None and math.isfinite(value) else None


def cycle_row(record: CycleRecord) -> CycleRow:
    """One cycle in a line."""
    return CycleRow(
        id=record.id,
        at=record.started_at,
        seconds=record.seconds,
        mode=record.mode.value,
        policy=record.policy,
        outcome=record.outcome.value,
        reason=record.reason,
        plan_id=record.plan_id,
        hot_hosts=record.hot_hosts,
        moving=record.moving,
    )


def host_rows(
    names: tuple[str, ...], snapshot: Snapshot | None, pressures: tuple[HostPressure, ...], hot: tuple[str, ...]
) -> tuple[HostRow, ...]:
    """One row per configured host, with "not seen yet" where no cycle has looked at it."""
    by_name = {p.host: p for p in pressures}
    known = snapshot.host_by_name if snapshot is not None else {}
    counts = {name: len(vms) for name, vms in snapshot.vms_on.items()} if snapshot is not None else {}
    rows = []
    for name in sorted({*names, *known}):
        host, pressure = known.get(name), by_name.get(name)
        unusable = host.unusable if host is not None else "not seen yet"
        rows.append(
            HostRow(
                name=name,
                mode=host.mode.value if host is not None else "unknown",
                vms=counts.get(name, 0),
                cpu_now=finite(pressure.cpu_now) if pressure else None,
                cpu_p95=finite(pressure.cpu_p95) if pressure else None,
                memory_now=finite(pressure.memory_now) if pressure else None,
                memory_p95=finite(pressure.memory_p95) if pressure else None,
                age_seconds=finite(host.age_seconds) if host is not None else None,
                hot=name in hot,
                unusable=unusable,
            )
        )
    return tuple(rows)


def migration_row(record: MigrationRecord, *, now: float, progress: Progress | None = None) -> MigrationRow:
    """One migration; ``progress`` where it runs and its source tells."""
    predicted, done = _predicted(record.predicted), record.completion
    seconds, bound = predicted.get("predicted_seconds"), predicted.get("predicted_seconds_upper")
    running = record.state.is_open and record.started_at is not None
    began = record.started_at
    elapsed = now - began if running and began is not None else record.seconds
    return MigrationRow(
        id=record.id,
        vm_uuid=record.vm_uuid,
        vm_name=record.vm_name,
        source=record.source,
        destination=record.destination,
        state=record.state.value,
        intent_at=record.intent_at,
        ours=record.ours,
        adopted=record.adopted,
        plan_id=record.plan_id,
        step=record.step,
        started_at=began,
        ended_at=record.ended_at,
        reason=record.reason,
        elapsed_seconds=finite(elapsed),
        **predicted,
        late=elapsed is not None and bound is not None and elapsed > bound,
        abort=record.abort.cause.value if record.abort is not None else None,
        predicted_end_at=began + seconds if began is not None and seconds is not None else None,
        estimated_end_at=_estimated_end(progress, now) if running else None,
        total_bytes=progress.total_bytes if progress else None,
        processed_bytes=progress.processed_bytes if progress else None,
        remaining_bytes=progress.remaining_bytes if progress else None,
        rate_bytes_per_second=finite(progress.rate_bytes_per_second) if progress else None,
        dirty_bytes_per_second=finite(progress.dirty_bytes_per_second) if progress else None,
        iteration=progress.iteration if progress else (done.iterations if done else None),
        throttle=finite(progress.throttle) if progress else (finite(done.throttle) if done else None),
        postcopy=progress.postcopy if progress else False,
        actual_seconds=finite(record.seconds),
        actual_downtime_seconds=finite(done.downtime_seconds) if done else None,
        actual_bytes=done.transferred_bytes if done else None,
    )


def _predicted(cost: MigrationCost | None) -> dict[str, Any]:
    """Columns of a prediction; none where nothing was predicted."""
    if cost is None:
        return {}
    row: dict[str, Any] = {"predicted_by": cost.basis, "inputs_missing": cost.inputs_missing}
    for name in ("seconds", "downtime_seconds", "bytes", "slowdown", "non_convergence"):
        estimate = getattr(cost, name)
        row |= {f"predicted_{name}": finite(estimate.value), f"predicted_{name}_upper": finite(estimate.upper)}
    return row


def _estimated_end(progress: Progress | None, now: float) -> float | None:
    """When what remains will have been sent at the present rates, less what the guest dirties meanwhile."""
    if progress is None or progress.remaining_bytes is None or not progress.rate_bytes_per_second:
        return None
    net = progress.rate_bytes_per_second - (progress.dirty_bytes_per_second or 0.0)
    return now + progress.remaining_bytes / net if net > 0 else None


def plan_brief(plan: Plan, *, awaits_approval: bool) -> PlanBrief:
    """The plan in a line."""
    return PlanBrief(
        id=plan.id,
        digest=plan.digest,
        policy=plan.policy,
        why=plan.why,
        steps=len(plan.steps),
        created_at=plan.created_at,
        expires_at=plan.expires_at,
        awaits_approval=awaits_approval and not plan.is_empty,
        benefit=finite(plan.benefit),
        cost=finite(plan.after.cost),
        payback_seconds=finite(plan.payback_seconds),
        level=plan.level,
    )


def model_row(state: ModelState) -> ModelRow:
    """The cost model in use."""
    return ModelRow(
        basis=state.basis,
        wanted=state.wanted,
        trusted=state.trusted,
        reason=state.reason,
        since=state.since,
        id=state.id,
        source=state.source,
        trained_at=finite(state.trained_at),
        rows=state.drift.bounded,
        error=finite(state.drift.model_error),
        physics_error=finite(state.drift.physics_error),
        coverage=finite(state.drift.coverage),
        problems=state.problems,
    )


def demand_row(state: DemandModelState) -> DemandRow:
    """The demand model in use."""
    skill = state.skill
    return DemandRow(
        basis=state.basis,
        wanted=state.wanted,
        trusted=state.trusted,
        reason=state.reason,
        since=state.since,
        id=state.id,
        source=state.source,
        trained_at=finite(state.trained_at),
        judged=skill.judged,
        skill=finite(skill.overall),
        best=skill.best,
        scored=skill.count,
        horizons=_skill_rows(state),
        width_low=state.low,
        width_high=state.high,
        problems=state.problems,
    )


def _skill_rows(state: DemandModelState) -> tuple[SkillRow, ...]:
    """One row per horizon that something was scored at."""
    skill, step = state.skill, state.step_seconds
    if step is None:
        return ()
    found = zip(skill.steps, skill.by_step, skill.coverage, skill.pinball, strict=False)
    return tuple(
        SkillRow(
            ahead_seconds=step * ahead,
            skill={way: value for way, value in by_way.items() if math.isfinite(value)},
            coverage=finite(coverage),
            pinball=finite(pinball),
        )
        for ahead, by_way, coverage, pinball in found
        if any(map(math.isfinite, by_way.values()))
    )


def pause_of(command: Command) -> Pause:
    """A pause as its command says it."""
    return Pause(reason=command.reason, by=command.by, at=command.at, until=command.until)
