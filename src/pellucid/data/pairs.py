"""Sentence pairs to batches: bucketed by length, about equal in tokens, each pair once per epoch, and a pure
function of (seed, step).

How it differs from a sampler that is advanced: the plan of an epoch is computed from (seed, epoch), and an
epoch always has the same number of batches (the ordered pairs are cut at equal shares of their tokens), so
step 1,000,000 is found without visiting the steps before. Pairs are sorted by one side into about
sqrt(batches) stripes and within a stripe by the other, up and down by turns: neither side is padded much.
torch is imported where a batch becomes tensors.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.batches import bits, uniform
from pellucid.data.tokenised import Ragged
from pellucid.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

JITTER = 1.25  # tokens of random length each pair is given when sorted: batch mates change from epoch to epoch
MOST_DROPPED = 0.1
_LENGTHS, _ORDER = 1, 2


class PairData:
    """Batches of pairs. `batch_tokens` counts source and target (with its <eos>) tokens, without padding.

    Pairs with a side longer than `max_length` (target counted with <eos>) or without tokens are left out;
    `notes` says how many. Raises DataError if that is more than a tenth, or all.
    """

    def __init__(
        self,
        sources: Ragged,
        targets: Ragged,
        *,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        batch_tokens: int,
        seed: int = 0,
        max_length: int | None = None,
    ) -> None:
        if len(sources) != len(targets):
            raise ValueError(f"{len(sources)} sources, {len(targets)} targets")
        self.sources, self.targets = sources, targets
        self.pad_id, self.bos_id, self.eos_id = pad_id, bos_id, eos_id
        self.batch_tokens, self.seed = batch_tokens, seed
        self.notes: list[str] = []
        self._kept = self._select(sources.lengths, targets.lengths + 1, max_length)
        self._source_lengths = sources.lengths[self._kept]
        self._target_lengths = targets.lengths[self._kept] + 1
        total = int(self._source_lengths.sum() + self._target_lengths.sum())
        self.steps_per_epoch = max(1, min(len(self._kept), -(-total // batch_tokens)))
        self._plan: tuple[int, list[np.ndarray]] = (-1, [])

    def __len__(self) -> int:
        """Pairs per epoch."""
        return len(self._kept)

    def _select(self, source: np.ndarray, target: np.ndarray, max_length: int | None) -> np.ndarray:
        limit = np.iinfo(np.int64).max if max_length is None else max_length
        long = (source > limit) | (target > limit)
        empty = (source == 0) | (target == 1)
        kept = np.flatnonzero(~(long | empty))
        n_long, n_empty = int(long.sum()), int((empty & ~long).sum())
        if n_long > MOST_DROPPED * len(source) or not len(kept):
            longest = max(source.max(initial=0), target.max(initial=0))
            raise DataError(
                f"{n_long:,} of {len(source):,} pairs are longer than the model's {max_length} positions "
                f"(the longest has {longest} tokens)"
                if n_long
                else f"none of {len(source):,} pairs has tokens",
                "raise model.max_length, use a larger data.vocab_size, or split long lines" if n_long else "",
            )
        if n_long:
            self.notes.append(f"{n_long:,} of {len(source):,} pairs left out: longer than {max_length} tokens")
        if n_empty:
            self.notes.append(f"{n_empty:,} of {len(source):,} pairs left out: a side without tokens")
        return kept

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step (0 is the first; epochs follow one another), see `collate`. A pure
        function of (seed, step)."""
        return self.collate(self.rows(step))

    def rows(self, step: int) -> np.ndarray:
        """The pairs of a step's batch, as places in `sources`: int64 [B]."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._plan[0] != epoch:  # remembered, never needed
            self._plan = epoch, self._plan_epoch(epoch)
        return self._plan[1][place]

    def _plan_epoch(self, epoch: int) -> list[np.ndarray]:
        n, n_batches = len(self._kept), self.steps_per_epoch
        noise = JITTER * uniform(2 * n, self.seed, epoch, _LENGTHS)
        first, second = self._source_lengths + noise[:n], self._target_lengths + noise[n:]
        order = bits(n_batches + 1, self.seed, epoch, _ORDER)
        if order[-1] & np.uint64(1):  # by source or by target first: as the coin falls
            first, second = second, first
        tokens = self._source_lengths + self._target_lengths
        n_stripes = max(1, round(n_batches**0.5))
        stripe = np.empty(n, np.int64)
        ascending = np.argsort(first, kind="stable")
        before = np.cumsum(tokens[ascending]) - tokens[ascending]
        stripe[ascending] = before * n_stripes // max(1, int(tokens.sum()))
        rows = np.lexsort((np.where(stripe % 2, -second, second), stripe))
        batches = np.split(self._kept[rows], _equal_cuts(tokens[rows], n_batches))
        return [batches[i] for i in np.argsort(order[:-1], kind="stable")]

    def collate(self, rows: np.ndarray) -> "dict[str, Tensor]":
        """Rows [B] -> source [B,S] and source_keep; target_in [B,T] (<bos> …), target_out [B,T] (… <eos>) and
        target_keep.

        Ids are int64, <pad> where there is no token; keep is True where there is one. Nothing is added to the
        source.
        """
        import torch

        source, source_keep = self.sources.padded(rows)
        target, inner = self.targets.padded(rows)
        source[~source_keep] = self.pad_id
        edge = np.full((len(rows), 1), self.pad_id, np.int64)
        target[~inner] = self.pad_id
        target_in, target_out = np.hstack([edge, target]), np.hstack([target, edge])
        target_in[:, 0] = self.bos_id
        target_out[np.arange(len(rows)), inner.sum(1)] = self.eos_id
        keep = np.hstack([np.ones((len(rows), 1), bool), inner])
        arrays = {"source": source, "source_keep": source_keep, "target_in": target_in, "target_out": target_out}
        return {name: torch.from_numpy(a) for name, a in {**arrays, "target_keep": keep}.items()}

    def sequential(self, batch_tokens: int | None = None) -> "Iterator[dict[str, Any]]":
        """Every pair once, long ones first (so that memory is known at once), at most `batch_tokens` a batch
        with padding.

        Batches as of `collate`, and "rows" int64 [B]: the places of the pairs in `sources`.
        """
        import torch

        for rows in self._sequential_rows(batch_tokens or self.batch_tokens):
            yield {**self.collate(rows), "rows": torch.from_numpy(rows)}

    def _sequential_rows(self, batch_tokens: int) -> Iterator[np.ndarray]:
        order = np.lexsort((-self._target_lengths, -self._source_lengths))
        start = source = target = 0
        for end, row in enumerate(order):
            s, t = max(source, self._source_lengths[row]), max(target, self._target_lengths[row])
            if end > start and (end - start + 1) * (s + t) > batch_tokens:
                yield self._kept[order[start:end]]
                start, s, t = end, self._source_lengths[row], self._target_lengths[row]
            source, target = s, t
        yield self._kept[order[start:]]

    def padding(self, epoch: int = 0) -> float:
        """The share of an epoch's ids that is padding."""
        real = padded = 0
        source, target = self.sources.lengths, self.targets.lengths + 1
        for rows in self._plan_epoch(epoch):
            real += int(source[rows].sum() + target[rows].sum())
            padded += len(rows) * int(source[rows].max() + target[rows].max())
        return 1 - real / padded


def _equal_cuts(tokens: np.ndarray, n: int) -> np.ndarray:
    """Where to cut so that n parts hold about equal shares of the tokens and none is empty: int64 [n - 1]."""
    ends = np.cumsum(tokens)
    k = np.arange(1, n)
    cuts = np.searchsorted(ends, k * (ends[-1] / n))
    cuts = np.maximum.accumulate(np.maximum(cuts, 1) - k) + k
    return np.minimum(cuts, len(tokens) - n + k)
