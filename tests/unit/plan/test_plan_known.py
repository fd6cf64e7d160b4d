"""What a move's cost was predicted from goes with the move, exactly as the cost model was asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from rebalancerd.cluster.cost import Candidate, MigrationCost
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.known import MigrationFacts, migration_facts
from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import MIB
from rebalancerd.plan.balance import balance
from rebalancerd.plan.drain import drain
from rebalancerd.record.planfile import document, parse_document
from tests.unit.plan.plan_cluster import cost_of, host, inputs_of, vm

CURVE = DirtyCurve(
    points=(
        DirtyPoint(period_seconds=1.0, unique_bytes=9.0 * MIB, standard_error_bytes=float(MIB), readings=3),
        DirtyPoint(period_seconds=8.0, unique_bytes=30.0 * MIB, standard_error_bytes=float(MIB), readings=2),
    ),
    age_seconds=30.0,
)


@dataclass
class CostByFacts:
    """A cost model whose every answer is one of a kind, so that a move's cost names the candidate it was asked for."""

    asked: dict[float, Candidate] = field(default_factory=dict)

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> tuple[MigrationCost, ...]:
        made = []
        for candidate in candidates:
            seconds = 10.0 + len(self.asked) / 1024
            self.asked[seconds] = candidate
            made.append(cost_of(seconds))
        return tuple(made)


@pytest.mark.parametrize("planner", [balance, lambda inputs: drain(inputs, ["h1"])], ids=["balance", "drain"])
def test_a_moves_facts_are_those_of_the_very_candidate_that_was_priced(planner) -> None:
    """Destination, options and link share included; they go through a plan file unchanged."""
    costs = CostByFacts()
    guests = [vm(f"a{i}", "h1", 4.0, dirty=CURVE, policy=VmPolicy(max_downtime_seconds=0.2)) for i in range(4)]
    hosts = [host("h1", link_bytes_per_second=1e9), host("h2", link_bytes_per_second=2e8), host("h3", cores=4.0)]
    inputs = inputs_of(hosts, [*guests, vm("b", "h2", 2.0)], costs=costs)
    plan = planner(inputs)

    assert plan.steps
    for step in plan.steps:
        move = step.move
        candidate = costs.asked[move.cost.seconds.value]
        assert (candidate.vm_uuid, candidate.destination) == (move.vm_uuid, move.destination)
        assert move.known == migration_facts(inputs.snapshot, candidate)
        assert isinstance(move.known, MigrationFacts)
        assert move.known.options == move.options
        assert move.known.link_share == candidate.link_share
        assert move.known.dirty == CURVE
        assert move.known.destination_cores == inputs.snapshot.host(move.destination).cores
    assert parse_document(document(plan)) == plan
