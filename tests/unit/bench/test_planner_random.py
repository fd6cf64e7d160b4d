"""The random clusters of the planner bench: repeatable, odd in every way, and reported under stable names."""

from rebalancerd.cluster.policy import HostMode
from rebalancerd.plan.decide import decide
from tests.bench.planner_random import SHAPES, Tally, random_cluster, run
from tests.bench.report import Report


def test_a_seed_gives_the_same_cluster_and_the_same_plan():
    assert random_cluster(7).snapshot.digest == random_cluster(7).snapshot.digest
    assert decide(random_cluster(7)).digest == decide(random_cluster(7)).digest


def test_the_clusters_have_what_is_odd():
    shots = [random_cluster(seed) for seed in range(120)]
    hosts = [h for i in shots for h in i.snapshot.hosts]
    vms = [v for i in shots for v in i.snapshot.vms]

    assert max(len(i.snapshot.hosts) for i in shots) <= 12 and max(len(i.snapshot.vms) for i in shots) <= 60
    assert any(h.cores == 0 for h in hosts) and any(h.mode is HostMode.DRAIN for h in hosts)
    assert any(v.policy.pin & v.policy.avoid for v in vms) and any(v.load.cpu_cores is None for v in vms)
    assert any(i.drained for i in shots) and any(i.snapshot.in_flight for i in shots)
    assert len(SHAPES) == 6


def test_what_is_reported():
    report = Report("planner", {})
    run(range(4), report)

    assert report.figures["random.clusters"] == 4
    assert report.figures["random.violations"] == report.figures["random.not_finished"] == 0


def test_a_broken_plan_is_counted(monkeypatch):
    """The judge's words end up in the tally, by seed."""
    monkeypatch.setattr("tests.bench.planner_random.violations", lambda inputs, plan: ["planted"])
    tally = Tally()
    tally.add(3)

    assert tally.broken[0] == (3, "planted")
