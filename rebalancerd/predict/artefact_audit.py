"""What a model file may hold, looked at before anything of it is built, and what of it must be sound before it is asked.

A skops file is a zip of NumPy arrays and a ``schema.json`` that names the type of every object. skops itself trusts every
estimator of scikit-learn, and checks types only. Here the list is closed: the estimators that our models are made of
and what they hold. scikit-learn follows the child indices of trees, and libsvm its vectors, without looking at their
bounds, so these are checked before the first prediction.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_UNPACKED_BYTES = 256 * 1024 * 1024
MAX_SCHEMA_BYTES = 48 * 1024 * 1024
MAX_MEMBERS = 100_000
SCHEMA = "schema.json"
LEAST_PROTOCOL = 2  # older ones choose older readers inside skops

_Array = NDArray[Any]
_BOOSTING = "sklearn.ensemble._hist_gradient_boosting"
PREDICTOR, TREE = f"{_BOOSTING}.predictor.TreePredictor", "sklearn.tree._tree.Tree"
_LINKS = ("IdentityLink", "Interval", "LogLink", "LogitLink")
_LOSSES = (
    "AbsoluteError",
    "HalfBinomialLoss",
    "HalfGammaLoss",
    "HalfPoissonLoss",
    "HalfSquaredError",
    "HuberLoss",
    "PinballLoss",
)
_OBJECTS = (
    PREDICTOR,
    f"{_BOOSTING}.binning._BinMapper",
    f"{_BOOSTING}.gradient_boosting.HistGradientBoostingClassifier",
    f"{_BOOSTING}.gradient_boosting.HistGradientBoostingRegressor",
    "sklearn.dummy.DummyClassifier",
    "sklearn.dummy.DummyRegressor",
    "sklearn.ensemble._forest.ExtraTreesClassifier",
    "sklearn.ensemble._forest.ExtraTreesRegressor",
    "sklearn.ensemble._forest.RandomForestClassifier",
    "sklearn.ensemble._forest.RandomForestRegressor",
    "sklearn.ensemble._gb.GradientBoostingClassifier",
    "sklearn.ensemble._gb.GradientBoostingRegressor",
    "sklearn.impute._base.SimpleImputer",
    "sklearn.isotonic.IsotonicRegression",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.linear_model._ridge.Ridge",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.preprocessing._label.LabelEncoder",
    "sklearn.svm._classes.SVR",
    "sklearn.tree._classes.DecisionTreeClassifier",
    "sklearn.tree._classes.DecisionTreeRegressor",
    "sklearn.tree._classes.ExtraTreeClassifier",
    "sklearn.tree._classes.ExtraTreeRegressor",
    *(f"sklearn._loss.link.{name}" for name in _LINKS),
    *(f"sklearn._loss.loss.{name}" for name in _LOSSES),
)
_SCALARS = ("bool", "bool_", "float32", "float64", "int32", "int64", "uint8", "uint32", "uint64")
# every (reader of skops, type) that a file may name
TYPES: frozenset[tuple[str, str]] = frozenset(
    {
        ("DictNode", "builtins.dict"),
        ("ListNode", "builtins.list"),
        ("TupleNode", "builtins.tuple"),
        ("JsonNode", "builtins.str"),
        ("TypeNode", "builtins.str"),
        ("TypeNode", "builtins.int"),
        ("DTypeNode", "numpy.dtype"),
        ("NdArrayNode", "numpy.ndarray"),
        ("RandomGeneratorNode", "numpy.random._generator.Generator"),
        ("RandomStateNode", "numpy.random.mtrand.RandomState"),
        ("TreeNode", TREE),
        *(("NdArrayNode", f"numpy.{name}") for name in _SCALARS),
        *(("LossNode", f"sklearn._loss._loss.Cy{name}") for name in _LOSSES),
        *(("ObjectNode", name) for name in _OBJECTS),
    }
)
TRUSTED = sorted({name for _, name in TYPES})


class ForeignContentError(ValueError):
    """A type that no model of ours holds."""


class BrokenContentError(ValueError):
    """Not a skops file, or one that is damaged, oversized or contradicts itself."""


def audit(data: bytes) -> None:
    """Look through a file's directory, schema and array headers; nothing is built or unpacked beyond the limits.

    Raises ForeignContentError, BrokenContentError.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist())
            schema = json.loads(archive.read(SCHEMA))
            for name, member in sorted(_nodes(schema)):
                if (name, member) not in TYPES:
                    raise ForeignContentError(f"it holds {member} ({name}), which no model is made of")
            for info in archive.infolist():
                if info.filename != SCHEMA:
                    _check_array(info.filename, archive.read(info))
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
        raise BrokenContentError(f"it is no skops file, or damaged: {error}") from error
    except (json.JSONDecodeError, RecursionError, MemoryError, OverflowError) as error:
        raise BrokenContentError(f"its {SCHEMA} cannot be read: {error or type(error).__name__}") from error
    protocol = schema.get("protocol") if isinstance(schema, dict) else None
    if type(protocol) is not int or protocol < LEAST_PROTOCOL:
        raise BrokenContentError(f"it says skops protocol {protocol!r}; {LEAST_PROTOCOL} is the oldest that is read")


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [m.filename for m in members]
    if len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise BrokenContentError(f"it has {len(names)} members, {len(set(names))} different ones")
    for name in names:
        if name != SCHEMA and not (
            name.endswith(".npy") and name.removesuffix(".npy").isascii() and name[:-4].isdigit()
        ):
            raise BrokenContentError(f"it has a member {name[:80]!r}; only {SCHEMA} and numbered arrays are known")
    unpacked = sum(m.file_size for m in members)
    if unpacked > MAX_UNPACKED_BYTES or any(m.file_size > MAX_SCHEMA_BYTES for m in members if m.filename == SCHEMA):
        raise BrokenContentError(f"it would unpack to {unpacked} bytes, which is too much")


def _nodes(tree: Any) -> set[tuple[str, str]]:
    """Every (reader, type) that a schema names. Raises ForeignContentError for what names none."""
    found: set[tuple[str, str]] = set()
    left = [tree]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if "__loader__" in item or "__class__" in item or "__module__" in item:
                parts = [item.get(key) for key in ("__loader__", "__module__", "__class__")]
                if not all(isinstance(part, str) for part in parts):
                    raise ForeignContentError(f"it holds an object of the type {str(parts)[:120]}")
                found.add((str(parts[0]), f"{parts[1]}.{parts[2]}"))
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
    return found


def _check_array(name: str, raw: bytes) -> None:
    """An array's header must ask for the bytes that are there, and for plain numbers or text."""
    stream = io.BytesIO(raw)
    try:
        major, _ = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
    except (ValueError, OSError) as error:
        raise BrokenContentError(f"its array {name} has no header: {error}") from error
    count = 1
    for length in shape:
        count *= length
    if kind.hasobject or count * kind.itemsize != len(raw) - stream.tell():
        raise BrokenContentError(f"its array {name} of shape {shape} and type {kind} does not match its size")


def check_bounds(state: object) -> None:
    """See that nothing of a built state can lead outside itself or its inputs. Raises BrokenContentError."""
    for part, features in _parts(state):
        if isinstance(part, np.ndarray) and part.dtype.names is not None and "feature_idx" in part.dtype.names:
            _check_nodes(part["is_leaf"] == 0, (part["left"], part["right"]), part["feature_idx"], features)
            if part["is_categorical"].any():
                raise BrokenContentError("one of its trees splits by category, which no model does")
        elif type(part).__name__ == "Tree":
            children = np.asarray(part.children_left), np.asarray(part.children_right)
            _check_nodes(children[0] != -1, children, np.asarray(part.feature), features)
        elif type(part).__name__.startswith("GradientBoosting"):
            _check_stages(part)
        elif type(part).__name__ == "SVR":
            _check_vectors(part, features)


def _parts(state: object) -> Iterator[tuple[Any, int]]:
    """Every object below ``state``, with the least number of inputs that the estimators around it take (0: none is)."""
    left: list[tuple[Any, int]] = [(state, 0)]
    seen: set[tuple[int, int]] = set()
    while left:
        part, features = left.pop()
        if isinstance(part, str | bytes | int | float | None) or (id(part), features) in seen:
            continue
        seen.add((id(part), features))
        attributes = getattr(part, "__dict__", None)
        if isinstance(attributes, dict):
            own = attributes.get("n_features_in_")
            if isinstance(own, int) and not isinstance(own, bool):
                features = min(features, own) if features else own
        yield part, features
        left.extend((item, features) for item in _below(part, attributes))


def _below(part: Any, attributes: Any) -> Iterable[Any]:
    if isinstance(part, np.ndarray):
        return tuple(part.flat) if part.dtype == object else ()
    if isinstance(part, dict):
        return part.values()
    if isinstance(part, list | tuple | set):
        return part
    return attributes.values() if isinstance(attributes, dict) else ()


def _check_nodes(inner: _Array, children: tuple[_Array, _Array], feature: _Array, features: int) -> None:
    """Children lie behind their parent, so that every walk ends; the inputs that are looked at exist."""
    number, count = np.arange(inner.shape[0]), inner.shape[0]
    known = (feature >= 0) & (feature < features)
    for child in children:
        known &= (child > number) & (child < count)
    if count == 0 or not known[inner].all():
        raise BrokenContentError("one of its trees leads to nodes or inputs that do not exist")


def _check_stages(model: Any) -> None:
    """Gradient boosting writes one column of output per column of ``estimators_``, without looking."""
    stages = getattr(model, "estimators_", None)
    columns = getattr(model, "n_trees_per_iteration_", None)
    if not isinstance(stages, np.ndarray) or stages.ndim != 2 or stages.shape[1] != columns:
        raise BrokenContentError("the stages of one of its models do not match its outputs")


def _check_vectors(model: Any, features: int) -> None:
    """libsvm takes lengths on trust: as many vectors, indices and weights as there are inputs and intercepts for."""
    own = vars(model)
    count, width = np.shape(own.get("support_vectors_")) or (0, 0)
    right = {
        "support_": (count,),
        "support_vectors_": (count, features),
        "_n_support": (2,),
        "_dual_coef_": (1, count),
        "_intercept_": (1,),
        "_probA": (0,),
        "_probB": (0,),
    }
    shapes = all(isinstance(own.get(name), np.ndarray) and own[name].shape == shape for name, shape in right.items())
    kinds = own.get("kernel") in ("linear", "poly", "rbf", "sigmoid") and own.get("_sparse") is False
    if not (count and width and shapes and kinds) or "_impl" in own:
        raise BrokenContentError("the support vectors of one of its models do not match its inputs")
