"""Texts as a BERT reads them: <bos> text <eos>, cut to what the model can read. Shared by `labelled` and `tagged`. Imports no torch."""

import numpy as np

from pellucid.data.buckets import Buckets
from pellucid.data.tokenised import Ragged
from pellucid.errors import DataError

EDGES = 2  # <bos> and <eos>


class Framed:
    """`ids`: the texts without edges. A text with more than `max_length` tokens, edges counted, loses its end; `n_cut` do."""

    def __init__(self, ids: Ragged, pad_id: int, bos_id: int, eos_id: int, max_length: int | None) -> None:
        if max_length is not None and max_length <= EDGES:
            raise DataError(f"a model of {max_length} positions has no room for a text between <bos> and <eos>")
        self.ids, self.pad_id, self.bos_id, self.eos_id = ids, pad_id, bos_id, eos_id
        self.longest = None if max_length is None else max_length - EDGES
        lengths = ids.lengths
        self.n_cut = 0 if self.longest is None else int((lengths > self.longest).sum())
        self.lengths = (lengths if self.longest is None else np.minimum(lengths, self.longest)) + EDGES

    def notes(self, what: str) -> list[str]:
        """What a person should be told, `what` = texts."""
        if not self.n_cut:
            return []
        return [f"{self.n_cut:,} of {len(self.ids):,} {what} are cut to the first {self.longest} tokens"]

    def arrays(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Rows [B] -> "ids" int64 [B,T], <pad> where there is no token, and "keep" bool [B,T], True where there is one."""
        ids = self.inside(self.ids, rows, self.pad_id)
        lengths = self.lengths[rows]
        ids[:, 0] = self.bos_id
        ids[np.arange(len(rows)), lengths - 1] = self.eos_id
        return {"ids": ids, "keep": np.arange(ids.shape[1]) < lengths[:, None]}

    def inside(self, values: Ragged, rows: np.ndarray, empty: int) -> np.ndarray:
        """One value for each token of the texts -> int64 [B,T] in their places, `empty` at edges and padding."""
        inner, keep = values.padded(rows, self.longest)
        inner[~keep] = empty
        edge = np.full((len(rows), 1), empty, np.int64)
        return np.hstack([edge, inner, edge])

    def buckets(self, kept: np.ndarray, batch_tokens: int, seed: int = 0) -> Buckets:
        """Batches of the rows `kept`, by length. Raises DataError where there are none."""
        if not len(kept):
            raise DataError("no example has a label to learn", "do the labels of the files belong to this model?")
        return Buckets((self.lengths[kept],), batch_tokens, seed)
