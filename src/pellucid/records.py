"""Frozen records to plain dictionaries and back. Reading is strict: an unknown field is an error, never ignored. Imports no torch."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pellucid.errors import DataError, did_you_mean

R = TypeVar("R")


def from_dict(kind: type[R], table: Mapping[str, Any], where: str) -> R:
    """A record of type `kind`; nested records and tuples are built from nested dictionaries and lists.

    Raises DataError naming `where` and the field when a field is unknown.
    """
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise DataError(f"{where}: unknown field {key!r}", did_you_mean(key, hints))
    return kind(**{key: _value(hints[key], value, where) for key, value in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    return tuple(value) if isinstance(value, list) else value
