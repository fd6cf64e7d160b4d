"""Frozen values as rows of the ledger's tables, and back."""

import math
from dataclasses import replace
from typing import Any

from sqlalchemy.engine import RowMapping

from rebalancerd.cluster.cost import Estimate
from rebalancerd.cluster.decision import Command, CommandKind, CycleRecord, Decision, Outcome
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.codec import CYCLES, MIGRATIONS, CodecError


def stored(text: str) -> str:
    """Text as a column can hold it on any database: NUL and lone surrogates become replacement characters."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\0", "\ufffd")


def refusal_row(refusal: Refusal | None, prefix: str = "") -> dict[str, Any]:
    """Columns of a refusal; all None where there is none."""
    if refusal is None:
        return {prefix + name: None for name in ("code", "kind", "subject", "detail", "destination", "count")}
    return {
        f"{prefix}code": refusal.code.value,
        f"{prefix}kind": refusal.kind.value,
        f"{prefix}subject": stored(refusal.subject),
        f"{prefix}detail": stored(refusal.detail),
        f"{prefix}destination": None if refusal.destination is None else stored(refusal.destination),
        f"{prefix}count": refusal.count,
    }


def refusal_of(row: RowMapping, prefix: str = "") -> Refusal | None:
    """The refusal of a row. Raises LedgerUnavailableError for a code of a newer version."""
    if row[f"{prefix}code"] is None:
        return None
    try:
        return Refusal(
            code=Code(row[f"{prefix}code"]),
            kind=SubjectKind(row[f"{prefix}kind"]),
            subject=row[f"{prefix}subject"],
            detail=row[f"{prefix}detail"],
            destination=row[f"{prefix}destination"],
            count=row[f"{prefix}count"],
        )
    except ValueError as error:
        raise LedgerUnavailableError(f"a refusal on record cannot be read: {error}") from error


def decision_row(decision: Decision, cycle_id: int, position: int) -> dict[str, Any]:
    """Row of a decision."""
    return {
        "cycle_id": cycle_id,
        "position": position,
        "plan_id": stored(decision.plan_id),
        "step": decision.step,
        "vm_uuid": stored(decision.vm_uuid),
        "vm_name": stored(decision.vm_name),
        "source": stored(decision.source),
        "destination": stored(decision.destination),
        "outcome": decision.outcome.value,
        "migration_id": decision.migration_id,
        **refusal_row(decision.refusal, "refusal_"),
    }


def decision_of(row: RowMapping) -> Decision:
    """The decision of a row."""
    return Decision(
        plan_id=row["plan_id"],
        step=row["step"],
        vm_uuid=row["vm_uuid"],
        vm_name=row["vm_name"],
        source=row["source"],
        destination=row["destination"],
        outcome=Outcome(row["outcome"]),
        refusal=refusal_of(row, "refusal_"),
        migration_id=row["migration_id"],
    )


def cycle_row(record: CycleRecord) -> dict[str, Any]:
    """Row of a cycle; its decisions and refusals have tables of their own."""
    return {
        "started_at": record.started_at,
        "mode": record.mode.value,
        "policy": stored(record.policy),
        "outcome": record.outcome.value,
        "reason": stored(record.reason),
        "plan_id": record.plan_id,
        "body": stored(CYCLES.write_lossy(replace(record, id=0, decisions=(), refusals=()))),
    }


def cycle_of(row: RowMapping, decisions: tuple[Decision, ...], refusals: tuple[Refusal, ...]) -> CycleRecord:
    """The cycle of a row, put together again. Raises LedgerUnavailableError if it cannot be read."""
    try:
        body = CYCLES.read(row["body"])
    except CodecError as error:
        raise LedgerUnavailableError(f"cycle {row['id']} on record cannot be read: {error}") from error
    return replace(body, id=row["id"], decisions=decisions, refusals=refusals)


def plan_row(plan: Plan, body: str) -> dict[str, Any]:
    """Row of a plan."""
    return {
        "id": plan.id,
        "digest": plan.digest,
        "format": plan.format,
        "policy": stored(plan.policy),
        "created_at": plan.created_at,
        "expires_at": plan.expires_at,
        "basis": stored(plan.basis),
        "body": body,
    }


def step_rows(plan: Plan) -> list[dict[str, Any]]:
    """Rows of a plan's steps."""
    return [
        {
            "plan_id": plan.id,
            "number": step.number,
            "wave": step.wave,
            "vm_uuid": stored(step.move.vm_uuid),
            "vm_name": stored(step.move.vm_name),
            "source": stored(step.move.source),
            "destination": stored(step.move.destination),
            "why": stored(step.move.why),
        }
        for step in plan.steps
    ]


def migration_row(record: MigrationRecord) -> dict[str, Any]:
    """Row of a migration's present state."""
    return {
        "id": record.id,
        "vm_uuid": stored(record.vm_uuid),
        "vm_name": stored(record.vm_name),
        "source": stored(record.source),
        "destination": stored(record.destination),
        "state": record.state.value,
        "is_open": record.state.is_open,
        "ours": record.ours,
        "plan_id": record.plan_id,
        "step": record.step,
        "controller": stored(record.controller),
        "epoch": record.epoch,
        "intent_at": record.intent_at,
        "ended_at": record.ended_at,
        "body": MIGRATIONS.write_lossy(record),
    }


def migration_of(row: RowMapping) -> MigrationRecord:
    """The migration of a row. Raises LedgerUnavailableError if it cannot be read."""
    try:
        return MIGRATIONS.read(row["body"])
    except CodecError as error:
        raise LedgerUnavailableError(f"migration {row['id']} on record cannot be read: {error}") from error


def outcome_row(record: MigrationRecord) -> dict[str, Any]:
    """Predicted and actual figures of a migration that has its verdict; what is unknown or infinite is None."""
    predicted, done = record.predicted, record.completion
    figures: dict[str, float | None] = {
        "seconds": record.seconds,
        "downtime_seconds": done.downtime_seconds if done else None,
        "transferred_bytes": done.transferred_bytes if done else None,
        **_estimate("seconds", predicted.seconds if predicted else None),
        **_estimate("downtime_seconds", predicted.downtime_seconds if predicted else None),
        **_estimate("bytes", predicted.bytes if predicted else None),
    }
    return {
        "migration_id": record.id,
        "ended_at": record.ended_at,
        "state": record.state.value,
        "basis": stored(predicted.basis) if predicted else None,
        **{name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()},
    }


def _estimate(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    return {
        f"predicted_{name}": estimate.value if estimate else None,
        f"predicted_{name}_upper": estimate.upper if estimate else None,
    }


def command_of(row: RowMapping) -> Command:
    """The command of a row. Raises LedgerUnavailableError for a kind of a newer version."""
    try:
        kind = CommandKind(row["kind"])
    except ValueError as error:
        raise LedgerUnavailableError(f"command {row['id']} on record cannot be read: {error}") from error
    return Command(
        id=row["id"],
        kind=kind,
        at=row["at"],
        by=row["by"],
        subject=row["subject"],
        step=row["step"],
        digest=row["digest"],
        until=row["until"],
        reason=row["reason"],
    )
