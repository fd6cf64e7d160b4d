"""The learned cost model: what it learns, how its bounds hold, what missing and unlike inputs do to it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rebalancerd.cluster.cost import Candidate, MigrationOptions
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts, VmLoad
from rebalancerd.predict import calibration, training
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.learned import UNLIKE, LearnedCost
from rebalancerd.predict.training import score_cost, train_cost
from tests.unit.predict.cost_rows import FINE, SETTINGS, synthetic, without


@pytest.fixture(scope="module", autouse=True)
def _few_iterations():
    """The synthetic world is easy to fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "ITERATIONS", 150)
        patch.setattr(training, "REFIT_ITERATIONS", 40)
        yield


@pytest.fixture(scope="module")
def model(_few_iterations) -> LearnedCost:
    return train_cost(synthetic(240), SETTINGS, seed=3, model_id="cost-test")


def predicted(model, *rows):
    return model.predict_facts([r.facts for r in rows], [r.deadline_seconds for r in rows])


def test_it_learns_what_physics_has_wrong(model):
    """Everything takes 0.7 of what physics says; on rows it never saw it must know that, and physics not."""
    fresh = synthetic(120, seed=9)
    ours, physics = score_cost(model.predict_facts, fresh), score_cost(PhysicsCost(SETTINGS).predict_facts, fresh)
    assert physics.total_time_median_ape > 0.3
    assert ours.total_time_median_ape < 0.12
    assert ours.bad_share < physics.bad_share
    assert ours.coverage90 >= 0.85


def test_bounds_are_above_values_and_finite(model):
    told = predicted(model, *synthetic(60, seed=4))
    for name in ("seconds", "downtime_seconds", "bytes", "slowdown", "non_convergence"):
        column = getattr(told, name)
        assert np.isfinite(column.upper).all()
        assert (column.value >= 0).all()
        assert (column.upper >= column.value).all()
    assert (told.non_convergence.upper <= 1).all()
    assert (told.seconds.value >= told.downtime_seconds.value).all()


def test_what_never_ended_is_not_admitted(model):
    fresh = synthetic(200, seed=12)
    upper = predicted(model, *fresh).non_convergence.upper
    failing = np.array([not r.succeeded for r in fresh])
    assert failing.sum() > 20
    assert np.mean(upper[failing] <= 0.3) <= 0.1
    assert np.mean(upper[~failing] <= 0.3) >= 0.8


def test_a_curve_that_looks_into_the_downtime_is_judged_on_its_own():
    """Trained on rows of both views, what is seen in full is told apart well."""
    rows = [*synthetic(120), *synthetic(120, seed=2, periods=FINE)]
    both = train_cost(rows, SETTINGS, seed=3)
    fresh = synthetic(200, seed=12, periods=FINE)
    upper = predicted(both, *fresh).non_convergence.upper
    failing = np.array([not r.succeeded for r in fresh])
    assert np.mean(upper[failing] <= 0.3) <= 0.1
    assert np.mean(upper[~failing] <= 0.3) >= 0.9


@pytest.mark.parametrize(
    ("name", "told"), [("dirty", "dirty"), ("resident_bytes", "memory"), ("link_bytes_per_second", "link")]
)
def test_a_missing_input_widens_and_is_named(model, name, told):
    row = synthetic(8, seed=5)[1]
    lacking = without(row, name)
    got, physics = predicted(model, lacking)[0], predicted(PhysicsCost(SETTINGS), lacking)[0]
    assert told in got.inputs_missing
    assert got.seconds.upper >= physics.seconds.upper
    assert got.non_convergence.upper >= physics.non_convergence.upper
    assert got.basis == "cost-test"


def test_a_vm_unlike_all_it_was_trained_on_keeps_the_bounds_of_physics(model):
    row = synthetic(4, seed=6)[0]
    huge = replace(row, facts=replace(row.facts, memory_bytes=512 * GIB, resident_bytes=400 * GIB))
    got, physics = predicted(model, huge)[0], predicted(PhysicsCost(SETTINGS), huge)[0]
    assert UNLIKE in got.inputs_missing
    assert got.seconds.upper >= physics.seconds.upper
    assert got.downtime_seconds.upper >= physics.downtime_seconds.upper


def test_nothing_known_is_no_bound(model):
    asked = Candidate(vm_uuid="nobody", source="a", destination="b")
    (got,) = model.costs(Snapshot(taken_at=0.0, hosts=(), vms=()), [asked])
    assert got.seconds.upper == math.inf
    assert got.non_convergence.upper == 1.0
    assert got.basis == "physics"
    assert got.inputs_missing == ("vm",)


def test_a_snapshot_and_its_record_are_predicted_alike(model):
    """What is learned from rows on record must hold for candidates of a cycle."""
    row = synthetic(6, seed=8)[2]
    facts = row.facts
    host = HostFacts(uuid=None, cpus=4, memory_bytes=8 * GIB)
    hosts = tuple(
        Host(name=n, facts=host, cores=c, load=replace_load(u), link_bytes_per_second=facts.link_bytes_per_second)
        for n, c, u in (
            ("a", facts.source_cores, facts.source_cpu_cores),
            ("b", facts.destination_cores, facts.destination_cpu_cores),
        )
    )
    vm = Vm(
        facts=VmFacts(uuid="u", name="u", vcpus=1, memory_bytes=facts.memory_bytes),
        host="a",
        state=DomainState.RUNNING,
        load=VmLoad(cpu_cores=facts.vm_cpu_cores, steal_cores=facts.vm_steal_cores, memory_bytes=facts.resident_bytes),
        dirty=facts.dirty,
    )
    asked = Candidate(vm_uuid="u", source="a", destination="b", options=facts.options)
    (live,) = model.costs(Snapshot(taken_at=0.0, hosts=hosts, vms=(vm,)), [asked])
    (recorded,) = model.predict_facts([facts], [SETTINGS.deadline_seconds])
    assert live == recorded


def replace_load(cores):
    from rebalancerd.cluster.host import HostLoad

    return HostLoad(cpu_cores=cores)


def test_the_same_rows_and_seed_give_the_same_model():
    rows = synthetic(120)
    first, second = (predicted(train_cost(rows, SETTINGS, seed=7), *rows[:20]) for _ in range(2))
    assert tuple(first) == tuple(second)


def test_absurd_rows_teach_nothing():
    """A poisoned set: a third of the rows off by a factor of 1024 are left out, so the model is as without them."""
    rows = synthetic(150)
    poison = [replace(r, bytes=r.bytes * 1024, id=f"p{r.id}") for r in synthetic(80, seed=2) if r.bytes]
    clean, dirty = (train_cost(r, SETTINGS, seed=1) for r in (rows, [*rows, *poison]))
    assert tuple(predicted(clean, *rows[:10])) == tuple(predicted(dirty, *rows[:10]))


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="rows"):
        train_cost(synthetic(20), SETTINGS, seed=1)
    with pytest.raises(ValueError, match="did not converge"):
        train_cost([r for r in synthetic(240) if r.succeeded], SETTINGS, seed=1)


def test_a_clusters_own_rows_pull_the_model(model):
    """Here everything takes twice what physics says: with own rows the model follows, without it cannot know."""
    own = synthetic(80, seed=21, factor=2.0)
    fresh = synthetic(80, seed=22, factor=2.0)
    learned = train_cost(synthetic(240), SETTINGS, own=own, seed=3)
    before, after = score_cost(model.predict_facts, fresh), score_cost(learned.predict_facts, fresh)
    assert after.total_time_median_ape < before.total_time_median_ape / 2


class TestState:
    def test_it_survives_the_way_through_its_state(self, model):
        again = LearnedCost.of_state(model.state, "cost-again", SETTINGS)
        row = synthetic(3, seed=2)[0]
        assert predicted(again, row)[0] == replace(predicted(model, row)[0], basis="cost-again")

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"features": ["log_memory_gib", "phase_of_moon"]}, "phase_of_moon"),
            ({"regressors": {}}, "regressors"),
            ({"spreads": None}, "spreads"),
            ({"quantiles": {"seconds": 1.0}}, "quantiles"),
            ({"classifiers": {"seen": [], "unseen": []}}, "no probability"),
            ({"chance_factors": {"seen": 1.0, "unseen": math.nan}}, "finite"),
            ({"lows": np.zeros(3)}, "lows"),
        ],
    )
    def test_what_is_wrong_is_named(self, model, change, told):
        with pytest.raises(ValueError, match=told):
            LearnedCost.of_state({**model.state, **change}, "x", SETTINGS)

    def test_a_part_too_few_is_named(self, model):
        state = dict(model.state)
        del state["spreads"]
        with pytest.raises(ValueError, match="no spreads"):
            LearnedCost.of_state(state, "x", SETTINGS)
        with pytest.raises(ValueError, match="table"):
            LearnedCost.of_state([], "x", SETTINGS)  # type: ignore[arg-type]


def test_nothing_asked_is_nothing_answered(model):
    assert tuple(model.predict_facts([], [])) == ()
    assert tuple(model.costs(Snapshot(taken_at=0.0, hosts=(), vms=()), [])) == ()


def test_a_daemons_long_deadline_is_nothing_unlike_training(model):
    """Harvested runs are cut off within a minute, a daemon's after many: that alone must not cost its bounds."""
    row = synthetic(4, seed=6)[0]
    (got,) = model.predict_facts([row.facts], [SETTINGS.deadline_seconds])
    assert UNLIKE not in got.inputs_missing


def test_a_batch_is_predicted_as_each_alone(model):
    rows = synthetic(30, seed=30)
    together = predicted(model, *rows)
    for row, cost in zip(rows, together, strict=True):
        alone = predicted(model, row)[0]
        assert alone.seconds.value == pytest.approx(cost.seconds.value)
        assert alone.bytes.upper == pytest.approx(cost.bytes.upper)


def test_auto_converge_and_cap_are_options_it_tells_apart(model):
    row = synthetic(40, seed=31)[3]
    capped = replace(row, facts=replace(row.facts, options=MigrationOptions(bandwidth_bytes_per_second=4.0 * MIB)))
    assert predicted(model, capped)[0].seconds.value > predicted(model, row)[0].seconds.value
