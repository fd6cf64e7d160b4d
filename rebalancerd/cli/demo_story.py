"""How the demonstration is told."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rebalancerd.cli.output import plain, say, show, table

if TYPE_CHECKING:
    from rich.text import Text

    from rebalancerd.cli.client import Client
    from rebalancerd.cluster.plan import Plan
    from rebalancerd.lab import Heartbeat
    from rebalancerd.serve.schemas import HostRow, MigrationRow, Watch

BAR_CELLS = 24


def chapter(title: str) -> None:
    """A heading."""
    say()
    say(f"── {title} ".ljust(78, "─"), "bold cyan")


def hosts(seen: "Watch") -> None:
    """Each host's CPU now and forecast, its memory, and how many VMs it has."""
    rows = [
        (h.name, _bar(h), _percent(h.cpu_now), _percent(h.cpu_p95), _percent(h.memory_now), h.vms, _remark(h))
        for h in seen.hosts
    ]
    show(table(("HOST", "CPU", "NOW", "P95 AHEAD", "MEMORY", "VMS", ""), rows, numbers=(2, 3, 4, 5)))


def _remark(host: "HostRow") -> str:
    if host.unusable:
        return host.unusable
    return "HOT" if host.hot else ""


def _bar(host: "HostRow") -> "Text":
    share = min(1.5, host.cpu_now or 0.0)
    cells = round(min(1.0, share) * BAR_CELLS)
    return plain("█" * cells + "·" * (BAR_CELLS - cells), "red" if host.hot else "green")


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{share:.0%}"


def plan(made: "Plan") -> None:
    """Why, the steps with their predicted cost, and what was not taken."""
    from rebalancerd.serve.wording import size, span

    say(f"  {made.why}")
    for step in made.steps:
        move, cost = step.move, step.move.cost
        say(f"  {step.number}. {move.vm_name}: {move.source} → {move.destination}", "bold")
        say(f"     why: {move.why}")
        say(
            f"     predicted ({cost.basis}): {span(cost.seconds.value)} (at most {span(cost.seconds.upper)}), "
            f"downtime {cost.downtime_seconds.value * 1000:.0f} ms, {size(cost.bytes.value)}; "
            f"does not converge: {cost.non_convergence.value:.0%}"
        )
        if move.payback_seconds is not None:
            say(f"     pays back within {span(move.payback_seconds)}")
        for other in move.alternatives[:2]:
            say(f"     not taken: {other.vm_name} → {other.destination}: {other.reason}", "dim")


def progress(seen: "Watch") -> Iterator[str]:
    """One line per running migration."""
    from rebalancerd.serve.wording import size, span

    for row in seen.migrations:
        sent = size(row.processed_bytes) if row.processed_bytes is not None else "nothing yet"
        left = f", {size(row.remaining_bytes)} remaining" if row.remaining_bytes is not None else ""
        turn = f", round {row.iteration}" if row.iteration else ""
        yield f"{row.vm_name} {row.source} → {row.destination}: {span(row.elapsed_seconds or 0.0)}, {sent} sent{left}{turn}"


def comparison(rows: "Sequence[MigrationRow]") -> None:
    """Predicted and actual duration, downtime and bytes of each finished migration."""
    from rebalancerd.serve.wording import size

    def pair(predicted: str | None, actual: str | None) -> str:
        return f"{predicted or '?'} → {actual or '?'}"

    def seconds(value: float | None) -> str | None:
        return None if value is None else f"{value:.1f} s"

    def millis(value: float | None) -> str | None:
        return None if value is None else f"{value * 1000:.0f} ms"

    def amount(value: float | None) -> str | None:
        return None if value is None else size(value)

    shown = [
        (
            row.vm_name,
            f"{row.source} → {row.destination}",
            row.state,
            pair(seconds(row.predicted_seconds), seconds(row.actual_seconds)),
            pair(millis(row.predicted_downtime_seconds), millis(row.actual_downtime_seconds)),
            pair(amount(row.predicted_bytes), amount(row.actual_bytes)),
        )
        for row in sorted(rows, key=lambda r: r.intent_at)
    ]
    show(table(("VM", "FROM → TO", "VERDICT", "DURATION", "DOWNTIME", "SENT"), shown))
    say("  (each predicted → actual; duration from hand-over to verdict)", "dim")


def explanation(client: "Client", rows: "Sequence[MigrationRow]") -> None:
    """What `rebalancerd explain vm` says of the first VM that moved."""
    if not rows:
        return
    first = min(rows, key=lambda r: r.intent_at)
    answer = client.get("explain/vm", subject=first.vm_uuid)
    say()
    say(f"  rebalancerd explain vm {first.vm_name}", "bold")
    for line in answer["lines"][:12]:
        say(f"    {line}", "dim")


def heartbeats(pairs: "Mapping[str, tuple[Heartbeat, Heartbeat]]") -> None:
    """Each guest's own counter before and after: none was restarted."""
    say()
    for name, (before, after) in pairs.items():
        same = "same boot" if before.boot_id == after.boot_id else "RESTARTED"
        say(f"  {name}: its own counter went from {before.count} to {after.count}, {same}", "dim")
