"""CPU history in reference cores: what counts is where a VM stood in the hour, not where it is now."""

import numpy as np
import pytest

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts
from rebalancerd.predict.demand.reference_cores import ReferenceCores, in_reference_cores

HOUR, END = 3600.0, 100 * 3600.0
SPEEDS = {"slow": 1.0, "fast": 1.25, "faster": 2.0}


def series(*ids: str, cores: float = 1.0, end: float = END) -> Series:
    """Four hours."""
    values = np.full((4, len(ids)), cores, dtype=np.float32)
    return Series(resource="vm_cpu_cores", ids=ids, values=values, step_seconds=HOUR, end=end)


def read(*stays: tuple[float, str | None], speeds: dict[str, float] = SPEEDS) -> list[float]:
    """What one core counts for in each hour; ``stays``: (hours before the end, host)."""
    of = {"v": tuple((END - ago * HOUR, host) for ago, host in stays)}
    return [float(x) for x in in_reference_cores(series("v"), Stays(of), speeds).values[:, 0]]


@pytest.mark.parametrize(
    ("stays", "counts"),
    [
        (((1000, "fast"),), [1.25] * 4),
        (((1000, "slow"), (2, "fast")), [1.0, 1.0, 1.25, 1.25]),
        (((1000, "slow"), (3, "faster"), (1, "slow")), [1.0, 2.0, 2.0, 1.0]),
        (((1000, "slow"), (2.25, "faster")), [1.0, 1.25, 2.0, 2.0]),
        (((1000, "slow"), (2.75, "faster"), (2.25, "slow")), [1.0, 1.5, 1.0, 1.0]),
        (((2, "faster"), (1, "slow")), [2.0, 2.0, 2.0, 1.0]),
        (((1000, "fast"), (3, None), (1, "slow")), [1.25, 1.25, 1.25, 1.0]),
        (((1000, "fast"), (3, "removed"), (1, "slow")), [1.25, 1.25, 1.25, 1.0]),
        (((1000, "slow"), (0, "fast")), [1.0] * 4),
        (((1000, "slow"), (-0.5, "fast")), [1.0] * 4),
    ],
)
def test_every_hour_counts_by_the_host_of_that_hour(
    stays: tuple[tuple[float, str | None], ...], counts: list[float]
) -> None:
    assert read(*stays) == pytest.approx(counts)


def test_a_vm_without_stays_was_always_where_it_is_now() -> None:
    found = in_reference_cores(series("v", "w", cores=2.0), Stays({}), SPEEDS, {"v": "fast"})
    assert found.values[:, 0].tolist() == [2.5] * 4
    assert found.values[:, 1].tolist() == [2.0] * 4, "one that is on no host"


def test_unknown_stays_unknown_and_the_recorded_hours_are_not_changed() -> None:
    recorded = series("v")
    gap = np.array([[np.nan], [1.0], [1.0], [1.0]], dtype=np.float32)
    recorded = Series(resource="vm_cpu_cores", ids=("v",), values=gap, step_seconds=HOUR, end=END)
    found = in_reference_cores(recorded, Stays({"v": ((0.0, "faster"),)}), SPEEDS)
    assert np.isnan(found.values[0, 0]) and found.values[1:, 0].tolist() == [2.0] * 3
    assert recorded.values[1:, 0].tolist() == [1.0] * 3


def test_where_all_hosts_are_the_reference_nothing_is_made() -> None:
    recorded = series("v")
    assert in_reference_cores(recorded, Stays({"v": ((0.0, "slow"),)}), {"slow": 1.0}) is recorded


def test_hours_that_are_over_are_read_once() -> None:
    def shot(speed: float) -> Snapshot:
        vm = Vm(facts=VmFacts(uuid="v", name="v", vcpus=1, memory_bytes=1), host="h", state=DomainState.RUNNING)
        return Snapshot(taken_at=END, hosts=(Host(name="h", facts=None, speed_factor=speed),), vms=(vm,))

    reads, recorded = ReferenceCores(), series("v")
    first = reads(recorded, Stays({}), shot(2.0))
    assert first.values[:, 0].tolist() == [2.0] * 4
    assert reads(recorded, Stays({}), shot(2.0)) is first
    assert reads(recorded, Stays({}), shot(3.0)).values[0, 0] == 3.0, "a speed was set anew"
    assert reads(series("v", cores=5.0), Stays({}), shot(3.0)).values[0, 0] == 15.0, "an hour was added"
