"""Rows of the API about advice and how it turned out."""

from rebalancerd.cluster.advice import Advice, AdviceScore, Verdict
from rebalancerd.serve.rows import finite
from rebalancerd.serve.schemas import AdviceRow, AdvisedRow, ReadyRow
from rebalancerd.shadow import ShadowState


def advice_row(state: ShadowState) -> AdviceRow:
    """The record of advice."""
    record = state.record
    return AdviceRow(
        scored=record.scored,
        right=record.count(Verdict.RIGHT),
        needless=record.count(Verdict.NEEDLESS),
        harmful=record.count(Verdict.HARMFUL),
        overtaken=record.count(Verdict.OVERTAKEN),
        unknown=record.count(Verdict.UNKNOWN),
        open=record.open,
        followed=record.followed,
        watched_days=record.watched_days,
        advised_days=record.advised_days,
        hot_seconds=record.hot_seconds,
        foreseen=record.foreseen,
        late=record.late,
        unadvised=record.unadvised,
        ready=tuple(ReadyRow(mode=r.mode.value, ready=r.ready, reason=r.reason) for r in state.readiness),
        error=state.error,
    )


def advised_row(advice: Advice, score: AdviceScore | None) -> AdvisedRow:
    """One piece of advice, and how it turned out if that is known."""
    return AdvisedRow(
        id=advice.id,
        at=advice.proposed_at,
        due_at=advice.due_at,
        vm_uuid=advice.move.vm_uuid,
        vm_name=advice.vm_name,
        source=advice.move.source,
        destination=advice.move.destination,
        plan_id=advice.plan_id,
        step=advice.step,
        basis=advice.basis,
        probability=finite(advice.probability),
        lead_seconds=finite(advice.lead_seconds),
        predicted_relief=finite(advice.relief),
        predicted_cost=finite(advice.cost),
        verdict=None if score is None else score.verdict.value,
        reason="" if score is None else score.reason,
        followed_at=None if score is None else score.followed_at,
        relief=None if score is None else finite(score.relief),
        harm=None if score is None else finite(score.harm),
        source_peak=None if score is None else finite(score.source_peak),
        destination_peak=None if score is None else finite(score.destination_peak),
        hot_after_seconds=None if score is None else finite(score.hot_after_seconds),
    )
