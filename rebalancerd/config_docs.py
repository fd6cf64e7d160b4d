"""The declaration as text: the generated example, and a configuration in force with every value."""

import textwrap
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rebalancerd.config_errors import file_key

WIDTH = 110
HEADER = """\
# Configuration of rebalancerd.
#
# Settings behind a # show their defaults; take the # away to change them.
# Durations, sizes and rates are numbers in seconds, bytes and bytes per second, or texts with units:
# "30 s", "1h30m", "64 GiB", "10 Gbit/s". Passwords and tokens are never written here.
"""


def example(model: type[BaseModel]) -> str:
    """A file that loads: two example hosts, everything else commented out. Taking every ``#`` before a key away loads too."""
    out = [HEADER]
    fields = {name: field for name, field in model.model_fields.items() if _table(field) is None}
    out += _commented(fields, _defaults(model, fields))
    for name, field in model.model_fields.items():
        table = _table(field)
        if table is None:
            continue
        if name == "hosts":
            out += [*_hosts(table)]
        elif _is_list(field):
            out += [*_heading(table.__doc__), *_list_example(f"[[{name}]]", table)]
        else:
            out += [*_heading(table.__doc__), f"[{name}]", *_section(name, table)]
    return "\n".join(out).rstrip() + "\n"


def _section(name: str, model: type[BaseModel]) -> Iterable[str]:
    plain = {n: f for n, f in model.model_fields.items() if _table(f) is None}
    yield from _commented(plain, _defaults(model, plain))
    for inner, field in model.model_fields.items():
        table = _table(field)
        if table is not None:
            yield from ("", *_wrapped(field.description or ""))
            yield from _list_example(f"[[{name}.{inner}]]", table)


def _list_example(header: str, model: type[BaseModel]) -> Iterable[str]:
    yield f"#{header}"
    yield from _commented(model.model_fields, _defaults(model, model.model_fields))


def _hosts(model: type[BaseModel]) -> Iterable[str]:
    plain = {n: f for n, f in model.model_fields.items() if _table(f) is None}
    values = _defaults(model, plain)
    required = {n: f for n, f in plain.items() if f.is_required()}
    optional = {n: f for n, f in plain.items() if not f.is_required()}
    yield from _heading(model.__doc__)
    for number in ("1", "2"):
        yield "[[hosts]]"
        for name, field in required.items():
            if number == "1":
                yield from _wrapped(field.description or "")
            yield f"{name} = {toml(values[name]).replace('1', number)}"
        if number == "1":
            yield from _commented(optional, values)
            for name, field in model.model_fields.items():
                if (table := _table(field)) is not None:
                    yield from ("", *_wrapped(table.__doc__ or ""), f"#[hosts.{name}]")
                    yield from _commented(table.model_fields, _defaults(table, table.model_fields))
        yield ""


def _commented(fields: Mapping[str, FieldInfo], values: Mapping[str, Any]) -> Iterable[str]:
    for name, field in fields.items():
        unset = field.default is None and not field.is_required()
        yield from _wrapped((field.description or "") + (" (Not set; an example:)" if unset else ""))
        yield f"#{file_key(name)} = {toml(values[name])}"


def _defaults(model: type[BaseModel], fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """Default of each field, or an example where there is none, as the file writes them."""
    given = {n: f.examples[0] for n, f in fields.items() if f.examples and (f.is_required() or f.default is None)}
    needed = {n: () for n, f in model.model_fields.items() if f.is_required() and n not in given}
    validated = model.model_construct(**{**{n: f.default for n, f in fields.items()}, **needed})
    made: dict[str, Any] = validated.model_dump(include=set(fields) - set(given), warnings=False)
    return {**made, **given}


def effective(cfg: BaseModel) -> str:
    """Every value in force, as a file that loads to the same configuration; defaults are marked. It holds no secrets."""
    dump = cfg.model_dump()
    out: list[str] = []
    _render(cfg, dump, (), out)
    return "\n".join(out).strip() + "\n"


def _render(model: BaseModel, dump: Mapping[str, Any], prefix: tuple[str, ...], out: list[str]) -> None:
    nested = []
    for name, field in type(model).model_fields.items():
        if _table(field) is not None:
            nested.append(name)
        elif dump[name] is not None:
            mark = "" if name in model.model_fields_set else _mark(field, getattr(model, name))
            out.append(f"{file_key(name)} = {toml(dump[name])}{mark}")
    for name in nested:
        value, path = getattr(model, name), (*prefix, name)
        if isinstance(value, BaseModel):
            out += ["", f"[{'.'.join(path)}]"]
            _render(value, dump[name], path, out)
            continue
        if value is None:
            continue
        for item, inner in zip(value, dump[name], strict=True):
            out += ["", f"[[{'.'.join(path)}]]"]
            _render(item, inner, path, out)


def _mark(field: FieldInfo, value: Any) -> str:
    """Where a value that is not in the file comes from."""
    given = field.is_required() or value == field.default
    return "  # default" if given else "  # by aggressiveness"


def toml(value: Any) -> str:
    """A value as TOML writes it. Raises TypeError for what the declaration does not use."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return toml(value.value)
    if isinstance(value, str):
        return '"' + "".join(_escaped(c) for c in value) + '"'
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, frozenset | set):
        return toml(sorted(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        return "{ " + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + " }"
    raise TypeError(f"no TOML for a value of type {type(value).__name__}")


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _table(field: FieldInfo) -> type[BaseModel] | None:
    """The section behind a field, None for a plain value."""
    options = (field.annotation, *getattr(field.annotation, "__args__", ()))
    return next((a for a in options if isinstance(a, type) and issubclass(a, BaseModel)), None)


def _is_list(field: FieldInfo) -> bool:
    return not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))


def _heading(text: str | None) -> list[str]:
    return ["", "", *_wrapped(text or "")]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent="# ", subsequent_indent="# ")
