"""A rehearsal of the coming night: planner, guard and power decisions of the daemon, stepped over the forecast.

The policy folds until ``unfolds_at`` and balances from then on; a plan's steps start as the guard lets them and take the
time predicted for them; hosts sleep and wake as the power decision of every step says, each boot as long as measured. A host
goes down within what ``plan.power_cycle_seconds`` leaves beside its boot. Demand is what the forecast expects, so surprises
and what follows from them are not in it. Pure: same inputs, same night.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from rebalancerd.cluster.decision import OperatorState
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.night import Night
from rebalancerd.cluster.plan import Plan, Step
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, SubjectKind, about_host
from rebalancerd.cluster.scenarios import Hotspot, Scenarios
from rebalancerd.cluster.snapshot import InFlight, Snapshot
from rebalancerd.guard.checks import may_start
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.memory import GuardMemory, recall
from rebalancerd.guard.policy_windows import MORNING_SECONDS
from rebalancerd.night.plan import NightPlan, PlannedMove
from rebalancerd.night.power import PowerRehearsal
from rebalancerd.night.stage import NightStage
from rebalancerd.night.terms import NightTerms
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.plan.standing import CONSOLIDATE
from rebalancerd.predict.hotspot import hotspots
from rebalancerd.record.night_account import closed, moved, noted, opened

COARSE_SHARE = 1 / 120  # of the night: longest step while nothing is under way
NEAR_SECONDS = 3600.0  # folding asks who is hot within that
FRESH_SECONDS = 3600.0  # what forbids moves now still does so long
HELD_LONG_ENOUGH = 1_000_000
AGAIN_SECONDS = 300.0  # after which what the guard forbade, or unfolding did not need yet, is looked at again
MOST_PLANS = 400
PASSING_CODES = frozenset({Code.CLUSTER_CAP, Code.NEEDED})  # of one plan among several; a later one may say more
EVER = float("inf")


def rehearse(inputs: PlanInputs, terms: NightTerms) -> NightPlan:
    """The night as it would go. Raises ValueError for inputs that do not fit together."""
    return _Rehearsal(inputs, terms).run()


class _Rehearsal:
    def __init__(self, inputs: PlanInputs, terms: NightTerms) -> None:
        records = {r.host: r for r in terms.records}
        hosts = tuple(_as_it_was(h, records) for h in inputs.snapshot.hosts)
        self.inputs = replace(inputs, snapshot=replace(inputs.snapshot, hosts=hosts, frozen=None))
        self.terms, self.taken_at = terms, inputs.snapshot.taken_at
        self.stage = NightStage(self.inputs.snapshot, inputs.scenarios)
        self.power = PowerRehearsal(terms, hosts, inputs.settings.power_cycle_seconds)
        self.places = {vm.uuid: vm.host for vm in inputs.snapshot.vms}
        self.now = terms.begins_at
        self.cycle_at = self.now
        self.running: list[MigrationRecord] = []
        self.ended: list[MigrationRecord] = []
        self.moves: list[PlannedMove] = []
        self.plan: Plan | None = None
        self.plans = 0
        self.began = False  # whether a step of the plan under way was started
        self.look_again_at = self.now
        self.keeps_on: dict[str, Refusal] = {}
        self.held_back: Counter[tuple[str, str]] = Counter()

    def run(self) -> NightPlan:
        terms, settings = self.terms, self.inputs.settings
        watts = settings.power_defaults
        night = replace(opened(terms.window, self._snapshot(), terms.ends_at), mode=terms.mode)
        coarse = min((terms.ends_at - terms.begins_at) * COARSE_SHARE, terms.limits.margin_seconds)
        last = terms.ends_at + MORNING_SECONDS
        while True:
            self._end_moves()
            for host in self.power.advance(self.now):
                self.stage.came_up(host)
                self.look_again_at = self.now
            snapshot = self._snapshot()
            night = noted(
                night,
                snapshot,
                asleep=self.power.asleep(),
                power=watts,
                cpu_headroom=settings.cpu_headroom,
                most_seconds=EVER,
            )
            idle = self.plan is None and not self.running and not self.power.under_way()
            over = self.now >= terms.ends_at and idle
            if over or self.now >= last:
                break
            if self.now >= self.cycle_at:
                self._cycle(snapshot)
                self.cycle_at = self.now + self._until_next_cycle(coarse)
            self._pass_time()
        seconds = sum(m.seconds or 0.0 for m in self.ended)
        return self._told(closed(moved(night, len(self.ended), seconds, watts), self.now))

    def _cycle(self, snapshot: Snapshot) -> None:
        """What one cycle of the daemon does: moves, then power."""
        self._move(self._context(snapshot))
        until = self.terms.ends_at + (0.0 if self._folding() else MORNING_SECONDS)
        context = self._context(self._snapshot())
        self.power.decide(context, self.stage.ahead(self.now, until), folding=self._folding())

    def _until_next_cycle(self, coarse: float) -> float:
        """As the daemon has it while something is under way, else to where the forecast changes at the latest."""
        cycle = self.terms.cycle_seconds
        if self.running or self.plan is not None or self.power.under_way() or not self._folding():
            return cycle
        return max(cycle, min(coarse, self.stage.next_step_at(self.now) - self.now))

    def _pass_time(self) -> None:
        """On to the next cycle, or to the end of a move or of a part of the night if that is sooner."""
        ends = (self.terms.unfolds_at, self.terms.ends_at, *(r.ended_at or EVER for r in self.running))
        self.now = min([self.cycle_at, *(at for at in ends if at > self.now)])
        if self.now in (self.terms.unfolds_at, self.terms.ends_at):
            self.cycle_at = self.now  # the policy changes: what was put off is looked at anew

    def _folding(self) -> bool:
        return self.now < self.terms.unfolds_at

    # migrations

    def _end_moves(self) -> None:
        for record in [r for r in self.running if r.ended_at is not None and r.ended_at <= self.now]:
            self.running.remove(record)
            self.places[record.vm_uuid] = record.destination
            self.ended.append(replace(record, state=MigrationState.SUCCEEDED))

    def _move(self, context: GuardContext) -> None:
        """Go on with the plan under way; where there is none, make one if it is time to look again."""
        if self.plan is None:
            if self.running or self.now < self.look_again_at or self.plans >= MOST_PLANS:
                return
            self.plan, self.plans, self.began = self._decide(context), self.plans + 1, False
        plan, started, refused = self.plan, False, []
        for step in plan.steps:
            if (plan.id, step.number) in context.used_steps:
                continue
            refusal = may_start(context, plan, step)
            if refusal is None:
                self._start(plan, step)
                context, started = self._context(context.snapshot), True
            else:
                refused.append(refusal)
        if started or self.running:
            return
        # nothing more of it can start: it is done, has expired, or waits for what will not pass with the next cycle
        again, self.plan = self.began, None
        if not again:
            self.held_back.update((r.code.value, str(r)) for r in refused[:1])
            soon = bool(refused) or not self._folding()
            marks = (self.stage.next_step_at(self.now), self.now + AGAIN_SECONDS if soon else EVER, self._unfolds())
            self.look_again_at = min(marks)

    def _unfolds(self) -> float:
        return self.terms.unfolds_at if self._folding() else EVER

    def _start(self, plan: Plan, step: Step) -> None:
        move = step.move
        seconds, self.began = move.cost.seconds.value, True
        record = MigrationRecord(
            id=f"{plan.id}-{step.number}",
            vm_uuid=move.vm_uuid,
            vm_name=move.vm_name,
            source=move.source,
            destination=move.destination,
            state=MigrationState.RUNNING,
            intent_at=self.now,
            plan_id=plan.id,
            step=step.number,
            started_at=self.now,
            ended_at=self.now + seconds,
        )
        self.running.append(record)
        self.moves.append(
            PlannedMove(
                at=self.now,
                vm_uuid=move.vm_uuid,
                vm_name=move.vm_name,
                source=move.source,
                destination=move.destination,
                seconds=seconds,
                unfolding=not self._folding(),
            )
        )

    def _decide(self, context: GuardContext) -> Plan:
        settings, folding, snapshot = self.inputs.settings, self._folding(), context.snapshot
        until = self.terms.ends_at + (0.0 if folding else MORNING_SECONDS)
        scenarios = self.stage.ahead(self.now, until)
        spots = hotspots(
            snapshot,
            self.stage.ahead(self.now, self.now + NEAR_SECONDS) if folding else scenarios,
            cpu_headroom=settings.cpu_headroom,
            memory_headroom=settings.memory_headroom,
            probability=settings.hot_probability,
        )
        plan = decide(self._plan_inputs(context, scenarios, folding=folding, until=until, spots=spots))
        if folding:
            for refusal in plan.refusals:
                known = self.keeps_on.get(refusal.subject)
                if refusal.kind is SubjectKind.HOST and (known is None or known.code in PASSING_CODES):
                    self.keeps_on[refusal.subject] = refusal
        return plan

    def _plan_inputs(
        self, context: GuardContext, scenarios: Scenarios, *, folding: bool, until: float, spots: tuple[Hotspot, ...]
    ) -> PlanInputs:
        given, memory = self.inputs, context.memory
        fresh = self.now - self.taken_at < FRESH_SECONDS
        known = {h: r for h, r in given.blocked_hosts.items() if fresh and not self.power.was_closed(h)}
        return replace(
            given,
            snapshot=context.snapshot,
            scenarios=scenarios,
            hotspots=spots,
            plan_id=f"n-{self.plans}",
            blocked_hosts={**known, **memory.quarantined},
            blocked_pairs={**(given.blocked_pairs if fresh else {}), **memory.tabu_pairs, **memory.blocked_pairs},
            resting_vms={**(given.resting_vms if fresh else {}), **memory.resting},
            policy=CONSOLIDATE if folding else "balance",
            window_seconds=until - self.now if folding else None,
            underway=(),
            returned={},
            arrived={},
            homes={} if folding else self._homes(),
        )

    # the cluster as it is by now

    def _homes(self) -> dict[str, str]:
        evening = {vm.uuid: vm.host for vm in self.inputs.snapshot.vms}
        moved_by_night = {r.vm_uuid for r in self.ended}
        return {u: evening[u] for u in sorted(moved_by_night) if self.places.get(u) != evening[u]}

    def _snapshot(self) -> Snapshot:
        flights = tuple(
            InFlight(vm_uuid=r.vm_uuid, source=r.source, destination=r.destination, ours=True) for r in self.running
        )
        return self.stage.at(self.now, self.places, self.power.away(), flights)

    def _context(self, snapshot: Snapshot) -> GuardContext:
        records = [*self.ended, *self.running]
        memory = recall(records, operator=OperatorState(), now=self.now, settings=self.terms.guard)
        return GuardContext(
            snapshot=snapshot,
            now=self.now,
            settings=self.terms.guard,
            memory=self._with_power(memory),
            operator=OperatorState(),
            mode=Mode.AUTO,
            holds=dict.fromkeys(self.power.hosts, HELD_LONG_ENOUGH),
            used_steps=frozenset((r.plan_id, r.step) for r in records if r.plan_id is not None and r.step is not None),
            stale=(),
            active=tuple(self.running),
            away=frozenset(self.power.away()),
        )

    def _with_power(self, memory: GuardMemory) -> GuardMemory:
        closed_hosts = {h: about_host(Code.HOST_ASLEEP, h, f"{h} is {how}") for h, how in self.power.closed().items()}
        return replace(memory, quarantined={**memory.quarantined, **closed_hosts})

    # what is told

    def _told(self, night: Night) -> NightPlan:
        power, terms = self.power, self.terms
        return NightPlan(
            predicted=night,
            unfolds_at=terms.unfolds_at,
            unfolded_at=max((m.at + m.seconds for m in self.moves if m.unfolding), default=None),
            basis=self.inputs.scenarios.basis,
            moves=tuple(self.moves),
            sleeps=tuple(power.sleeps),
            wakes=tuple(power.wakes),
            still_asleep=tuple(sorted(power.asleep())),
            stays_on=tuple(self._stays_on()),
            held_back=tuple((code, why, count) for (code, why), count in self.held_back.most_common()),
            notes=tuple(self._notes()),
        )

    def _stays_on(self) -> Iterator[tuple[str, str, str]]:
        """(host, code, why) of every host that never sleeps."""
        slept = {s.host for s in self.power.sleeps if not s.test} | self.power.asleep()
        for host in self.power.hosts:
            if host in slept:
                continue
            refusal = self.power.kept.get(host) or self.keeps_on.get(host)
            if host not in self.terms.controlled:
                text = f"no way to control the power of {host} is configured"
                refusal = about_host(Code.NO_POWER_CONTROL, host, text)
            if refusal is None:
                text = f"the VMs of {host} stay, or others come to it: folding does not empty it"
                refusal = about_host(Code.HOST_NOT_EMPTY, host, text)
            yield host, refusal.code.value, refusal.detail

    def _notes(self) -> Iterator[str]:
        terms = self.terms
        if terms.mode != "auto":
            yield f"mode {terms.mode}: this is what auto would do; hosts sleep by themselves in auto only"
        if self.stage.reaches_until < terms.ends_at - 1.0:
            short = (terms.ends_at - self.stage.reaches_until) / 3600
            yield f"the forecast ends {short:.1f} h before the window does; for that time it is taken to repeat"
        if self.plans >= MOST_PLANS:
            yield f"only the first {MOST_PLANS} plans were made"


def _as_it_was(host: Host, records: Mapping[str, PowerRecord]) -> Host:
    """A host that nobody has seen since it was put to sleep has the CPUs and the memory that it had then."""
    record = records.get(host.name)
    if host.facts is not None or record is None or record.cpus is None or record.memory_bytes is None:
        return host
    return replace(
        host,
        facts=HostFacts(uuid=record.host_uuid, cpus=record.cpus, memory_bytes=record.memory_bytes),
        cores=float(record.cpus) if host.cores is None else host.cores,
        memory_bytes=record.memory_bytes if host.memory_bytes is None else host.memory_bytes,
    )
