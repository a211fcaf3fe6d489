"""Change single fields of a configuration by their dotted names: the vocabulary of settings and of measurements."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from enum import IntFlag
from math import isnan
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from core.errors import ConfigurationError

T = TypeVar("T")


def field_values(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every field of a tree of dataclasses by its dotted name, ``"subtract.kernel.half_width_pix": 13``."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name
        values |= field_values(value, f"{name}.") if is_dataclass(value) else {name: value}
    return values


def changed_fields(config: Any, usual: Any) -> dict[str, Any]:
    """The fields in which ``config`` differs from ``usual``."""
    default = field_values(usual)
    return {name: value for name, value in field_values(config).items() if value != default[name]}


def with_changes(config: T, changes: Mapping[str, object]) -> T:
    """A copy with fields changed, ``{"subtract.kernel.half_width_pix": 16}``.

    A tuple is given as any sequence, a set of mask planes as names joined by ``|``; the keys of a table are names too
    (``photometry.color_terms.g``). A name that does not exist or a
    value of another type is a ``ConfigurationError`` that says what would be right.
    """
    for name, value in changes.items():
        config = _changed(config, name.split("."), value, name, config)
    return config


def _changed(config: Any, path: list[str], value: object, name: str, root: Any) -> Any:
    first, rest = path[0], path[1:]
    if not is_dataclass(config) or first not in {field.name for field in fields(config)}:
        raise _unknown(name, root)
    current = getattr(config, first)
    hint = get_type_hints(type(config))[first]
    if rest and isinstance(current, Mapping):  # one of its keys
        key = ".".join(rest)
        value, name = {**current, key: value}, name.removesuffix(f".{key}")
    elif rest:
        return replace(config, **{first: _changed(current, rest, value, name, root)})  # type: ignore[type-var]
    if is_dataclass(current):
        inside = ", ".join(field.name for field in fields(current))
        raise ConfigurationError(f"{name} is a section; its fields are {inside}", code="bad_pipeline_field")
    return replace(config, **{first: _converted(name, value, hint)})  # type: ignore[type-var]


def _unknown(name: str, root: Any) -> ConfigurationError:
    """The error for a name that does not exist, with the nearest one that does."""
    known = list(field_values(root))
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # the right field in the wrong section
        last = name.rpartition(".")[2]
        near = [full for full in known if full.rpartition(".")[2] == last][:1]
    hint = f"; did you mean {near[0]}?" if near else ""
    return ConfigurationError(f"no such field {name}{hint}", code="unknown_pipeline_field")


def _converted(name: str, value: object, hint: Any) -> object:
    """The value as the field's type has it; loss and guessing are refused."""
    origin = get_origin(hint)
    if origin is Literal:
        for allowed in get_args(hint):
            if value == allowed and type(value) is type(allowed):
                return value
        raise _bad(name, value, "one of " + ", ".join(repr(allowed) for allowed in get_args(hint)))
    if origin is tuple:
        return _tuple(name, value, get_args(hint))
    if origin is Mapping:
        return _mapping(name, value, get_args(hint)[1])
    if isinstance(hint, type) and issubclass(hint, IntFlag):
        return _flags(name, value, hint)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value):
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    kinds = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    raise _bad(name, value, kinds.get(hint, "something that cannot be set here"))


def _tuple(name: str, value: object, kinds: tuple[Any, ...]) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise _bad(name, value, "a list")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise _bad(name, value, f"a list of {len(kinds)}")
    return tuple(_converted(name, item, kind) for item, kind in zip(value, kinds, strict=True))


def _mapping(name: str, value: object, kind: Any) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _bad(name, value, "a table")
    return MappingProxyType({str(key): _converted(f"{name}.{key}", item, kind) for key, item in value.items()})


def _flags(name: str, value: object, kind: type[IntFlag]) -> IntFlag:
    result = kind(0)
    for part in value.split("|") if isinstance(value, str) else [str(value)]:
        if part.strip() not in kind.__members__:
            raise _bad(name, value, "names joined by |, of " + ", ".join(kind.__members__))
        result |= kind[part.strip()]
    return result


def _bad(name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{name} is {value!r}, but must be {wanted}", code="bad_pipeline_value")
