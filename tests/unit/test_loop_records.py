"""What a cycle leaves on record where data stop it: every host, and of its figures those that can be trusted."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rebalancerd.cluster.decision import CycleRecord, OperatorState, Outcome
from rebalancerd.cluster.host import Host, HostFacts, HostLoad
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Code
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.loop import Loop, LoopSettings
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.demand.persistence import PersistenceDemand
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.record.sql_ledger import SqlLedger

NOW = 1_800_000_000.0


class Standing:
    """A clock that stands."""

    def wall(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits")


class Shown:
    """An observer that shows one snapshot, or fails."""

    def __init__(self, shot: Snapshot | None) -> None:
        self.shot = shot

    def snapshot(self, *, operator: OperatorState, ours: Sequence[MigrationRecord]) -> Snapshot:
        if self.shot is None:
            raise RuntimeError("a bug")
        return self.shot

    def series(self, resource: str, tier: int = 0) -> Series:
        raise AssertionError("nothing is predicted from such data")

    def stays(self) -> Stays:
        raise AssertionError("nothing is predicted from such data")


def host(name: str, **changes: object) -> Host:
    """8 cores of 1.5 reference cores and 32 GiB, of which 2 cores and 2 GiB are its own; half of each is in use."""
    made = Host(
        name=name,
        facts=HostFacts(uuid=f"uuid-{name}", cpus=8, memory_bytes=32 * GIB),
        load=HostLoad(cpu_cores=5.0, memory_used_bytes=17 * GIB),
        cores=8.0,
        speed_factor=1.5,
        reserved_cores=2.0,
        memory_bytes=32 * GIB,
        reserved_memory_bytes=2 * GIB,
        age_seconds=2.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def vm(name: str, on: str) -> Vm:
    facts = VmFacts(uuid=f"u-{name}", name=name, vcpus=2, memory_bytes=GIB)
    return Vm(facts=facts, host=on, state=DomainState.RUNNING, load=VmLoad(cpu_cores=1.0, memory_bytes=GIB))


def shot(**changes: object) -> Snapshot:
    made = Snapshot(taken_at=NOW, hosts=(host("h1"), host("h2")), vms=(vm("a", "h1"), vm("b", "h1")))
    return replace(made, **changes)  # type: ignore[arg-type]


def run(shown: Snapshot | None) -> tuple[CycleRecord, CycleRecord, Loop]:
    """One cycle: the record as returned, as the ledger gives it back, and the loop."""
    ledger, clock = SqlLedger("sqlite://", Standing()), Standing()
    loop = Loop(
        observer=Shown(shown),
        demand=PersistenceDemand(PredictSettings()),
        costs=PhysicsCost(PredictSettings()),
        ledger=ledger,
        clock=clock,
        settings=LoopSettings(mode=Mode.RECOMMEND, plan=PlanSettings(), guard=GuardSettings()),
    )
    record = loop.iterate()
    (kept,) = ledger.cycles()
    ledger.close()
    return record, kept, loop


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"warming_up": True}, Code.WARMING_UP),
        ({"frozen": "loads of all hosts jumped at once"}, Code.TELEMETRY_INSANE),
        ({"hosts": (host("h1"), host("h2", unusable="stale: 90 s old"))}, Code.CLUSTER_PARTLY_UNKNOWN),
    ],
)
def test_a_cycle_that_data_stop_records_every_host(changes: dict[str, object], code: Code) -> None:
    record, kept, loop = run(shot(**changes))

    assert (record.outcome, [r.code for r in record.refusals]) == (Outcome.NO_ACTION, [code])
    assert [(p.host, p.vms) for p in record.hosts] == [("h1", 2), ("h2", 0)]
    assert kept == record, "and the ledger keeps it"
    assert loop.view is not None
    assert loop.view.pressures == record.hosts
    for row in record.hosts:
        assert (row.cpu_p95, row.memory_p95) == (None, None), "nothing was predicted"


def test_measured_use_is_told_as_a_share_of_what_guests_may_use() -> None:
    (h1, _) = run(shot(warming_up=True))[0].hosts

    assert h1.cpu_now == pytest.approx((5 - 2) / (8 - 2))
    assert h1.memory_now == pytest.approx((17 - 2) / (32 - 2))
    assert h1.unusable is None


def test_a_host_that_cannot_be_trusted_is_named_without_figures() -> None:
    """Its last figures are known, but old; the other host's are fresh."""
    hosts = (host("h1"), host("h2", unusable="stale: 90 s old"), host("h3", facts=None))
    h1, h2, h3 = run(shot(hosts=hosts))[0].hosts

    assert (h2.unusable, h2.cpu_now, h2.memory_now) == ("stale: 90 s old", None, None)
    assert (h3.unusable, h3.cpu_now, h3.memory_now) == ("facts unknown", None, None)
    assert h1.cpu_now == pytest.approx(0.5)


def test_unknown_figures_stay_unknown_and_are_never_zero() -> None:
    hosts = (host("h1", load=HostLoad()), host("h2", cores=None, memory_bytes=None), host("h3", cores=0.0))
    h1, h2, h3 = run(shot(hosts=hosts, warming_up=True))[0].hosts

    assert (h1.cpu_now, h1.memory_now) == (None, None)
    assert (h2.cpu_now, h2.memory_now) == (None, None)
    assert h3.cpu_now is None


def test_an_idle_host_uses_nothing_of_what_guests_may_use() -> None:
    """Less in use than is reserved for it: no negative share."""
    quiet = host("h1", load=HostLoad(cpu_cores=0.5, memory_used_bytes=GIB))
    (h1,) = run(shot(hosts=(quiet,), warming_up=True, vms=()))[0].hosts

    assert (h1.cpu_now, h1.memory_now) == (0.0, 0.0)


def test_figures_that_may_be_a_fault_of_the_telemetry_are_not_passed_on() -> None:
    for row in run(shot(frozen="loads of all hosts jumped at once"))[0].hosts:
        assert (row.cpu_now, row.memory_now, row.unusable) == (None, None, None)


def test_a_cycle_that_saw_nothing_records_no_host() -> None:
    record, kept, _ = run(None)

    assert (record.outcome, record.hosts, kept.hosts) == (Outcome.FAILED, (), ())
