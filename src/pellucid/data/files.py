"""Files to texts, lines and sentence pairs: plain text, gzip, tables and Parquet columns, read as a stream, never whole; what
is wrong is said with file and line.

Imports neither torch nor, unless a Parquet file is named, pyarrow.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pellucid.data.columns import SOURCE, TARGET
from pellucid.data.parquet import read_column
from pellucid.data.sources import CHUNK, Source, decoded, expand, fingerprint, lines_of
from pellucid.data.tables import both_given, is_table, read_table
from pellucid.errors import DataError

__all__ = ["Chunk", "Example", "expand", "fingerprint", "read_chunks", "read_lines", "read_pairs"]


class Example(NamedTuple):
    """A source text, the target text it should become, and the group it is counted under in reports."""

    source: str
    target: str
    group: str = ""


class Chunk(NamedTuple):
    """A piece of a document; `last` = the document ends here."""

    text: str
    last: bool


def read_chunks(patterns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
    """Documents in pieces of at most about 2 * `size` bytes, cut after a line where there is one, else before
    a space.

    A file is one document, or each row of a Parquet column. Joined, the pieces are the text. Raises DataError
    (empty, binary, not UTF-8).
    """
    for source in expand(patterns):
        if source.column is not None:
            yield from (Chunk(text, True) for text in read_column(source.path, source.column) if text)
        else:
            yield from _pieces(decoded(source, size), size)


def _pieces(decoded: Iterator[str], size: int) -> Iterator[Chunk]:
    held = ""
    for piece in _cut(decoded, size):
        if held:
            yield Chunk(held, False)
        held = piece
    yield Chunk(held, True)


def _cut(decoded: Iterator[str], size: int) -> Iterator[str]:
    text = ""
    for piece in decoded:
        text += piece
        end = text.rfind("\n") + 1
        if not end and len(text) >= size:
            end = max(text.rfind(" "), 0) or len(text)
        if end:
            yield text[:end]
            text = text[end:]
    if text:
        yield text


def read_lines(patterns: Iterable[str]) -> Iterator[str]:
    """The lines of all files without their line ends (of a Parquet column: its rows, line ends as spaces)."""
    for source in expand(patterns):
        yield from lines_of(source)


def read_pairs(
    patterns: Iterable[str], notes: list[str] | None = None, columns: Sequence[str] = ()
) -> Iterator[Example]:
    """Sentence pairs, from tables (TSV, CSV, JSONL, Parquet: see `tables`) or from two files, line by line.

    Which of the two is told by the names: files that all end like tables (.tsv, .csv.gz, …) are tables, and so is a single
    file; two patterns are the source and the target side (globs may match several files each, taken in sorted order).
    `columns`: the names of the two columns of tables. Pairs with an empty side are skipped and counted in `notes`.
    Raises DataError: sides of different length, a line without a tab, nothing but empty sides.
    """
    patterns = list(patterns)
    sides = [expand([pattern]) for pattern in patterns]
    flat = [source for side in sides for source in side]
    if len(flat) == 1 or all(is_table(source) for source in flat):
        rows = read_table(patterns, (SOURCE, TARGET), columns, notes)
    elif columns:
        raise DataError(f"{flat[0]} has no columns {' and '.join(columns)}", "leave out data.columns, or give tables")
    elif len(sides) == 1 and len(flat) == 2:
        rows = _aligned(*flat)
    elif len(sides) == 2 and len(sides[0]) == len(sides[1]):
        rows = (row for left, right in zip(*sides, strict=True) for row in _aligned(left, right))
    else:
        raise DataError(
            f"{len(flat)} files are no sentence pairs: {', '.join(str(s) for s in flat[:4])}",
            "give two files (source, target) or any number of tables (.tsv, .csv, .jsonl, .parquet) with two columns",
        )
    kept = both_given(rows, "pairs", "an empty side", notes)
    yield from (Example(source, target) for source, target in kept)


def _aligned(left: Source, right: Source) -> Iterator[tuple[str, str, str]]:
    counts = [0, 0]
    for a, b in itertools.zip_longest(lines_of(left), lines_of(right)):
        counts[0] += a is not None
        counts[1] += b is not None
        if a is not None and b is not None:
            yield a, b, f"{left} line {counts[0]}"
    if counts[0] != counts[1]:
        raise DataError(
            f"{left} has {counts[0]:,} lines, {right} has {counts[1]:,}",
            "the two sides of sentence pairs need the same number of lines; is one file of another version?",
        )
