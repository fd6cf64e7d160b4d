"""No file breaks the loader, and every value is shown in a form that reads back."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rebalancerd import config
from rebalancerd.config import ConfigError
from rebalancerd.config_docs import toml
from rebalancerd.config_units import parsed, shown

slow = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EXAMPLE = config.generate()
SETTINGS = {line.split(" = ")[0].lstrip("#") for line in EXAMPLE.splitlines() if " = " in line and "# " not in line[:2]}
TABLES = ("hosts", "guard", "plan", "observe", "windows", "ticks", "rules", "serve", "log", "password")
KEYS = st.sampled_from((*sorted(SETTINGS), *TABLES)) | st.text(max_size=6)
VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["h1", "5 min", "1 GiB", "auto", "UTC"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def read(text: str) -> None:
    """Loads, or raises ConfigError with something in it."""
    problem = None
    try:
        cfg = config.parse(text)
    except ConfigError as error:
        problem = error
    if problem is None:
        assert config.parse(config.effective(cfg)) == cfg
        return
    assert problem.problems
    assert all(line.isprintable() for line in str(problem).splitlines())


def written(value: Any) -> str:
    """TOML of any value, inline tables included."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return toml(value)


@slow
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    read(text)


@slow
@given(st.binary(max_size=100))
def test_any_bytes_of_a_file(content: bytes) -> None:
    with TemporaryDirectory() as directory:
        file = Path(directory) / "x.toml"
        file.write_bytes(content)
        try:
            config.load(file)
        except ConfigError:
            return
    raise AssertionError("loaded")


@slow
@given(st.dictionaries(KEYS, VALUES, max_size=6), st.booleans())
def test_any_tree(tree: dict[str, Any], with_hosts: bool) -> None:
    if with_hosts:
        tree = {**tree, "hosts": [{"name": "h1", "uri": "qemu:///system", **_table(tree.get("hosts"))}]}
    read("\n".join(f"{toml(k)} = {written(v)}" for k, v in tree.items()))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@slow
@given(st.integers(0, EXAMPLE.count("\n") - 1), VALUES)
def test_one_line_of_the_example_changed(number: int, value: Any) -> None:
    """Any setting of the example, set to anything."""
    lines = EXAMPLE.splitlines()
    line = lines[number].lstrip("#").strip()
    if " = " in line:
        lines[number] = f"{line.split(' = ')[0]} = {written(value)}"
    read("\n".join(lines))


@given(st.integers(0, len(EXAMPLE)))
def test_the_example_cut_short(length: int) -> None:
    read(EXAMPLE[:length])


@given(st.sampled_from(["duration", "size", "rate"]), st.floats(0, 1e15) | st.integers(0, 2**50))
def test_units_read_back_what_they_show(kind: Any, value: float) -> None:
    text = shown(kind, value)

    try:
        back = parsed(kind, text)
    except ValueError:
        back = parsed(kind, float(text))  # shown as a bare number
    assert back == value
