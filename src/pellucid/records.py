"""Frozen records to plain dictionaries and back. Reading is strict: an unknown field or a value of the wrong type is an error.

Imports no torch.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pellucid.errors import DataError, did_you_mean

R = TypeVar("R")


@functools.cache
def hints(kind: type) -> dict[str, Any]:
    """Field name -> type of a record."""
    return typing.get_type_hints(kind)


def from_dict(kind: type[R], table: Mapping[str, Any], where: str) -> R:
    """A record of type `kind`; nested records and tuples are built from nested dictionaries and lists.

    Raises DataError naming `where` and the field when a field is unknown or its value is of another type.
    """
    known, values = hints(kind), {}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in known:
            raise DataError(f"{where}: unknown field {key!r}", did_you_mean(key, known))
        hint = known[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            values[key] = from_dict(hint, value, where)  # type: ignore[arg-type]
            continue
        fits, values[key] = convert(hint, value)
        if not fits:
            raise DataError(f"{where}: {key} cannot be {value!r}")
    return kind(**values)


def convert(hint: Any, value: Any) -> tuple[bool, Any]:
    """(does it fit, the value as the type wants it) for everything that is not a record: an integer may stand for a float, a list for
    a tuple."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        tried = [(value is None, None) if part is type(None) else convert(part, value) for part in parts]
        return next((one for one in tried if one[0]), (False, None))
    if origin is Literal:
        return value in parts and not isinstance(value, bool), value
    if origin is tuple:
        if not isinstance(value, list) or (Ellipsis not in parts and len(value) != len(parts)):
            return False, None
        items = [convert(parts[0] if Ellipsis in parts else parts[i], item) for i, item in enumerate(value)]
        return all(fits for fits, _ in items), tuple(item for _, item in items)
    if origin is dict:
        if not isinstance(value, dict):
            return False, None
        items = [convert(parts[1], item) for item in value.values()]
        return all(fits for fits, _ in items), dict(zip(value, (item for _, item in items), strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    return type(value) is hint, value
