"""Examples that are made, not read: strings to copy or reverse, and dates (see `dates`). Nothing to download,
nothing seen twice.

A held-out string or day is held out by what it is, so it never occurs in training whatever the seed. Imports
no torch.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from pellucid.data.batches import bits, mix64
from pellucid.data.dates import SPLITS, Split, dates
from pellucid.data.files import Example

__all__ = ["GENERATORS", "SPLITS", "Split", "copy", "dates", "reverse"]

_CHUNK = 4096
_TAG = 0xC097
_LETTERS = 26


def copy(split: Split, n: int, seed: int, shortest: int = 4, longest: int = 16) -> Iterator[Example]:
    """n strings of `shortest` to `longest` letters a-z, each to be written again. group = its length."""
    for text in _strings(split, n, seed, shortest, longest):
        yield Example(text, text, f"length {len(text)}")


def reverse(split: Split, n: int, seed: int, shortest: int = 4, longest: int = 16) -> Iterator[Example]:
    """n strings of `shortest` to `longest` letters a-z, each to be written backwards. group = its length."""
    for text in _strings(split, n, seed, shortest, longest):
        yield Example(text, text[::-1], f"length {len(text)}")


def _strings(split: Split, n: int, seed: int, shortest: int, longest: int) -> Iterator[str]:
    """Random strings of one split: 1 in 20 strings is valid, 1 in 20 test, by a hash of the letters."""
    left, chunk = n, 0
    while left > 0:
        drawn = bits(_CHUNK * (longest + 1), _TAG, seed, SPLITS.index(split), chunk).reshape(_CHUNK, longest + 1)
        lengths = shortest + (drawn[:, 0] % np.uint64(longest - shortest + 1)).astype(np.int64)
        letters = (drawn[:, 1:] >> np.uint64(33)) % np.uint64(_LETTERS)
        letters[np.arange(longest) >= lengths[:, None]] = _LETTERS  # beyond the end
        rows = np.flatnonzero(_belongs(letters, split))[:left].tolist()
        text = (letters + np.uint64(ord("a"))).astype(np.uint8).tobytes().decode("ascii")
        sizes = lengths.tolist()
        yield from (text[row * longest : row * longest + sizes[row]] for row in rows)
        left, chunk = left - len(rows), chunk + 1


def _belongs(letters: np.ndarray, split: Split) -> np.ndarray:
    """letters [N, L], 26 past the end (a longer L gives the same answer) -> bool [N]."""
    state = np.zeros(len(letters), np.uint64)
    for column in letters.T:
        state = np.where(column < _LETTERS, mix64(state ^ (column + np.uint64(1))), state)
    share = state % np.uint64(20)
    return {"valid": share == 0, "test": share == 1, "train": share > 1}[split]


GENERATORS: dict[Literal["dates", "copy", "reverse"], Callable[[Split, int, int], Iterator[Example]]] = {
    "dates": dates,
    "copy": copy,
    "reverse": reverse,
}
