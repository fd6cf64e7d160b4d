"""Kind: what a model file is of (what migrations cost, what VMs will demand), and how a model of it is rebuilt and asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rebalancerd.predict.manifest import Figures, Golden, Manifest
from rebalancerd.predict.settings import PredictSettings


class Fitted(Protocol):
    """A fitted model: what is saved of it."""

    @property
    def state(self) -> dict[str, Any]:
        """Estimators of scikit-learn, arrays, numbers, texts, and tables and lists of them."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its inputs, in their order."""
        ...


M = TypeVar("M", bound=Fitted)
G = TypeVar("G", bound=Golden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[M, G]):
    """One kind of model. ``name`` begins its files' names.

    ``features``: those that this version computes. ``rebuild``: a model of a state, its id and the settings it predicts
    with; raises ValueError. ``ask``: the figures a model gives for the questions of golden predictions, in their order.
    """

    name: str
    manifest: type[Manifest[G]]
    features: tuple[str, ...]
    rebuild: Callable[[dict[str, Any], str, PredictSettings], M]
    ask: Callable[[M, Sequence[G]], list[Figures]]
