from dataclasses import dataclass, field
from enum import Enum, StrEnum

import numpy as np
import pytest

from rebalancerd.cluster.digest import ADDED_LATER, Recall, canonical, digest


class Colour(Enum):
    RED = 1


class Word(StrEnum):
    YES = "yes"


@dataclass(frozen=True)
class Policy:
    on: bool = False
    count: int = 0
    names: frozenset[str] = field(default_factory=frozenset)
    note: str | None = field(default=None, metadata=ADDED_LATER)


@dataclass(frozen=True)
class Thing:
    name: str
    policy: Policy
    seen: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Nothing:
    pass


def test_texts_are_those_that_were_written_down():
    thing = Thing("it's", Policy(), seen=3.0)
    assert canonical(thing) == 'Thing(name="it\'s",policy=Policy(on=False,count=0,names={}))'
    assert canonical(Policy(True, 3, frozenset({"b", "a"}), "x")) == "Policy(on=True,count=3,names={'a','b'},note='x')"
    assert canonical([Colour.RED, Word.YES, None, 3.0, 2.5, {"k": (1,)}]) == "[1,'yes',None,3,2.5,map{'k':[1]}]"
    assert canonical(Nothing()) == "Nothing()" and canonical(()) == "[]" and canonical(set()) == "{}"
    assert canonical(np.float64(2.0)) == "2"
    assert digest(thing) == digest(Thing("it's", Policy(), seen=9.0))


def test_a_value_equal_to_the_default_but_of_another_type_keeps_its_own_text():
    assert canonical(Policy(on=0, count=False)) == "Policy(on=0,count=False,names={})"  # type: ignore[arg-type]


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="complex"):
        canonical((1, 2j))
    with pytest.raises(TypeError, match="type"):
        canonical(Policy)


def test_a_text_is_kept_for_the_same_object_only_and_forgotten_when_it_is_not_met_again():
    asked: list[object] = []

    def write(value: object) -> str:
        asked.append(value)
        return repr(value)

    recall, one = Recall(write), Policy(count=1)
    assert recall(one) == recall(one) == repr(one)
    assert recall(Policy(count=1)) == repr(one) and recall(Policy(count=2)) == repr(Policy(count=2))
    assert asked == [one, Policy(count=1), Policy(count=2)]
    recall.turn()
    assert recall(one) == repr(one) and len(asked) == 3
    recall.turn()
    recall.turn()
    assert recall(one) == repr(one) and len(asked) == 4
