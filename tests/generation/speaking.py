"""Tiny models with opinions of their own, and a tokenizer of letters, for the tests of generation."""

import pytest
import torch
from torch import Tensor, nn

from pellucid.generation.hypotheses import Hypothesis
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.parts.config import StackConfig
from pellucid.parts.places import Places

PAD, BOS, EOS = 0, 1, 2


def tiny(family: str, seed: int = 0, vocab_size: int = 9, max_length: int = 40, positions: str = "rotary") -> nn.Module:
    """A random model; its weights are blown up so that what it says depends on what was said."""
    stack = StackConfig(d_model=8, n_layers=2, n_heads=2, d_ff=16)
    config = ModelConfig(
        family=family,  # type: ignore[arg-type]
        stack=stack,
        vocab_size=vocab_size,
        max_length=max_length,
        positions=positions,  # type: ignore[arg-type]
        tied=False,
        pad_id=PAD,
        bos_id=BOS,
        eos_id=EOS,
    )
    model = build(config, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


class Letters:
    """Token i is the i-th letter; special tokens are silent."""

    vocab_size = 26 + 3

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + i - 3) for i in ids if i > EOS)

    def stream(self) -> "Letters":
        return self

    def push(self, token: int) -> str:
        return self.decode([token])

    def finish(self) -> str:
        return ""


class Bigram(nn.Module):
    """A GPT that only sees the last token: logits = table[token]."""

    def __init__(self, probabilities: list[list[float]], max_length: int = 100) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(probabilities).log())
        size = len(probabilities)
        self.config = ModelConfig(
            family="gpt", vocab_size=size, max_length=max_length, pad_id=PAD, bos_id=BOS, eos_id=EOS
        )

    def hidden(self, ids: Tensor, keep: Tensor | None, cache: "Counter", places: Places | None = None) -> Tensor:
        cache.length += ids.shape[1]
        assert keep is None or keep.shape == (len(ids), cache.length)
        assert places is None or places.mask.pairs.shape == (*ids.shape, cache.length)
        return self.table[ids]

    def head(self, states: Tensor) -> Tensor:
        return states

    def new_cache(self) -> "Counter":
        return Counter()


class Counter:
    """A cache that only counts."""

    length = 0

    def select(self, rows: Tensor) -> None:
        assert rows.dtype == torch.long

    def pick(self, keys: Tensor) -> None:
        self.length = keys.shape[1]

    def fold(self, n: int) -> None:
        self.length *= n


def assert_same(ours: list[list[Hypothesis]], theirs: list[list[Hypothesis]]) -> None:
    """The same tokens; scores within float32's rounding."""
    for a, b in zip(ours, theirs, strict=True):
        assert [(h.ids, h.finished) for h in a] == [(h.ids, h.finished) for h in b]
        assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-4)
