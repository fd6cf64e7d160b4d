"""Whatever the frozen types can hold goes through the codec, the plan file and the ledger unchanged."""

from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, get_type_hints

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.cost import Estimate
from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.cluster.digest import digest
from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.plan import PLAN_FORMAT, Plan
from rebalancerd.record.codec import CYCLES, MIGRATIONS, PLANS, CodecError
from rebalancerd.record.planfile import PlanFileError, document, parse_document
from rebalancerd.record.sql_ledger import SqlLedger
from tests.unit.record.record_values import FixedClock, make_plan

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["Infinity", "NaN", "-Infinity"]
)
NUMBER = st.floats() | st.integers(-(10**9), 10**9)  # whole numbers get into float fields
SCALARS = {str: TEXT, float: NUMBER, int: st.integers(-(2**62), 2**62), bool: st.booleans()}
slow = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    value = draw(st.floats(0, allow_nan=False))
    return Estimate(value=value, upper=draw(st.floats(value, allow_nan=False)))


@st.composite
def curves(draw: st.DrawFn) -> DirtyCurve:
    periods = sorted(draw(st.sets(st.floats(0.001, 1e6), min_size=1, max_size=3)))
    points = tuple(replace(draw(values(DirtyPoint)), period_seconds=p) for p in periods)
    return DirtyCurve(points=points, age_seconds=draw(NUMBER))


@cache
def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type of the words, all fields drawn, optional ones too."""
    if kind is Estimate:
        return estimates()
    if kind is DirtyCurve:
        return curves()
    if kind in SCALARS:
        return SCALARS[kind]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        drawn = {f.name: values(hints[f.name]) for f in fields(kind) if not (kind is Plan and f.name == "format")}
        return st.builds(kind, **drawn)
    arguments = getattr(kind, "__args__", ())
    if getattr(kind, "__origin__", None) is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(values, arguments))
    if arguments:
        return st.one_of(*map(values, arguments))
    return st.from_type(kind)


@slow
@given(values(Plan))
def test_plans_keep_every_figure_and_their_digest(plan: Plan) -> None:
    """Infinite and NaN figures, names that read like figures, whole numbers in float fields."""
    back = PLANS.read(PLANS.write(plan))

    assert digest(back) == digest(plan)
    assert back.digest == plan.digest


@slow
@given(values(Plan))
def test_plan_documents_are_read_back(plan: Plan) -> None:
    import json

    text = json.dumps(document(plan), allow_nan=False)

    assert parse_document(json.loads(text)).digest == plan.digest


@slow
@given(values(MigrationRecord))
def test_migrations_go_through(record: MigrationRecord) -> None:
    assert digest(MIGRATIONS.read(MIGRATIONS.write(record))) == digest(record)


@slow
@given(values(CycleRecord))
def test_cycles_go_through_the_ledger(record: CycleRecord) -> None:
    """Only NUL, which not every database can hold in text, is replaced."""
    assume("\0" not in repr(record) and "\\x00" not in repr(record) and record.started_at == record.started_at)
    assert digest(CYCLES.read(CYCLES.write(record))) == digest(record)
    ledger = SqlLedger("sqlite://", FixedClock())
    number = ledger.record_cycle(record)
    (back,) = ledger.cycles()
    ledger.close()

    assert digest(back) == digest(replace(record, id=number))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@slow
@given(JSON)
def test_no_document_breaks_the_reader(tree: object) -> None:
    """Anything but a plan gives PlanFileError, nothing else."""
    for given_tree in (tree, {**document(make_plan()), "plan": tree}):
        try:
            parse_document(given_tree)  # type: ignore[arg-type]
        except PlanFileError:
            continue
        raise AssertionError("read as a plan")


@slow
@given(st.data())
def test_any_one_changed_value_is_found_out(data: st.DataObject) -> None:
    """Take a leaf of the document and put something else there: it is refused."""
    tree = document(make_plan())
    place: Any = tree
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key]:
            break
        place = place[key]
    old, new = place[key], data.draw(JSON)
    assume(new != old and not (isinstance(new, float) and str(new) == str(old)))
    place[key] = new

    try:
        back = parse_document(tree)
    except PlanFileError:
        return
    # an equal value in other words, or the id, which the digest leaves out on purpose
    assert back.digest == make_plan().digest
    assert back.format == PLAN_FORMAT


@given(st.text(max_size=40))
def test_no_text_breaks_the_codec(text: str) -> None:
    try:
        PLANS.read(text)
    except CodecError:
        return
    raise AssertionError("read as a plan")
