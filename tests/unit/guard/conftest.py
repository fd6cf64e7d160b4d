"""A small cluster that may start its one step, from which each test takes one thing away."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rebalancerd.cluster.cost import Estimate, MigrationCost, MigrationOptions
from rebalancerd.cluster.decision import Command, CommandKind, OperatorState
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.plan import Move, Plan, Score, Step
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts
from rebalancerd.guard.context import GuardContext
from rebalancerd.guard.memory import GuardMemory, recall
from rebalancerd.guard.settings import GuardSettings

NOW = 1_700_000_000.0


def _cost():
    one = Estimate(value=1.0, upper=1.0)
    return MigrationCost(
        seconds=one, downtime_seconds=one, bytes=one, slowdown=one, non_convergence=one, basis="physics"
    )


def make_host(name, **kw):
    return Host(name=name, facts=HostFacts(uuid=name, cpus=8, memory_bytes=2**36), **kw)


def make_vm(uuid="u", host="a", **kw):
    facts = VmFacts(uuid=uuid, name=f"vm-{uuid}", vcpus=1, memory_bytes=2**30)
    return Vm(facts=facts, host=host, **({"state": DomainState.RUNNING} | kw))


def make_move(vm="u", source="a", destination="b", **kw):
    return Move(
        vm_uuid=vm,
        vm_name=f"vm-{vm}",
        source=source,
        destination=destination,
        why="hot",
        cost=_cost(),
        options=MigrationOptions(),
        **({"gain": 5.0, "payback_seconds": 60.0} | kw),
    )


def make_plan(*steps, **kw):
    base = {
        "id": "p1",
        "policy": "balance",
        "created_at": NOW - 10,
        "expires_at": NOW + 300,
        "snapshot_digest": "d",
        "steps": steps or (Step(number=1, wave=1, move=make_move()),),
        "before": Score(total=10.0, unmet=10.0, imbalance=0.0),
        "after": Score(total=5.0, unmet=5.0, imbalance=0.0),
        "why": "a is hot",
        "hot_hosts": ("a",),
    }
    return Plan(**(base | kw))


def make_record(state=MigrationState.SUCCEEDED, *, id="m1", vm="u", source="a", destination="b", ago=60.0, **kw):  # noqa: A002
    at = NOW - ago
    ended = None if state.is_open else at
    base = {"intent_at": at, "started_at": at, "ended_at": ended}
    return MigrationRecord(
        id=id, vm_uuid=vm, vm_name=vm, source=source, destination=destination, state=state, **(base | kw)
    )


def make_command(kind=CommandKind.APPROVE, *, id=1, **kw):  # noqa: A002
    return Command(id=id, kind=kind, **({"at": NOW - 5, "by": "alice"} | kw))


def make_context(**kw):
    base = {
        "snapshot": Snapshot(
            taken_at=NOW, hosts=(make_host("a"), make_host("b"), make_host("c")), vms=(make_vm(), make_vm("w", "b"))
        ),
        "now": NOW,
        "settings": GuardSettings(),
        "memory": GuardMemory(),
        "operator": OperatorState(),
        "mode": Mode.AUTO,
        "holds": {"a": 3},
        "stale": (),
    }
    return GuardContext(**(base | kw))


def remember(*records, operator=None, now=NOW, **settings):
    return recall(records, operator=operator or OperatorState(), now=now, settings=GuardSettings(**settings))


def with_snapshot(ctx, **kw):
    return replace(ctx, snapshot=replace(ctx.snapshot, **kw))


@pytest.fixture
def make():
    """Builders of hosts, VMs, plans, records, commands and contexts."""
    return SimpleNamespace(
        NOW=NOW,
        host=make_host,
        vm=make_vm,
        move=make_move,
        plan=make_plan,
        record=make_record,
        command=make_command,
        context=make_context,
        remember=remember,
        with_snapshot=with_snapshot,
    )
