"""Forward passes of every tiny family, in sizes of choice."""

from typing import Any

import torch
from torch import Tensor, nn

from tests import families


def inputs(name: str, batch: int = 2, length: int = 6, source: int = 5) -> dict[str, Tensor]:
    """What the tiny model of that name reads."""
    config = families.ALL[name]
    if config.family == "vit":
        return {"images": torch.randn(batch, config.channels, config.image_size, config.image_size)}
    if config.family == "seq2seq":
        return {"source": families.ids(batch, source), "target": families.ids(batch, length, 1)}
    return {"ids": families.ids(batch, length)}


def hand_flops(model: Any, batch: int, length: int, source: int) -> int:
    """Forward FLOPs written down by hand: 2·(weights of every matrix)·(tokens that meet it) + 4·B·Q·K·D per attention."""
    c, s = model.config, model.config.stack
    d, heads, kv = s.d_model, c.head_dim * s.n_heads, c.head_dim * (s.n_kv_heads or s.n_heads)
    ff = (3 if "glu" in s.feedforward else 2) * d * s.d_ff

    def attention(q: int, k: int) -> int:
        return 2 * batch * (q * 2 * d * heads + k * 2 * d * kv) + 4 * batch * q * k * heads

    def block(n: int) -> int:
        return attention(n, n) + 2 * batch * n * ff

    if c.family == "seq2seq":
        decoder = c.stack.n_layers if c.decoder_layers is None else c.decoder_layers
        head = 2 * batch * length * d * (c.decoder_vocab_size or c.vocab_size)
        return s.n_layers * block(source) + decoder * (block(length) + attention(length, source)) + head
    if c.family == "vit":
        patches = (c.image_size // c.patch_size) ** 2
        project = 2 * batch * patches * d * c.channels * c.patch_size**2
        return s.n_layers * block(1 + patches) + project + 2 * batch * d * c.n_labels
    says = {
        "words": 2 * batch * length * d * c.vocab_size + (2 * batch * length * d * d if c.family == "bert" else 0),
        "labels": 2 * batch * d * (d + c.n_labels),
        "tags": 2 * batch * length * d * c.n_labels,
        "vector": 2 * batch * d * d,
        "states": 0,
    }
    return s.n_layers * block(length) + says[c.head]


class Broken(nn.Module):
    """A module whose forward is a function of itself and its inputs, with the parts given."""

    def __init__(self, work: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.work = work
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        return self.work(self, x, other)
