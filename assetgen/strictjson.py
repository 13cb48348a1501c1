"""Strict JSON into frozen dataclasses: one error for each broken rule, nothing coerced; standard library only.

Python's ``json`` alone accepts duplicate keys, NaN and 1e999, and ends deep nesting with a RecursionError.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

MAX_DEPTH = 16
MAX_NUMBER_CHARACTERS = 32

# An unterminated string matches to the end of the text, so that scanning stays linear.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)

T = TypeVar("T")


class StrictJsonError(ValueError):
    """A text that is not JSON, or JSON that breaks a rule; the message names the rule."""


def loads(data: bytes) -> Any:
    """Parse UTF-8 JSON, refusing duplicate keys, non-finite numbers, over-long numbers and deep nesting."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"not UTF-8 at byte {error.start}") from error
    _check_depth(text)
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise StrictJsonError(f"not JSON, line {error.lineno}: {error.msg}") from error


def build(kind: type[T], value: Any, where: str = "") -> T:
    """Turn parsed JSON into the dataclass ``kind``; a field without a default must be present, others may be absent.

    Raises:
        StrictJsonError: for a missing or unknown key or a value of another type; names the path of the field.
    """
    result: T = _convert(kind, value, where)
    return result


def _check_depth(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = match.group()[0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise StrictJsonError(f"nested deeper than {MAX_DEPTH} levels")
        elif first in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise StrictJsonError(f"duplicate key {key!r:.80}")
        result[key] = value
    return result


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise StrictJsonError(f"a number of {len(text)} characters, allowed are {MAX_NUMBER_CHARACTERS}")
    return int(text)


def _number(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise StrictJsonError(f"a number of {len(text)} characters, allowed are {MAX_NUMBER_CHARACTERS}")
    number = float(text)
    if not math.isfinite(number):
        raise StrictJsonError(f"{text} is not finite")
    return number


def _constant(text: str) -> float:
    raise StrictJsonError(f"{text} is not JSON")


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        return _convert_dataclass(kind, value, where)
    if origin is Literal:
        if not isinstance(value, str) or value not in get_args(kind):
            raise _wrong(where, value, "one of " + ", ".join(get_args(kind)))
        return value
    if origin is tuple:
        return _convert_tuple(get_args(kind), value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _wrong(where, value, "an object")
        return {key: _convert(get_args(kind)[1], item, f"{where}[{key:.40}]") for key, item in value.items()}
    if origin in (Union, types.UnionType):
        # Simple types only; compared exactly, for True is an int to isinstance.
        if type(value) not in get_args(kind):
            raise _wrong(where, value, " or ".join(_NAMES[option] for option in get_args(kind)))
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _wrong(where, value, _NAMES[kind])
    return value


def _convert_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object")
    known = {field.name: field for field in fields(kind)}
    prefix = f"{where}." if where else ""
    for key in value:
        if key not in known:
            raise StrictJsonError(f"{prefix}{key:.80}: unknown key; allowed are {', '.join(known)}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise StrictJsonError(f"{prefix}{name}: missing")
    hints = get_type_hints(kind)
    return kind(**{key: _convert(hints[key], item, prefix + key) for key, item in value.items()})


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(where, value, "a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    elif len(value) != len(kinds):
        raise _wrong(where, value, f"a list of {len(kinds)}")
    return tuple(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
}


def _wrong(where: str, value: Any, wanted: str) -> StrictJsonError:
    return StrictJsonError(f"{where or 'the document'}: got {value!r:.80}, expected {wanted}")
