"""Rows of TSV, CSV, JSONL (each also packed by gzip) and Parquet files as two columns of text: a text and its label, a source
and its target.

Which two columns: those that are named; else those whose names are usual for what is wanted (`Role`); else, where nothing
names them, the first two. TSV is split at its tabs and nothing else (SST-2 is full of lone quotes); CSV is read by its rules,
quotes and line ends inside quotes included, and strictly: a broken line is an error with its number, never half a row.
Imports no torch.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pellucid.data.parquet import columns_of, read_rows
from pellucid.data.sources import Source, expand, lines_of
from pellucid.errors import DataError, did_you_mean

Row = tuple[str, str, str]
_FORMATS = {"tsv": "tsv", "csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "parquet": "parquet"}


class Role(NamedTuple):
    """What a column is for, and the names it usually has, the most telling first."""

    name: str
    usual: tuple[str, ...]


_ASKED = ("source", "src", "prompt", "instruction", "question", "input", "query", "document", "article")
_ANSWERED = ("target", "tgt", "answer", "response", "output", "completion", "translation", "summary", "highlights")
TEXT = Role(
    "text", ("text", "sentence", "review", "content", "comment", "question", "title", "message", "document", "tweet")
)
LABEL = Role(
    "label", ("label", "labels", "class", "category", "sentiment", "target", "tag", "intent", "topic", "stars")
)
SOURCE, PROMPT = Role("source", _ASKED), Role("prompt", _ASKED)
TARGET, ANSWER = Role("target", _ANSWERED), Role("answer", _ANSWERED)
Roles = tuple[Role, Role]


def read_table(
    patterns: Iterable[str], roles: Roles, columns: Sequence[str] = (), notes: list[str] | None = None
) -> Iterator[Row]:
    """(first, second, where) of every row of all files; an empty string where a row has nothing; blank lines are no rows.

    `columns`: the two header names (or JSON keys), exactly; numbers count columns from 1 in files without a header. Numbers
    and truth values become text as JSON writes them. `notes` is told which columns were taken. Raises DataError: no such
    column, columns that cannot be told, a broken line (with its file and number).
    """
    if len(columns) not in (0, 2):
        raise DataError(f"data.columns has {len(columns)} names: {' '.join(columns)}", _naming(roles))
    told: list[str] = []
    for source in expand(patterns):
        if source.column is not None:
            raise DataError(f"{source} names one column where two are needed", f"name the file alone. {_naming(roles)}")
        yield from _READERS[format_of(source)](source, roles, columns, told)
    if notes is not None:
        notes += told[:1]


def is_table(source: Source) -> bool:
    """Whether a file's name says that it holds columns (a Parquet file with a column named does not count)."""
    return source.column is None and _suffix(source) in _FORMATS


def format_of(source: Source) -> str:
    """tsv, csv, jsonl or parquet, by the file's name; tsv where the name says nothing."""
    return _FORMATS.get(_suffix(source), "tsv")


def both_given(rows: Iterable[Row], what: str, lack: str, notes: list[str] | None) -> Iterator[tuple[str, str]]:
    """Rows that have both, without outer white space; those (of `what`) that `lack` something are skipped and counted in
    `notes`. Raises DataError if none is left."""
    kept = skipped = 0
    first = ""
    for left, right, where in rows:
        left, right = left.strip(), right.strip()
        if left and right:
            kept += 1
            yield left, right
        else:
            skipped += 1
            first = first or where
    if skipped and not kept:
        raise DataError(f"all {skipped:,} {what} have {lack}, the first: {first}", "is it the right file and column?")
    if skipped and notes is not None:
        notes.append(f"{skipped:,} {what} with {lack} were skipped, the first at {first}")


def json_objects(source: Source) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a file with one JSON object a line, and where each stands. Raises DataError with the line."""
    for number, line in enumerate(lines_of(source), 1):
        if not line.strip():
            continue
        where = f"{source} line {number}"
        try:
            found = json.loads(line)
            if "\\ud" in line.lower():
                json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DataError(f"{where}: half of a surrogate pair (\\ud…) is no text", "repair what wrote it") from None
        except (ValueError, RecursionError) as error:
            remedy = "the file is one JSON document: write one object a line, e.g. jq -c '.[]' FILE > NEW.jsonl"
            whole = number == 1 and line.strip() in ("[", "{")
            problem = getattr(error, "msg", "") or str(error)
            raise DataError(
                f"{where} is not JSON: {problem}", remedy if whole else f"the line: {line[:60]!r}"
            ) from None
        if not isinstance(found, dict):
            remedy = "write one object a line, e.g. jq -c '.[]' FILE > NEW.jsonl" if isinstance(found, list) else ""
            raise DataError(f"{where}: {type(found).__name__} where an object {{…}} is needed", remedy)
        yield found, where


def pick(names: Sequence[str], text: Sequence[str], roles: Roles, columns: Sequence[str], source: Source) -> list[str]:
    """Which two of named columns are meant; `text`: those of them that hold text."""
    if columns:
        for column in columns:
            if column not in names:
                raise DataError(f"{source} has no column {column!r}", did_you_mean(column, names))
        return list(columns)
    if found := _usual(names, roles):
        return [names[place] for place in found]
    if len(text) == 2:
        return list(text)
    raise DataError(
        f"{source}: which column is the {roles[0].name}, which the {roles[1].name}? There are: {', '.join(names)}",
        _naming(roles),
    )


def plain(value: Any, where: str) -> str:
    """A JSON value as text: "" for null, "1", "true". Raises DataError for lists and objects."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise DataError(f"{where}: {type(value).__name__} where a text or a number is needed: {str(value)[:60]}")


# --- formats


def _delimited(source: Source, roles: Roles, columns: Sequence[str], told: list[str]) -> Iterator[Row]:
    rows = _csv(source) if format_of(source) == "csv" else _tsv(source)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{source} has no rows", "give a file with text in it")
    (left, right), header = _places(first, roles, columns, source)
    width = len(first[0])
    if header:
        names = first[0][left], first[0][right]
        told.append(f"{source}: the first line is a header; {_chosen(roles, names)}")
    for cells, where in rows if header else _again(first, rows):
        if len(cells) <= max(left, right):
            problem = (
                "one column where two are needed" if len(cells) == 1 else f"{len(cells)} columns, {width} are needed"
            )
            remedy = f"write {roles[0].name}, a tab character, {roles[1].name} on each line"
            remedy += "; or give two files, source and target" if roles[0] is SOURCE else ""
            raise DataError(
                f"{where}: {problem}: {_shown(cells)}", remedy if format_of(source) == "tsv" else _naming(roles)
            )
        if header and any(cells[width:]):
            remedy = (
                "a text that holds commas needs quotes" if format_of(source) == "csv" else "is there a tab in a text?"
            )
            raise DataError(f"{where}: {len(cells)} columns, the header has {width}: {_shown(cells)}", remedy)
        yield cells[left], cells[right], where


def _tsv(source: Source) -> Iterator[tuple[list[str], str]]:
    for number, line in enumerate(lines_of(source), 1):
        if line.strip():
            yield line.split("\t"), f"{source} line {number}"


def _csv(source: Source) -> Iterator[tuple[list[str], str]]:
    first = next(lines_of(source), "")
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")  # spreadsheets of many countries write semicolons
    reader = csv.reader((line + "\n" for line in lines_of(source)), delimiter=delimiter, strict=True)
    while True:
        where = f"{source} line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            remedy = 'is a quote not closed? A quote inside a quoted text is written twice: "he said ""no"""'
            raise DataError(f"{where} is not CSV: {error}", remedy) from None
        if cells:
            yield cells, where


def _jsonl(source: Source, roles: Roles, columns: Sequence[str], told: list[str]) -> Iterator[Row]:
    keys: list[str] = []
    for record, where in json_objects(source):
        if not keys:
            text = [name for name, value in record.items() if isinstance(value, str)]
            keys = pick(list(record), text, roles, columns, source)
            told.append(f"{source}: {_chosen(roles, keys)}")
        yield plain(record.get(keys[0]), where), plain(record.get(keys[1]), where), where
    if not keys:
        raise DataError(f"{source} has no rows", "give a file with text in it")


def _parquet(source: Source, roles: Roles, columns: Sequence[str], told: list[str]) -> Iterator[Row]:
    known = columns_of(source.path)
    keys = pick(list(known), [name for name, is_text in known.items() if is_text], roles, columns, source)
    told.append(f"{source}: {_chosen(roles, keys)}")
    for number, (left, right) in enumerate(read_rows(source.path, keys), 1):
        where = f"{source} row {number}"
        yield plain(left, where), plain(right, where), where


_READERS = {"tsv": _delimited, "csv": _delimited, "jsonl": _jsonl, "parquet": _parquet}


# --- which columns


def _places(
    first: tuple[list[str], str], roles: Roles, columns: Sequence[str], source: Source
) -> tuple[tuple[int, int], bool]:
    """The places of the two columns, told from a file's first row, and whether that row is a header."""
    cells, where = first
    names = [cell.strip() for cell in cells]
    if columns and all(column in names for column in columns):
        return (names.index(columns[0]), names.index(columns[1])), True
    if columns and all(column.isdecimal() for column in columns):
        left, right = (int(column) - 1 for column in columns)
        if not 0 <= min(left, right) <= max(left, right) < len(cells):
            raise DataError(f"{where}: no columns {' and '.join(columns)}: there are {len(cells)}", _naming(roles))
        return (left, right), bool(_usual([names[left]], roles[:1]) and _usual([names[right]], roles[1:]))
    if columns:
        missing = next(column for column in columns if column not in names)
        known = did_you_mean(missing, [name[:40] for name in names])
        raise DataError(f"{source} has no column {missing!r} in its first line", known)
    if found := _usual(names, roles):
        return (found[0], found[1]), True
    return (0, 1), False


def _usual(names: Sequence[str], roles: Sequence[Role]) -> list[int]:
    """The places of the columns whose names are usual for the roles; [] unless there is one for each."""
    lower, found = [name.strip().casefold() for name in names], list[int]()
    for role in roles:
        fitting = (lower.index(usual) for usual in role.usual if usual in lower)
        found += [next((place for place in fitting if place not in found), -1)]
    return [] if -1 in found else found


def _again(first: Any, rows: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rows


def _suffix(source: Source) -> str:
    name = source.path.name.lower().removesuffix(".gz")
    return name.rpartition(".")[2] if "." in name else ""


def _chosen(roles: Roles, names: Sequence[str]) -> str:
    return f"{names[0]!r} is the {roles[0].name}, {names[1]!r} the {roles[1].name}"


def _naming(roles: Roles) -> str:
    return f"name the two columns that count: --data.columns {roles[0].name.upper()} {roles[1].name.upper()}"


def _shown(cells: list[str]) -> str:
    return repr("\t".join(cells)[:60])
