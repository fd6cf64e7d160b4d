"""Offline planning: what the loop looked at goes through a file, and the plan made from it is the loop's own."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.quiet import NoQuietHour, QuietHour, QuietSpell
from rebalancerd.cluster.refusal import Code, about_host, about_vm
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.offline import keep, load_costs, restore
from rebalancerd.plan.decide import decide
from rebalancerd.plan.inputs import PlanInputs
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.cost_kind import COST
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore
from rebalancerd.record.snapshotfile import KeptInputs, SnapshotFileError, document, read_snapshot, write_snapshot
from tests.unit.plan.plan_cluster import host, inputs_of, vm
from tests.unit.predict import learned_models as models
from tests.unit.predict.test_artefact import save
from tests.unit.test_loop import Bench, spec

PREDICT = PredictSettings()


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*told: Any) -> Bench:
        made.append(Bench(spec(*told)))
        return made[-1]

    yield make
    for bench in made:
        bench.world.close()


def through_a_file(kept: KeptInputs, directory: Path) -> KeptInputs:
    file = directory / "snapshot.json"
    write_snapshot(file, document(kept))
    return read_snapshot(file)


def rich_inputs() -> PlanInputs:
    """Every field of the inputs holds something."""
    hosts = (host("h1", 8.0), host("h2", 8.0), host("h3", 8.0, failure_domain="rack"))
    vms = tuple(vm(f"v{n}", "h1", 1.9) for n in range(4))
    return inputs_of(
        hosts,
        vms,
        drained=frozenset({"h3"}),
        blocked_hosts={"h2": about_host(Code.QUARANTINED, "h2", "failed twice")},
        blocked_pairs={("u-v0", "h2"): about_vm(Code.LIBVIRT_REFUSED, "u-v0", "no such CPU", "h2")},
        resting_vms={"u-v1": about_vm(Code.COOLDOWN, "u-v1", "moved 5 min ago")},
        quiet={
            "u-v0": QuietHour(vm_uuid="u-v0", hour_utc=3, rate_bytes_per_second=1e6, seen_days=9),
            "u-v1": NoQuietHour(vm_uuid="u-v1", reason="no dirty rate of it is on record"),
            "u-v2": QuietSpell(vm_uuid="u-v2", starts_in_seconds=900.0, rate_bytes_per_second=1e6, basis="ewma"),
        },
        policy="consolidate",
        window_seconds=7200.0,
        returned={"h2": 60.0},
        arrived={"h2": 1},
        underway=(("u-v0", "h2"), ("u-v2", "h3")),
        homes={"u-v0": "h2"},
        homes_may_return=True,
    )


def test_the_inputs_of_a_plan_go_through_a_file(tmp_path: Path) -> None:
    inputs = rich_inputs()
    kept = keep(inputs, PREDICT, "physics")

    again = through_a_file(kept, tmp_path)
    restored = restore(again, inputs.costs)

    assert again == kept
    for name in (
        "snapshot",
        "hotspots",
        "settings",
        "plan_id",
        "drained",
        "blocked_hosts",
        "blocked_pairs",
        "policy",
        "window_seconds",
        "returned",
        "arrived",
        "underway",
        "homes",
        "homes_may_return",
    ):
        assert getattr(restored, name) == getattr(inputs, name), name
    assert restored.resting_vms == inputs.resting_vms
    assert dict(restored.quiet) == dict(inputs.quiet)
    assert restored.snapshot.digest == inputs.snapshot.digest
    for name in ("cpu_cores", "memory_bytes", "known"):
        kept_rows, rows = (getattr(i.scenarios, name) for i in (restored, inputs))
        assert kept_rows.dtype == rows.dtype
        assert kept_rows.tobytes() == rows.tobytes(), name


def test_the_forecast_of_the_day_goes_through_a_file_where_there_is_one(tmp_path: Path) -> None:
    inputs = rich_inputs()
    assert restore(keep(inputs, PREDICT, "physics"), inputs.costs).day is None
    day = replace(inputs.scenarios, cpu_cores=inputs.scenarios.cpu_cores * 2)
    kept = through_a_file(keep(replace(inputs, day=day), PREDICT, "physics"), tmp_path)
    restored = restore(kept, inputs.costs).day
    assert restored is not None
    assert restored.cpu_cores.tobytes() == day.cpu_cores.tobytes()


@pytest.mark.parametrize("drained", [(), ("h1",), ("h3",)])
def test_the_plan_offline_is_the_plan_of_the_loop(
    make_bench: Callable[..., Bench], tmp_path: Path, drained: tuple[str, ...]
) -> None:
    """Load, rates and dirty curves as the observer measured them in a simulated cluster."""
    bench = make_bench(Mode.RECOMMEND, ("h1", "h2"), ("h3", "h4"), GuardSettings(hold_rounds=0), 4)
    inputs = replace(bench.loop.look(), drained=frozenset(drained))
    made = decide(inputs)

    kept = through_a_file(keep(inputs, bench.world.spec.predict, "physics"), tmp_path)
    costs, basis = load_costs(kept, ModelStore(tmp_path, tmp_path, kind=COST), ModelSettings(), lambda: 0.0)
    again = decide(restore(kept, costs))

    assert basis == "physics"
    assert not made.is_empty
    assert again == made
    assert again.digest == made.digest
    if not drained:
        proposed = bench.loop.propose()
        assert proposed.digest == made.digest


def test_looking_records_nothing(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(Mode.RECOMMEND, ("h1",), ("h2", "h3"), GuardSettings(), 4)

    inputs = bench.loop.look()

    assert bench.recorded == 0
    assert bench.world.ledger.plan(inputs.plan_id) is None
    assert set(inputs.quiet) == set(inputs.snapshot.vm_by_uuid)


# the cost model


@pytest.fixture
def store(tmp_path: Path) -> ModelStore[Any]:
    (tmp_path / "own").mkdir()
    (tmp_path / "shipped").mkdir()
    return ModelStore(tmp_path / "own", tmp_path / "shipped", kind=models.KIND)


def costs_of(kept: KeptInputs, store: ModelStore[Any]) -> tuple[object, str]:
    return load_costs(kept, store, ModelSettings(), lambda: 0.0)


def test_the_model_that_the_file_names_is_the_one_that_answers(store: ModelStore[Any]) -> None:
    first = save(store.shipped, models.model(1.05)).id
    second = save(store.own, models.model(1.3)).id
    inputs = rich_inputs()

    for wanted in (first, second):
        assert costs_of(keep(inputs, PREDICT, wanted), store)[1] == wanted
    assert costs_of(keep(inputs, PREDICT, "cost-elsewhere"), store)[1] == second, "as the daemon would take here"
    costs, basis = costs_of(keep(inputs, replace(PREDICT, overhead_seconds=9.0), "physics"), store)
    assert basis == "physics"
    assert isinstance(costs, PhysicsCost)


def test_without_any_model_physics_answers(store: ModelStore[Any]) -> None:
    assert costs_of(keep(rich_inputs(), PREDICT, "cost-elsewhere"), store)[1] == "physics"


# what does not fit together


def test_scenarios_that_do_not_fit_are_told() -> None:
    inputs = rich_inputs()
    kept = keep(inputs, PREDICT, "physics")
    packed = kept.scenarios

    for wrong, words in (
        (replace(packed, paths=5), "expected"),
        (replace(packed, paths=0), "need a path and a step"),
        (replace(packed, cpu_cores=replace(packed.cpu_cores, shape=(4, 7))), "cpu_cores: shape"),
        (replace(packed, cpu_cores=replace(packed.cpu_cores, data="!")), "cpu_cores"),
        (replace(packed, cpu_cores=replace(packed.cpu_cores, data="AAAA")), "cpu_cores"),
        (replace(packed, memory_bytes=replace(packed.memory_bytes, data=packed.known.data)), "4 bytes, expected"),
        (replace(packed, known=replace(packed.known, data=packed.cpu_cores.data)), "at least 5 bytes, expected 4"),
        (replace(packed, vm_uuids=("x", "u-v1", "u-v2", "u-v3")), "lack VMs of its snapshot: u-v0"),
    ):
        with pytest.raises(SnapshotFileError, match=words):
            restore(replace(kept, scenarios=wrong), inputs.costs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**asdict(rich_inputs().settings), "policy": 3.5}, "policy is 3.5, not a str"),
        ({**asdict(rich_inputs().settings), "cpu_headroom": "0.8"}, "cpu_headroom is '0.8', not a float"),
        ({"cpu_headroom": 0.8}, "is of another version"),
        ({**asdict(rich_inputs().settings), "speed": 3}, "differ in 'speed'"),
        ({**asdict(rich_inputs().settings), "max_moves": 2.5}, "max_moves is 2.5, not a whole number"),
        ({**asdict(rich_inputs().settings), "n_plus_one": 3}, "n_plus_one is 3, not a str"),
        ({**asdict(rich_inputs().settings), "memory_overcommit": (("a", 1.0),)}, "not a float"),
    ],
)
def test_settings_of_another_version_are_told(settings: dict[str, Any], words: str) -> None:
    inputs = rich_inputs()

    with pytest.raises(SnapshotFileError, match=words):
        restore(replace(keep(inputs, PREDICT, "physics"), plan=settings), inputs.costs)
