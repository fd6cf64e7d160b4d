"""What must hold of what the daemon writes, besides what its calls do to the cluster (rebalancerd.sim.invariants).

Plans are judged by a checker that shares no code with the planner; verdicts by where the VM truly is; calls by what the
ledger and the operators said at that instant.
"""

from collections import Counter

from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.policy import Mode
from rebalancerd.plan.decide import decide
from rebalancerd.sim.invariants import InvariantError
from rebalancerd.sim.world import World
from tests.bench.planner_checker_plan import violations

BLIND = frozenset({"stale"})  # kinds of telemetry after which a host's figures only get older
REPLAYED = 10  # every so many cycles the plan is made once more
STAYED = frozenset({MigrationState.FAILED, MigrationState.ABORTED, MigrationState.ABANDONED})


class Promises:
    """Watches one world from its start. Counts what it looked at: a check that never ran shows nothing."""

    def __init__(self, world: World) -> None:
        self.checked: Counter[str] = Counter()
        self._world = world
        self._states: dict[str, MigrationState] = {}
        self._begun_at: dict[str, int] = {}  # how much had happened to the cluster when it was first written down
        self._blind_since: dict[str, float] = {}
        self._planned: set[str] = set()
        self._approvals_used: set[tuple[str | None, int | None]] = set()
        self._before, self._told, self._cycled = (
            world.write.before_migrate,
            world.ledger.on_migration,
            world.on_cycle,
        )
        world.write.before_migrate = self._before_migrate
        world.ledger.on_migration = self._on_migration
        world.on_cycle = self._on_cycle

    def step(self) -> None:
        """Note since when hosts are blind; to be called after whatever happens."""
        now = self._world.clock.monotonic()
        blind = {host for host, how in self._world.wires.distorted.items() if how.kind in BLIND}
        self._blind_since = {host: self._blind_since.get(host, now) for host in blind}

    def _assert(self, holds: bool, promise: str, detail: str) -> None:
        self.checked[promise] += 1
        if not holds:
            # as the simulator's own: kept, so that no handler of the daemon hides it
            now = self._world.clock.monotonic()
            self._world.invariants.violation = InvariantError(f"{promise} broken at {now:.1f} s: {detail}")
            raise self._world.invariants.violation

    # at the instant of a call

    def _before_migrate(self, record: MigrationRecord) -> None:
        self._before(record)
        world, wall = self._world, self._world.clock.wall()
        plan = world.ledger.plan(record.plan_id) if record.plan_id is not None else None
        self._assert(plan is not None, "P11", f"{record.vm_name} moves without a plan on record")
        assert plan is not None
        step = next((s for s in plan.steps if s.number == record.step), None)
        same = step is not None and (step.move.vm_uuid, step.move.destination) == (record.vm_uuid, record.destination)
        self._assert(same, "P11", f"{record.vm_name} to {record.destination} is not step {record.step} of {plan.id}")
        self._assert(wall < plan.expires_at, "P11", f"{plan.id} expired {wall - plan.expires_at:.0f} s ago")
        self._assert(world.lease.held(), "P11", "a move without the lease")
        self._assert(world.pause_reason is None, "P5", "a move while the pause file is there")
        operator = world.ledger.operator_state(wall)
        self._assert(operator.paused is None, "P5", f"a move while paused by {operator.paused}")
        if world.spec.mode is Mode.GUARDED:
            said = [c for c in (*operator.approved, *operator.applied) if c.digest == plan.digest]
            self._assert(bool(said), "P11", f"a move of {plan.id} that nobody approved")
            self._assert((plan.digest, record.step) not in self._approvals_used, "P11", "an approval used twice")
            self._approvals_used.add((plan.digest, record.step))
        for host in (record.source, record.destination):
            since = self._blind_since.get(host)
            age = 0.0 if since is None else world.clock.monotonic() - since
            limit = world.spec.observe.stale_after_seconds + world.spec.observe.sample_seconds
            self._assert(age <= limit, "P4", f"{record.vm_name} moves though {host} has told nothing for {age:.0f} s")

    # verdicts

    def _on_migration(self, record: MigrationRecord) -> None:
        self._told(record)
        cluster, before = self._world.cluster, self._states.get(record.id)
        begun = self._begun_at.setdefault(record.id, len(cluster.happened))
        self._states[record.id] = record.state
        if before is record.state or not record.ours:
            return
        if any(e.vm_uuid == record.vm_uuid for e in cluster.happened[begun:]):
            return  # its owner or a disaster had a hand in it: the simulator's own checks know what is left to promise
        where = cluster.running_on(record.vm_uuid)
        if record.state is MigrationState.SUCCEEDED:
            self._assert(where == record.destination, "P6", f"{record.id} succeeded, and the VM runs on {where}")
        elif record.state in STAYED:
            self._assert(where != record.destination, "P6", f"{record.id} {record.state}, and the VM runs on {where}")

    # cycles

    def _on_cycle(self, record: CycleRecord) -> None:
        self._cycled(record)
        loop = self._world.loop
        view = loop.view if loop is not None else None
        if view is None or view.inputs is None or view.plan is None or view.record.id != record.id:
            return
        inputs, plan = view.inputs, view.plan
        if plan.id == inputs.plan_id and plan.id not in self._planned:
            self._planned.add(plan.id)
            wrong = violations(inputs, plan)
            self._assert(not wrong, "I10", f"{plan.id}: {'; '.join(wrong[:3])}")
        self.checked["cycles"] += 1
        if self.checked["cycles"] % REPLAYED == 0:
            first, second = _essence(decide(inputs)), _essence(decide(inputs))
            self._assert(first == second, "P8", f"two plans of the same facts: {first} and {second}")
            if plan.id == inputs.plan_id:
                self._assert(first == _essence(plan), "P8", f"{plan.id} is not what its facts lead to")


def _essence(plan: Plan) -> tuple[object, ...]:
    moves = tuple((s.wave, s.move.vm_uuid, s.move.source, s.move.destination, s.move.gain) for s in plan.steps)
    return plan.policy, moves, plan.before, plan.after, plan.refusals
