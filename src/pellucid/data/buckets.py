"""Which rows make a batch: rows of like length together, batches about equal in tokens, each row once per epoch, and a pure
function of (seed, step).

How it differs from a sampler that is advanced: the plan of an epoch is computed from (seed, epoch), and an epoch always has
the same number of batches (the ordered rows are cut at equal shares of their tokens), so step 1,000,000 is found without
visiting the steps before. Rows with two sides (source and target) are sorted by one side into about sqrt(batches) stripes and
within a stripe by the other, up and down by turns: neither side is padded much. Imports no torch.
"""

from collections.abc import Iterator

import numpy as np

from pellucid.data.batches import bits, uniform
from pellucid.errors import DataError

MOST_DROPPED = 0.1
JITTER = 1.25  # tokens of random length each row is given when sorted: batch mates change from epoch to epoch
_LENGTHS, _ORDER = 1, 2


def fitting(lengths: np.ndarray, empty: np.ndarray, max_length: int | None, what: str) -> tuple[np.ndarray, list[str]]:
    """Which examples (`what` = pairs) can be learnt from, as places int64: those of at most `max_length` tokens (of int64 [N]) that are
    not `empty` (bool [N]); and what a person should be told. Raises DataError where more than a tenth are too long, or none is left."""
    long = lengths > (np.iinfo(np.int64).max if max_length is None else max_length)
    kept, n = np.flatnonzero(~(long | empty)), f"{len(lengths):,} {what}"
    n_long, n_empty = int(long.sum()), int((empty & ~long).sum())
    if n_long > MOST_DROPPED * len(lengths) or not len(kept):
        if not n_long:
            raise DataError(f"none of {n} has tokens on both sides")
        raise DataError(
            f"{n_long:,} of {n} are longer than the model's {max_length} positions (the longest has {lengths.max():,} tokens)",
            "raise model.max_length, use a larger data.vocab_size, or shorten them",
        )
    notes = [f"{n_long:,} of {n} left out: longer than {max_length} tokens"] if n_long else []
    return kept, notes + ([f"{n_empty:,} of {n} left out: a side without tokens"] if n_empty else [])


class Buckets:
    """Batches of rows whose sides have these `lengths` (one or two arrays, int64 [N], N > 0), about `batch_tokens` tokens
    each, padding not counted. Rows are places in `lengths`."""

    def __init__(self, lengths: tuple[np.ndarray, ...], batch_tokens: int, seed: int = 0) -> None:
        self.lengths, self.seed = lengths, seed
        self.tokens = sum(lengths[1:], start=lengths[0])
        self.steps_per_epoch = max(1, min(len(self.tokens), -(-int(self.tokens.sum()) // batch_tokens)))
        self._plan: tuple[int, list[np.ndarray]] = (-1, [])

    def rows(self, step: int) -> np.ndarray:
        """The rows of a step's batch (0 is the first; epochs follow one another): int64 [B]. A pure function of (seed, step)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._plan[0] != epoch:  # remembered, never needed
            self._plan = epoch, self._plan_epoch(epoch)
        return self._plan[1][place]

    def sequential(self, batch_tokens: int) -> Iterator[np.ndarray]:
        """Every row once, long ones first (so that memory is known at once), at most `batch_tokens` a batch with padding."""
        order = np.lexsort([-side for side in self.lengths[::-1]])
        start, longest = 0, np.zeros(len(self.lengths), np.int64)
        for end, row in enumerate(order):
            sizes = np.array([side[row] for side in self.lengths])
            wider = np.maximum(longest, sizes)
            if end > start and (end - start + 1) * wider.sum() > batch_tokens:
                yield order[start:end]
                start, wider = end, sizes
            longest = wider
        yield order[start:]

    def widest(self, epoch: int = 0) -> set[int]:
        """The steps of an epoch whose batches ask for most memory: that of most ids with padding, and that of the longest rows."""
        plan = self._plan_epoch(epoch)
        ids = [sum(len(rows) * int(side[rows].max()) for side in self.lengths) for rows in plan]
        squares = [sum(len(rows) * int(side[rows].max()) ** 2 for side in self.lengths) for rows in plan]
        return {epoch * len(plan) + max(range(len(plan)), key=sizes.__getitem__) for sizes in (ids, squares)}

    def padding(self, epoch: int = 0) -> float:
        """The share of an epoch's ids that is padding."""
        plan = self._plan_epoch(epoch)
        padded = sum(len(rows) * int(side[rows].max()) for rows in plan for side in self.lengths)
        return 1 - int(self.tokens.sum()) / padded

    def _plan_epoch(self, epoch: int) -> list[np.ndarray]:
        n, n_batches = len(self.tokens), self.steps_per_epoch
        noise = np.split(JITTER * uniform(len(self.lengths) * n, self.seed, epoch, _LENGTHS), len(self.lengths))
        sides = [side + some for side, some in zip(self.lengths, noise, strict=True)]
        order = bits(n_batches + 1, self.seed, epoch, _ORDER)
        if order[-1] & np.uint64(1):  # by source or by target first: as the coin falls
            sides.reverse()
        rows = np.argsort(sides[0], kind="stable")
        if len(sides) == 2:
            rows = self._snake(rows, sides[1])
        batches = np.split(rows, _equal_cuts(self.tokens[rows], n_batches))
        return [batches[i] for i in np.argsort(order[:-1], kind="stable")]

    def _snake(self, ascending: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Rows in ascending order of one side, cut into stripes of equal tokens, each sorted by the second side."""
        n_stripes = max(1, round(self.steps_per_epoch**0.5))
        before = np.cumsum(self.tokens[ascending]) - self.tokens[ascending]
        stripe = np.empty(len(ascending), np.int64)
        stripe[ascending] = before * n_stripes // max(1, int(self.tokens.sum()))
        return np.lexsort((np.where(stripe % 2, -second, second), stripe))


def _equal_cuts(tokens: np.ndarray, n: int) -> np.ndarray:
    """Where to cut so that n parts hold about equal shares of the tokens and none is empty: int64 [n - 1]."""
    ends = np.cumsum(tokens)
    k = np.arange(1, n)
    cuts = np.searchsorted(ends, k * (ends[-1] / n))
    cuts = np.maximum.accumulate(np.maximum(cuts, 1) - k) + k
    return np.minimum(cuts, len(tokens) - n + k)
