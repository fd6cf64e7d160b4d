"""Laws of the digest: equal values are equal anywhere, different ones differ, and no name can imitate structure."""

import subprocess
import sys
from dataclasses import dataclass
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebalancerd.cluster.digest import canonical, digest
from rebalancerd.cluster.refusal import Code, Refusal, about_vm

text = st.text(st.characters(), max_size=20)  # surrogates, control characters and quotes included
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(scalars, max_size=4),
        st.dictionaries(text, inner, max_size=4),
    ),
    max_leaves=12,
)


@dataclass(frozen=True)
class One:
    """A value with two fields."""

    a: object
    b: object = None


@dataclass(frozen=True)
class Other:
    """Another type with the same fields."""

    a: object
    b: object = None


def kind(value):
    """The value with the types that the canonical text tells apart: 1, 1.0 and True are equal to Python, not to us."""
    if isinstance(value, tuple):
        return ("t", tuple(kind(v) for v in value))
    if isinstance(value, frozenset):
        return ("s", frozenset(kind(v) for v in value))
    if isinstance(value, dict):
        return ("d", frozenset((k, kind(v)) for k, v in value.items()))
    return (type(value).__name__, repr(value))


@given(trees, trees)
def test_equal_text_if_and_only_if_equal_value(one, two):
    assert (canonical(one) == canonical(two)) == (kind(one) == kind(two))


@given(trees)
def test_a_digest_is_sixteen_hexadecimal_digits_and_repeatable(value):
    found = digest(value)
    assert found == digest(value)
    assert len(found) == 16
    assert set(found) <= set("0123456789abcdef")


@given(st.dictionaries(text, st.integers(), max_size=6), st.randoms())
def test_order_of_mappings_does_not_matter(mapping, random):
    items = list(mapping.items())
    random.shuffle(items)
    assert digest(dict(items)) == digest(mapping)


@given(text, text)
def test_hostile_names_stay_inside_their_field(name, other):
    """However a name is written, (a, b) never reads as (a', b')."""
    if name != other:
        assert digest(One(name, other)) != digest(One(other, name))
    assert digest(One(f"{name},b={other!r}")) != digest(One(name, other))
    assert digest((name, other)) != digest((f"{name}','{other}",))


@given(trees)
def test_the_type_is_part_of_the_value(value):
    assert digest(One(value)) != digest(Other(value))


@given(text, text)
def test_refusals_differ_by_detail(one, two):
    a, b = about_vm(Code.PINNED, "u", one), about_vm(Code.PINNED, "u", two)
    assert (digest(a) == digest(b)) == (one == two)
    assert isinstance(a, Refusal)


def test_enums_are_their_values():
    class Colour(Enum):
        RED = "red"

    assert canonical(Colour.RED) == canonical("red")


@pytest.mark.parametrize("value", [object(), b"x", One, {1: object()}, (1, {2, b"3"})])
def test_what_cannot_be_digested(value):
    with pytest.raises(TypeError, match="cannot digest"):
        digest(value)


def test_equal_in_another_process():
    """Python's own hash differs between processes; the digest of a set must not."""
    code = "from rebalancerd.cluster.digest import digest; print(digest(frozenset({'a', 'b', 'c', 'd', 1, None})))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {digest(frozenset({"a", "b", "c", "d", 1, None}))}
