"""Which two columns of a table are meant: those that are named, else those whose names are usual for what is wanted (`Role`).

Only a file of two columns without a header, or a TSV of sentence pairs, is read by position; what was taken is always told. Imports no
torch.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pellucid.errors import DataError, did_you_mean

MISSING = ("nan", "none", "null", "na", "n/a")
"""What programs write where there is no value, in lower case."""


class Role(NamedTuple):
    """What a column is for, and the names it usually has, the most telling first."""

    name: str
    usual: tuple[str, ...]


Roles = tuple[Role, Role]
TEXT = Role(
    "text", ("text", "sentence", "review", "content", "comment", "question", "title", "message", "document", "tweet")
)
LABEL = Role(
    "label", ("label", "labels", "class", "category", "sentiment", "target", "tag", "intent", "topic", "stars")
)
SOURCE = Role("source", ("source", "src", "prompt", "instruction", "question", "input", "query", "document", "article"))
TARGET = Role(
    "target",
    ("target", "tgt", "answer", "response", "output", "completion", "translation", "summary", "highlights"),
)
PAIR = (SOURCE, TARGET)
"""By custom (Tatoeba, Anki) the first two columns of TSV; what stands behind them says where they come from."""


class Layout(NamedTuple):
    """Of a table without names of its own: the places of the two columns, how many columns a row has, whether the first row is a
    header, and how all this is told: what was `chosen` and `why`."""

    left: int
    right: int
    width: int
    header: bool
    chosen: str
    why: str


def layout(head: Sequence[Sequence[str]], roles: Roles, columns: Sequence[str], name: str) -> Layout:
    """Told from the first rows (one at least) of the file `name`. Raises DataError: no such column; more than two, and their
    names are not usual."""
    names = [cell.strip() for cell in head[0]]
    while len(names) > 2 and not names[-1]:  # a delimiter at the end of the line
        names.pop()
    (left, right), header = _places(names, roles, columns, name)
    why = "the first line is a header"
    if not header and roles[1] is LABEL and _names_numbers([row[right] for row in head if len(row) > right]):
        header, why = True, "the first line is a header: only its label is no number"
    if header:
        return Layout(left, right, len(names), True, chosen(roles, (names[left], names[right])), why)
    taken = f"column {left + 1} is the {roles[0].name}, column {right + 1} the {roles[1].name}"
    first = ", ".join(repr(names[place][:40]) for place in (left, right) if place < len(names))
    return Layout(left, right, max(2, len(names)), False, taken, f"no header was found (the first row is {first})")


def pick(names: Sequence[str], roles: Roles, columns: Sequence[str], name: str) -> list[str]:
    """Which two of the named columns of the file `name` are meant. Raises DataError: no such column; no usual names."""
    if columns:
        for column in columns:
            if column not in names:
                raise DataError(f"{name} has no column {column!r}", did_you_mean(column, names))
        return list(columns)
    if found := _usual(names, roles):
        return [names[place] for place in found]
    raise DataError(f"{_which(roles, name)} There are: {', '.join(names)}", naming(roles))


def chosen(roles: Roles, names: Sequence[str]) -> str:
    """Told to a person: which columns were taken."""
    return f"{names[0]!r} is the {roles[0].name}, {names[1]!r} the {roles[1].name}"


def naming(roles: Roles) -> str:
    """What to do where columns cannot be told."""
    return f"name the two columns that count: --data.columns {roles[0].name.upper()} {roles[1].name.upper()}"


def _places(names: Sequence[str], roles: Roles, columns: Sequence[str], name: str) -> tuple[tuple[int, int], bool]:
    """The places of the two columns, and whether the first row is known to be a header."""
    if columns and all(column in names for column in columns):
        return (names.index(columns[0]), names.index(columns[1])), True
    if columns and all(column.isdecimal() for column in columns):
        left, right = (int(column) - 1 for column in columns)
        if not 0 <= min(left, right) <= max(left, right) < len(names):
            raise DataError(f"{name}: no columns {' and '.join(columns)}: there are {len(names)}", naming(roles))
        return (left, right), bool(_usual([names[left]], roles[:1]) and _usual([names[right]], roles[1:]))
    if columns:
        missing = next(column for column in columns if column not in names)
        known = did_you_mean(missing, [name[:40] for name in names])
        raise DataError(f"{name} has no column {missing!r} in its first line", known)
    if found := _usual(names, roles):
        return (found[0], found[1]), True
    if len(names) > 2 and not (roles == PAIR and ".tsv" in Path(name).suffixes):
        shown = ", ".join(f"{i} {cell[:40]!r}" for i, cell in enumerate(names, 1))
        raise DataError(
            f"{_which(roles, name)} The first row has {len(names)}: {shown}",
            f"{naming(roles)}, by their names in the first row or, if that is no header, by their numbers",
        )
    return (0, 1), False


def _usual(names: Sequence[str], roles: Sequence[Role]) -> list[int]:
    """The places of the columns whose names are usual for the roles; [] unless there is one for each."""
    lower, found = [name.strip().casefold() for name in names], list[int]()
    for role in roles:
        fitting = (lower.index(usual) for usual in role.usual if usual in lower)
        found += [next((place for place in fitting if place not in found), -1)]
    return [] if -1 in found else found


def _names_numbers(cells: Sequence[str]) -> bool:
    """Whether a column is a word above several numbers."""
    first, *rest = [cell.strip() for cell in cells] or [""]
    named = first and first.casefold() not in MISSING and not _is_number(first)
    return bool(named and len(rest) > 1 and all(map(_is_number, rest)))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", text) is not None


def _which(roles: Roles, name: str) -> str:
    return f"{name}: which column is the {roles[0].name}, which the {roles[1].name}?"
