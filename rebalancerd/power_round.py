"""Host power, once after every cycle: operators' orders obeyed, who must wake woken, who may sleep sent to sleep.

Nothing here speaks to a host: the keeper's own tick does, step by step, from what is written here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from rebalancerd.act.power.keeper import PowerKeeper
from rebalancerd.cluster.decision import Command, CommandKind, CycleRecord
from rebalancerd.cluster.power import US, PowerLimits, PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, about_cluster, about_host
from rebalancerd.cycle import LoopView
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.power_checks import PowerAsk, may_sleep, may_sleep_or_test
from rebalancerd.plan.consolidate_reserve import without_asleep
from rebalancerd.plan.power import PowerDecision, PowerInputs, after_window, decide
from rebalancerd.ports import Clock

log = structlog.get_logger(__name__)

BLIND = frozenset({Code.CLUSTER_PARTLY_UNKNOWN, Code.HOST_UNREACHABLE})
FORGOTTEN_SECONDS = 900.0  # a bound that old says nothing of now


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTold:
    """What the last round came to, for the status: what was ordered, who could sleep, and why others do not."""

    at: float = 0.0
    woken: tuple[tuple[str, str], ...] = ()
    sent_to_sleep: tuple[tuple[str, str], ...] = ()
    could_sleep: tuple[tuple[str, str], ...] = ()
    refusals: tuple[Refusal, ...] = ()


class PowerRound:
    """``after_cycle`` is called once per cycle, in the thread of the loop."""

    def __init__(
        self,
        *,
        keeper: PowerKeeper,
        limits: PowerLimits,
        clock: Clock,
        view: Callable[[], LoopView | None],
        folding: Callable[[], bool] = lambda: False,
    ) -> None:
        """``folding``: whether this is a time at which hosts are put to sleep without being told to."""
        self.keeper, self.limits = keeper, limits
        self._clock, self._view, self._folding = clock, view, folding
        self._foreseen: tuple[float, float] | None = None
        self.told = PowerTold()

    def after_cycle(self, record: CycleRecord) -> None:
        """Obey, wake, and send to sleep. Raises LedgerUnavailableError: nothing was ordered then."""
        view = self._view()
        if view is None or view.context is None or (view.record is not record and view.record.id != record.id):
            return
        mode = view.context.mode
        decision = self._decide(view)
        refusals: list[Refusal] = []
        if mode.may_act:
            refusals += self._obey(view, view.context, decision)
        woken = self._wake(view, decision) if mode.may_act else ()
        sent, could, kept = self._send_to_sleep(view.context, decision, free=not woken)
        self.told = PowerTold(
            at=self._clock.wall(),
            woken=woken,
            sent_to_sleep=sent,
            could_sleep=could,
            refusals=(*refusals, *kept),
        )

    def why_not(self, host: str, *, test: bool = False) -> Refusal | None:
        """What forbids an operator's order to put it to sleep, as of the last cycle; None where nothing does."""
        view = self._view()
        if view is None or view.context is None:
            return about_cluster(Code.WARMING_UP, "no cycle was made yet")
        return self._why_not(view.context, self._decide(view, peek=True), host, ordered=True, test=test)

    # steps

    def _decide(self, view: LoopView, *, peek: bool = False) -> PowerDecision | None:
        """None where data forbade to plan."""
        if view.scenarios is None:
            return None
        now = self._clock.wall()
        foreseen = self._foreseen[1] if self._foreseen and now - self._foreseen[0] < FORGOTTEN_SECONDS else None
        inputs = PowerInputs(
            snapshot=view.snapshot,
            scenarios=view.scenarios,
            records=self._records(),
            limits=self.limits,
            foreseen_cores=foreseen,
            n_plus_one=None if view.inputs is None else without_asleep(view.inputs),
        )
        decision = decide(inputs)
        if decision.next_cores is not None and not peek:
            self._foreseen = (now, decision.next_cores)
        return decision

    def _records(self) -> dict[str, PowerRecord]:
        return {record.host: record for record in self.keeper.records()}

    def _obey(self, view: LoopView, context: GuardContext, decision: PowerDecision | None) -> list[Refusal]:
        refusals = []
        for command in view.operator.power:
            host = command.subject
            if host is None or command.id <= self._records().get(host, PowerRecord(host=host)).command_id:
                continue
            refusal = self._one(command, host, context, decision)
            if refusal is not None:
                self.keeper.answer(host, command.id)
                log.warning("power_command_refused", command=command.id, host=host, reason=str(refusal))
                refusals.append(refusal)
        return refusals

    def _one(
        self, command: Command, host: str, context: GuardContext, decision: PowerDecision | None
    ) -> Refusal | None:
        by = f"{command.by}" + (f": {command.reason}" if command.reason else "")
        age = context.now - command.at
        if command.kind is CommandKind.POWER_WAKE:
            return self.keeper.wake(host, f"by {by}", by=command.by, command_id=command.id)
        if age > self.limits.command_max_age_seconds:
            return about_host(Code.POWER_BUSY, host, f"the command is {age:.0f} s old and void")
        test = command.kind is CommandKind.POWER_TEST
        refusal = self._why_not(context, decision, host, ordered=True, test=test)
        if refusal is not None:
            return refusal
        reason = f"wake test by {by}" if test else f"by {by}"
        return self.keeper.sleep(host, reason, by=command.by, test=test, command_id=command.id)

    def _wake(self, view: LoopView, decision: PowerDecision | None) -> tuple[tuple[str, str], ...]:
        wanted = dict(decision.wake if decision is not None else self._blind(view))
        if not self._folding():
            controlled = self.keeper.controlled()
            over = after_window({host: r for host, r in self._records().items() if host in controlled})
            wanted = {**dict(over), **wanted}
        done = []
        for host, why in wanted.items():
            refusal = self.keeper.wake(host, why, by=US)
            if refusal is None:
                done.append((host, why))
            else:
                log.error("wake_refused", host=host, reason=str(refusal))
        return tuple(done)

    def _blind(self, view: LoopView) -> tuple[tuple[str, str], ...]:
        """Where too much of what is on cannot be seen, everybody gets up."""
        stop = next((r for r in view.record.refusals if r.code in BLIND), None)
        if stop is None:
            return ()
        sleepers = [r.host for r in self.keeper.records() if r.phase is PowerPhase.ASLEEP and r.wake_wanted is None]
        return tuple((host, str(stop)) for host in sleepers)

    def _send_to_sleep(
        self, context: GuardContext, decision: PowerDecision | None, *, free: bool
    ) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], tuple[Refusal, ...]]:
        """(sent, could be sent, why not): the hosts that demand does not need, as far as nothing else forbids it."""
        if decision is None or not self.keeper.controlled():
            return (), (), ()
        sent: list[tuple[str, str]] = []
        could: list[tuple[str, str]] = []
        kept = list(decision.kept)
        for host, why in decision.sleep:
            refusal, test = may_sleep_or_test(self._ask(context, host))
            if refusal is None and not self._folding():
                refusal = about_host(Code.NOT_FOLDING, host, "hosts are put to sleep only on order now")
            if refusal is None and free:
                reason = f"wake test in its first window: {why}" if test else why
                refusal = self.keeper.sleep(host, reason, by=US, test=test)
                if refusal is None:
                    sent.append((host, reason))
                    continue
            if refusal is not None:
                if refusal.code in (Code.CLUSTER_MODE, Code.NOT_APPROVED, Code.NOT_FOLDING):
                    could.append((host, why))
                kept.append(refusal)
        return tuple(sent), tuple(could), tuple(kept)

    def _ask(self, context: GuardContext, host: str, *, ordered: bool = False, test: bool = False) -> PowerAsk:
        return PowerAsk(
            host=host,
            ctx=context,
            records=self._records(),
            controlled=self.keeper.controlled(),
            limits=self.limits,
            ordered=ordered,
            test=test,
        )

    def _why_not(
        self, context: GuardContext, decision: PowerDecision | None, host: str, *, ordered: bool, test: bool
    ) -> Refusal | None:
        refusal = may_sleep(self._ask(context, host, ordered=ordered, test=test))
        if refusal is not None:
            return refusal
        if decision is None:
            return about_cluster(Code.WARMING_UP, "the last cycle has no forecast to hold this against")
        if any(host == name for name, _ in decision.sleep):
            return None
        for kept in decision.kept:
            if kept.subject == host:
                return kept
        if decision.wake:
            return about_host(Code.NEEDED_FOR_DEMAND, host, decision.wake[0][1])
        return None if host in self._idle(context) else about_host(Code.HOST_MODE, host, f"{host} takes no part now")

    def _idle(self, context: GuardContext) -> frozenset[str]:
        """Hosts that carry nothing and count for nothing, as they are drained or take nothing in: demand spares them."""
        return frozenset(
            h.name
            for h in context.snapshot.hosts
            if h.usable and h.mode.value in ("drain", "no_inbound") and not context.snapshot.vms_on[h.name]
        )
