"""Sentence pairs to batches: bucketed by the lengths of both sides (see `buckets`), about equal in tokens, each pair once per
epoch, and a pure function of (seed, step). torch is imported where a batch becomes tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.buckets import Buckets, fitting
from pellucid.data.tokenised import Ragged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Edges:
    """What stands around texts. A source between `before` and `behind`, as its tokenizer asks; a target between `start`, of which only
    what follows the last token is learned, and <eos>."""

    pad_id: int
    start: Sequence[int]
    eos_id: int
    before: Sequence[int] = ()
    behind: Sequence[int] = ()


class PairData:
    """Batches of pairs. `batch_tokens` counts source and target tokens with their edges, without padding.

    Pairs with a side longer than `max_length` (as the model reads it, edges included) or without tokens are left out;
    `notes` says how many. Raises DataError if that is more than a tenth, or all.
    """

    def __init__(
        self,
        sources: Ragged,
        targets: Ragged,
        edges: Edges,
        *,
        batch_tokens: int,
        seed: int = 0,
        max_length: int | None = None,
    ) -> None:
        if len(sources) != len(targets):
            raise ValueError(f"{len(sources)} sources, {len(targets)} targets")
        self.sources, self.targets, self.edges = sources, targets, edges
        self.batch_tokens, self.seed = batch_tokens, seed
        read = sources.lengths + len(edges.before) + len(edges.behind), targets.lengths + len(edges.start)
        empty = (sources.lengths == 0) | (targets.lengths == 0)
        self._kept, self.notes = fitting(np.maximum(*read), empty, max_length, "pairs")
        self.buckets = Buckets((read[0][self._kept], read[1][self._kept]), batch_tokens, seed)
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
        """Rows [B] -> source [B,S] and source_keep; target_in [B,T] (start …), target_out [B,T] (… <eos>) and
        target_keep, the places that are learned.

        Ids are int64, <pad> where there is no token; keep is True where there is one.
        """
        import torch

        e = self.edges
        source, source_keep = framed(*self.sources.padded(rows), e.before, e.behind, e.pad_id)
        target, inner = self.targets.padded(rows)
        given = [e.pad_id] * (len(e.start) - 1)  # nobody asks for what is given
        target_in, _ = framed(target, inner, e.start, (), e.pad_id)
        target_out, keep = framed(target, inner, given, [e.eos_id], e.pad_id)
        keep[:, : len(given)] = False
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


def framed(
    ids: np.ndarray, keep: np.ndarray, before: Sequence[int], behind: Sequence[int], pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and keep [B,T], padded to the right, with tokens before and behind each row's own: the same [B, before + T + behind]."""
    n_rows, width = ids.shape
    ends = len(before) + keep.sum(1)
    wider = np.full((n_rows, len(before) + width + len(behind)), pad_id, np.int64)
    wider[:, : len(before)] = before
    wider[:, len(before) : len(before) + width][keep] = ids[keep]
    wider[np.arange(n_rows)[:, None], ends[:, None] + np.arange(len(behind))] = behind
    return wider, np.arange(wider.shape[1]) < (ends + len(behind))[:, None]
