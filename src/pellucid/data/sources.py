"""Which files are meant, and their bytes as text: plain or gzip, read as a stream, never whole; what is wrong is said with
file and line.

Lines end at \\n or \\r\\n only (a Unicode line separator inside a sentence must not put two files out of step). A byte-order
mark is dropped. Imports no torch.
"""

import codecs
import glob
import gzip
import hashlib
import os
import sysconfig
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from pellucid.data.config import PYTHON
from pellucid.data.parquet import read_column
from pellucid.errors import DataError, did_you_mean

CHUNK = 1 << 16
LONGEST_LINE = 1 << 24
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
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
    if pattern.startswith(PYTHON):
        return _own_library(pattern.removeprefix(PYTHON))
    name, column = pattern, None
    if ".parquet:" in pattern:
        name, _, column = pattern.rpartition(":")
    path = Path(name).expanduser()
    if path.is_file():
        return [Source(path, column)]
    if path.is_dir():
        raise DataError(f"{name} is a folder", _inside(path))
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


def _inside(folder: Path) -> str:
    """What to name instead of a folder."""
    endings = Counter(path.suffix.lower() for path in files_below(folder)).most_common(1)
    if endings and endings[0][0] in PICTURES:
        return f"images have a recipe of their own: pellucid train images --data {folder}"
    return f"name its files: '{folder / ('*' + endings[0][0])}'" if endings else "it holds no files"


def _own_library(pattern: str) -> list[Source]:
    """The running Python's standard library: sources that every machine has. Tests and installed packages are left out."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
    found = [
        path
        for path in sorted(root.glob(pattern))
        if not left_out & set(path.relative_to(root).parts) and path.stat().st_size
    ]
    if not found:
        raise DataError(
            f"no file of the Python library in {root} matches {pattern}", "Python was installed without its sources"
        )
    return [Source(path) for path in found]


def fingerprint(patterns: Iterable[str]) -> str:
    """SHA-256 over the bytes (and columns) of all files in order; names and times do not count. Of a folder, names below it
    count too: they are the labels of its images."""
    total = hashlib.sha256()
    for pattern in patterns:
        if os.path.isdir(folder := os.path.expanduser(pattern)):
            for path in files_below(Path(folder)):
                total.update(path.relative_to(folder).as_posix().encode(errors="surrogateescape") + b"\n")
                total.update(_digest(Source(path)))
        else:
            for source in _expand_one(str(pattern)):
                total.update(_digest(source) + f":{source.column or ''}\n".encode())
    return total.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, in the order of their names; hidden ones are left out."""
    found = []
    for place, inside, names in os.walk(folder, followlinks=True):
        inside[:] = [name for name in inside if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _digest(source: Source) -> bytes:
    with guarded(source, partial(open, source.path, "rb")) as file:
        return hashlib.file_digest(file, "sha256").digest()


def lines_of(source: Source) -> Iterator[str]:
    """The lines of a file without their line ends (of a Parquet column: its rows, line ends as spaces)."""
    if source.column is not None:
        yield from (" ".join(row.split("\n")) for row in read_column(source.path, source.column))
        return
    text, number = "", 0
    for piece in decoded(source, CHUNK):
        *whole, text = (text + piece).split("\n")
        yield from whole
        number += len(whole)
        if len(text) > LONGEST_LINE:
            raise DataError(
                f"{source.path} line {number + 1} is longer than {LONGEST_LINE:,} characters",
                "is this a file with one sentence per line?",
            )
    if text:
        yield text


def guarded(source: Source, opened: Callable[[], Any]) -> Any:
    """What `opened()` gives, or a DataError that names the file."""
    try:
        return opened()
    except OSError as error:
        raise DataError(f"cannot read {source.path}: {error.strerror or error}") from None


def open_unpacked(source: Source) -> BinaryIO:
    """The file's bytes, unpacked if its first two bytes say gzip, checked for what is plainly no text."""
    file = guarded(source, partial(open, source.path, "rb"))
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


def decoded(source: Source, size: int) -> Iterator[str]:
    """The file's text piece by piece: UTF-8, without byte-order mark, \\r\\n as \\n. Raises DataError with
    the line."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines, empty, carry = 0, True, ""
    with open_unpacked(source) as file:
        while True:
            data = read_bytes(source, file, size)
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


def read_bytes(source: Source, file: BinaryIO, size: int) -> bytes:
    """The next bytes, all for -1. Raises DataError for a damaged gzip file."""
    try:
        return file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{source.path} is a damaged gzip file: {error}", "fetch or pack it again") from None
