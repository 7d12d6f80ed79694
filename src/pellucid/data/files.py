"""Files to text: plain text, gzip and Parquet columns, read as a stream, never whole; what is wrong is said
with file and line.

Lines end at \\n or \\r\\n only (a Unicode line separator inside a sentence must not put two files out of
step). A byte-order mark is dropped. Imports neither torch nor, unless a Parquet file is named, pyarrow.
"""

import codecs
import glob
import gzip
import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from pellucid.data.parquet import read_column
from pellucid.errors import DataError, did_you_mean

CHUNK = 1 << 16
LONGEST_LINE = 1 << 24
_BINARY = {
    b"PK\x03\x04": ("a zip archive (or an Office file)", "unpack it, or save it as plain text"),
    b"%PDF": ("a PDF", "extract its text first"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it with `zstd -d`"),
    b"\xfd7zXZ": ("compressed with xz", "unpack it with `xz -d`"),
    b"BZh": ("compressed with bzip2", "unpack it with `bzip2 -d`"),
    b"PAR1": ("a Parquet file", "name the column: FILE.parquet:COLUMN"),
    codecs.BOM_UTF16_LE: ("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    codecs.BOM_UTF16_BE: ("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
}


class Example(NamedTuple):
    """A source text, the target text it should become, and the group it is counted under in reports."""

    source: str
    target: str
    group: str = ""


class Chunk(NamedTuple):
    """A piece of a document; `last` = the document ends here."""

    text: str
    last: bool


class Source(NamedTuple):
    """One file, and the column if it is Parquet."""

    path: Path
    column: str | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.column}" if self.column else str(self.path)


def expand(patterns: Iterable[str]) -> list[Source]:
    """Files and globs -> existing files, those of one glob sorted. Raises DataError where nothing matches."""
    sources = [source for pattern in patterns for source in _expand_one(str(pattern))]
    if not sources:
        raise DataError("no data files were given", "name files or globs: --data FILES…")
    return sources


def _expand_one(pattern: str) -> list[Source]:
    name, column = pattern, None
    if ".parquet:" in pattern:
        name, _, column = pattern.rpartition(":")
    path = Path(name).expanduser()
    if path.is_file():
        return [Source(path, column)]
    if path.is_dir():
        raise DataError(f"{name} is a folder", f"name its files: '{path / '*.txt'}'")
    if any(c in name for c in "*?["):
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if Path(p).is_file()]
        if not found:
            raise DataError(f"no file matches {name}", f"looked from {Path.cwd()}")
        return [Source(p, column) for p in found]
    if not path.parent.is_dir():
        raise DataError(f"no such file: {name}", f"the folder {path.parent} does not exist")
    files = sorted(p.name for p in path.parent.iterdir() if p.is_file())[:1000]
    remedy = did_you_mean(path.name, files) if files else f"the folder {path.parent} holds no files"
    raise DataError(f"no such file: {name}", remedy if len(remedy) < 500 else "")


def fingerprint(patterns: Iterable[str]) -> str:
    """SHA-256 over the bytes (and columns) of all files in order; names and times do not count."""
    total = hashlib.sha256()
    for source in expand(patterns):
        with _guarded(source, partial(open, source.path, "rb")) as file:
            total.update(hashlib.file_digest(file, "sha256").digest() + f":{source.column or ''}\n".encode())
    return total.hexdigest()


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
            yield from _pieces(_decoded(source, size), size)


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
        yield from _lines(source)


def _lines(source: Source) -> Iterator[str]:
    if source.column is not None:
        yield from (" ".join(row.split("\n")) for row in read_column(source.path, source.column))
        return
    text, number = "", 0
    for piece in _decoded(source, CHUNK):
        *lines, text = (text + piece).split("\n")
        yield from lines
        number += len(lines)
        if len(text) > LONGEST_LINE:
            raise DataError(
                f"{source.path} line {number + 1} is longer than {LONGEST_LINE:,} characters",
                "is this a file with one sentence per line?",
            )
    if text:
        yield text


def read_pairs(patterns: Iterable[str], notes: list[str] | None = None) -> Iterator[Example]:
    """Sentence pairs, from TSV files (two columns or more; the first two count) or from two files, line by
    line.

    Which of the two is told by the names: files that all end in .tsv (.tsv.gz) are TSV, and so is a single
    file; two patterns are the source and the target side (globs may match several files each, taken in sorted
    order). Pairs with an empty side are skipped and counted in `notes`. Raises DataError: sides of different
    length, a line without a tab, nothing but empty sides.
    """
    patterns = list(patterns)
    sides = [expand([pattern]) for pattern in patterns]
    flat = [source for side in sides for source in side]
    tsv = all(s.column is None and ".tsv" in s.path.suffixes[-2:] for s in flat)
    if tsv or len(flat) == 1:
        rows: Iterator[tuple[str, str, str]] = (row for source in flat for row in _tsv(source))
    elif len(sides) == 1 and len(flat) == 2:
        rows = _aligned(*flat)
    elif len(sides) == 2 and len(sides[0]) == len(sides[1]):
        rows = (row for left, right in zip(*sides, strict=True) for row in _aligned(left, right))
    else:
        raise DataError(
            f"{len(flat)} files are no sentence pairs: {', '.join(str(s) for s in flat[:4])}",
            "give two files (source, target) or any number of .tsv files with two columns",
        )
    yield from _both_sides(rows, flat, notes)


def _both_sides(
    rows: Iterator[tuple[str, str, str]], sources: list[Source], notes: list[str] | None
) -> Iterator[Example]:
    kept = skipped = 0
    first = ""
    for left, right, where in rows:
        left, right = left.strip(), right.strip()
        if left and right:
            kept += 1
            yield Example(left, right)
        else:
            skipped += 1
            first = first or where
    if not kept:
        raise DataError(f"{sources[0]}: all {skipped} pairs have an empty side", "is it the right file and column?")
    if skipped and notes is not None:
        notes.append(f"{skipped:,} pairs with an empty side were skipped, the first at {first}")


def _tsv(source: Source) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(_lines(source), 1):
        columns = line.split("\t")
        where = f"{source} line {number}"
        if len(columns) < 2 and line.strip():
            raise DataError(
                f"{where}: one column where two are needed: {line[:60]!r}",
                "write source, a tab character, target on each line; or give two files, source and target",
            )
        yield columns[0], columns[1] if len(columns) > 1 else "", where


def _aligned(left: Source, right: Source) -> Iterator[tuple[str, str, str]]:
    counts = [0, 0]
    for a, b in itertools.zip_longest(_lines(left), _lines(right)):
        counts[0] += a is not None
        counts[1] += b is not None
        if a is not None and b is not None:
            yield a, b, f"{left} line {counts[0]}"
    if counts[0] != counts[1]:
        raise DataError(
            f"{left} has {counts[0]:,} lines, {right} has {counts[1]:,}",
            "the two sides of sentence pairs need the same number of lines; is one file of another version?",
        )


def _guarded(source: Source, opened: Callable[[], Any]) -> Any:
    try:
        return opened()
    except OSError as error:
        raise DataError(f"cannot read {source.path}: {error.strerror or error}") from None


def _open(source: Source) -> BinaryIO:
    """The file's bytes, unpacked if its first two bytes say gzip, checked for what is plainly no text."""
    file = _guarded(source, partial(open, source.path, "rb"))
    head = file.read(4096)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        file.close()
        return cast(BinaryIO, gzip.open(source.path, "rb"))
    for magic, (what, remedy) in _BINARY.items():
        if head.startswith(magic):
            file.close()
            raise DataError(f"{source.path} is {what}, not plain text", remedy)
    return file


def _decoded(source: Source, size: int) -> Iterator[str]:
    """The file's text piece by piece: UTF-8, without byte-order mark, \\r\\n as \\n. Raises DataError with
    the line."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines, empty, carry = 0, True, ""
    with _open(source) as file:
        while True:
            data = _read(source, file, size)
            pending = decoder.getstate()[0]
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                line = newlines + (pending + data).count(b"\n", 0, error.start) + 1
                bad = (pending + data)[error.start]
                raise DataError(
                    f"{source.path} line {line}: byte 0x{bad:02x} is not UTF-8",
                    "if the file is in an older encoding, convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW",
                ) from None
            if (null := text.find("\0")) >= 0:
                line = newlines + text.count("\n", 0, null) + 1
                raise DataError(
                    f"{source.path} line {line}: a NUL character; this looks like a binary file",
                    "give plain UTF-8 text; NUL characters in a text are removed by: tr -d '\\000' < FILE > NEW",
                )
            newlines += data.count(b"\n")
            text = carry + text
            if empty and text:
                text, empty = text.removeprefix("\ufeff"), not text.strip("\ufeff")
            carry = "\r" if text.endswith("\r") and data else ""
            yield text.removesuffix(carry).replace("\r\n", "\n")
            if not data:
                break
    if empty:
        raise DataError(f"{source.path} is empty", "give a file with text in it")


def _read(source: Source, file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{source.path} is a damaged gzip file: {error}", "fetch or pack it again") from None
