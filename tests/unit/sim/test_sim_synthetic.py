"""Made-up clusters: quick, the same for the same seed, uneven but possible."""

import pytest

from rebalancerd.sim.clock import SimClock
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.synthetic import synthetic_cluster


def test_the_same_seed_gives_the_same_cluster_and_another_does_not() -> None:
    """Deterministic by seed."""
    assert synthetic_cluster(6, 40, seed=3) == synthetic_cluster(6, 40, seed=3)
    assert synthetic_cluster(6, 40, seed=3) != synthetic_cluster(6, 40, seed=4)


@pytest.mark.parametrize(("hosts", "vms"), [(1, 0), (1, 5), (7, 60), (40, 800)])
def test_memory_fits_and_load_is_uneven(hosts: int, vms: int) -> None:
    """No host is over its memory; with many hosts some are far busier than others."""
    clock = SimClock()
    cluster = SimCluster(synthetic_cluster(hosts, vms), clock)
    clock.sleep(60.0)
    cluster.advance()

    assert all(cluster.memory_available(h) > 0 for h in cluster.hosts)
    busy = cluster.guests.busy / [h.cpus for h in cluster.spec.hosts]
    if hosts > 10:
        assert busy.max() - busy.min() > 0.3


def test_no_hosts_is_not_a_cluster() -> None:
    """Says so."""
    with pytest.raises(ValueError, match="not a cluster"):
        synthetic_cluster(0, 3)
