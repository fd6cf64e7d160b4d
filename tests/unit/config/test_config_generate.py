"""The generated example and the effective configuration are the declaration in other words."""

import re
import tomllib
from pathlib import Path

import pytest

from rebalancerd import config
from rebalancerd.config_docs import toml
from rebalancerd.config_sections import Section
from rebalancerd.config_units import parsed, shown
from rebalancerd.observe.settings import ObserveSettings

ROOT = Path(__file__).parents[3]


def uncommented(text: str) -> str:
    """Every setting in force: the ``#`` before a key or a table is taken away, descriptions stay."""
    return re.sub(r"(?m)^#(?=[^\s#])", "", text)


def test_the_example_loads_and_says_the_defaults() -> None:
    cfg = config.parse(config.generate())

    assert cfg.observe_settings() == ObserveSettings()
    assert len(cfg.hosts) == 2


def test_the_example_loads_with_everything_taken_in() -> None:
    """What is shown as default is the default: taking the comment signs away changes nothing but the examples."""
    plain, full = config.parse(config.generate()), config.parse(uncommented(config.generate()))

    for section in ("ticks", "observe", "predict", "models", "plan", "act", "power", "serve", "log"):
        # certificates have no default: what is shown is an example
        files = dict.fromkeys(n for n in type(getattr(full, section)).model_fields if n.endswith("_file"))
        assert getattr(full, section).model_copy(update=files) == getattr(plain, section)
        assert getattr(full, section).model_fields_set == set(type(getattr(full, section)).model_fields)
    assert full.guard.model_copy(update={"windows": (), "blackouts": (), "policy_windows": ()}) == plain.guard
    assert full.rules[0].name == "db-*"


def test_every_setting_is_described_in_the_example() -> None:
    from rebalancerd import config_sections

    text = uncommented(config.generate())
    kinds = [
        v for v in vars(config_sections).values() if isinstance(v, type) and issubclass(v, Section) and v is not Section
    ]

    assert len(kinds) == 16
    for kind in kinds:
        assert kind.__doc__
        for name, field in kind.model_fields.items():
            key = config_sections.file_key(name)
            assert field.description, f"{kind.__name__}.{name}"
            assert re.search(rf"(?m)^(\[\[?)?(\w+\.)?{key}(\]\]?| = )", text), f"{kind.__name__}.{name}"


def test_the_shipped_example_is_the_generated_one() -> None:
    """Renew it with ``rebalancerd config generate > config/rebalancerd.toml``."""
    assert (ROOT / "config" / "rebalancerd.toml").read_text() == config.generate()


def test_effective_loads_to_the_same_configuration() -> None:
    cfg = config.parse(uncommented(config.generate()))
    text = config.effective(cfg)

    assert config.parse(text) == cfg
    assert "cooldown = " in text


def test_effective_marks_what_the_file_does_not_say() -> None:
    text = config.effective(config.parse("mode = 'auto'\n[[hosts]]\nname='a'\nuri='qemu:///system'\n"))

    assert 'mode = "auto"\n' in text
    assert 'controller = "rebalancerd"  # default' in text
    assert 'cooldown = "30 min"  # default' in text


@pytest.mark.parametrize(
    "value", ['quote " and \\', "\x1b\n\t\x00\x7f", "\U0001f600 é", "'''", 1.5, 3, True, [1, ["a"]], ()]
)
def test_values_are_written_as_toml(value: object) -> None:
    back = tomllib.loads(f"x = {toml(value)}")["x"]

    assert back == (list(value) if isinstance(value, tuple) else value)
    assert toml(value).isprintable()


def test_values_that_toml_lacks() -> None:
    with pytest.raises(TypeError):
        toml(None)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("duration", "90", None),
        ("duration", "90 s", 90.0),
        ("duration", "1h30m", 5400.0),
        ("duration", "1 h 30 min", 5400.0),
        ("duration", "1.5 d", 129600.0),
        ("duration", "250ms", 0.25),
        ("duration", "5 minutes", 300.0),
        ("duration", "", None),
        ("duration", "-5 s", None),
        ("duration", "5 s 3", None),
        ("duration", "٣ s", None),
        ("duration", "1e3 s", None),
        ("size", "64 GiB", 64 * 2**30),
        ("size", "64 GB", 64 * 10**9),
        ("size", "512MiB", 512 * 2**20),
        ("size", "64 Gib", None),
        ("size", "1 GiB 2 MiB", None),
        ("rate", "10 Gbit/s", 1.25e9),
        ("rate", "1 MiB/s", 2**20),
        ("rate", "10 Gbit", None),
    ],
)
def test_units(kind: str, text: str, value: float | None) -> None:
    if value is None:
        with pytest.raises(ValueError, match="is not a"):
            parsed(kind, text)
    else:
        assert parsed(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("duration", 1800.0, "30 min"),
        ("duration", 0.0, "0 s"),
        ("duration", 0.06, "60 ms"),
        ("duration", 86400.0, "1 d"),
        ("size", 64 * 2**30, "64 GiB"),
        ("rate", 125_000_000.0, "1 Gbit/s"),
    ],
)
def test_values_are_shown_in_units(kind: str, value: float, text: str) -> None:
    assert shown(kind, value) == text
