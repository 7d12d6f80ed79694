"""A stream of tokens to windows of one length: every token is a target exactly once per epoch, and a batch is
a pure function of (seed, step).

How it differs from windows drawn at random (nanoGPT): nothing is left out and nothing comes twice, and
windows begin elsewhere in every epoch. The stream is a ring that is cut open at a random place; the one
window that is not full repeats tokens of another, and their targets are IGNORE. Which window comes when is
computed, not stored (`Permutation`). torch is imported where a batch becomes tensors.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pellucid.data.batches import Permutation, bits
from pellucid.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100  # a target that does not count (what torch's cross_entropy ignores of itself)
_RING, _ORDER = 3, 4
_AHEAD = 64  # steps whose windows are drawn at once: a step of a small model takes no longer than drawing


class TextData:
    """Windows of `length` tokens over `tokens` (any integer dtype, [N], memory-mapped or not), `batch_size`
    of them a batch.

    Raises DataError if the text is shorter than one window and its last target.
    """

    def __init__(self, tokens: np.ndarray, length: int, batch_size: int, seed: int = 0) -> None:
        self.tokens, self.length, self.batch_size, self.seed = tokens, length, batch_size, seed
        self.n_targets = len(tokens) - 1
        if self.n_targets < length:
            raise DataError(
                f"the text has {len(tokens):,} tokens, a window needs {length + 1:,}",
                "give more text, a smaller --training.length, or a smaller data.vocab_size",
            )
        self.n_windows = -(-self.n_targets // length)
        self._drawn = -1, np.empty(0), np.empty(0)

    @property
    def steps_per_epoch(self) -> float:
        """Windows / batch_size; where it is not whole, a batch has windows of two epochs."""
        return self.n_windows / self.batch_size

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step: "ids" and "targets", int64 [B,T]; targets are the next ids, or IGNORE.
        A pure function of (seed, step)."""
        import torch

        block, place = divmod(step, _AHEAD)
        if self._drawn[0] != block:
            self._drawn = (block, *self._draw(block * _AHEAD * self.batch_size, _AHEAD * self.batch_size))
        rows = slice(place * self.batch_size, (place + 1) * self.batch_size)
        starts, fresh = (drawn[rows, None] for drawn in self._drawn[1:])
        column = np.arange(self.length)
        where = (starts + column) % self.n_targets
        targets = self.tokens[where + 1].astype(np.int64)
        targets[column >= fresh] = IGNORE
        return {"ids": torch.from_numpy(self.tokens[where].astype(np.int64)), "targets": torch.from_numpy(targets)}

    def _draw(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Where `count` windows begin [N], counted through all epochs from `first` on, and how many targets of each are its own [N]."""
        epochs, places = np.divmod(first + np.arange(count), self.n_windows)
        starts, fresh = np.empty(count, np.int64), np.empty(count, np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            order = Permutation(self.n_windows, self.seed, epoch, _ORDER)(places[here])
            opened = int(bits(1, self.seed, epoch, _RING)[0] % np.uint64(self.n_targets))
            starts[here] = opened + order * self.length
            fresh[here] = np.minimum(self.length, self.n_targets - order * self.length)
        return starts, fresh

    def windows(self, batch_size: int | None = None) -> "Iterator[dict[str, Tensor]]":
        """The whole stream in order for evaluation, each token but the first scored once; the rest comes as a
        shorter window of its own."""
        import torch

        full = self.n_targets // self.length
        size = batch_size or self.batch_size
        pieces = [(first, min(size, full - first), self.length) for first in range(0, full, size)]
        if rest := self.n_targets % self.length:
            pieces.append((full, 1, rest))
        for first, count, length in pieces:
            start, n = first * self.length, count * length
            both = self.tokens[start : start + n + 1].astype(np.int64)
            ids, targets = both[:-1].reshape(count, length), both[1:].reshape(count, length)
            yield {"ids": torch.from_numpy(ids), "targets": torch.from_numpy(targets)}
