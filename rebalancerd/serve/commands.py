"""Commands of operators: checked, written to the ledger with who gave them, obeyed by the cycles that follow."""

from collections.abc import Mapping
from typing import Any

from rebalancerd.cluster.decision import Command, CommandKind
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode
from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.planfile import PlanFileError, parse_document
from rebalancerd.serve.control import Control, ledger_away
from rebalancerd.serve.problem import ProblemError, did_you_mean
from rebalancerd.serve.schemas import CommandAnswer
from rebalancerd.serve.wording import counted, span

WHOLE_PLAN = 0


class Commands:
    """Every method writes one row and says what follows from it, or raises ProblemError and writes nothing."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def pause(self, by: str, *, seconds: float | None = None, reason: str = "") -> CommandAnswer:
        """Start no migration until resumed, or for that long; running ones go on."""
        until = self._now() + seconds if seconds is not None else None
        tail = f" for {span(seconds)}" if seconds is not None else " until `rebalancerd resume`"
        message = f"paused{tail}: nothing is started; running migrations go on"
        return self._write(CommandKind.PAUSE, by, message, until=until, reason=reason)

    def resume(self, by: str, *, reason: str = "") -> CommandAnswer:
        """End a pause, or arm the daemon again after it disarmed itself."""
        message = "resumed: the next cycle may start migrations again"
        file = self._control.about.pause_file()
        if file is not None:
            message = f"resumed, but {file}: remove the file as well"
        return self._write(CommandKind.RESUME, by, message, reason=reason)

    def drain(self, by: str, host: str, *, reason: str = "") -> CommandAnswer:
        """Empty a host and keep it empty."""
        name = self._host(host)
        if name in self._control.remembered().operator.drained:
            raise ProblemError(
                "ALREADY_DRAINED", f"{name} is to be drained already", "undrain takes it back", status=409
            )
        mode = self._control.mode
        message = f"{name} is emptied by live migration, as far as hard constraints and caps let it, and kept empty"
        if not mode.may_act:
            message = f"noted, but mode {mode} only proposes the moves: see `rebalancerd plan`"
        elif mode is Mode.GUARDED:
            message += "; its moves wait for `rebalancerd approve`"
        return self._write(CommandKind.DRAIN, by, message, subject=name, reason=reason)

    def undrain(self, by: str, host: str, *, reason: str = "") -> CommandAnswer:
        """Let a drained host take VMs again."""
        drained = self._control.remembered().operator.drained
        name = host if host in drained else self._host(host)
        if name not in drained:
            hint = f"drained by command: {', '.join(sorted(drained)) or 'none'}; a mode set in the configuration stays"
            raise ProblemError("NOT_DRAINED", f"{name} is not drained by a command", hint, status=409)
        return self._write(CommandKind.UNDRAIN, by, f"{name} takes VMs again", subject=name, reason=reason)

    def approve(
        self, by: str, plan_id: str, *, step: int | None = None, digest: str | None = None, reason: str = ""
    ) -> CommandAnswer:
        """Allow a plan, or one step of it, once."""
        self._must_act("approve")
        plan = self._plan(plan_id, step, digest)
        what = f"step {step} of {plan.id}" if step else f"{plan.id} ({counted(len(plan.steps), 'step')})"
        message = f"approved {what}, digest {plan.digest}: started as guards and waves allow"
        return self._write_for(CommandKind.APPROVE, by, message, plan=plan, step=step, reason=reason)

    def reject(
        self, by: str, plan_id: str, *, step: int | None = None, digest: str | None = None, reason: str = ""
    ) -> CommandAnswer:
        """Forbid a plan, or one step of it."""
        plan = self._plan(plan_id, step, digest)
        what = f"step {step} of {plan.id}" if step else plan.id
        return self._write_for(
            CommandKind.REJECT, by, f"rejected {what}: it is not started", plan=plan, step=step, reason=reason
        )

    def apply(self, by: str, document: Mapping[str, Any], *, reason: str = "") -> CommandAnswer:
        """Adopt a plan file: format, digest and expiry are checked here, its facts again before every start."""
        try:
            plan = parse_document(document)
        except PlanFileError as error:
            hint = "make a new one with `rebalancerd plan -o FILE`; a plan file is not to be edited"
            raise ProblemError("BAD_PLAN_FILE", f"the plan file {error}", hint, status=422) from error
        self._must_act("apply")
        self._not_expired(plan)
        if plan.is_empty:
            raise ProblemError("EMPTY_PLAN", f"{plan.id} proposes nothing: {plan.why}", "nothing to apply", status=409)
        self._same_hosts(plan)
        try:
            self._control.ledger.record_plan(plan)
        except LedgerUnavailableError as error:
            raise ledger_away(error) from error
        message = f"applied {plan.id} ({counted(len(plan.steps), 'step')}), digest {plan.digest}: started as guards and waves allow"
        return self._write_for(CommandKind.APPLY, by, message, plan=plan, step=None, reason=reason)

    def close_breaker(self, by: str, *, reason: str = "") -> CommandAnswer:
        """Say that what failed has been looked at."""
        if not self._control.remembered().memory.breaker.is_open:
            raise ProblemError("BREAKER_CLOSED", "the breaker is not open", "nothing to do", status=409)
        return self._write(
            CommandKind.CLOSE_BREAKER, by, "breaker closed: earlier failures count no more", reason=reason
        )

    def clear_quarantine(self, by: str, host: str, *, reason: str = "") -> CommandAnswer:
        """Let a quarantined host receive again, and use the links of it that are in quarantine."""
        name, memory = self._host(host), self._control.remembered().memory
        if name not in memory.quarantined and not any(name in link for link in memory.links):
            raise ProblemError("NOT_QUARANTINED", f"{name} is not quarantined", "nothing to do", status=409)
        return self._write(CommandKind.CLEAR_QUARANTINE, by, f"{name} may receive again", subject=name, reason=reason)

    def abort(self, by: str, vm: str, *, reason: str = "") -> CommandAnswer:
        """Ask for the abort of a running migration of ours; post-copy ones are never aborted."""
        executor = self._control.executor
        if executor is None:
            self._must_act("abort")
        uuid = self._control.vm_uuid(vm)
        elsewhere = self._control.leader_elsewhere()
        if elsewhere is not None:
            hint = f"give the command to controller {elsewhere}"
            raise ProblemError("STANDS_BY", f"this controller stands by, {elsewhere} leads", hint, status=409)
        running = [r for r in executor.active() if r.vm_uuid == uuid] if executor is not None else []
        if not running or executor is None:
            raise ProblemError(
                "NOT_MOVING", f"no migration of ours moves “{vm}”", "see `rebalancerd watch`", status=409
            )
        answer = self._write(
            CommandKind.ABORT, by, "abort asked for: the VM goes on on its source", subject=uuid, reason=reason
        )
        executor.abort(uuid, f"by {by}" + (f": {reason}" if reason else ""))
        return answer

    # what commands of other files are made of

    def known_host(self, given: str) -> str:
        """The host of that name. Raises ProblemError."""
        return self._host(given)

    def must_act(self, what: str) -> None:
        """Refuse in a mode that moves nothing. Raises ProblemError."""
        self._must_act(what)

    def write(self, kind: CommandKind, by: str, message: str, *, subject: str, reason: str) -> CommandAnswer:
        """The row of a command about a host. Raises ProblemError."""
        return self._write(kind, by, message, subject=subject, reason=reason)

    # checks

    def _now(self) -> float:
        return self._control.clock.wall()

    def _host(self, given: str) -> str:
        known = self._control.host_names()
        if given not in known:
            raise ProblemError("UNKNOWN_HOST", f"no host “{given}”", did_you_mean(given, known), status=404)
        return given

    def _must_act(self, what: str) -> None:
        mode = self._control.mode
        if not mode.may_act:
            hint = 'set mode = "guarded" or "auto" in the configuration and restart the daemon'
            raise ProblemError("MODE_MAY_NOT_ACT", f"cannot {what}: mode {mode} moves nothing", hint, status=409)

    def _not_expired(self, plan: Plan) -> None:
        late = self._now() - plan.expires_at
        if late >= 0:
            hint = "make a new one with `rebalancerd plan`"
            raise ProblemError("PLAN_EXPIRED", f"{plan.id} expired {late:.0f} s ago", hint, status=409)

    def _plan(self, plan_id: str, step: int | None, digest: str | None) -> Plan:
        """The plan of that id if it may still be decided on."""
        try:
            plan = self._control.ledger.plan(plan_id)
        except LedgerUnavailableError as error:
            raise ledger_away(error) from error
        if plan is None:
            view = self._control.loop.view
            current = [view.plan.id] if view is not None and view.plan is not None and not view.plan.is_empty else []
            hint = f"the plan under way is {current[0]}" if current else "no plan is under way; see `rebalancerd plan`"
            raise ProblemError("UNKNOWN_PLAN", f"no plan “{plan_id}”", hint, status=404)
        if digest is not None and digest != plan.digest:
            hint = "look at it again with `rebalancerd plan` before you decide"
            message = f"{plan.id} has digest {plan.digest}, not {digest}"
            raise ProblemError("DIGEST_MISMATCH", message, hint, status=409)
        if step and step not in {s.number for s in plan.steps}:
            hint = f"it has steps 1 to {len(plan.steps)}" if plan.steps else "it has no steps: it proposes nothing"
            raise ProblemError("UNKNOWN_STEP", f"{plan.id} has no step {step}", hint, status=404)
        self._not_expired(plan)
        return plan

    def _same_hosts(self, plan: Plan) -> None:
        known = self._control.host_names()
        strange = {name for s in plan.steps for name in (s.move.source, s.move.destination)} - known
        if strange:
            hint = f"this daemon's hosts: {', '.join(sorted(known))}"
            message = f"{plan.id} names hosts this daemon does not have: {', '.join(sorted(strange))}"
            raise ProblemError("FOREIGN_PLAN", message, hint, status=409)

    # writing

    def _write_for(
        self, kind: CommandKind, by: str, message: str, *, plan: Plan, step: int | None, reason: str
    ) -> CommandAnswer:
        bound = step or WHOLE_PLAN
        return self._write(kind, by, message, subject=plan.id, step=bound, digest=plan.digest, reason=reason)

    def _write(
        self,
        kind: CommandKind,
        by: str,
        message: str,
        *,
        subject: str | None = None,
        step: int | None = None,
        digest: str | None = None,
        until: float | None = None,
        reason: str = "",
    ) -> CommandAnswer:
        try:
            command = self._control.ledger.add_command(
                kind, at=self._now(), by=by, subject=subject, step=step, digest=digest, until=until, reason=reason
            )
        except LedgerUnavailableError as error:
            raise ledger_away(error) from error
        return _answer(command, message)


def _answer(command: Command, message: str) -> CommandAnswer:
    return CommandAnswer(
        id=command.id,
        kind=command.kind.value,
        at=command.at,
        by=command.by,
        subject=command.subject,
        step=command.step,
        until=command.until,
        reason=command.reason,
        message=message,
    )
