"""``rebalancerd status``: the cluster and the daemon in about a dozen lines."""

from typing import TYPE_CHECKING, Annotated

import typer

from rebalancerd.cli.client import Client
from rebalancerd.cli.options import OutputOption, SocketOption, socket_path
from rebalancerd.cli.output import Output, emit_json, plain, say, show, table

if TYPE_CHECKING:
    from rich.text import Text

    from rebalancerd.serve.schemas import AdviceRow, DemandRow, HostRow, ModelRow, Status

SHOWN_HOSTS = 12
HEALTH_STYLE = {"HEALTH_OK": "bold green", "HEALTH_WARN": "bold yellow", "HEALTH_ERR": "bold red"}
UNKNOWN = "?"


def status(
    every_host: Annotated[bool, typer.Option("--all", help="Show every host, however many there are.")] = False,
    socket: SocketOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Health, hosts, what moves, and what the last cycle did and why."""
    answer = Client(socket_path(socket)).get("status")
    if output is Output.JSON:
        emit_json(answer)
        return
    from rebalancerd.serve.schemas import Status

    _print(Status.model_validate(answer), every_host=every_host)


def _print(seen: "Status", *, every_host: bool) -> None:
    from rebalancerd.serve.wording import counted, span

    size = f"{counted(len(seen.hosts), 'host')}, {counted(seen.vms, 'VM')}"
    head = f"rebalancerd {seen.version} · mode {seen.mode} · {size}"
    up = span(max(0.0, seen.now - seen.started_at))
    line = plain(f"{seen.health:<12}", HEALTH_STYLE.get(seen.health))
    line.append_text(plain(f"{head} · up {up}"))
    show(line)
    for check in seen.checks:
        style = "red" if check.severity == "err" else "yellow"
        row = plain(f"  {check.code:<22} ", style)
        row.append_text(plain(check.message))
        show(row)
        if check.hint:
            say(f"  {'':<22} → {check.hint}", "dim")
    _print_doing(seen)
    hosts = sorted(seen.hosts, key=_loudness)
    shown = hosts if every_host or len(hosts) <= SHOWN_HOSTS else hosts[:SHOWN_HOSTS]
    say()
    show(host_table(sorted(shown, key=lambda h: h.name)))
    if len(shown) < len(hosts):
        say(f"and {len(hosts) - len(shown)} quieter hosts (--all shows them)", "dim")


def _print_doing(seen: "Status") -> None:
    from rebalancerd.serve.wording import counted, span

    if seen.leader is not None:
        where = "this one" if seen.leader.here else f"{seen.controller} stands by"
        say(f"leader       {seen.leader.controller} ({where}), tenure {seen.leader.epoch}")
    if seen.policy_window is not None and seen.policy_until is not None:
        more = span(max(0.0, seen.policy_until - seen.now))
        say(f"policy       {seen.policy_now} for {more} more, window {seen.policy_window}")
    if seen.cycle is not None:
        ago = span(max(0.0, seen.now - seen.cycle.at))
        say(f"last cycle   #{seen.cycle.id}, {ago} ago, {seen.cycle.policy}: {seen.cycle.reason}")
    if seen.moving:
        say(f"moving       {len(seen.moving)} of {seen.moving_limit} (see `rebalancerd watch`):")
        for move in seen.moving:
            whose = "" if move.ours else ", not ours"
            ran = f", for {span(move.elapsed_seconds)}" if move.elapsed_seconds is not None else ""
            expected = f" of about {span(move.predicted_seconds)}" if move.predicted_seconds is not None else ""
            say(f"             {move.vm_name} {move.source}→{move.destination}, {move.state}{ran}{expected}{whose}")
    else:
        say(f"moving       nothing (at most {seen.moving_limit} at once)")
    if seen.plan is not None:
        waits = f", waits for `rebalancerd approve {seen.plan.id}`" if seen.plan.awaits_approval else ""
        left = seen.plan.expires_at - seen.now
        life = f"expires in {span(left)}" if left > 0 else "expired"
        say(f"plan         {seen.plan.id}, {counted(seen.plan.steps, 'step')}, {life}{waits}: {seen.plan.why}")
    if seen.model is not None:
        say(f"cost model   {model_words(seen.model)}")
    if seen.demand is not None:
        say(f"demand       {demand_words(seen.demand)}")
    if seen.advice is not None:
        say(f"advice       {advice_words(seen.advice, seen.mode)}")
    if seen.drained:
        say(f"drained      {', '.join(seen.drained)}")
    for note in seen.guard_notes[:3]:
        say(f"guard        {note}")


def model_words(model: "ModelRow") -> str:
    """Who predicts what migrations cost, and how well."""
    from rebalancerd.serve.wording import counted, share

    if model.id is None:
        return f"physics: {model.reason}"
    who = f"{model.id} ({model.source})"
    if model.error is not None and model.physics_error is not None:
        errors = f"off by a factor of {model.error:.2f}, physics by {model.physics_error:.2f}"
        judged = f"{errors}, bounds held in {share(model.coverage)} of {counted(model.rows, 'migration')}"
    else:
        judged = "no migration to judge it by yet"
    return f"{who}, {judged}" if model.trusted else f"physics; {who} is not trusted: {model.reason}"


def demand_words(model: "DemandRow") -> str:
    """Who forecasts what VMs will ask for, and how well."""
    from rebalancerd.serve.wording import counted, share, span

    if model.id is None:
        return f"{model.basis}: {model.reason}"
    who = f"{model.id} ({model.source})"
    if model.skill is None or model.best is None:
        judged = "nothing scored yet"
    else:
        held = ", ".join(f"{share(h.coverage)} at {span(h.ahead_seconds)}" for h in model.horizons)
        so_far = "" if model.judged else ", not judged yet"
        scored = counted(model.scored, "forecast")
        judged = f"skill {model.skill:+.2f} against {model.best} over {scored}{so_far}; central 90 % held {held}"
    return f"{who}, {judged}" if model.trusted else f"{model.basis}; {who} is not trusted: {model.reason}"


def advice_words(advice: "AdviceRow", mode: str) -> str:
    """How advice turned out, and whether that is good enough for the modes above this one."""
    from rebalancerd.serve.wording import counted

    told = [f"{advice.right} right, {advice.needless} needless, {advice.harmful} harmful"]
    told += [f"{n} {word}" for n, word in ((advice.unknown, "unknown"), (advice.overtaken, "overtaken")) if n]
    days = f"{advice.watched_days:.0f}" if advice.watched_days >= 10 else f"{advice.watched_days:.1f}"
    pieces = advice.scored + advice.unknown + advice.overtaken
    record = f"{counted(pieces, 'piece')} judged in {days} days: {', '.join(told)}"
    above = [row for row in advice.ready if not (mode == "guarded" and row.mode == "guarded")]
    ready = [row.mode for row in above if row.ready]
    missing = next((row for row in above if not row.ready), None)
    parts = [f"good enough for {ready[-1]}"] if ready else []
    parts += [f"not good enough for {missing.mode}: {missing.reason}"] if missing is not None else []
    stale = f"; not up to date: {advice.error}" if advice.error is not None else ""
    return f"{record}; {'; '.join(parts)}{stale}"


def host_table(hosts: "list[HostRow]") -> object:
    """Hosts with their pressures."""
    columns = ("HOST", "STATE", "VMS", "CPU NOW", "CPU P95", "MEM NOW", "MEM P95")
    rows = (
        (h.name, _state(h), h.vms, _share(h.cpu_now), _share(h.cpu_p95), _share(h.memory_now), _share(h.memory_p95))
        for h in hosts
    )
    return table(columns, rows, numbers=(2, 3, 4, 5, 6))


def _state(host: "HostRow") -> "Text":
    if host.unusable is not None:
        return plain(host.unusable.partition(":")[0], "yellow")  # the checks above say the rest
    if host.hot:
        return plain("hot", "red")
    return plain("ok" if host.mode == "active" else host.mode)


def _loudness(host: "HostRow") -> tuple[bool, bool, float]:
    """Hosts that need a look first."""
    return (host.unusable is None, not host.hot, -max(host.cpu_p95 or 0.0, host.memory_p95 or 0.0))


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value * 100:.0f} %"
