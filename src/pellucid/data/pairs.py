"""Sentence pairs to batches: bucketed by the lengths of both sides (see `buckets`), about equal in tokens, each pair once per
epoch, and a pure function of (seed, step). torch is imported where a batch becomes tensors."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.buckets import Buckets, fitting
from pellucid.data.tokenised import Ragged

if TYPE_CHECKING:
    from torch import Tensor


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
        longer = np.maximum(sources.lengths, targets.lengths + 1)
        empty = (sources.lengths == 0) | (targets.lengths == 0)
        self._kept, self.notes = fitting(longer, empty, max_length, "pairs")
        lengths = sources.lengths[self._kept], targets.lengths[self._kept] + 1
        self.buckets = Buckets(lengths, batch_tokens, seed)
        self.steps_per_epoch = self.buckets.steps_per_epoch

    def __len__(self) -> int:
        """Pairs per epoch."""
        return len(self._kept)

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step (0 is the first; epochs follow one another), see `collate`. A pure
        function of (seed, step)."""
        return self.collate(self.rows(step))

    def rows(self, step: int) -> np.ndarray:
        """The pairs of a step's batch, as places in `sources`: int64 [B]."""
        return self._kept[self.buckets.rows(step)]

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

        for kept in self.buckets.sequential(batch_tokens or self.batch_tokens):
            rows = self._kept[kept]
            yield {**self.collate(rows), "rows": torch.from_numpy(rows)}
