"""Many texts to ids, as two arrays: by the `tokenizers` library to begin with, and by the faster engine as soon as there is enough text
to pay for opening it, if it gives the same ids for the texts at which it takes over. Imports no torch.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from pellucid.text import engine

if TYPE_CHECKING:
    import numpy as np

Flat = tuple["np.ndarray", "np.ndarray"]
"""Ids [N], text after text, and how many of each text [B]."""
PAYS = 1_000_000
"""Characters. The library takes about 0.1 s for so many, opening the engine 0.3 s."""
PROVED = 100_000
"""Characters that both encode when the engine takes over."""


def flat(rows: Sequence[Sequence[int]]) -> Flat:
    """Rows of ids, one after the other [N], and their lengths [B]."""
    import numpy as np

    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum())), lengths


class Bulk:
    """Ids of many texts. `by_library` is the slow way; `notes` say why the engine was not taken, if it was there and refused."""

    def __init__(self, state: dict[str, Any], by_library: Callable[[Sequence[str]], list[list[int]]]) -> None:
        self.notes: list[str] = []
        self._state, self._slow = state, by_library
        self._fast: engine.Encoder | None = None
        self._left: float = PAYS if engine.fits(state) else float("inf")

    def __call__(self, texts: Sequence[str]) -> Flat:
        """Ids [N], text after text, and how many of each text [B]."""
        try:
            self._left -= sum(map(len, texts))
            if self._left <= 0 and self._fast is None:
                self._left = float("inf")
                self._fast = self._proved(texts)
            if self._fast is not None:
                return self._fast(texts)
        except engine.Unfit as error:
            self._fast = None
            self.notes = error.notes("encoded")
        return flat(self._slow(texts))

    def _proved(self, texts: Sequence[str]) -> engine.Encoder:
        """The engine, if it gives the same ids for the first of these texts. Raises Unfit."""
        import numpy as np

        fast = engine.Encoder(self._state, lambda some: flat(self._slow(some)))
        ends = np.cumsum([len(text) for text in texts])
        some = texts[: 1 + int(np.searchsorted(ends, PROVED))]
        if not all(map(np.array_equal, fast(some), flat(self._slow(some)))):
            raise engine.Unfit("gigatoken gives other ids")
        return fast
