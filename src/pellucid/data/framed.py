"""Texts as a BERT reads them, <bos> text <eos>, cut to what the model can read, and what is to be said of each: a label, or a tag where
each word begins. From sets to batches, bucketed by length, a pure function of (seed, step). torch is imported where a batch becomes
tensors."""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.buckets import Buckets
from pellucid.data.labels import UNSEEN
from pellucid.data.text import IGNORE
from pellucid.data.tokenised import Ragged
from pellucid.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

EDGES = 2  # <bos> and <eos>


class FramedData:
    """Batches of texts of about `batch_tokens` tokens each (padding not counted), in training only those with something to learn.

    `targets`: the label of each text, int64 [N]; or, for each of its ids, the tag of the word that begins there, else IGNORE. UNSEEN for
    one that training never shows. Texts with more than `max_length` tokens, <bos> and <eos> counted, lose their end and its tags;
    `notes` says how many.
    """

    def __init__(
        self,
        ids: Ragged,
        targets: np.ndarray | Ragged,
        *,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        batch_tokens: int,
        seed: int = 0,
        max_length: int | None = None,
    ) -> None:
        if max_length is not None and max_length <= EDGES:
            raise DataError(f"a model of {max_length} positions has no room for a text between <bos> and <eos>")
        if not (
            np.array_equal(ids.offsets, targets.offsets) if isinstance(targets, Ragged) else len(ids) == len(targets)
        ):
            raise ValueError("not as many targets as texts, or tags as ids")
        self.ids, self.targets, self.pad_id, self.bos_id, self.eos_id = ids, targets, pad_id, bos_id, eos_id
        self.batch_tokens, self.seed = batch_tokens, seed
        self.longest = None if max_length is None else max_length - EDGES
        self.lengths = (ids.lengths if self.longest is None else np.minimum(ids.lengths, self.longest)) + EDGES
        n_cut = int((self.lengths < ids.lengths + EDGES).sum())
        lost = f": {self._n_lost():,} of their words are not read" if isinstance(targets, Ragged) else ""
        said = f"{n_cut:,} of {len(ids):,} texts are cut to the first {self.longest} tokens{lost}"
        self.notes = [said] if n_cut else []

    def __len__(self) -> int:
        """Texts per epoch."""
        return len(self._kept)

    @cached_property
    def _kept(self) -> np.ndarray:
        """Texts with a label, or with a tag within what is read of them, that training shows: int64."""
        if not isinstance(self.targets, Ragged):
            return np.flatnonzero(self.targets >= 0)
        return np.flatnonzero([(self.targets[i][: self.longest] >= 0).any() for i in range(len(self.ids))])

    @cached_property
    def buckets(self) -> Buckets:
        """The plan of the epochs. Raises DataError where there is nothing to learn."""
        return self._bucketed(self._kept)

    @property
    def steps_per_epoch(self) -> int:
        """Batches."""
        return self.buckets.steps_per_epoch

    def rows(self, step: int) -> np.ndarray:
        """The texts of a step's batch, as places in `ids`: int64 [B]."""
        return self._kept[self.buckets.rows(step)]

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step, see `collate`; tags that training never shows are IGNORE. A pure function of (seed, step)."""
        batch = self.collate(self.rows(step))
        if "targets" in batch:
            batch["targets"][batch["targets"] == UNSEEN] = IGNORE
        return batch

    def sequential(self, batch_tokens: int | None = None) -> "Iterator[dict[str, Any]]":
        """Every text once, long ones first, at most `batch_tokens` a batch with padding. Batches as of `collate`, and "rows" int64 [B]:
        places in `ids`."""
        import torch

        for rows in self._bucketed(np.arange(len(self.ids))).sequential(batch_tokens or self.batch_tokens):
            yield {**self.collate(rows), "rows": torch.from_numpy(rows)}

    def collate(self, rows: np.ndarray) -> "dict[str, Tensor]":
        """Rows [B] -> "ids" int64 [B,T], <pad> where there is no token, "keep" bool [B,T], True where there is one, and either "labels"
        int64 [B] or "targets" int64 [B,T]: the tag where a word begins, else IGNORE."""
        import torch

        ids, lengths = self._inside(self.ids, rows, self.pad_id), self.lengths[rows]
        ids[:, 0] = self.bos_id
        ids[np.arange(len(rows)), lengths - 1] = self.eos_id
        arrays = {"ids": ids, "keep": np.arange(ids.shape[1]) < lengths[:, None]}
        if isinstance(self.targets, Ragged):
            arrays["targets"] = self._inside(self.targets, rows, IGNORE)
        else:
            arrays["labels"] = self.targets[rows]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _inside(self, values: Ragged, rows: np.ndarray, empty: int) -> np.ndarray:
        """One value for each token of the texts -> int64 [B,T] in their places, `empty` at edges and padding."""
        inner, keep = values.padded(rows, self.longest)
        inner[~keep] = empty
        edge = np.full((len(rows), 1), empty, np.int64)
        return np.hstack([edge, inner, edge])

    def _bucketed(self, kept: np.ndarray) -> Buckets:
        if not len(kept):
            raise DataError("no example has a label to learn", "do the labels of the files belong to this model?")
        return Buckets((self.lengths[kept],), self.batch_tokens, self.seed)

    def _n_lost(self) -> int:
        """Words that begin behind what is read of their texts."""
        cut = np.flatnonzero(self.lengths < self.ids.lengths + EDGES).tolist()
        return sum(int((self.targets[row][self.longest :] != IGNORE).sum()) for row in cut)
