"""A family and its sizes, as written into config.json. Imports no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from pellucid.errors import UserError
from pellucid.parts.config import Heads, StackConfig

ANY_LENGTH = 1 << 20
"""The max_length of models whose positions know no end."""


@dataclass(frozen=True)
class ModelConfig:
    """An input, a head and a stack. `max_length` counts tokens (positions); ids left None are taken from the tokenizer.

    decoder_layers, decoder_vocab_size: of a Seq2Seq, where they differ from the encoder's; a `decoder_vocab_size` means separate
    embeddings. embedding_norm: of a Seq2Seq, whether a norm stands behind the embeddings. head_scale: what states are multiplied with
    before a tied head. window: how far a token sees, itself included (None = all). relative_buckets, relative_distance: of T5's
    positions. rope_scaling: as Hugging Face's config.json writes it. head: what a BERT is asked: the words at its places, a label for
    the text, a tag for each token, one vector of the text, or nothing but its states; pooler: the activation in that vector. labels:
    their names, by number. start: what decoding starts from (empty = <bos>); ends: further tokens that end a text, beside <eos>;
    suppress: tokens that are never said (None = <pad> and <bos>).
    """

    family: Literal["seq2seq", "gpt", "bert", "vit"] = "gpt"
    stack: StackConfig = StackConfig()
    vocab_size: int = 0
    max_length: int = 512
    positions: Literal["sinusoidal", "sinusoidal2d", "learned", "rotary", "alibi", "t5"] = "rotary"
    heads: Heads = Heads()
    window: int | None = None
    tied: bool = True
    head_bias: bool = False
    head_scale: float = 1.0
    scale_embedding: bool = False
    embedding_norm: bool = False
    relative_buckets: int = 32
    relative_distance: int = 128
    rope_base: float = 10000.0
    rope_scaling: dict[str, float | str] | None = None
    pad_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    start: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    suppress: tuple[int, ...] | None = None
    decoder_layers: int | None = None
    decoder_vocab_size: int | None = None
    n_segments: int = 2
    head: Literal["words", "labels", "tags", "vector", "states"] = "words"
    pooler: Literal["tanh", "relu"] = "tanh"
    labels: tuple[str, ...] = ()
    n_labels: int = 0
    image_size: int = 224
    patch_size: int = 16
    channels: int = 3

    def __post_init__(self) -> None:
        """UserError that names the field if sizes do not fit together."""
        s = self.stack
        if self.heads.width is None and s.d_model % s.n_heads:
            raise UserError(
                f"stack.d_model {s.d_model} is not a multiple of stack.n_heads {s.n_heads}", "or set model.heads.width"
            )
        for name in ("max_length", "decoder_layers", "decoder_vocab_size", "image_size", "patch_size", "channels"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise UserError(f"model.{name} is {size}", "it must be at least 1")
        for name in ("vocab_size", "n_segments", "n_labels"):  # 0: not known yet, or none
            if getattr(self, name) < 0:
                raise UserError(f"model.{name} is {getattr(self, name)}", "it must be at least 0")
        if not 0.0 < self.rope_base < math.inf or not math.isfinite(self.head_scale):
            raise UserError(
                f"model.rope_base is {self.rope_base}, model.head_scale {self.head_scale}", "no such numbers"
            )
        if self.positions == "t5" and not 4 <= self.relative_buckets < 2 * self.relative_distance:
            buckets = (
                f"model.relative_buckets is {self.relative_buckets}, model.relative_distance {self.relative_distance}"
            )
            raise UserError(buckets, "4 buckets or more, the distance more than half of them")
        if self.window is not None and self.window < 1:
            raise UserError(f"model.window is {self.window}", "a token sees at least itself: 1 or more")

    @property
    def head_dim(self) -> int:
        """The width of an attention head."""
        return self.heads.width or self.stack.d_model // self.stack.n_heads
