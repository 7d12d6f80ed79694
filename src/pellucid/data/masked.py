"""A stream of tokens with words hidden, to be guessed from both sides (Devlin et al. 2019, section 3.1, task 1).

`rate` of the words of a window are chosen, whole (all pieces of a word, or none: whole word masking, github.com/google-research/bert); of
their tokens 80 % are shown as <mask>, 10 % as a random token, 10 % as they are. A window is <bos> tokens <eos>. Which words, and what is
shown for them, is a pure function of (seed, step): a text is masked otherwise in every epoch, as in RoBERTa (Liu et al. 2019, section 4.1).
torch is imported where a batch becomes tensors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.data.batches import uniform
from pellucid.data.text import IGNORE, TextData

if TYPE_CHECKING:
    from torch import Tensor

RATE = 0.15
LONGEST_WORD = 0.3
"""Of a window. What is longer is no word that can be guessed from its sides, but text without spaces: its tokens are chosen one by one."""
_WORDS, _SHOWN, _TOKENS, _HELD = 11, 12, 13, 14


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer. `continues` [V] and `continued` [V]: a token goes on with the word of the token before it
    where `continues[token] & continued[before]`; `replacements`: the tokens a random one is drawn from."""

    bos_id: int
    eos_id: int
    mask_id: int
    continues: np.ndarray
    continued: np.ndarray
    replacements: np.ndarray

    @classmethod
    def of(cls, bos_id: int, eos_id: int, mask_id: int, joins: tuple[Sequence[bool], Sequence[bool]]) -> "Vocabulary":
        """`joins`: see `Tokenizer.word_joins`; special tokens join nothing and are told by it: they stand for no text."""
        continues, continued = (np.array(side, bool) for side in joins)
        ordinary = np.setdiff1d(np.arange(len(continues)), [bos_id, eos_id, mask_id])
        return cls(bos_id, eos_id, mask_id, continues, continued, ordinary)


class MaskedData:
    """Windows of `length` tokens with their <bos> and <eos>, `batch_size` of them a batch, `rate` of the words hidden."""

    def __init__(
        self,
        tokens: np.ndarray,
        vocabulary: Vocabulary,
        length: int,
        batch_size: int,
        seed: int = 0,
        rate: float = RATE,
    ) -> None:
        self.vocabulary, self.seed, self.rate, self.batch_size = vocabulary, seed, rate, batch_size
        self.text = TextData(tokens, length - 2, batch_size, seed)

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step: "ids" and "targets", int64 [B,T]; targets are the hidden tokens, elsewhere IGNORE. A pure function
        of (seed, step)."""
        return self._hidden(self.text.batch(step)["ids"].numpy(), (self.seed, step))

    def windows(self, batch_size: int | None = None) -> "Iterator[dict[str, Tensor]]":
        """The whole text in order for evaluation, always masked alike, also in batches of another size; the rest as a shorter window."""
        import torch

        first = 0
        for batch in self.text.windows(batch_size or self.batch_size):
            rows = [self._hidden(row[None], (_HELD, first + i)) for i, row in enumerate(batch["ids"].numpy())]
            first += len(rows)
            yield {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _hidden(self, tokens: np.ndarray, key: tuple[int, ...]) -> "dict[str, Tensor]":
        import torch

        v, n_rows = self.vocabulary, len(tokens)
        chosen = self._chosen(tokens, key)
        fate = uniform(tokens.size, *key, _SHOWN).reshape(tokens.shape)
        place = (uniform(tokens.size, *key, _TOKENS) * len(v.replacements)).astype(np.int64).reshape(tokens.shape)
        shown = np.where(chosen & (fate < 0.8), v.mask_id, tokens)
        shown = np.where(chosen & (fate >= 0.9), v.replacements[place], shown)
        edges = [np.full((n_rows, 1), i, np.int64) for i in (v.bos_id, v.eos_id, IGNORE)]
        targets = np.hstack([edges[2], np.where(chosen, tokens, IGNORE), edges[2]])
        return {"ids": torch.from_numpy(np.hstack([edges[0], shown, edges[1]])), "targets": torch.from_numpy(targets)}

    def _chosen(self, tokens: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        """bool [B,T]: whole words, each with probability `rate`, at least one a window."""
        v = self.vocabulary
        begins = np.ones(tokens.shape, bool)
        begins[:, 1:] = ~(v.continues[tokens[:, 1:]] & v.continued[tokens[:, :-1]])
        begins |= _lengths(begins) > LONGEST_WORD * tokens.shape[1]
        word = begins.cumsum(1) - 1
        draw = uniform(tokens.size, *key, _WORDS).reshape(tokens.shape)
        draw = np.take_along_axis(draw, word, 1)  # one draw for all pieces of a word
        return draw < np.maximum(self.rate, draw.min(1, keepdims=True) + 1e-12)


def _lengths(begins: np.ndarray) -> np.ndarray:
    """Where words begin, bool [B,T] -> the length of each token's word, int64 [B,T]."""
    word = begins.cumsum().reshape(begins.shape)
    return np.bincount(word.ravel())[word]
