"""A plan as people read it: each move with why, predicted cost and what was rejected for it."""

import time
from collections import Counter
from pathlib import Path

from rebalancerd.cli.output import say, show, table
from rebalancerd.cluster.plan import Move, Plan, Step
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.record.explain_text import worth
from rebalancerd.serve.wording import share, size, span

SHOWN_REFUSALS = 8


def print_plan(plan: Plan, *, written: Path | None = None) -> None:
    """Print a plan; ``written``: the file that holds it, for the hint at the end."""
    if plan.is_empty:
        told = plan.why.startswith("Nothing is moved")
        say(plan.why if told else f"nothing to do: {plan.why}", "bold")
        _refusals(plan)
        return
    left = plan.expires_at - time.time()
    life = f"expires in {span(left)}" if left > 0 else "expired"
    say(
        f"plan {plan.id}: {len(plan.steps)} {'move' if len(plan.steps) == 1 else 'moves'} ({plan.policy}, {life})",
        "bold",
    )
    say(f"why: {plan.why}")
    say()
    show(
        table(
            ("STEP", "VM", "FROM → TO", "TAKES", "AT MOST", "DOWNTIME", "SENDS"),
            map(_row, plan.steps),
            numbers=(0, 3, 4, 5, 6),
        )
    )
    say()
    for step in plan.steps:
        _reasons(step)
    say(
        f"before → after: unmet demand {plan.before.unmet:.1f} → {plan.after.unmet:.1f} core-seconds, "
        f"imbalance {share(plan.before.imbalance)} → {share(plan.after.imbalance)}; forecast by {plan.basis}"
    )
    say(worth(plan))
    _refusals(plan)
    say(f"digest {plan.digest}; steps of one wave may run together, waves never overlap")
    if written is not None:
        say(f"written to {written}; `rebalancerd apply {written}` has the daemon carry it out", "dim")


def when_hot(move: Move) -> str:
    """When the source of a move is predicted to be hot, as the beginning of a sentence; empty if it is not."""
    if move.hot_in_seconds is None:
        return ""
    when = "is hot now" if move.hot_in_seconds <= 0 else f"is hot in {span(move.hot_in_seconds)}"
    return f"{move.source} {when}; "


def _row(step: Step) -> tuple[object, ...]:
    move, cost = step.move, step.move.cost
    return (
        f"{step.number} (wave {step.wave})",
        move.vm_name,
        f"{move.source} → {move.destination}",
        span(cost.seconds.value),
        span(cost.seconds.upper),
        span(cost.downtime_seconds.value),
        size(cost.bytes.value),
    )


def _reasons(step: Step) -> None:
    move = step.move
    told = move.payback_seconds is None or "pays back after" in move.why
    payback = "" if told else f"; pays for itself within {span(move.payback_seconds)}"
    say(f"{step.number}. {move.vm_name}: {move.why}{payback}")
    if move.price is not None:
        say(f"   {when_hot(move)}costs {move.price.value:.0f} core-seconds, at most {move.price.upper:.0f}")
    for other in move.alternatives[:3]:
        say(f"   not {other.vm_name} → {other.destination}: {other.reason}", "dim")
    if move.cost.inputs_missing:
        say(f"   not measured, so bounds are wide: {', '.join(move.cost.inputs_missing)}", "dim")


def _refusals(plan: Plan) -> None:
    refusals = [r for r in plan.refusals if not plan.is_empty or r.detail not in plan.why]
    if not refusals:
        return
    by_code: Counter[str] = Counter()
    first: dict[str, Refusal] = {}
    for refusal in refusals:
        by_code[refusal.code.value] += max(1, refusal.count)
        first.setdefault(refusal.code.value, refusal)
    say()
    say("not done, and why:")
    for code, count in by_code.most_common(SHOWN_REFUSALS):
        times = f" ({count}×, such as)" if count > 1 else ""
        say(f"  {code}{times}: {first[code].detail}")
