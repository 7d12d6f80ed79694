"""Prompts and answers as one text for a decoder: the prompt is read, the answer is learned, and each pair comes once per epoch.

A row is `start` prompt `end` answer <eos>; targets stand only behind `end`, so nothing is learned from what people ask. torch is imported
where a batch becomes tensors.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.buckets import Buckets, fitting
from pellucid.data.text import IGNORE
from pellucid.data.tokenised import Ragged

if TYPE_CHECKING:
    from torch import Tensor


class PromptData:
    """Batches of about `batch_tokens` tokens (prompt, answer and edges, without padding), bucketed by length.

    Pairs longer than `max_length` or with an answer of no tokens are left out; `notes` says how many. Raises DataError if that is more
    than a tenth, or all.
    """

    def __init__(
        self,
        prompts: Ragged,
        answers: Ragged,
        *,
        pad_id: int,
        eos_id: int,
        edges: tuple[Sequence[int], Sequence[int]],
        batch_tokens: int,
        seed: int = 0,
        max_length: int | None = None,
    ) -> None:
        self.prompts, self.answers = prompts, answers
        self.pad_id, self.eos_id, (self.start, self.end) = pad_id, eos_id, edges
        self.batch_tokens = batch_tokens
        before, after = prompts.lengths + len(self.start) + len(self.end), answers.lengths + 1
        read = before + after - 1  # the last <eos> is only a target
        self._kept, self.notes = fitting(read, answers.lengths == 0, max_length, "prompts with their answers")
        self._buckets = Buckets((before[self._kept], after[self._kept]), batch_tokens, seed)

    def __len__(self) -> int:
        """Pairs per epoch."""
        return len(self._kept)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self._buckets.steps_per_epoch

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step, see `collate`. A pure function of (seed, step)."""
        return self.collate(self._kept[self._buckets.rows(step)])

    def sequential(self, batch_tokens: int | None = None) -> "Iterator[dict[str, Any]]":
        """Every pair once; batches as of `collate`, and "rows" int64 [B]: the places of the pairs."""
        import torch

        for rows in self._buckets.sequential(batch_tokens or self.batch_tokens):
            yield {**self.collate(self._kept[rows]), "rows": torch.from_numpy(self._kept[rows])}

    def collate(self, rows: np.ndarray) -> "dict[str, Tensor]":
        """Rows [B] -> "ids" and "targets", int64 [B,T], padded to the right; targets are the next ids of the answer, elsewhere IGNORE."""
        import torch

        texts = [
            ([*self.start, *self.prompts[row].tolist(), *self.end], [*self.answers[row].tolist(), self.eos_id])
            for row in rows
        ]
        width = max(len(before) + len(after) for before, after in texts) - 1
        ids, targets = np.full((len(rows), width), self.pad_id, np.int64), np.full((len(rows), width), IGNORE, np.int64)
        for i, (before, after) in enumerate(texts):
            whole = before + after
            ids[i, : len(whole) - 1] = whole[:-1]
            targets[i, len(before) - 1 : len(whole) - 1] = after
        return {"ids": torch.from_numpy(ids), "targets": torch.from_numpy(targets)}
