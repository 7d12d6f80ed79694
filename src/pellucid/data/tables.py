"""Rows of TSV, CSV, JSONL (each also packed by gzip) and Parquet files as two columns of text: a text and its label, a source
and its target. Which two columns: see `columns`.

TSV is split at its tabs and nothing else (SST-2 is full of lone quotes); CSV is read by its rules, quotes and line ends inside
quotes included, and strictly: a broken line, or one with more or fewer columns than the first, is an error with its number,
never half a row. Imports no torch.
"""

import csv
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pellucid.data.columns import SOURCE, Layout, Roles, chosen, layout, naming, pick
from pellucid.data.parquet import columns_of, read_rows
from pellucid.data.sources import LONGEST_LINE, Source, expand, lines_of
from pellucid.errors import DataError

Row = tuple[str, str, str]
SAMPLE = 20
"""Rows from which the delimiter and the columns are told."""
_FORMATS = {"tsv": "tsv", "csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "parquet": "parquet"}


def read_table(
    patterns: Iterable[str], roles: Roles, columns: Sequence[str] = (), notes: list[str] | None = None
) -> Iterator[Row]:
    """(first, second, where) of every row of all files; an empty string where a row has nothing; blank lines are no rows.

    `columns`: the two header names (or JSON keys), exactly; numbers count columns from 1 in files without a header. Numbers
    and truth values become text as JSON writes them. `notes` is told which columns were taken. Raises DataError: no such
    column, columns that cannot be told, a broken line (with its file and number).
    """
    if len(columns) not in (0, 2):
        raise DataError(f"data.columns has {len(columns)} names: {' '.join(columns)}", naming(roles))
    told: dict[str, str] = {}
    for source in expand(patterns):
        if source.column is not None:
            raise DataError(f"{source} names one column where two are needed", f"name the file alone. {naming(roles)}")
        yield from _READERS[format_of(source)](source, roles, columns, told)
    if notes is not None:
        notes += told.values()


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


def _delimited(source: Source, roles: Roles, columns: Sequence[str], told: dict[str, str]) -> Iterator[Row]:
    rows = _csv(source) if format_of(source) == "csv" else _tsv(source)
    head = list(itertools.islice(rows, SAMPLE))
    if not head:
        raise DataError(f"{source} has no rows", "give a file with text in it")
    found = layout([cells for cells, _ in head], roles, columns, str(source))
    told.setdefault(found.chosen, f"{source}: {found.why}; {found.chosen}")
    last, where = max(found.left, found.right), ""
    for cells, where in itertools.chain(head[found.header :], rows):
        if len(cells) <= last or (not found.header and len(cells) < found.width) or any(cells[found.width :]):
            raise _ragged(cells, where, found, roles, format_of(source))
        yield cells[found.left], cells[found.right], where
    if not where:
        raise DataError(f"{source} has a header and no rows", "give a file with rows in it")


def _ragged(cells: list[str], where: str, found: Layout, roles: Roles, kind: str) -> DataError:
    """A row with more or fewer columns than there are."""
    shown = repr("\t".join(cells)[:60])
    if len(cells) == 1 and kind == "tsv":
        remedy = f"write {roles[0].name}, a tab character, {roles[1].name} on each line"
        remedy += "; or give two files, source and target" if roles[0] is SOURCE else ""
    elif len(cells) < found.width:
        remedy = (
            f"complete the row: a {roles[0].name} and a {roles[1].name} are needed, and as many columns in each row"
        )
    else:
        remedy = "a text that holds commas needs quotes" if kind == "csv" else "is there a tab in a text?"
    if len(cells) == 1:
        return DataError(f"{where}: one column where two are needed: {shown}", remedy)
    first = "header" if found.header else "first row"
    return DataError(f"{where}: {len(cells)} columns, the {first} has {found.width}: {shown}", remedy)


def _tsv(source: Source) -> Iterator[tuple[list[str], str]]:
    for number, line in enumerate(lines_of(source), 1):
        if line.strip():
            yield line.split("\t"), f"{source} line {number}"


def _csv(source: Source) -> Iterator[tuple[list[str], str]]:
    reader = _reader(source, _delimiter(source))
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


def _reader(source: Source, delimiter: str) -> Any:
    csv.field_size_limit(LONGEST_LINE)  # of all readers in this process; the module's own limit is 131,072
    return csv.reader((line + "\n" for line in lines_of(source)), delimiter=delimiter, strict=True)


def _delimiter(source: Source) -> str:
    """The comma, or what else gives the first rows one width (spreadsheets of many countries write semicolons). Where several
    do, rather one that no space follows: "well, yes;no" is a text and its label."""
    first = next(lines_of(source), "")
    marks = [mark for mark in ",;\t" if mark in first] or [","]
    fitting = [mark for mark in marks if _has_one_width(source, mark)]
    return min(fitting, key=lambda mark: f"{mark} " in first, default=marks[0])


def _has_one_width(source: Source, delimiter: str) -> bool:
    """Whether the first rows have equally many columns, and more than one."""
    try:
        widths = {len(cells) for cells in itertools.islice(filter(None, _reader(source, delimiter)), SAMPLE)}
    except csv.Error:
        return False
    return len(widths) == 1 and 1 not in widths


def _jsonl(source: Source, roles: Roles, columns: Sequence[str], told: dict[str, str]) -> Iterator[Row]:
    keys: list[str] = []
    for record, where in json_objects(source):
        if not keys:
            keys = pick(list(record), roles, columns, str(source))
            told.setdefault(chosen(roles, keys), f"{source}: {chosen(roles, keys)}")
        yield plain(record.get(keys[0]), where), plain(record.get(keys[1]), where), where
    if not keys:
        raise DataError(f"{source} has no rows", "give a file with text in it")


def _parquet(source: Source, roles: Roles, columns: Sequence[str], told: dict[str, str]) -> Iterator[Row]:
    keys = pick(columns_of(source.path), roles, columns, str(source))
    told.setdefault(chosen(roles, keys), f"{source}: {chosen(roles, keys)}")
    for number, (left, right) in enumerate(read_rows(source.path, keys), 1):
        where = f"{source} row {number}"
        yield plain(left, where), plain(right, where), where


_READERS = {"tsv": _delimited, "csv": _delimited, "jsonl": _jsonl, "parquet": _parquet}


def _suffix(source: Source) -> str:
    name = source.path.name.lower().removesuffix(".gz")
    return name.rpartition(".")[2] if "." in name else ""
