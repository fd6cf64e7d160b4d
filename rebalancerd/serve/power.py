"""Host power as the API tells it, and the commands about it: each a row of the ledger, obeyed after the next cycle."""

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.power import PowerPhase, PowerRecord
from rebalancerd.power_round import PowerRound
from rebalancerd.serve.commands import Commands
from rebalancerd.serve.control import Control
from rebalancerd.serve.night_rows import night_row
from rebalancerd.serve.problem import ProblemError
from rebalancerd.serve.schemas import CommandAnswer, PowerAnswer, PowerRow, PowerVerdict


def _round(control: Control) -> PowerRound:
    if control.about.power is None:
        hint = "see [hosts.power] in the configuration"
        raise ProblemError("NO_POWER", "no host's power is configured", hint, status=409)
    return control.about.power


def power_answer(control: Control) -> PowerAnswer:
    """Every host whose power is controlled or on record, and what the last round came to."""
    made, told_nights = control.about.power, control.about.nights()
    night = (told_nights.now or told_nights.last) if told_nights is not None else None
    row = night_row(night) if night is not None else None
    view, told_of = control.loop.view, control.about.power_model
    models = () if view is None or told_of is None else tuple((h.name, told_of(h)) for h in view.snapshot.hosts)
    if made is None:
        return PowerAnswer(
            mode=control.mode.value,
            hosts=(),
            woken=(),
            sent_to_sleep=(),
            could_sleep=(),
            kept=(),
            night=row,
            models=models,
        )
    told, keeper = made.told, made.keeper
    controlled = keeper.controlled()
    return PowerAnswer(
        mode=control.mode.value,
        hosts=tuple(_row(r, controlled, keeper.said(r.host), made.limits.boot_seconds) for r in keeper.records()),
        woken=told.woken,
        sent_to_sleep=told.sent_to_sleep,
        could_sleep=told.could_sleep,
        kept=tuple((r.subject, str(r)) for r in told.refusals),
        night=row,
        models=models,
    )


def _row(record: PowerRecord, controlled: frozenset[str], said: str | None, boot_seconds: float) -> PowerRow:
    return PowerRow(
        host=record.host,
        phase=record.phase.value,
        since=record.since or None,
        reason=record.reason,
        by=record.by,
        controlled=record.host in controlled,
        tested_at=record.tested_at,
        disabled=record.disabled,
        wake_wanted=record.wake_wanted,
        boot_seconds=record.boot_seconds(boot_seconds),
        boots=len(record.boots),
        said=said,
    )


def sleep_verdict(control: Control, commands: Commands, host: str, *, test: bool) -> PowerVerdict:
    """Whether the host would be put to sleep if that were ordered now. Nothing is written. Raises ProblemError."""
    made, name = _round(control), commands.known_host(host)
    refusal = made.why_not(name, test=test)
    if refusal is None:
        message = (
            f"{name} would be asked twice whether it is empty, shut down in good order, and watched until it is off"
        )
        return PowerVerdict(host=name, would_sleep=True, message=message + ("; then woken at once" if test else ""))
    return PowerVerdict(host=name, would_sleep=False, code=refusal.code.value, message=refusal.detail)


def sleep(control: Control, commands: Commands, by: str, host: str, *, reason: str, test: bool) -> CommandAnswer:
    """Order a host to sleep, or to prove that it wakes. Raises ProblemError where it would be refused now."""
    commands.must_act("power a host off")
    told = sleep_verdict(control, commands, host, test=test)
    if not told.would_sleep:
        raise ProblemError((told.code or "refused").upper(), told.message, "`rebalancerd power status`", status=409)
    kind = CommandKind.POWER_TEST if test else CommandKind.POWER_SLEEP
    message = f"{host} is put to sleep after the next cycle" + (
        ", and woken at once to see that it can be" if test else ""
    )
    return commands.write(kind, by, message, subject=host, reason=reason)


def wake(control: Control, commands: Commands, by: str, host: str, *, reason: str) -> CommandAnswer:
    """Order a host back that was put to sleep. Raises ProblemError."""
    commands.must_act("power a host on")
    made = _round(control)
    record = next((r for r in made.keeper.records() if r.host == host), None)
    if record is None:
        commands.known_host(host)
    if record is None or record.phase is PowerPhase.AWAKE:
        message = f"{host} was not put to sleep here"
        raise ProblemError("NOT_ASLEEP", message, "only hosts that rebalancerd put to sleep are woken", status=409)
    message = f"{host} is woken after the next cycle"
    return commands.write(CommandKind.POWER_WAKE, by, message, subject=host, reason=reason)
