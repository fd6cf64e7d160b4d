"""What an object can get at: a walk over all its references, for tests of what must not be there."""

import gc
import sys
import types
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")
MOST_OBJECTS = 300_000
SHARED = (type, types.ModuleType, types.FrameType, types.CodeType)  # what every program has: nobody's own


def reachable(root: object) -> Iterator[object]:
    """Everything that can be got at from an object by any reference, but for modules, classes and their globals."""
    names = {id(vars(module)) for module in list(sys.modules.values()) if hasattr(module, "__dict__")}
    seen, todo = {id(root)}, [root]
    while todo:
        found = todo.pop()
        yield found
        for following in gc.get_referents(found):
            if id(following) in seen or id(following) in names or isinstance(following, SHARED):
                continue
            seen.add(id(following))
            todo.append(following)
            assert len(seen) < MOST_OBJECTS, "the walk left the object"


def of_kind(root: object, *kinds: type[T]) -> list[T]:
    """The objects of those classes among them."""
    return [found for found in reachable(root) if isinstance(found, kinds)]
