"""Frozen values to JSON and back, strictly: nothing is converted, dropped or guessed. Infinite and NaN figures are texts."""

import json
from typing import Any, Generic, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError

from rebalancerd.cluster.advice import Advice, AdviceScore
from rebalancerd.cluster.decision import CycleRecord
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.night import Evening, Night
from rebalancerd.cluster.plan import Plan
from rebalancerd.cluster.power import PowerRecord

T = TypeVar("T")
_NOT_FINITE = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


class CodecError(ValueError):
    """Text that is not such a value, or a value that cannot be written; the message names the first wrong field."""


class Codec(Generic[T]):
    """Writes and reads values of one dataclass; ``read(write(value)) == value``, digests included."""

    def __init__(self, kind: type[T]) -> None:
        # wrapped in a tuple: a plain dataclass takes its configuration from what surrounds it only
        config = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="strings")
        self._adapter: TypeAdapter[tuple[T]] = TypeAdapter(cast("Any", tuple.__class_getitem__(kind)), config=config)
        self._name = kind.__name__

    def write(self, value: T) -> str:
        """JSON text. Raises CodecError for text that is not Unicode (lone surrogates)."""
        try:
            return self._adapter.dump_json((value,), warnings="error").decode("utf-8")[1:-1]
        except (PydanticSerializationError, UnicodeError) as error:
            raise CodecError(f"{self._name} cannot be written: {error}") from error

    def write_lossy(self, value: T) -> str:
        """As ``write``, but lone surrogates become question marks: what is only remembered must never fail for a name."""
        try:
            return self.write(value)
        except CodecError:
            tree = self._adapter.dump_python((value,), mode="json")
            return json.dumps(tree[0], ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")

    def tree(self, value: T) -> dict[str, Any]:
        """The value as JSON's own types. Raises CodecError."""
        made: dict[str, Any] = json.loads(self.write(value))
        return made

    def read(self, text: str) -> T:
        """The value. Raises CodecError for anything else than what ``write`` gives, unknown fields included."""
        try:
            return self._validated(f"[{text}]")
        except ValidationError as error:
            patched = _with_not_finite(text, error)
            if patched is None:
                raise self._error(error) from None
        try:
            return self._validated(patched)
        except ValidationError as error:
            raise self._error(error) from None

    def _validated(self, text: str) -> T:
        value: T = self._adapter.validate_json(text)[0]
        return value

    def _error(self, error: ValidationError) -> CodecError:
        found = error.errors(include_url=False, include_context=False)
        first = next((item for item in found if not _is_not_finite(item)), found[0])
        where = ".".join(str(part) for part in first["loc"][1:])
        return CodecError(f"not a {self._name}: {where + ': ' if where else ''}{first['msg']}")


def _with_not_finite(text: str, error: ValidationError) -> str | None:
    """The text with its "Infinity" and "NaN" made figures where figures are wanted; None if other things are wrong."""
    found = error.errors(include_url=False, include_context=False)
    if not all(_is_not_finite(item) for item in found):
        return None
    tree = json.loads(f"[{text}]")
    for item in found:
        place, (*path, last) = tree, item["loc"]
        for part in path:
            place = place[part]
        place[last] = _NOT_FINITE[item["input"]]
    return json.dumps(tree, allow_nan=True)


def _is_not_finite(item: ErrorDetails) -> bool:
    return item["type"] == "float_type" and isinstance(item["input"], str) and item["input"] in _NOT_FINITE


PLANS: Codec[Plan] = Codec(Plan)
MIGRATIONS: Codec[MigrationRecord] = Codec(MigrationRecord)
CYCLES: Codec[CycleRecord] = Codec(CycleRecord)
ADVICE: Codec[Advice] = Codec(Advice)
ADVICE_SCORES: Codec[AdviceScore] = Codec(AdviceScore)
POWER: Codec[PowerRecord] = Codec(PowerRecord)
NIGHTS: Codec[Night] = Codec(Night)
EVENINGS: Codec[Evening] = Codec(Evening)
