"""Tokenised once, memory-mapped ever after: lists of ids of any length in two flat files, kept in a cache
under the hash of all they depend on.

The corpus is never in memory. A folder appears whole or not at all (written aside, then renamed), so that
runs may start side by side; one whose files do not have the size written down is made anew. Cache: the folder
PELLUCID_CACHE or ~/.cache/pellucid.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import DataError
from pellucid.progress import Progress
from pellucid.text.bulk import flat

_FORMAT = 1
_DAY = 86400


class Ragged:
    """N lists of ids: `tokens` (all, one after the other) and `offsets` (int64 [N + 1]). ragged[i] -> the
    i-th list."""

    def __init__(self, tokens: np.ndarray, offsets: np.ndarray) -> None:
        self.tokens, self.offsets = tokens, offsets

    @classmethod
    def of(cls, lists: Iterable[Iterable[int]]) -> "Ragged":
        """The same in memory, for what is small."""
        rows = [np.asarray(list(ids), np.int64) for ids in lists]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(np.concatenate([np.zeros(0, np.int64), *rows]), offsets)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [N]."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def take(self, rows: Iterable[int]) -> "Ragged":
        """Some of the lists, in memory."""
        return Ragged.of(self[row].tolist() for row in rows)

    def padded(self, rows: np.ndarray, longest: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows [B] -> ids int64 [B, T] of the longest's length, 0 where none, and keep bool [B, T]. Lists are cut to `longest`."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        lengths = lengths if longest is None else np.minimum(lengths, longest)
        place = np.arange(lengths.max(initial=0))
        keep = place < lengths[:, None]
        ids = np.zeros(keep.shape, np.int64)
        ids[keep] = self.tokens[(starts[:, None] + place)[keep]]
        return ids, keep


class Writer:
    """Appends lists of ids to NAME.tokens (uint16 where the vocabulary fits, else uint32; int32 where there is none, for
    numbers that may be negative) and NAME.offsets in a folder."""

    def __init__(self, folder: Path, name: str, vocab_size: int | None) -> None:
        self.dtype = np.dtype("<i4" if vocab_size is None else "<u2" if vocab_size <= 1 << 16 else "<u4")
        self.length = self.count = 0
        self._tokens = open(folder / f"{name}.{self.dtype.name}", "wb")
        self._offsets = open(folder / f"{name}.offsets", "wb")
        self._offsets.write(np.zeros(1, "<i8").tobytes())
        self._progress = Progress(f"tokens of {name}")

    def extend(self, lists: list[list[int]]) -> None:
        """Each list becomes one row."""
        self.append(*flat(lists))

    def append(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        """The same, of ids [N], row after row, and the rows' lengths [B]."""
        self._offsets.write((self.length + np.cumsum(lengths)).astype("<i8").tobytes())
        self._tokens.write(ids.astype(self.dtype).tobytes())
        self._progress.tick(len(ids))
        self.length += len(ids)
        self.count += len(lengths)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.__exit__()
        self._tokens.close()
        self._offsets.close()


def encoded(tokenizer: Any, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids [N], text after text, and how many of each text [B]; by the tokenizer's own fast way where it has one."""
    fast = getattr(tokenizer, "encode_flat", None)
    return fast(texts) if fast else flat(tokenizer.encode_batch(texts))


def open_ragged(folder: Path, name: str) -> Ragged:
    """What a Writer of that name wrote, memory-mapped."""
    file, dtype = next(
        (f, kind) for kind in ("<u2", "<u4", "<i4") if (f := folder / f"{name}.{np.dtype(kind).name}").exists()
    )
    return Ragged(open_flat(file, dtype), open_flat(folder / f"{name}.offsets", "<i8"))


def open_flat(file: Path, dtype: str) -> np.ndarray:
    """The numbers of a raw file, memory-mapped: [N]."""
    if file.stat().st_size == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype)
    return np.memmap(file, dtype, mode="r").view(np.ndarray)


def cache_root() -> Path:
    """The folder PELLUCID_CACHE, or ~/.cache/pellucid."""
    return Path(os.environ.get("PELLUCID_CACHE") or Path.home() / ".cache" / "pellucid").expanduser()


def cached(key: Mapping[str, Any], fill: Callable[[Path], None]) -> Path:
    """The folder that belongs to `key` (anything JSON can write); made by `fill(folder)` unless it is there
    and whole.

    Raises DataError where the cache cannot be written; what `fill` raises leaves nothing behind.
    """
    text = json.dumps({"format": _FORMAT, **key}, sort_keys=True)
    root = cache_root() / "tokenised"
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:32]
    if _whole(folder, text):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
        try:
            fill(aside)
            sizes = {file.name: file.stat().st_size for file in aside.iterdir()}
            (aside / "meta.json").write_text(json.dumps({"key": text, "sizes": sizes}), encoding="utf-8")
            return _publish(aside, folder, text)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write tokenised data in {root}: {error.strerror or error}",
            "set PELLUCID_CACHE to a folder that can be written and has room",
        ) from None


def _whole(folder: Path, key: str) -> bool:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return meta["key"] == key and all((folder / n).stat().st_size == size for n, size in meta["sizes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _publish(aside: Path, folder: Path, key: str) -> Path:
    """Renames; where another run was quicker, theirs is taken; what is broken there is moved out of the way."""
    for attempt in range(5):
        try:
            aside.rename(folder)
            return folder
        except OSError:
            if _whole(folder, key):
                return folder
            if attempt == 4:
                raise
        broken = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
        try:
            folder.rename(broken / "folder")
        except OSError:  # another run moved it first
            time.sleep(0.05)
        shutil.rmtree(broken, ignore_errors=True)
    raise AssertionError("unreachable")


def _sweep(root: Path) -> None:
    """Folders that a killed run left more than a day ago."""
    for left in [*root.glob(".new-*"), *root.glob(".old-*")]:
        try:
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue
